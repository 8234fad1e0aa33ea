"""The application: the parts that every route needs, their lives, and the routes.

`build` gives an aiohttp application that `dragoman serve`, a test or another program can run. Routes of client
protocols come from `PROTOCOLS`; this module knows none by name. It has to run in `gateway.serve.connection.Runner`,
with `RUNNER_OPTIONS`: from no other would a call learn that its client has left. What reads files and imports packages
is `open_all`: a server that reloads calls it in a thread, so that streams do not wait for it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import secrets as random
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from aiohttp import web

from dragoman.backends.background import end, in_background
from dragoman.backends.base import Backend
from dragoman.backends.pool.pool import Pool
from dragoman.gateway.calls.admission import Admission
from dragoman.gateway.calls.handler import Handler
from dragoman.gateway.calls.health import Gate
from dragoman.gateway.calls.model_table import Models
from dragoman.gateway.calls.socket import Sockets, asks_for_socket
from dragoman.gateway.config import Config, ConfigError
from dragoman.gateway.factory import as_groups, ingredients, open_group
from dragoman.gateway.keys.auth import Keys
from dragoman.gateway.keys.key_file import KeyFile
from dragoman.gateway.keys.reasoning_seal import MAX_OPENED, Sealer, state_directory
from dragoman.gateway.keys.secrets import Secrets, read_client_keys
from dragoman.gateway.keys.spending import Spending
from dragoman.gateway.serve.cors import Cors
from dragoman.gateway.serve.endpoints import Endpoints
from dragoman.gateway.serve.middleware import Middleware, Next
from dragoman.gateway.serve.models import ModelRoutes
from dragoman.gateway.serve.operations import OperationRoutes
from dragoman.gateway.serve.stored import StoredRoutes
from dragoman.gateway.store.lazy import LazyStore
from dragoman.gateway.telemetry.logs import Redactor
from dragoman.gateway.telemetry.metrics import Metrics
from dragoman.gateway.telemetry.process_metrics import ProcessMetrics
from dragoman.gateway.telemetry.tracing import Tracing, open_tracing
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.protocol import Protocol
from dragoman.translators.registry import FORWARDED, PROTOCOLS

# We decompress bodies ourselves, within the limit.
# An agent's request is 200 kB and more; with the default buffer of 64 kB, reading it would pause three times.
RUNNER_OPTIONS: dict[str, Any] = {
    "auto_decompress": False,
    "access_log": None,
    "read_bufsize": 256 * 1024,
}
SEALED_STORE = b"dragoman store"  # what is sealed for the store cannot be opened as a client's reasoning


@dataclass(frozen=True, slots=True)
class Opened:
    """What took files and packages to make; nothing of it has been started. `ingredients`: what each group that was
    opened from the configuration is made of, by its name."""

    groups: Sequence[Pool]
    tracing: Tracing
    store: LazyStore | None = None
    ingredients: Mapping[str, tuple[object, ...]] = field(default_factory=dict)


class Gateway:
    """What one process serves from one configuration. From `previous`, the gateway of an older one, come the metrics,
    the groups of servers that have not changed, what clients have spent, and, where their limits are equal, the queue
    and what is kept of requests."""

    def __init__(
        self,
        config: Config,
        opened: Opened,
        secrets: Secrets,
        protocols: Sequence[Protocol],
        previous: Gateway | None = None,
        spending: Spending | None = None,
        worker: int = 0,
    ) -> None:
        self.config = config
        self._worker = worker
        self.metrics: Metrics = Metrics() if previous is None else previous.metrics
        self.ingredients = opened.ingredients
        self.gate: Gate = self._open_gate(opened.groups, previous)
        self.models = Models(config, opened.groups)
        self.tracing = opened.tracing
        self.store = opened.store
        redact = Redactor(secrets.all())
        self.handler: Handler = self._open_handler(secrets, redact, previous)
        self._keys: Keys = Keys(
            secrets.client_keys,
            config.metrics_public,
            secrets.grants,
            file=_key_file(config),
            previous=None if previous is None else previous._keys,
            spending=spending,
        )
        self._endpoints = Endpoints(protocols, [FORWARDED[name] for name in config.policy.pass_through])
        cors = Cors(config.cors.origins) if config.cors.origins else None
        self.middleware = Middleware(self._endpoints, self._keys, self.handler, self.metrics, redact, cors)
        self.sockets = Sockets(self.handler, config, self.middleware.identify)

    def _open_gate(self, groups: Sequence[Pool], previous: Gateway | None) -> Gate:
        known = {} if previous is None else previous.gate.groups
        reused = [group for group in groups if known.get(group.name) is group]
        wakes = frozenset(group.name for group in self.config.groups if group.wakes)
        return Gate(groups, self.metrics, self.config.timeouts, wakes, reused)

    def _open_handler(self, secrets: Secrets, redact: Redactor, previous: Gateway | None) -> Handler:
        sealer = Sealer(secrets.seal_keys or (random.token_hex(32),))
        # calls that run beside those of the previous gateway share their limits
        same = previous is not None and previous.config.admission == self.config.admission
        admission = previous.handler.admission if previous is not None and same else None
        if admission is None:
            admission = Admission(self.config.admission, self.metrics, self.config.workers, self._worker)
        # what is kept of clients' requests was within the limits under which it came
        kept = previous is not None and previous.config.limits == self.config.limits
        memos = previous.handler.memos if previous is not None and kept else None
        return Handler(
            self.config,
            self.models,
            self.gate,
            self.metrics,
            sealer,
            self.tracing,
            redact,
            admission,
            self.store,
            secrets.search_key,
            memos,
        )

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Each endpoint once, by its canonical path."""
        for path, protocol in self._endpoints.protocols.items():
            router.add_route("*", path, self._call(protocol))
            if protocol.state is not None:
                StoredRoutes(protocol, protocol.state.resource, self.store, self.handler.bodies).add_to(router)
            if protocol.count is not None:
                count = _post(partial(self.handler.count, protocol, protocol.count))
                router.add_route("*", f"/v1/{protocol.count.path}", count)
        for path, endpoint in self._endpoints.forwarded.items():
            router.add_route("*", path, _post(partial(self.handler.forward, endpoint)))
        ModelRoutes(self.models, self.gate, self.config.timeouts.start, self.config.search.runs).add_to(router)
        OperationRoutes(self._endpoints, self.handler, self.gate, self.metrics).add_to(router)

    def _call(self, protocol: Protocol) -> Next:
        async def call(request: web.Request) -> web.StreamResponse:
            if request.method == "POST":
                return await self.handler.handle(protocol, request)
            if request.method != "GET" or not asks_for_socket(request):
                raise web.HTTPMethodNotAllowed(request.method, ["POST"])
            if protocol.socket is None:
                raise GatewayError(Kind.UPGRADE, "There is no WebSocket mode here; use POST.", code="upgrade_required")
            return await self.sockets.serve(protocol, request)

        return call

    async def life(self, app: web.Application) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as ends:  # each is ended, also where ending another fails
            ends.push_async_callback(self.handler.images.close)
            if self.handler.documents is not None:
                ends.push_async_callback(self.handler.documents.close)
            if self.handler.search is not None:
                ends.push_async_callback(self.handler.search.close)
            ends.push_async_callback(self.tracing.close)
            ends.push_async_callback(self.gate.close)
            ends.push_async_callback(self.models.close)
            if self.store is not None:
                ends.push_async_callback(self.store.close)
                await self.store.start()
            await self.gate.start()
            ends.push_async_callback(ProcessMetrics(self.metrics).close)
            ends.push_async_callback(end, in_background(self._keys.follow(), "key file"))
            yield


def _key_file(config: Config) -> KeyFile | None:
    if config.api_keys_file is None:
        return None
    return KeyFile(config.api_keys_file, partial(read_client_keys, config, os.environ))


def _post(handle: Next) -> Next:
    async def call(request: web.Request) -> web.StreamResponse:
        if request.method != "POST":
            raise web.HTTPMethodNotAllowed(request.method, ["POST"])
        return await handle(request)

    return call


GATEWAY: web.AppKey[Gateway] = web.AppKey("gateway", Gateway)


def build(
    config: Config,
    backends: Sequence[Backend] | Opened | None = None,
    secrets: Secrets | None = None,
    protocols: Sequence[Protocol] | None = None,
    previous: Gateway | None = None,
    spending: Spending | None = None,
    worker: int = 0,
) -> web.Application:
    """`backends` and `protocols` default to those of the configuration and of the registry. With `previous`, the
    gateway of an older configuration, backends that have not changed go on running. `spending` is that of several
    workers, `worker` the number of this one."""
    secrets = secrets or Secrets()
    if backends is None:
        backends = open_all(config, secrets, previous)
    opened = backends
    if not isinstance(opened, Opened):
        opened = Opened(as_groups(config, opened), open_tracing(os.environ))
    chosen = PROTOCOLS if protocols is None else protocols
    gateway = Gateway(config, opened, secrets, chosen, previous, spending, worker)
    middlewares = [gateway.middleware.before_all]
    app = web.Application(middlewares=middlewares, client_max_size=config.limits.body_bytes)
    app[GATEWAY] = gateway
    gateway.add_routes(app.router)
    app.on_response_prepare.append(gateway.middleware.before_head)
    app.cleanup_ctx.append(gateway.life)
    return app


def open_store(config: Config, secrets: Secrets, previous: LazyStore | None) -> LazyStore | None:
    """The previous one where it is the same. Unless the configuration says otherwise, answers are kept in the state
    directory by a gateway that only this machine can reach. Raises `ConfigError`."""
    given = config.store
    default = f"sqlite:{state_directory(config.state_dir) / 'answers.db'}" if config.loopback else "off"
    url = given.url or default
    if url == "off":
        return None
    if url.startswith("postgresql:") and importlib.util.find_spec("asyncpg") is None:
        raise ConfigError("store.url: PostgreSQL needs the extra dragoman[postgres]")
    if given.sealed and not secrets.seal_keys:
        raise ConfigError("store.sealed: there is no key to seal with (seal_keys_file)")
    keys = secrets.seal_keys if given.sealed else ()
    most = config.limits.body_bytes
    made_of = (url, given, keys, most)
    if previous is not None and previous.made_of == made_of:
        return previous
    sealer = Sealer(keys, SEALED_STORE, max(MAX_OPENED, 2 * most)) if keys else None
    return LazyStore(url, age=given.age, size=given.bytes, most=most, sealer=sealer, made_of=made_of)


def open_all(config: Config, secrets: Secrets, previous: Gateway | None = None) -> Opened:
    """Every group of servers, the previous one's where it is made of the same. Raises `ConfigError`. Takes seconds
    where packages are imported, and needs no event loop."""
    made_of = {group.name: ingredients(config, secrets, group) for group in config.groups}
    old = {} if previous is None else previous.ingredients
    groups = [
        previous.gate.groups[group.name]
        if previous is not None and old.get(group.name) == made_of[group.name]
        else open_group(config, secrets, group)
        for group in config.groups
    ]
    store = open_store(config, secrets, None if previous is None else previous.store)
    return Opened(groups, open_tracing(os.environ), store, made_of)
