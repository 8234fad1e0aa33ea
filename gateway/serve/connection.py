"""Client connections: aiohttp's, with our own answer to what is not HTTP and a time limit for heads.

A request that cannot be parsed never reaches the application. It is answered in JSON like every other refusal, without
quoting it, and the connection ends. A client that connects and does not finish a request's head in time is cut off. How
long a connection may be idle between two requests is left to aiohttp: longer than any proxy keeps one.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable

import orjson
from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_request import BaseRequest

from dragoman.backends.base import nothing
from dragoman.gateway.telemetry.logs import request_line
from dragoman.translators.protocol import PlainError
from dragoman.translators.registry import claimant

HEAD_SECONDS = 30.0


class Runner(web.AppRunner):
    """Takes the options of aiohttp's. A call is not cancelled when its client leaves: it is told, by `on_lost`."""

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _ConnectionFactory(
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            loop=asyncio.get_running_loop(),
            **made._kwargs,
        )


class _ConnectionFactory(web.Server):
    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class _Connection(RequestHandler):
    """What `gateway.calls.delivery` needs of it: `on_lost` and `on_writable`, which belong to the call that runs."""

    __slots__ = ("_head_timer", "on_lost", "on_writable")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.on_lost: Callable[[], object] = nothing
        self.on_writable: Callable[[], object] = nothing
        self._head_timer: asyncio.TimerHandle | None = self._loop.call_later(HEAD_SECONDS, self._too_slow)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_timer()
        task = self._task_handler
        super().connection_lost(exc)
        if self.on_lost is not nothing:
            self.on_lost()
        elif task is not None:  # no call, but perhaps an answer that nobody waits for
            task.cancel()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.on_writable()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._request_in_progress or self._messages:
            self._stop_timer()
        elif self._head_timer is None:
            self._head_timer = self._loop.call_later(HEAD_SECONDS, self._too_slow)

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
        """Called by aiohttp, whose own message would quote the request."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun already")
        request_id = f"req_{secrets.token_hex(12)}"
        refusal = _refusal(status, exc, request_id)
        fields = {"request_id": request_id, "route": "other", "status": refusal.status, "outcome": "refused"}
        request_line(logging.INFO, {**fields, "error": type(exc).__name__ if exc is not None else None})
        body = orjson.dumps(claimant(request.path, request.headers).refusal(refusal))
        response = web.Response(status=refusal.status, body=body, content_type="application/json")
        response.headers.update(
            {"x-request-id": request_id, "x-dragoman-error-source": "gateway", "Server": "dragoman"}
        )
        response.force_close()
        return response


def _refusal(status: int, error: BaseException | None, request_id: str) -> PlainError:
    if isinstance(error, LineTooLong):
        return PlainError(431, "A line of the request's head is too long.", request_id, code="bad_request")
    if status < 500:
        return PlainError(status, "The request is not valid HTTP/1.1.", request_id, code="bad_request")
    return PlainError(status, "Internal error.", request_id)
