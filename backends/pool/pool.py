"""Every group of servers of one model, also a group of one, as one backend; the servers may be of any kinds.

A session (`Request.affinity`) stays with one server, whose prefix cache knows it: every request ranks the servers by a
hash of session and server, and takes the first that has not far more than its share of the load (consistent hashing
with bounded loads). Without a session it takes the one with the least to do. Servers that are not ready, or where the
model sleeps, are skipped; when all are, those that do not sleep are tried all the same, because a refusal would be
certain.

Another server is tried only before the first event and only when the first did nothing with the request: it was not
reachable, had no room, slept. One that died without an answer may have been killed by the request, so that is tried
once more and not on every server in turn. It does not queue: admission comes before it. What is known of each server,
its replica keeps.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any

from dragoman.backends.background import end, in_background
from dragoman.backends.base import (
    Backend,
    Forwarded,
    Forwarder,
    Health,
    ModelInfo,
    Piece,
    Prepared,
    Receiver,
    Sink,
    Traits,
    Unanswered,
)
from dragoman.backends.pool.discovery import Discovery, Source
from dragoman.backends.pool.replica import FRESH, RETRY_AFTER, PoolSettings, Replica, ReplicaState
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Request

log = logging.getLogger(__name__)

UNTOUCHED = frozenset({Kind.BACKEND_DOWN, Kind.BUSY, Kind.ASLEEP})
FEW = 4  # requests; a load up to this does not move a session to another server
# Times in seconds.
LAGGARDS = 0.3  # that a list is waited for once another one is there
PATIENCE = 0.05  # that a request waits for a probe; after that, what is known counts, however old it is
FIRST_PATIENCE = 2.0  # where nothing is known


@dataclass(slots=True, kw_only=True)
class PreparedForPool(Prepared):
    """For servers of several kinds. `made`: as single ones take it, by their names."""

    made: dict[str, Prepared]

    def limit(self, max_tokens: int) -> None:
        Prepared.limit(self, max_tokens)
        for each in self.made.values():
            each.limit(max_tokens)

    def let_go(self) -> None:
        Prepared.let_go(self)
        for each in self.made.values():
            each.let_go()


class Pool:
    """`identities` (the servers' addresses) are hashed together with a session, so that it finds its server again
    whatever the servers are called. `sources` are names whose addresses are servers too. `changed` is called with a
    server whose state has changed, `joined` and `gone` with one that DNS has added or removed, `retried` with the name
    of one that could not serve a request which then went elsewhere."""

    def __init__(
        self,
        name: str,
        backends: Sequence[Backend],
        settings: PoolSettings | None = None,
        identities: Sequence[str] | None = None,
        sources: Sequence[Source] = (),
    ) -> None:
        self._name = name
        self._settings = settings or PoolSettings()
        self.changed: Callable[[Replica], None] = lambda replica: None
        self.joined: Callable[[Replica], None] = lambda replica: None
        self.gone: Callable[[Replica], None] = lambda replica: None
        self.retried: Callable[[str], None] = lambda name: None
        named = zip(backends, identities or [each.name for each in backends], strict=True)
        self.replicas = [self._replica(each, identity) for each, identity in named]
        self._discoveries = [
            Discovery(each, self._settings, self._replica, self._on_joined, self._on_gone) for each in sources
        ]
        self._templates = [each.template for each in sources]
        self._watched = len(self.replicas) > 1 or bool(sources)
        # The sleep gate of a single server has to be fresh; of several, another one is tried where one sleeps.
        self._fresh = self._settings.probe if self._watched else FRESH
        self._served: dict[str, dict[str, ModelInfo]] = {}  # the models of each server, as last listed
        self._probes: dict[Replica, asyncio.Task[None]] = {}
        kinds = [each.traits.kind for each in (*backends, *self._templates)]
        self._uneven = any(kind != kinds[0] for kind in kinds)
        self.learned: Callable[[str], None] = lambda field: None

    @property
    def name(self) -> str:
        return self._name

    @property
    def traits(self) -> Traits:
        load = sum(replica.load for replica in self.replicas)
        each = [backend.traits for backend in (*(replica.backend for replica in self.replicas), *self._templates)]
        limits = next((traits.unstoppable for traits in each if traits.unstoppable), "")
        markup = {model: family for traits in each for model, family in traits.markup.items()}
        return Traits(self, any(traits.wakes for traits in each), limits, load, markup)

    @property
    def state(self) -> ReplicaState:
        """That of its best server, as last known."""
        if self.replicas:
            return min((each.state for each in self.replicas), key=attrgetter("rank"))
        return ReplicaState.STARTING if self._reading() else ReplicaState.DOWN

    @property
    def discovers(self) -> bool:
        """Whether its servers change by themselves."""
        return bool(self._discoveries)

    def _replica(self, backend: Backend, identity: str) -> Replica:
        return Replica(backend, identity, self._settings, self._on_change)

    def _on_change(self, replica: Replica) -> None:
        if replica in self.replicas:  # else it only finishes what runs there
            self.changed(replica)

    def _on_joined(self, replica: Replica) -> None:
        self.replicas.append(replica)
        self._keep(replica)
        self.joined(replica)
        self.changed(replica)

    def _on_gone(self, replica: Replica) -> None:
        self.replicas.remove(replica)
        self._served.pop(replica.name, None)
        if (probing := self._probes.pop(replica, None)) is not None:
            probing.cancel()
        self.gone(replica)

    def _keep(self, replica: Replica) -> None:
        self._probes[replica] = in_background(self._keep_probing(replica), f"probes of {replica.name}")

    # ------------------------------------------------------------------------------------------------- start and close

    async def start(self) -> None:
        """Returns when the first server has started; raises when none can be. The others start in the background."""
        self.begin()
        if not await self.started() and (error := self.start_error) is not None:
            raise error

    def begin(self) -> None:
        """Begins the starts without waiting. A server that is the only one is not probed before somebody asks."""
        for each in self.replicas:
            each.start()
            if self._watched:
                self._keep(each)
        for discovery in self._discoveries:
            discovery.begin()

    async def started(self, limit: float | None = None) -> bool:
        """Whether some server has; waits for that, for so many seconds, while there is hope."""
        until = None if limit is None else time.monotonic() + limit
        while not any(each.started for each in self.replicas) and (starts := self._starts()):
            left = None if until is None else max(until - time.monotonic(), 0.0)
            ended, _ = await asyncio.wait(starts, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if not ended:
                break
        return any(each.started for each in self.replicas)

    def _starts(self) -> list[asyncio.Task[None]]:
        return [start for each in self.replicas if (start := each.starting) is not None] + self._reading()

    def _reading(self) -> list[asyncio.Task[None]]:
        """The names whose addresses are not known yet."""
        return [each.reading for each in self._discoveries if each.reading is not None and not each.reading.done()]

    @property
    def starting(self) -> bool:
        return self.state is ReplicaState.STARTING

    @property
    def start_error(self) -> Exception | None:
        """Why it can never serve: no server could be started."""
        return self.replicas[0].start_error if self.state is ReplicaState.UNSTARTED else None

    async def close(self) -> None:
        """Closes every server; raises what went wrong with them, after all are closed."""
        await end(*self._probes.values())
        closed = [*(each.close() for each in self._discoveries), *(each.close() for each in self.replicas)]
        ends = await asyncio.gather(*closed, return_exceptions=True)
        failures = [error for error in ends if isinstance(error, Exception)]
        if len(failures) == 1:
            raise failures[0]
        if failures:
            raise ExceptionGroup(f"{self._name}: servers could not be closed", failures)

    async def _keep_probing(self, replica: Replica) -> None:
        if (start := replica.starting) is not None:
            await asyncio.wait((start,))
        while replica.started:
            replica.probe()
            await asyncio.sleep(self._settings.probe)

    # ------------------------------------------------------------------------------------------------------ the choice

    def _order(self, request: Request, tried: Sequence[Replica] = ()) -> list[Replica]:
        """The servers that may be asked, the one to ask first."""
        model = request.model
        left = [each for each in self._serving(model) if each not in tried and each.started]
        able = [each for each in left if each.available(model)]
        able = able or [each for each in left if not each.sleeps(model)]
        free = [each for each in able if not each.busy()] or able
        if len(free) < 2:
            return free
        if request.affinity is None:
            return sorted(free, key=lambda each: (each.load, rank(request.id, each.identity)))
        ranked = sorted(free, key=lambda each: rank(request.affinity or "", each.identity))
        share = self._settings.spread * (sum(each.load for each in free) + 1) / max(len(free), 1)
        roomy = [each for each in ranked if each.load + 1 <= max(share, FEW)]
        return roomy + [each for each in ranked if each not in roomy]

    def _serving(self, model: str | None) -> list[Replica]:
        """Those that list the model, where some do: servers of one pool are meant to be alike, but not all are."""
        if len(self.replicas) < 2:
            return self.replicas
        lists = [self._served.get(each.name) for each in self.replicas]
        if not any(listed is not None and model in listed for listed in lists):
            return self.replicas
        pairs = zip(self.replicas, lists, strict=True)
        return [each for each, listed in pairs if listed is None or model in listed]

    def _spare(self, prepared: Prepared, tried: Sequence[Replica], unable: Sequence[Replica]) -> bool:
        """Whether a server that was not tried yet could take the request."""
        model = prepared.request.model
        more = (each for each in self._serving(model) if each not in tried and each not in unable)
        return len(tried) <= self._settings.retries and any(each.available(model) for each in more)

    async def prepare(self, request: Request) -> Prepared:
        """By the server that will probably be asked; raises when no server of the group can serve it."""
        refused: GatewayError | None = None
        backends = [each.backend for each in self._order(request) or self.replicas] or self._templates
        for backend in backends:
            try:
                made = await backend.prepare(request)
            except GatewayError as error:
                refused = refused or error
                if not self._uneven:
                    break
            else:
                if not self._uneven:
                    return made
                return PreparedForPool(request, made.notes, made.tokens, made.whole, made={backend.name: made})
        assert refused is not None
        raise refused

    async def _prepared(self, replica: Replica, prepared: Prepared) -> Prepared:
        """As this server takes it: where all are of one kind, what any of them has made; else what was made for it."""
        if not isinstance(prepared, PreparedForPool):
            return prepared
        made = prepared.made.get(replica.name)
        if made is None:
            made = prepared.made[replica.name] = await replica.backend.prepare(prepared.request)
        return made

    def stream(self, prepared: Prepared, sink: Sink) -> Coroutine[Any, Any, None]:
        return self._tried(Replica.stream, prepared, sink)

    @property
    def forwards(self) -> bool:
        """Whether some server has endpoints besides that of model calls."""
        backends = [*(each.backend for each in self.replicas), *self._templates]
        return any(isinstance(each, Forwarder) for each in backends)

    def forward(self, asked: Forwarded, sink: Receiver[Piece]) -> Coroutine[Any, Any, None]:
        return self._tried(Replica.forward, asked, sink, [each for each in self.replicas if not each.forwards])

    async def _tried(
        self,
        ask: Callable[..., Awaitable[None]],
        prepared: Prepared,
        sink: Receiver[Any],
        unable: Sequence[Replica] = (),
    ) -> None:
        """Asks one server after another, by `Replica.stream` or `Replica.forward`, until one answers; never one that is
        `unable`."""
        tried: list[Replica] = []
        last: GatewayError | None = None
        deaths, most = 0, self._settings.retries
        while len(tried) <= most and (order := self._order(prepared.request, [*tried, *unable])):
            replica = order[0]
            tried.append(replica)
            if last is not None:
                self.retried(tried[-2].name)
                log.warning("%s: tried on %s in place of %s", prepared.request.id, replica.name, tried[-2].name)
            try:
                made = await self._prepared(replica, prepared)
                await ask(replica, made, sink, partial(self._spare, prepared, tried, unable))
                return
            except GatewayError as error:
                deaths += isinstance(error, Unanswered)
                if sink.touched or not self._elsewhere(error, deaths):
                    raise
                if error.kind is Kind.UNSUPPORTED:  # which says nothing of the servers that could take it
                    most += 1
                    last = last or error
                else:
                    last = error
        raise last or self._unserved(prepared.request.model)

    def _unserved(self, model: str) -> GatewayError:
        """Why no server was asked."""
        health = self._health_for(model)
        if health.state == "asleep":
            return asleep(health)
        message, retry_after = "No model server can be reached.", self._settings.probe
        return GatewayError(Kind.BACKEND_DOWN, message, retry_after=retry_after, source="backend")

    def _elsewhere(self, error: GatewayError, deaths: int) -> bool:
        if isinstance(error, Unanswered):
            return deaths == 1
        unable = self._uneven and error.kind is Kind.UNSUPPORTED
        return unable or (error.kind in UNTOUCHED and error.source == "backend")

    # ------------------------------------------------------------------------------------------------- what it reports

    async def health(self, model: str | None = None) -> Health:
        """What its best server is for calls of that model, or of any. A server that was ready lately is believed: of
        one, for half a second, of several, between two probes. Otherwise they are asked again, and where none answers
        soon, what was known last counts."""
        if not self._lately_ready():
            await self._ask_again()
        return self._health_for(model)

    def _lately_ready(self) -> bool:
        return any(each.state.ready and each.known_for(self._fresh) for each in self.replicas)

    async def _ask_again(self) -> None:
        """Until one is ready: the others answer later."""
        patience = FIRST_PATIENCE if all(each.health is None for each in self.replicas) else PATIENCE
        until = time.monotonic() + patience
        waiting = {each.probe() for each in self.replicas if each.started and not each.known_for(FRESH)}
        while waiting and not self._lately_ready():
            left = max(until - time.monotonic(), 0.0)
            ended, waiting = await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if not ended:
                break

    def _health_for(self, model: str | None) -> Health:
        """That of its best server."""
        best = min(self._serving(model), key=lambda each: each.state_for(model).rank, default=None)
        return Health("down", "its name has no address") if best is None else best.health_for(model)

    async def models(self) -> list[ModelInfo]:
        """Every model that some server lists; its window is the narrowest, since any of them may be asked. Whoever asks
        limits the wait."""
        asked = [asyncio.create_task(self._list(each), name=each.name) for each in self.replicas if each.started]
        try:
            waiting = set(asked)
            while waiting and not any(task.done() and task.result() is not None for task in asked):
                _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if waiting:
                await asyncio.wait(waiting, timeout=LAGGARDS)
        finally:
            for task in asked:
                task.cancel()
        lists = [task.result() if task.done() else self._served.get(task.get_name()) for task in asked]
        found: dict[str, ModelInfo] = {}
        for listed in lists:
            for info in (listed or {}).values():
                known = found.setdefault(info.id, info)
                windows = [each.window for each in (known, info) if each.window is not None]
                found[info.id] = ModelInfo(info.id, known.created, known.owned_by, min(windows, default=None))
        if not any(listed is not None for listed in lists):
            message = "No model server can be reached."
            raise GatewayError(Kind.BACKEND_DOWN, message, retry_after=1.0, source="backend")
        return list(found.values())

    async def _list(self, replica: Replica) -> dict[str, ModelInfo] | None:
        try:
            infos = await replica.backend.models()
        except GatewayError:
            return self._served.get(replica.name)
        except Exception as error:  # a bug costs this list, not those of the others
            log.error("%s: its models cannot be listed", replica.name, exc_info=error)
            return self._served.get(replica.name)
        self._served[replica.name] = {info.id: info for info in infos}
        return self._served[replica.name]

    async def count(self, prepared: Prepared) -> int | None:
        last: GatewayError | None = None
        for replica in self._order(prepared.request):
            try:
                return await replica.count(await self._prepared(replica, prepared))
            except GatewayError as error:
                if error.kind not in UNTOUCHED:
                    raise
                last = error
        if last is not None:
            raise last
        return None

    async def wake(self, model: str | None = None) -> None:
        """Wakes one server where the model sleeps, once for all who wait, and returns when it is awake: the first that
        lets itself be woken; the others are left to their sleep. Raises ASLEEP when none is awake in time."""
        until = time.monotonic() + self._settings.wake
        for each in self._serving(model):
            if each.sleeps(model) and each.backend.traits.wakes:
                if (waking := each.wake()) is not None:
                    await asyncio.wait((waking,), timeout=max(until - time.monotonic(), 0.0))
                if not each.sleeps(model):
                    return
        raise asleep(self._health_for(model))


def asleep(health: Health) -> GatewayError:
    """What a call is told that may not wait."""
    message = "The model is asleep or still loading; try again later."
    return GatewayError(Kind.ASLEEP, message, retry_after=health.retry_after or RETRY_AFTER, source="backend")


def rank(session: str, server: str) -> bytes:
    """Where a server stands for a session: the same on every gateway, and only 1/n moves when a server goes."""
    return hashlib.blake2b(f"{len(session)}:{session}{server}".encode("utf-8", "replace"), digest_size=8).digest()
