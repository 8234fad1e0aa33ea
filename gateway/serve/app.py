"""The application: routes, what stands before every route, and the life of the backends.

`build` gives an aiohttp application that can be run by `dragoman serve`, by a test or inside another program. Routes
of client protocols come from `PROTOCOLS`; this module knows none by name. Every answer that is no model's is JSON,
errors included, and every request has an id. `RUNNER_OPTIONS` must be given to the runner: without cancellation a
client that leaves would keep its GPU work running.
"""

from __future__ import annotations

import logging
import os
import re
import secrets as random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import dropwhile
from typing import Any

from aiohttp import web

from dragoman import gateway
from dragoman.backends.base import Backend, ModelInfo
from dragoman.gateway.calls.client_kind import client_kind
from dragoman.gateway.calls.handler import (
    CLIENT,
    REQUEST_ID,
    Handler,
    common_headers,
    error_reply,
    id_headers,
    json_response,
)
from dragoman.gateway.calls.health import Gate
from dragoman.gateway.calls.model_table import Models
from dragoman.gateway.config import Config
from dragoman.gateway.keys.auth import Keys
from dragoman.gateway.keys.reasoning_seal import Sealer
from dragoman.gateway.keys.secrets import Secrets, read_client_keys
from dragoman.gateway.serve.openapi import describe
from dragoman.gateway.telemetry.logs import Redactor, log, request_line
from dragoman.gateway.telemetry.metrics import CONTENT_TYPE, Metrics
from dragoman.gateway.telemetry.process_metrics import Vitals
from dragoman.gateway.telemetry.tracing import open_tracing
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.protocol import Protocol
from dragoman.translators.registry import PROTOCOLS

Next = Callable[[web.Request], Awaitable[web.StreamResponse]]

# Cancellation frees a server's work when its client has gone; bodies are decompressed by us, within the limit.
# An agent's request is 200 kB and more; at the default of 64 kB its arrival is paused and resumed three times.
RUNNER_OPTIONS: dict[str, Any] = {
    "handler_cancellation": True,
    "auto_decompress": False,
    "access_log": None,
    "read_bufsize": 256 * 1024,
}
PLAIN_ID = re.compile(r"[\x21-\x7e]{1,128}")


class Gateway:
    """What one process serves: the parts that every route needs, and the routes."""

    def __init__(
        self,
        config: Config,
        backends: Sequence[Backend],
        secrets: Secrets,
        protocols: Sequence[Protocol],
        previous: Gateway | None = None,
    ) -> None:
        self.config = config
        self.metrics: Metrics = Metrics() if previous is None else previous.metrics
        self.made_of: dict[str, tuple[object, ...]] = {}  # by backend, of those opened from the configuration
        wakes = frozenset(group.name for group in config.groups if group.wakes)
        known = {} if previous is None else previous.gate.watches
        kept = {each.name: known[each.name] for each in backends if each.name in known}
        kept = {name: watch for name, watch in kept.items() if any(watch.backend is each for each in backends)}
        self.gate: Gate = Gate(backends, self.metrics, config.timeouts, wakes, kept)
        self.models = Models(config, backends)
        sealer = Sealer(secrets.seal_keys or (random.token_hex(32),))
        self.tracing = open_tracing(os.environ)
        self._redact = redact = Redactor(secrets.all())
        # what runs beside the old answers shares the limits with them
        same = previous is not None and previous.config.admission == config.admission
        admission = previous.handler.admission if previous is not None and same else None
        parts = (config, self.models, self.gate, self.metrics, sealer, self.tracing, redact, admission)
        self.handler: Handler = Handler(*parts)
        self._keys: Keys = Keys(
            secrets.client_keys,
            config.metrics_public,
            secrets.grants,
            workers=config.workers,
            file=config.api_keys_file,
            read_again=partial(read_client_keys, config, os.environ),
            previous=None if previous is None else previous._keys,
        )
        self._protocols = {f"/v1/{protocol.path}": protocol for protocol in protocols}
        self._endpoints = {"models", *(protocol.path.partition("/")[0] for protocol in protocols)}

    # ------------------------------------------------------------------------------------------------------- routing

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Each endpoint once, by the path that `_meant` gives for all its spellings."""
        for path, protocol in self._protocols.items():
            call = self._model_call(protocol)
            router.add_route("*", path, call)
            if protocol.count is not None:
                count = self._post(partial(self.handler.count, protocol, protocol.count))
                router.add_route("*", f"/v1/{protocol.count.path}", count)
        router.add_get("/v1/models", self.list_models)
        router.add_get("/v1/models/{id:.+}", self.one_model)
        router.add_get("/healthz", self.alive)
        router.add_get("/readyz", self.ready)
        router.add_get("/metrics", self.figures)
        router.add_get("/openapi.json", self.description)
        router.add_get("/", self.status_page)

    def _meant(self, path: str) -> str:
        """An endpoint's path as it is routed, for every base URL that people paste: with `/v1`, without it (as
        Anthropic's clients want theirs), with the base's and the client's own, with slashes too many. Paths that are no
        endpoint's stay as they are, so that nothing turns into `/healthz` or `/metrics`, which keys may leave open."""
        endpoint = list(dropwhile(lambda segment: segment == "v1", filter(None, path.split("/"))))
        return f"/v1/{'/'.join(endpoint)}" if endpoint and endpoint[0] in self._endpoints else path

    async def _routed(self, request: web.Request, handler: Next) -> Next:
        """`handler`, unless the path means another: then what that is routed to. The request keeps its own path."""
        path = request.rel_url.raw_path
        meant = self._meant(path)
        if meant == path:
            return handler
        match = await request.app.router.resolve(request.clone(rel_url=meant))
        request.match_info.update(match)
        return match.handler

    def _model_call(self, protocol: Protocol) -> Next:
        async def call(request: web.Request) -> web.StreamResponse:
            if request.method == "POST":
                return await self.handler.handle(protocol, request)
            if request.method == "GET" and request.headers.get("Upgrade", "").lower() == "websocket":
                raise GatewayError(Kind.UPGRADE, "There is no WebSocket mode here; use POST.", code="upgrade_required")
            raise web.HTTPMethodNotAllowed(request.method, ["POST"])

        return call

    def _post(self, handle: Next) -> Next:
        async def call(request: web.Request) -> web.StreamResponse:
            if request.method != "POST":
                raise web.HTTPMethodNotAllowed(request.method, ["POST"])
            return await handle(request)

        return call

    @web.middleware
    async def before_all(self, request: web.Request, handler: Next) -> web.StreamResponse:
        given = request.headers.get("x-request-id", "")
        request[REQUEST_ID] = given if PLAIN_ID.fullmatch(given) else f"req_{random.token_hex(12)}"
        headers: dict[str, str] = {}
        try:
            request[CLIENT] = self._keys.check(request.path, request.headers)
            handler = await self._routed(request, handler)
            response = await handler(request)
        except GatewayError as known:
            error = known.with_traceback(None)  # whose frames are ours, which hold it
            error.message = self._redact(error.message)  # a server may echo the key that it was sent
        except web.HTTPMethodNotAllowed as wrong:
            error = GatewayError(
                Kind.METHOD, f"{request.path} does not take {request.method}.", code="method_not_allowed"
            )
            headers["Allow"] = ", ".join(sorted(wrong.allowed_methods))
        except web.HTTPNotFound:
            error = self._unknown_path(request)
        except web.HTTPException as other:
            error = GatewayError(Kind.INVALID, other.reason)
        except Exception:
            log.exception("bug in %s", request.path)
            error = GatewayError(Kind.INTERNAL, f"Internal error; the request id is {request[REQUEST_ID]}.")
        else:
            if not response.prepared and "x-request-id" not in response.headers:
                response.headers.update(id_headers(request[REQUEST_ID]))
            return response
        self.metrics.request("other", client_kind(request.headers), error.kind.status, "refused")
        told = {"request_id": request[REQUEST_ID], "route": "other", "status": error.kind.status, "outcome": "refused"}
        request_line(logging.INFO, {**told, "method": request.method, "error": error.kind.name.lower()})
        return self._error_response(request, error, headers)

    async def before_head(self, _request: web.Request, response: web.StreamResponse) -> None:
        """For every answer, streamed or whole. While the gateway drains, a connection ends with the answer that it
        carries, and the head says so: a client that was not warned would lose its next request."""
        response.headers["Server"] = "dragoman"  # not which version of what it is made of
        if self.handler.leaving or self.handler.draining:
            response.headers["Connection"] = "close"
            response.force_close()

    def _error_response(self, request: web.Request, error: GatewayError, headers: dict[str, str]) -> web.Response:
        protocol = self._protocol_of(self._meant(request.path))
        headers |= id_headers(request[REQUEST_ID])
        if protocol is not None:
            reply = error_reply(protocol, error, request[REQUEST_ID])
            return json_response(reply.status, reply.body, {**headers, **reply.headers})
        kind = {401: "authentication_error", 404: "not_found_error"}.get(error.kind.status)
        kind = kind or ("invalid_request_error" if error.kind.status < 500 else "api_error")
        told = {"type": kind, "message": error.message, "param": error.param, "code": error.code}
        body: dict[str, Any] = {"error": told}
        if "anthropic-version" in request.headers:
            body = {"type": "error", "error": told, "request_id": request[REQUEST_ID]}
        headers.update(common_headers(error))
        return json_response(error.kind.status, body, headers)

    def _protocol_of(self, path: str) -> Protocol | None:
        """Whose words an error on this path is told in: the protocol that owns the path or one below it."""
        found = [base for base in self._protocols if path == base or path.startswith(f"{base}/")]
        return self._protocols[max(found, key=len)] if found else None

    def _unknown_path(self, request: web.Request) -> GatewayError:
        there = ", ".join(
            [f"POST {path}" for path in self._protocols]
            + [f"POST /v1/{protocol.count.path}" for protocol in self._protocols.values() if protocol.count]
            + ["GET /v1/models", "GET /v1/models/{id}"]
        )
        return GatewayError(
            Kind.NOT_FOUND,
            f"{request.method} {request.path} does not exist here. There are {there}; GET /healthz, /readyz, /metrics.",
            code="not_found",
        )

    # -------------------------------------------------------------------------------------------------------- models

    async def list_models(self, request: web.Request) -> web.Response:
        await self._started()
        models = await self.models.listed(request[CLIENT])
        if "anthropic-version" in request.headers:
            entries = [anthropic_model(model) for model in models]
            ends = (entries[0]["id"], entries[-1]["id"]) if entries else (None, None)
            return json_response(200, {"data": entries, "has_more": False, "first_id": ends[0], "last_id": ends[1]}, {})
        # `models` is Codex's key. Its entries would need instructions, which then replace Codex's own; an empty list is
        # valid and leaves Codex with what it knows.
        return json_response(200, {"object": "list", "data": [openai_model(each) for each in models], "models": []}, {})

    async def one_model(self, request: web.Request) -> web.Response:
        await self._started()
        model = await self.models.one(request.match_info["id"], request[CLIENT])
        shape = anthropic_model if "anthropic-version" in request.headers else openai_model
        return json_response(200, shape(model), {})

    async def _started(self) -> None:
        for watch in self.gate.watches.values():
            await watch.started(self.config.timeouts.start)

    # ---------------------------------------------------------------------------------------------------- operations

    async def alive(self, request: web.Request) -> web.Response:
        return json_response(200, {"status": "ok"}, {})

    async def ready(self, request: web.Request) -> web.Response:
        states = await self.gate.states()
        doubts = {name: self.handler.doubt(name) for name, health in states.items() if health.state == "ready"}
        told = {name: doubts.get(name) or health.state for name, health in states.items()}
        leaving = self.handler.leaving or self.handler.draining
        ready = "ready" in told.values() and not leaving
        body = {"ready": ready, "draining": leaving, "backends": told}
        return json_response(200 if ready else 503, body, {} if ready else {"Retry-After": "1"})

    async def figures(self, request: web.Request) -> web.Response:
        return web.Response(body=self.metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    async def description(self, request: web.Request) -> web.Response:
        return json_response(200, describe(self._protocols.values()), {})

    async def status_page(self, request: web.Request) -> web.Response:
        states = await self.gate.states()
        lines = [
            f"dragoman {gateway.__version__}" + (", draining" if self.handler.draining else ""),
            "",
            *(f"backend {name}: {health.state}" for name, health in states.items()),
            f"model calls in flight: {len(self.handler.calls)}",
            "",
            *(f"POST {path}" for path in self._protocols),
            *(f"POST /v1/{protocol.count.path}" for protocol in self._protocols.values() if protocol.count),
            "GET  /v1/models",
            "GET  /healthz /readyz /metrics",
        ]
        return web.Response(text="\n".join(lines) + "\n")

    # ---------------------------------------------------------------------------------------------------------- life

    async def life(self, app: web.Application) -> AsyncIterator[None]:
        await self.gate.start()
        vitals = Vitals(self.metrics)
        yield
        vitals.close()
        await self.models.close()
        await self.gate.close()
        await self.tracing.close()
        await self.handler.images.close()


def openai_model(model: ModelInfo) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": model.id, "object": "model", "created": model.created, "owned_by": model.owned_by}
    if model.window is not None:
        entry["context_window"] = entry["max_model_len"] = model.window
    return entry


def anthropic_model(model: ModelInfo) -> dict[str, Any]:
    created = datetime.fromtimestamp(model.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "type": "model",
        "id": model.id,
        "display_name": model.id,
        "created_at": created,
        "lifecycle": "active",  # a required word in the newest SDK's type; nothing here is ever retired
        "max_input_tokens": model.window,
        "max_tokens": None,
        "capabilities": None,
    }


GATEWAY: web.AppKey[Gateway] = web.AppKey("gateway", Gateway)


def build(
    config: Config,
    backends: Sequence[Backend] | None = None,
    secrets: Secrets | None = None,
    protocols: Sequence[Protocol] | None = None,
    previous: Gateway | None = None,
) -> web.Application:
    """`backends` and `protocols` are those of the configuration and of the registry where they are not given. From
    `previous`, the gateway of an older configuration, come its figures and the backends that have not changed."""
    secrets = secrets or Secrets()
    made_of: dict[str, tuple[object, ...]] = {}
    if backends is None:
        from dragoman.gateway.factory import (  # not needed, with all its clients, by who brings backends
            ingredients,
            open_group,
        )

        made_of = {group.name: ingredients(config, secrets, group) for group in config.groups}
        old = {} if previous is None else previous.made_of
        backends = [
            previous.gate.watches[group.name].backend
            if previous is not None and old.get(group.name) == made_of[group.name]
            else open_group(config, secrets, group)
            for group in config.groups
        ]
    served = Gateway(config, backends, secrets, PROTOCOLS if protocols is None else protocols, previous)
    served.made_of = made_of
    app = web.Application(middlewares=[served.before_all], client_max_size=config.limits.body_bytes)
    app[GATEWAY] = served
    served.add_routes(app.router)
    app.on_response_prepare.append(served.before_head)
    app.cleanup_ctx.append(served.life)
    return app
