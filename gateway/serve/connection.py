"""Client connections: aiohttp's, with our own answer to what is not HTTP and limits on what a client may hold up.

A request that cannot be parsed never reaches the application. It is answered in JSON like every other refusal, without
quoting it, and the connection ends. A client that connects and does not finish a request's head in time is cut off, and
so is one that leaves what it was sent unread. How long a connection may be idle between two requests is left to
aiohttp: longer than any proxy keeps one.

While a call runs, the connection is read all the time, since only then does the loss of its client show. Requests that
a client has sent ahead wait for their turn, up to what aiohttp's buffers hold; if more come, they are dropped, and the
connection ends with the answer that runs.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from functools import partial
from typing import Any

from aiohttp import web, web_app
from aiohttp.http_parser import RawRequestMessage
from aiohttp.web_protocol import RequestHandler, _ErrInfo
from aiohttp.web_request import BaseRequest

from dragoman.backends.base import nothing
from dragoman.gateway.calls.body import EXPECTS
from dragoman.gateway.serve.app import GATEWAY, Gateway

HEAD_SECONDS = 30.0


REQUEST_LINE = re.compile(rb"[A-Z]{1,20} (/[!-~]{0,200})")


class Runner(web.AppRunner):
    """Takes the options of aiohttp's. A call is not cancelled when its client leaves: it is told, by `on_lost`."""

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _ConnectionFactory(
            self.app[GATEWAY],
            made.request_handler,
            request_factory=partial(_request, made.request_factory),
            handler_cancellation=made.handler_cancellation,
            loop=asyncio.get_running_loop(),
            **made._kwargs,
        )


def forget_applications() -> None:
    """Of all applications of a process, aiohttp remembers up to 1,024 handlers within their middlewares, and with each
    its application, so that one that has ended is never freed. What is still served is remembered anew."""
    if (remembered := getattr(web_app, "_cached_build_middleware", None)) is not None:
        remembered.cache_clear()


def _request(make: Callable[..., BaseRequest], message: RawRequestMessage, *rest: Any) -> BaseRequest:
    """Takes away `Expect`, which aiohttp would answer before the key is looked at."""
    if (expected := message.headers.get("Expect")) is None:
        return make(message, *rest)
    headers = message.headers.copy()
    headers.popall("Expect")
    request = make(message._replace(headers=type(message.headers)(headers)), *rest)
    if message.version >= (1, 1):
        request[EXPECTS] = expected
    return request


class _ConnectionFactory(web.Server):
    def __init__(self, gateway: Gateway, handler: Callable[..., Any], **options: Any) -> None:
        super().__init__(handler, **options)
        self._gateway = gateway

    def __call__(self) -> RequestHandler:
        return _Connection(self, gateway=self._gateway, loop=self._loop, **self._kwargs)


class _Followed:
    """A parser, for aiohttp; `follow` sees what it is fed."""

    def __init__(self, parser: Any, follow: Callable[[bytes], object]) -> None:
        self._parser = parser
        self._follow = follow

    def feed_data(self, data: bytes) -> Any:
        self._follow(data)
        return self._parser.feed_data(data)

    def feed_eof(self) -> None:
        self._parser.feed_eof()


class _Connection(RequestHandler):
    """What `gateway.calls.delivery` needs of it: `on_lost` and `on_writable`, which belong to the call that runs,
    whether the client `keeps_up` with what is written, and `on_arrival`, which belongs to a WebSocket."""

    __slots__ = (
        "_gateway",
        "_head_timer",
        "_on_lost",
        "_request_line",
        "_unread_timer",
        "_wire",
        "keeps_up",
        "on_arrival",
        "on_writable",
    )

    def __init__(self, *arguments: Any, gateway: Gateway, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._gateway = gateway
        self._request_line = b""  # the beginning of what arrived last on the idle connection
        self.keeps_up = True
        self.on_writable: Callable[[], object] = nothing
        self.on_arrival: Callable[[bytes], object] | None = None
        self._on_lost: Callable[[], object] = nothing
        self._unread_timer: asyncio.TimerHandle | None = None
        self._head_timer: asyncio.TimerHandle | None = None

    @property
    def on_lost(self) -> Callable[[], object]:
        return self._on_lost

    @on_lost.setter
    def on_lost(self, callback: Callable[[], object]) -> None:
        self._on_lost = callback
        self._request_line = b""  # a call began: the request could be parsed
        if (self._reading_paused or self._buffer_paused) and self._holds_only_later_requests():
            self._drop_later_requests()
            self._resume_transport_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._wire = (
            self.transport
        )  # also while aiohttp, which has closed it already, waits for its last bytes to leave
        self._head_timer = self._loop.call_later(HEAD_SECONDS, self._too_slow)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_timer()
        self._read_again()
        task = self._task_handler
        super().connection_lost(exc)
        if self.on_lost is not nothing:
            self.on_lost()
        elif task is not None:  # no call, but perhaps an answer that nobody waits for
            task.cancel()

    # ------------------------------------------------------------------------------------------------------- writing

    def pause_writing(self) -> None:
        super().pause_writing()
        self.keeps_up = False
        self._unread_timer = self._loop.call_later(self._gateway.config.timeouts.client, self._unread)

    def resume_writing(self) -> None:
        self._read_again()
        self.keeps_up = True
        super().resume_writing()
        self.on_writable()

    def _read_again(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def _unread(self) -> None:
        """Losing the connection ends the call, as if the client had left by itself."""
        self._unread_timer = None
        if self._wire is not None:
            self._wire.abort()

    # ------------------------------------------------------------------------------------------------------- reading

    def data_received(self, data: bytes) -> None:
        if data and not self._request_in_progress and not self._messages:
            self._request_line = data[:256]
        super().data_received(data)
        self._end_broken_body()
        if self._request_in_progress or self._messages:
            self._stop_timer()
        elif self._head_timer is None:
            self._head_timer = self._loop.call_later(HEAD_SECONDS, self._too_slow)

    def _end_broken_body(self) -> None:
        """Where what came is no part of the body that a call waits for, the call learns it now: aiohttp would keep the
        refusal for after its answer, and the call would wait out its time."""
        request, messages = self._current_request, self._messages
        if request is None or not messages or not isinstance(messages[-1][0], _ErrInfo) or request.content.is_eof():
            return
        messages.clear()
        request.content.set_exception(web.RequestPayloadError("the body is not framed as its headers say"))
        self.close()

    def pause_reading(self) -> None:
        if self._holds_only_later_requests():
            self._drop_later_requests()
        else:
            super().pause_reading()

    def _pause_reading_for_buffer(self) -> None:
        if self._holds_only_later_requests():
            self._drop_later_requests()
        else:
            super()._pause_reading_for_buffer()

    def set_parser(self, parser: Any, data_received_cb: Callable[[], None] | None = None) -> None:
        """From here on it is a WebSocket."""
        followed: Any = parser if self.on_arrival is None else _Followed(parser, self.on_arrival)
        super().set_parser(followed, data_received_cb)

    def hold_reading(self) -> None:
        super()._pause_reading_for_buffer()

    def read_on(self) -> None:
        self._resume_reading_for_buffer()

    def _holds_only_later_requests(self) -> bool:
        """Whether a call runs whose own body has arrived, so that all that is read now belongs to requests after it."""
        request = self._current_request
        if self._on_lost is nothing or request is None or self._payload_parser is not None:
            return False
        return request.content.is_eof()

    def _drop_later_requests(self) -> None:
        """From here on aiohttp reads and forgets, and ends the connection after the answer."""
        self.close()

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _too_slow(self) -> None:
        self._head_timer = None
        if not self._request_in_progress and not self._messages:
            self.force_close()

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Called by aiohttp, whose own message would quote the request. Of a request that it could not parse, it knows
        no path."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun already")
        path = request.path
        if status < 500 and (found := REQUEST_LINE.match(self._request_line)) is not None:
            path = found[1].decode("ascii").partition("?")[0]
        return self._gateway.middleware.unserved(path, request.headers, status, exc)
