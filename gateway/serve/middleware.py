"""What every request passes through: its id, its key, its route, and the answer to whatever goes wrong.

Every answer that does not come from a model is JSON, errors included. An error on a protocol's endpoint is in that
protocol's words; elsewhere it is in the words of the protocol whose client asks, as far as the request shows it.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Awaitable, Callable

from aiohttp import web

from dragoman.gateway.calls.client_kind import client_kind
from dragoman.gateway.calls.handler import CLIENT, REQUEST_ID, Handler
from dragoman.gateway.calls.replies import common_headers, error_reply, id_headers, json_response
from dragoman.gateway.keys.auth import Keys
from dragoman.gateway.serve.cors import Cors
from dragoman.gateway.serve.endpoints import Endpoints
from dragoman.gateway.telemetry.logs import Redactor, log, request_line
from dragoman.gateway.telemetry.metrics import Metrics
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.protocol import PlainError
from dragoman.translators.registry import claimant

Next = Callable[[web.Request], Awaitable[web.StreamResponse]]
PLAIN_ID = re.compile(r"[\x21-\x7e]{1,128}")


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
        request[REQUEST_ID] = given if PLAIN_ID.fullmatch(given) else f"req_{secrets.token_hex(12)}"
        if self._cors is not None and (preflight := self._cors.preflight(request)) is not None:
            preflight.headers.update(id_headers(request[REQUEST_ID]))
            return preflight
        headers: dict[str, str] = {}
        try:
            self.identify(request)
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
        self._account(request, error)
        return self._error_response(request, error, headers)

    def identify(self, request: web.Request) -> None:
        """Leaves the client in the request; raises UNAUTHENTICATED."""
        request[CLIENT] = self._keys.check(request.path, request.headers)

    async def before_head(self, request: web.Request, response: web.StreamResponse) -> None:
        """For every answer, streamed or whole. While the gateway drains, each connection ends with the answer it
        carries, and the head says so: a client without that warning would lose its next request."""
        response.headers["Server"] = "dragoman"  # without the version of what it is made of
        if self._cors is not None:
            self._cors.mark(request, response.headers)
        if self._handler.leaving or self._handler.draining:
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

    def _account(self, request: web.Request, error: GatewayError) -> None:
        status = error.kind.status
        self._metrics.request("other", client_kind(request.headers), status, "refused")
        fields = {"request_id": request[REQUEST_ID], "route": "other", "status": status, "outcome": "refused"}
        request_line(logging.INFO, {**fields, "method": request.method, "error": error.kind.name.lower()})

    def _error_response(self, request: web.Request, error: GatewayError, headers: dict[str, str]) -> web.Response:
        path, request_id = self._endpoints.canonical(request.path), request[REQUEST_ID]
        headers |= id_headers(request_id)
        if (owner := self._endpoints.owner(path)) is not None:
            reply = error_reply(owner, error, request_id)
            return json_response(reply.status, reply.body, {**headers, **reply.headers})
        refusal = PlainError(error.kind.status, error.message, request_id, error.param, error.code)
        body = claimant(path, request.headers).refusal(refusal)
        return json_response(refusal.status, body, {**headers, **common_headers(error)})
