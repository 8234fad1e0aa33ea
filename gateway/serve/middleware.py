"""What every request passes through: its id, its key, its route, and the answer to whatever goes wrong.

Every answer that does not come from a model is JSON, errors included. An error on a protocol's endpoint is in that
protocol's words; elsewhere it is in the words of the protocol whose client asks, as far as the request shows it.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong

from dragoman.gateway.calls.body import EXPECTS
from dragoman.gateway.calls.client_kind import client_kind
from dragoman.gateway.calls.handler import CLIENT, REQUEST_ID, Handler
from dragoman.gateway.calls.replies import common_headers, error_reply, id_headers, json_response
from dragoman.gateway.keys.auth import Keys
from dragoman.gateway.serve.cors import Cors
from dragoman.gateway.serve.endpoints import Endpoints
from dragoman.gateway.telemetry.logs import Redactor, log, request_line
from dragoman.gateway.telemetry.metrics import Metrics
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.protocol import PlainError, Protocol
from dragoman.translators.rate_headers import rate_headers
from dragoman.translators.registry import claimant

Next = Callable[[web.Request], Awaitable[web.StreamResponse]]
SERVER = "dragoman"  # without the version of what it is made of
TOO_MANY = "Too many headers"  # aiohttp's words; it has no exception for it
PLAIN_ID = re.compile(r"[\x21-\x7e]{1,128}")


class HttpError(GatewayError):
    """What is wrong with a request as HTTP: worded as any invalid request of the protocol, with HTTP's own status."""

    def __init__(self, status: int, message: str) -> None:
        ours = status >= 500
        super().__init__(Kind.INTERNAL if ours else Kind.INVALID, message, code=None if ours else "bad_request")
        self.status = status


class Middleware:
    def __init__(
        self, endpoints: Endpoints, keys: Keys, handler: Handler, metrics: Metrics, redact: Redactor, cors: Cors | None
    ) -> None:
        self._cors = cors
        self._endpoints = endpoints
        self._keys = keys
        self._handler = handler
        self._metrics = metrics
        self._redact = redact

    @web.middleware
    async def before_all(self, request: web.Request, handler: Next) -> web.StreamResponse:
        given = request.headers.get("x-request-id", "")
        request[REQUEST_ID] = given if PLAIN_ID.fullmatch(given) else _new_id()
        if self._cors is not None and (preflight := self._cors.preflight(request)) is not None:
            preflight.headers.update(id_headers(request[REQUEST_ID]))
            return preflight
        headers: dict[str, str] = {}
        try:
            self.identify(request)
            _check_expectation(request)
            handler = await self._routed(request, handler)
            response = await handler(request)
        except Exception as failure:
            if isinstance(failure, web.HTTPMethodNotAllowed):
                headers["Allow"] = ", ".join(sorted(failure.allowed_methods))
            error = self._expected(request, failure)
        else:
            if not response.prepared and "x-request-id" not in response.headers:
                response.headers.update(id_headers(request[REQUEST_ID]))
            return response
        request_id = request[REQUEST_ID]
        self._account(request.headers, request_id, error, request.method)
        return self._error_response(request.path, request.headers, request_id, error, headers)

    def unserved(
        self, path: str, headers: Mapping[str, str], status: int, failure: BaseException | None
    ) -> web.Response:
        """The answer to a request that did not come through here: it is not HTTP, or broke what is around us."""
        message = "The request is not valid HTTP/1.1." if status < 500 else "Internal error."
        if isinstance(failure, LineTooLong):
            status, message = 431, "A line of the request's head is too long."
        elif isinstance(failure, BadHttpMessage) and TOO_MANY in failure.message:
            status, message = 431, "The request's head has too many lines."
        request_id = _new_id()
        error = HttpError(status, message)
        self._account(headers, request_id, error, failure=type(failure).__name__ if failure is not None else None)
        response = self._error_response(path, headers, request_id, error, {"Server": SERVER})
        response.force_close()
        return response

    def identify(self, request: web.Request) -> None:
        """Leaves the client in the request; raises UNAUTHENTICATED."""
        request[CLIENT] = self._keys.check(request.path, request.headers)

    async def before_head(self, request: web.Request, response: web.StreamResponse) -> None:
        """For every answer, streamed or whole. While the gateway drains, each connection ends with the answer it
        carries, and the head says so: a client without that warning would lose its next request."""
        response.headers["Server"] = SERVER
        if (client := request.get(CLIENT)) is not None and (standings := client.standings()):
            response.headers.update(
                rate_headers(self._protocol(request.path, request.headers).rates, standings, datetime.now(UTC))
            )
        if self._cors is not None:
            self._cors.mark(request, response.headers)
        held_back = EXPECTS in request  # the body will not be asked for, and the client may not send it
        if held_back and not request.content.total_bytes:
            request.protocol._lingering_time = 0.0  # there is nothing to wait for
        going = self._handler.leaving or self._handler.draining
        if held_back or (going and response.status != 101):  # whose `Connection` says something else
            response.headers["Connection"] = "close"
            response.force_close()

    async def _routed(self, request: web.Request, handler: Next) -> Next:
        """`handler`, unless the path is another spelling of an endpoint's: then that endpoint's handler. The request
        keeps its own path."""
        path = request.rel_url.raw_path
        canonical = self._endpoints.canonical(path)
        if canonical == path:
            return handler
        match = await request.app.router.resolve(request.clone(rel_url=canonical))
        request.match_info.update(match)
        return match.handler

    def _expected(self, request: web.Request, failure: Exception) -> GatewayError:
        match failure:
            case GatewayError():
                failure.message = self._redact(failure.message)  # a server may echo the key that it was sent
                return failure.with_traceback(None)  # its frames hold the error itself
            case web.HTTPMethodNotAllowed():
                message = f"{request.path} does not take {request.method}."
                return GatewayError(Kind.METHOD, message, code="method_not_allowed")
            case web.HTTPNotFound():
                return self._unknown_path(request)
            case web.HTTPException():
                return GatewayError(Kind.INVALID, failure.reason)
            case _:
                log.error("bug in %s", request.path, exc_info=failure)
                return GatewayError(Kind.INTERNAL, f"Internal error; the request id is {request[REQUEST_ID]}.")

    def _unknown_path(self, request: web.Request) -> GatewayError:
        there = ", ".join(
            [*(f"POST {path}" for path in self._endpoints.posts), "GET /v1/models", "GET /v1/models/{id}"]
        )
        return GatewayError(
            Kind.NOT_FOUND,
            f"{request.method} {request.path} does not exist here. There are {there}; GET /healthz, /readyz, /metrics.",
            code="not_found",
        )

    def _protocol(self, path: str, headers: Mapping[str, str]) -> Protocol:
        """Whose endpoint it is, else whose client asks."""
        canonical = self._endpoints.canonical(path)
        return self._endpoints.owner(canonical) or claimant(canonical, headers)

    def _account(
        self,
        headers: Mapping[str, str],
        request_id: str,
        error: GatewayError,
        method: str | None = None,
        failure: str | None = None,
    ) -> None:
        status = _status(error)
        outcome = "failed" if status >= 500 else "refused"
        self._metrics.request("other", client_kind(headers), status, outcome)
        fields = {"request_id": request_id, "route": "other", "status": status, "outcome": outcome}
        request_line(logging.INFO, {**fields, "method": method, "error": failure or error.kind.name.lower()})

    def _error_response(
        self, path: str, asked: Mapping[str, str], request_id: str, error: GatewayError, headers: dict[str, str]
    ) -> web.Response:
        path = self._endpoints.canonical(path)
        headers |= id_headers(request_id)
        if (owner := self._endpoints.owner(path)) is not None:
            reply = error_reply(owner, error, request_id)
            status = error.status if isinstance(error, HttpError) else reply.status
            return json_response(status, reply.body, {**headers, **reply.headers})
        refusal = PlainError(_status(error), error.message, request_id, error.param, error.code)
        body = claimant(path, asked).refusal(refusal)
        return json_response(refusal.status, body, {**headers, **common_headers(error)})


def _status(error: GatewayError) -> int:
    return error.status if isinstance(error, HttpError) else error.kind.status


def _new_id() -> str:
    return f"req_{secrets.token_hex(12)}"


def _check_expectation(request: web.Request) -> None:
    if request.get(EXPECTS, "100-continue").strip().lower() != "100-continue":
        raise HttpError(417, "The only expectation that can be met is 100-continue.")
