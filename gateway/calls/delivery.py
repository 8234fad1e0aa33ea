"""How the frames of a streamed answer reach the client. Beside the translation, so that the same stream can go out in
other ways.

`EventStream` is the way of server-sent events in an HTTP answer. Rules: a write is synchronous, so the frames of one
upstream read leave in the turn of the loop in which they arrived; the head goes out with the first of them; whether
the client keeps up is the connection's to say; after the client has gone nothing is written. Head and end are
aiohttp's; between them chunks are written here: its way of writing one costs a microsecond more for each token.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol, TypeVar, cast

from aiohttp import web
from aiohttp.http_writer import StreamWriter

T = TypeVar("T")

LARGE = 256 * 1024  # bytes that are not copied once more to leave in one piece
MANY = 16  # frames, which are mostly deltas: sooner joined than measured

SSE_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",
}


class ClientConnection(Protocol):
    """The client's connection: `on_writable` is called when it `keeps_up` again, `on_lost` when it has gone, and
    `on_arrival` with what arrives on a WebSocket."""

    on_writable: Callable[[], object]
    on_lost: Callable[[], object]
    on_arrival: Callable[[bytes], object] | None
    transport: asyncio.Transport | None
    keeps_up: bool

    def hold_reading(self) -> None:
        """Nothing more is read, until `read_on`."""
        ...

    def read_on(self) -> None: ...


class Delivery(Protocol):
    """`gone`: the client's connection is broken. `on_writable` is called when the client has caught up."""

    on_writable: Callable[[], object]

    @property
    def gone(self) -> bool: ...

    @property
    def writable(self) -> bool:
        """Whether the client keeps up."""
        ...

    @property
    def sent(self) -> bool:
        """Whether the kernel has taken all that was written, for a client that is there. Some event loops pass a write
        on at the end of their turn."""
        ...

    def write(self, frames: Sequence[bytes]) -> bool:
        """Sends frames, of which each is one event; whether the client keeps up. The first write sends the head."""
        ...

    async def end(self) -> None:
        """Ends the answer; returns when the client has taken nearly all of it."""
        ...

    def abort(self) -> None:
        """Breaks off, so that nobody takes what was sent for a whole answer."""
        ...


class ConnectionDelivery:
    """What every delivery over the client's connection has: whether the client keeps up, and the way to break off."""

    def __init__(self, request: web.Request) -> None:
        self.gone = False
        self._connection = connection(request)
        self._request = request

    @property
    def on_writable(self) -> Callable[[], object]:
        return self._connection.on_writable

    @on_writable.setter
    def on_writable(self, callback: Callable[[], object]) -> None:
        self._connection.on_writable = callback

    @property
    def writable(self) -> bool:
        return self._connection.keeps_up

    @property
    def sent(self) -> bool:
        transport = self._connection.transport
        there = not self.gone and transport is not None and not transport.is_closing()
        return there and transport is not None and transport.get_write_buffer_size() == 0

    def abort(self) -> None:
        self.gone = True
        if (transport := self._request.transport) is not None:
            transport.abort()


class _Response(web.StreamResponse):
    """aiohttp would send the head in a packet of its own, which costs a token's price once more."""

    _send_headers_immediately = False


class EventStream(ConnectionDelivery):
    """`headers` are asked for when the head goes out; they may replace those of an event stream."""

    def __init__(self, request: web.Request, headers: Callable[[], Mapping[str, str]]) -> None:
        super().__init__(request)
        self.response = _Response(status=200, headers=SSE_HEADERS)
        self._headers = headers
        self._writer: StreamWriter | None = None

    def write(self, frames: Sequence[bytes]) -> bool:
        connection, writer = self._connection, self._writer
        if len(frames) > MANY:
            frames = (b"".join(frames),)
        size = len(frames[0]) if len(frames) == 1 else sum(map(len, frames))
        if self.gone or not size:  # an empty chunk would be the last one
            return connection.keeps_up
        if writer is None:
            # after a large one, what follows leaves without being copied
            count = 1 if size > LARGE else len(frames)
            self._write_first(b"".join(frames[:count]))
            return connection.keeps_up if count == len(frames) else self.write(frames[count:])
        transport = connection.transport
        if transport is None or transport.is_closing():
            self.gone = True
        elif size > LARGE:
            pieces = (b"%x\r\n" % size, *frames, b"\r\n") if writer.chunked else frames  # whole in HTTP/1.0
            writer.output_size += sum(map(len, pieces))
            transport.writelines(pieces)
        else:
            data = frames[0] if len(frames) == 1 else b"".join(frames)
            if writer.chunked:
                data = b"%x\r\n%b\r\n" % (size, data)
            writer.output_size += len(data)
            transport.write(data)
        return connection.keeps_up

    async def end(self) -> None:
        try:
            if self._writer is None:
                await self._begin()
            await self.response.write_eof()
        except ConnectionError:
            self.gone = True
        if self._connection.transport is None:  # lost while the end waited for the client
            self.gone = True

    def _write_first(self, data: bytes) -> None:
        """With the head, in one packet."""
        try:
            at_once(at_once(self._begin()).write(data, drain=False))
        except ConnectionError:
            self.gone = True

    async def _begin(self) -> StreamWriter:
        self.response.headers.update(self._headers())
        writer = await self.response.prepare(self._request)
        assert isinstance(writer, StreamWriter), "the head of this answer went out already"
        if not writer.chunked:  # HTTP/1.0: the end of the connection is that of the body; aiohttp only leaves it unsaid
            self.response.force_close()
        self._writer = writer
        return writer


def connection(request: web.Request) -> ClientConnection:
    """The one under a request: those of `gateway.serve.connection` can say more than aiohttp's."""
    return cast(ClientConnection, request.protocol)


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing: aiohttp's writes are such as long as they do not drain."""
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    work.close()
    raise asyncio.InvalidStateError("a write had to wait")
