"""Where a call comes from and where its answer goes. The handler knows nothing else of the connection.

`HttpExchange` is one HTTP request with its answer; `gateway.calls.socket` has the one of a WebSocket.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from aiohttp import web

from dragoman.gateway.calls.body import Body, BodyReader
from dragoman.gateway.calls.call import Call
from dragoman.gateway.calls.delivery import Delivery, EventStream, connection
from dragoman.gateway.calls.raw_body import RawBody
from dragoman.gateway.calls.replies import json_response
from dragoman.translators.framing import SSE, Framing
from dragoman.translators.protocol import Json
from dragoman.translators.protocol import Protocol as ClientProtocol

Headers = Callable[[], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Remembered:
    """An answer that a connection remembers: its id, and the conversation up to it, which is `size` bytes of JSON.
    `stored`: the store has it too."""

    id: str
    items: list[Json]
    size: int
    stored: bool


class Exchange(Protocol):
    """`framing`: what stands around the events of a stream on this way."""

    call: Call
    protocol: ClientProtocol
    framing: Framing
    remembers: bool  # the connection remembers its last answers
    last: Remembered | None  # once the body is known

    async def body(self, bodies: BodyReader) -> Body:
        """What the client asks for, with notes of what was repaired in it."""
        ...

    def when_lost(self, callback: Callable[[], object]) -> None:
        """Called when the client's connection is lost, until another callback is set."""
        ...

    def delivery(self, headers: Headers) -> Delivery:
        """For a streamed answer; `headers` are asked for when it begins."""
        ...

    async def streamed(self) -> None:
        """The streamed answer has ended."""
        ...

    def remember(self, answer: Remembered) -> None:
        """For the next call of the connection."""
        ...

    async def whole(self, status: int, body: Json, headers: Mapping[str, str]) -> None:
        """The answer is this object: an error, if the status says so."""
        ...


class HttpExchange:
    """`response` is what aiohttp is given in the end."""

    framing = SSE

    def __init__(self, call: Call, protocol: ClientProtocol, request: web.Request) -> None:
        self.call = call
        self.protocol = protocol
        self.remembers = False
        self.last: Remembered | None = None
        self.response: web.StreamResponse | None = None
        self._request = request
        self._stream: EventStream | None = None

    def body(self, bodies: BodyReader) -> Coroutine[Any, Any, Body]:
        return bodies.read(self._request, self.call.share, self.call.client.owner)

    def when_lost(self, callback: Callable[[], object]) -> None:
        connection(self._request).on_lost = callback
        if self._request.transport is None:  # it was lost before there was anybody to be told
            callback()

    def delivery(self, headers: Headers) -> EventStream:
        self._stream = EventStream(self._request, headers)
        return self._stream

    async def raw(self, bodies: BodyReader) -> RawBody:
        """The body as it is to be passed on."""
        return await bodies.read_raw(self._request, self.call.share)

    async def passed(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        """The answer is a server's own JSON."""
        self.response = web.Response(status=status, body=body, content_type="application/json", headers=headers)

    async def streamed(self) -> None:
        assert self._stream is not None
        self.response = self._stream.response

    def remember(self, answer: Remembered) -> None:
        """Another request may come on any other connection."""

    async def whole(self, status: int, body: Json, headers: Mapping[str, str]) -> None:
        self.response = json_response(status, body, headers)
