"""Several servers of one model as one backend, of any kinds.

A session (`Request.affinity`) stays with one server, whose prefix cache knows it: every request ranks the servers by a
hash of session and server, and takes the first that has not far more than its share of the load (consistent hashing
with bounded loads). Without a session it takes the one with the least to do. Servers that sleep, are down or whose
breaker is open are skipped; when all are, the ones that merely failed are tried all the same, because a refusal would
be certain.

Another server is tried only before the first event and only when the first did nothing with the request: it was not
reachable, had no room, slept. One that died without an answer may have been killed by the request, so that is tried
once more and not on every server in turn. It does not queue: admission comes before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dragoman.backends.base import Backend, Health, ModelInfo, Prepared, Sink, Traits, Unanswered
from dragoman.backends.pool.replica import PROBE_LIMIT, PoolSettings, Replica
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Request

log = logging.getLogger(__name__)

UNTOUCHED = frozenset({Kind.BACKEND_DOWN, Kind.BUSY, Kind.ASLEEP})
FEW = 4  # requests; a load up to this does not move a session to another server
LAGGARDS = 0.3  # seconds that a list is waited for once another one is there
RECENT = 1.1  # seconds in which a server's health is not asked for twice, longer than backends cache it


@dataclass(slots=True, kw_only=True)
class PreparedForPool(Prepared):
    """`made`: as single servers take it, by their names; one is enough where all are of one kind."""

    made: dict[str, Prepared]

    def limit(self, max_tokens: int) -> None:
        Prepared.limit(self, max_tokens)
        for each in self.made.values():
            each.limit(max_tokens)


class Pool:
    """`identities` (the servers' addresses) are hashed together with a session, so that it finds its server again
    whatever the servers are called. `changed` is called with a server's name and state (ready, asleep, down, open),
    `retried` with the name of one that could not serve a request which then went elsewhere."""

    def __init__(
        self,
        name: str,
        backends: Sequence[Backend],
        settings: PoolSettings | None = None,
        identities: Sequence[str] | None = None,
    ) -> None:
        self._name = name
        self._settings = settings or PoolSettings()
        named = zip(backends, identities or [each.name for each in backends], strict=True)
        self.replicas = [Replica(each, identity, self._settings, self._on_change) for each, identity in named]
        self.changed: Callable[[str, str], None] = lambda name, state: None
        self.retried: Callable[[str], None] = lambda name: None
        self._served: dict[str, list[ModelInfo]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        kinds = [each.traits.kind for each in backends]
        self._uneven = any(kind != kinds[0] for kind in kinds)
        self.learned: Callable[[str], None] = lambda field: None

    @property
    def name(self) -> str:
        return self._name

    @property
    def traits(self) -> Traits:
        load = sum(replica.load for replica in self.replicas)
        return Traits(self, wakes=any(each.backend.traits.wakes for each in self.replicas), load=load)

    def _on_change(self, replica: Replica) -> None:
        self.changed(replica.name, replica.state)

    # ------------------------------------------------------------------------------------------------- start and close

    async def start(self) -> None:
        """Returns when the first server has started; raises when none can be. The others start in the background."""
        starts = {asyncio.create_task(self._start(each), name=f"start {each.name}"): each for each in self.replicas}
        self._tasks |= set(starts)
        waiting: set[asyncio.Task[None]] = set(starts)
        while waiting and not any(replica.started for replica in self.replicas):
            _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if not any(replica.started for replica in self.replicas):
            raise next(error for task in starts if (error := task.exception()) is not None)
        self._tasks.add(asyncio.create_task(self._keep_probing(), name=f"probes of {self._name}"))

    async def _start(self, replica: Replica) -> None:
        try:
            await replica.start()
        except Exception as error:
            log.error("%s: cannot be started: %s", replica.name, error)
            raise
        self._on_change(replica)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for task in self._tasks:
            if not task.cancelled():
                task.exception()  # logged already; retrieved, so that asyncio does not report it as lost
        await asyncio.gather(*(replica.close() for replica in self.replicas))

    async def _keep_probing(self) -> None:
        while True:
            for replica in self.replicas:
                if replica.started:
                    replica.probe()
            await asyncio.sleep(self._settings.probe)

    # ------------------------------------------------------------------------------------------------------ the choice

    def _order(self, request: Request, tried: Sequence[Replica] = ()) -> list[Replica]:
        """The servers that may be asked, the one to ask first."""
        now = time.monotonic()
        left = [each for each in self.replicas if each not in tried and each.started]
        left = self._serving(request.model, left)
        able = [each for each in left if each.available(now)]
        # without any, those that are not known to sleep: the longest rested first
        able = able or [each for each in left if each.state != "asleep"]
        free = [each for each in able if not each.busy(now)] or able
        if request.affinity is None:
            return sorted(free, key=lambda each: (each.load, rank(request.id, each.identity)))
        ranked = sorted(free, key=lambda each: rank(request.affinity or "", each.identity))
        share = self._settings.spread * (sum(each.load for each in free) + 1) / max(len(free), 1)
        roomy = [each for each in ranked if each.load + 1 <= max(share, FEW)]
        return roomy + [each for each in ranked if each not in roomy]

    def _serving(self, model: str, replicas: list[Replica]) -> list[Replica]:
        """Those that list the model, where some do: servers of one pool are meant to be alike, but not all are."""
        if not any(info.id == model for models in self._served.values() for info in models):
            return replicas
        named = [
            each
            for each in replicas
            if each.name not in self._served or any(info.id == model for info in self._served[each.name])
        ]
        return named or replicas

    async def prepare(self, request: Request) -> PreparedForPool:
        """By the server that will probably be asked; raises when no server of the pool can serve it."""
        refused: GatewayError | None = None
        for replica in self._order(request) or self.replicas:
            try:
                made = await replica.backend.prepare(request)
            except GatewayError as error:
                refused = refused or error
                if not self._uneven:
                    break
            else:
                return PreparedForPool(request, made.notes, made.tokens, made={replica.name: made})
        assert refused is not None
        raise refused

    async def _prepared(self, replica: Replica, prepared: Prepared) -> Prepared:
        """As this server takes it: what was made for one of its kind, or made now."""
        assert isinstance(prepared, PreparedForPool)
        if not self._uneven:
            return next(iter(prepared.made.values()))
        made = prepared.made.get(replica.name)
        if made is None:
            made = prepared.made[replica.name] = await replica.backend.prepare(prepared.request)
        return made

    async def stream(self, prepared: Prepared, sink: Sink) -> None:
        request = prepared.request
        tried: list[Replica] = []
        last: GatewayError | None = None
        deaths = 0
        while len(tried) <= self._settings.retries and (order := self._order(request, tried)):
            replica = order[0]
            tried.append(replica)
            if last is not None:
                self.retried(tried[-2].name)
                log.warning("%s: tried on %s in place of %s", request.id, replica.name, tried[-2].name)
            try:
                await replica.stream(await self._prepared(replica, prepared), sink)
                return
            except GatewayError as error:
                deaths += isinstance(error, Unanswered)
                if sink.touched or not self._elsewhere(error, deaths):
                    raise
                last = error
        raise last or GatewayError(
            Kind.BACKEND_DOWN, "No model server can be reached.", retry_after=self._settings.probe, source="backend"
        )

    def _elsewhere(self, error: GatewayError, deaths: int) -> bool:
        if isinstance(error, Unanswered):
            return deaths == 1
        unable = self._uneven and error.kind is Kind.UNSUPPORTED
        return unable or (error.kind in UNTOUCHED and error.source == "backend")

    # ------------------------------------------------------------------------------------------------- what it reports

    async def health(self) -> Health:
        """Ready as soon as one server says so; the others answer later."""
        if self._ready(self._settings.probe):
            return Health("ready")
        waiting = {each.probe() for each in self.replicas if each.started and not each.known_for(RECENT)}
        while waiting and not self._ready(PROBE_LIMIT):
            _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if self._ready(PROBE_LIMIT):
            return Health("ready")
        known = [replica.health for replica in self.replicas if replica.health is not None]
        if any(replica.state == "open" for replica in self.replicas):
            return Health("down", "its answers fail", self._settings.breaker.rest)
        if asleep := [each for each in known if each.state == "asleep"]:
            return asleep[0]
        return known[0] if known else Health("asleep", "it is starting")

    def _ready(self, seconds: float) -> bool:
        """Whether some server said so, not longer than this ago."""
        return any(each.state == "ready" and each.known_for(seconds) for each in self.replicas)

    async def models(self) -> list[ModelInfo]:
        """Every model that some server lists; its window is the narrowest, since any of them may be asked."""
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
        for infos in lists:
            for info in infos or ():
                known = found.setdefault(info.id, info)
                windows = [each.window for each in (known, info) if each.window is not None]
                found[info.id] = ModelInfo(info.id, known.created, known.owned_by, min(windows, default=None))
        if not any(infos is not None for infos in lists):
            message = "No model server can be reached."
            raise GatewayError(Kind.BACKEND_DOWN, message, retry_after=1.0, source="backend")
        return list(found.values())

    async def _list(self, replica: Replica) -> list[ModelInfo] | None:
        try:
            infos = await asyncio.wait_for(replica.backend.models(), 3.0)
        except (GatewayError, TimeoutError):
            return self._served.get(replica.name)
        except Exception as error:  # a bug costs this list, not those of the others
            log.error("%s: its models cannot be listed", replica.name, exc_info=error)
            return self._served.get(replica.name)
        self._served[replica.name] = infos
        return infos

    async def count(self, prepared: Prepared) -> int | None:
        last: GatewayError | None = None
        for replica in self._order(prepared.request):
            try:
                return await replica.backend.count(await self._prepared(replica, prepared))
            except GatewayError as error:
                if error.kind not in UNTOUCHED:
                    raise
                last = error
        if last is not None:
            raise last
        return None

    async def wake(self) -> None:
        """Wakes one server that sleeps, the first that lets itself be woken; the others are left to their sleep."""
        failed: Exception | None = None
        for replica in self.replicas:
            if replica.state == "asleep" and replica.backend.traits.wakes:
                try:
                    await replica.backend.wake()
                except Exception as error:
                    failed = failed or error
                    bug = None if isinstance(error, GatewayError) else error
                    log.warning("%s: cannot be woken", replica.name, exc_info=bug)
                    continue
                with contextlib.suppress(GatewayError):
                    await replica.probe()
                return
        if failed is not None:
            raise failed


def rank(session: str, server: str) -> bytes:
    """Where a server stands for a session: the same on every gateway, and only 1/n moves when a server goes."""
    return hashlib.blake2b(f"{len(session)}:{session}{server}".encode("utf-8", "replace"), digest_size=8).digest()
