"""One server of a group: what is known about it, and one request on it.

A probe tells how it is when somebody asks, and all who ask share it. Requests say more (outlier detection): failures in
a row open its breaker; first events that do not come at all mean that it hangs; after a refusal for lack of room other
servers are preferred for a moment; a certain refusal because a model sleeps keeps calls for that model away for a
while. An error that is not certain (a server's text may quote a client) is only a reason to probe. All of this is one
state, decided in `_decide` after each change. Choosing a server is the pool's work.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from operator import attrgetter
from typing import Any, TypeVar

from dragoman.backends.background import end, in_background
from dragoman.backends.base import Backend, Forwarded, Forwarder, Health, Piece, Prepared, Receiver, Sink
from dragoman.backends.pool.attempt import Attempt, Lost
from dragoman.backends.pool.breaker import Breaker, BreakerRules, BreakerState
from dragoman.translators.errors import GatewayError, Kind

log = logging.getLogger(__name__)

T = TypeVar("T")

# Times in seconds.
FRESH = 0.5  # a server is not probed again before its last answer is older than this
PROBE_LIMIT = 5.0
RETRY_AFTER = 5.0  # where the server names no time
LONGEST_WAIT = 10.0  # a server's own time to come back is believed up to this
WAKE_POLL = 0.2
LISTEN_EVERY = 1.0
SHARE = 8  # of a short `slow`, for the same
MOST_MODELS = 1000  # clients choose their names
BLAMED = frozenset({Kind.BACKEND_DOWN, Kind.BACKEND_FAILED, Kind.TIMEOUT})


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """Times in seconds. `spread`: how many times its fair share of the load a server takes before a session goes
    elsewhere; `down_after`: probes in a row that must fail; `slow`: a first event later than this is a failure;
    `wake`: how long a server may take to wake; `resolve`: how often names are resolved again; `addresses`: those of
    one name that are replicas at most."""

    probe: float = 5.0
    down_after: int = 2
    slow: float = 120.0
    retries: int = 2
    spread: float = 1.25
    wake: float = 300.0
    resolve: float = 15.0
    addresses: int = 64
    breaker: BreakerRules = field(default_factory=BreakerRules)


class ReplicaState(Enum):
    """The best first, since a group is what its best server is. Beside each its word on `/readyz` and its label in the
    metric. On `TRIAL` the rest of the breaker is over: the next request, or one that runs, decides. Requests go to
    servers whose state is `READY`, `TRIAL` or `UNKNOWN`, which is one that has started and was never probed."""

    READY = ("READY", "ready", "ready")
    TRIAL = ("TRIAL", "ready", "open")
    HANGS = ("HANGS", "hangs", "open")
    FAILS = ("FAILS", "fails", "open")
    UNKNOWN = ("UNKNOWN", "down", "unknown")
    ASLEEP = ("ASLEEP", "asleep", "asleep")
    DOWN = ("DOWN", "down", "down")
    STARTING = ("STARTING", "asleep", "asleep")
    UNSTARTED = ("UNSTARTED", "down", "down")

    def __init__(self, _name: str, word: str, label: str) -> None:
        self.word = word
        self.label = label
        self.ready = word == "ready"
        self.rank = len(self.__class__.__members__)  # the best has 0


class Replica:
    """`changed` is called after each change of `state`."""

    def __init__(
        self, backend: Backend, identity: str, settings: PoolSettings, changed: Callable[[Replica], None]
    ) -> None:
        self.backend = backend
        self.name = backend.name
        self.identity = identity
        self.state = ReplicaState.STARTING
        self.start_error: Exception | None = None
        self.health: Health | None = None
        self._settings = settings
        self._breaker = Breaker(settings.breaker)
        self._changed = changed
        self._starting: asyncio.Task[None] | None = None
        self._started = False
        self._probing: asyncio.Task[None] | None = None
        self._probed_at = -math.inf
        self._misses = 0  # probes in a row that found it down
        self._waking: asyncio.Task[None] | None = None
        self._wake_again_at = -math.inf
        self._asleep: dict[str, tuple[float, Health]] = {}  # by model: until when, and what the refusal said
        self._busy_until = -math.inf
        self._running = set[Attempt[Any]]()
        self._idle = asyncio.Event()  # set while nothing runs
        self._idle.set()
        self._silent = set[Attempt[Any]]()  # have waited too long, and no request has had an event meanwhile
        self._heard_at = -math.inf
        self._listening: asyncio.TimerHandle | None = None  # until when no request need listen anew
        self._listens_again = False
        self._rest: asyncio.TimerHandle | None = None

    @property
    def pending(self) -> int:
        return len(self._running)

    @property
    def load(self) -> float:
        """Our requests, or everybody's where the server reports them."""
        reported = self.backend.traits.load
        return float(self.pending) if reported is None else max(reported, float(self.pending))

    # ------------------------------------------------------------------------------------------------------- its state

    def _decide(self) -> None:
        """After each change of what is known, and when a rest ends: the one place where the state changes."""
        now = time.monotonic()
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        state = self._seen(now)
        if state is ReplicaState.FAILS:
            self._rest = asyncio.get_running_loop().call_later(self._breaker.until - now, self._decide)
        if state is self.state:
            return
        self.state = state
        if state is not ReplicaState.UNKNOWN:
            fields = {"backend": self.name, "state": state.name.lower(), **self._why(state)}
            log.info("backend", extra={"fields": fields})
        self._changed(self)

    def _why(self, state: ReplicaState) -> dict[str, object]:
        """What the health says of a server that is not ready, for the log."""
        health = self.health
        if state not in (ReplicaState.ASLEEP, ReplicaState.DOWN) or health is None or health.quoted:
            return {}
        return {"detail": health.detail} if health.detail else {}

    def _seen(self, now: float) -> ReplicaState:
        if not self._started:
            return ReplicaState.STARTING if self.start_error is None else ReplicaState.UNSTARTED
        if self.health is not None and self.health.state != "ready":
            return ReplicaState.ASLEEP if self.health.state == "asleep" else ReplicaState.DOWN
        if self._silent:
            return ReplicaState.HANGS
        if self._breaker.state is not BreakerState.CLOSED:
            resting = self._breaker.state is BreakerState.OPEN and now < self._breaker.until
            return ReplicaState.FAILS if resting else ReplicaState.TRIAL
        return ReplicaState.UNKNOWN if self.health is None else ReplicaState.READY

    def state_for(self, model: str | None) -> ReplicaState:
        """Its state for calls of a model that may sleep while others do not; None stands for any."""
        if model is None or (known := self._asleep.get(model)) is None or time.monotonic() >= known[0]:
            return self.state
        return max(self.state, ReplicaState.ASLEEP, key=attrgetter("rank"))

    def health_for(self, model: str | None) -> Health:
        """What a call that must wait is told."""
        match state := self.state_for(model):
            case ReplicaState.READY | ReplicaState.TRIAL:
                return Health("ready")
            case ReplicaState.HANGS:
                return Health("down", "its answers do not come")
            case ReplicaState.FAILS:
                return Health("down", "its answers fail", self._settings.breaker.rest)
            case ReplicaState.UNKNOWN:
                return Health("down", "it does not answer")
            case ReplicaState.ASLEEP if state is not self.state and model is not None:
                return self._asleep[model][1]
            case ReplicaState.ASLEEP | ReplicaState.DOWN:
                assert self.health is not None
                return self.health
            case ReplicaState.STARTING:
                return Health("asleep", "it is starting")
            case ReplicaState.UNSTARTED:
                return Health("down", "it could not be started")

    def available(self, model: str) -> bool:
        """Whether a request for the model should go there while it may choose."""
        now = time.monotonic()
        match self.state_for(model):
            case ReplicaState.READY | ReplicaState.UNKNOWN:
                return True
            case ReplicaState.TRIAL | ReplicaState.FAILS:
                return self._breaker.allows(now)
            case _:
                return False

    def sleeps(self, model: str | None) -> bool:
        return self.state_for(model) is ReplicaState.ASLEEP

    def busy(self) -> bool:
        return time.monotonic() < self._busy_until

    # ------------------------------------------------------------------------------------------------- start and close

    @property
    def started(self) -> bool:
        return self._started

    @property
    def starting(self) -> asyncio.Task[None] | None:
        """The start, while it runs."""
        return None if self._starting is None or self._starting.done() else self._starting

    def start(self) -> None:
        """Begins it without waiting: a model takes seconds to load."""
        self._starting = in_background(self._start(), f"start {self.name}")

    async def _start(self) -> None:
        try:
            await self.backend.start()
            self._started = True
        except Exception as error:
            expected = isinstance(error, GatewayError | RuntimeError | OSError)
            log.error("%s: cannot be started: %s", self.name, error, exc_info=None if expected else error)
            self.start_error = error
        self._decide()

    async def drained(self) -> None:
        """Returns when no request runs."""
        await self._idle.wait()

    async def close(self) -> None:
        await end(self._starting, self._probing, self._waking)
        for timer in (self._rest, self._listening):
            if timer is not None:
                timer.cancel()
        await self.backend.close()

    # ------------------------------------------------------------------------------------------------------ its health

    def known_for(self, seconds: float) -> bool:
        """Whether a probe has ended in the last so many seconds."""
        return time.monotonic() - self._probed_at < seconds

    def probe(self) -> asyncio.Task[None]:
        """The running probe, begun where there is none; it never raises, and waiting for it may be given up."""
        if self._probing is None:
            self._probing = in_background(self._ask(), f"probe {self.name}")
        return self._probing

    def _doubt(self) -> None:
        """Something contradicts what is known, which is old from now on."""
        self._probed_at = -math.inf
        self.probe()

    async def _ask(self) -> None:
        try:
            health = await asyncio.wait_for(self.backend.health(), PROBE_LIMIT)
        except TimeoutError:
            health = Health("down", "it does not answer")
        except GatewayError as error:
            health = Health.of(error)
        except Exception:
            log.exception("%s: the probe failed", self.name)
            health = Health("down", "the probe failed")
        finally:
            self._probing = None
        self._probed_at = time.monotonic()
        self._learn(health)

    def _learn(self, health: Health) -> None:
        """One miss may be chance; a server never seen ready gets no second."""
        before = "" if self.health is None else self.health.state
        if health.state == "down":
            self._misses += 1
            if before == "ready" and self._misses < self._settings.down_after:
                return
        else:
            self._misses = 0
            if before == "down" and health.state == "ready":
                self._breaker.success()  # it is back: its failures from before no longer count
            if before == "asleep" and health.state == "ready":
                self._asleep.clear()
        self.health = health
        self._decide()
        if health.state == "down":
            for attempt in list(self._running):
                attempt.abandon()

    def wake(self) -> asyncio.Task[None] | None:
        """The waking, begun where none runs; None where it has just failed. It never raises; whoever waits for it sees
        by the state whether it was of use."""
        if self._waking is None and time.monotonic() >= self._wake_again_at:
            self._waking = in_background(self._wake(), f"wake {self.name}")
        return self._waking

    async def _wake(self) -> None:
        log.info("waking", extra={"fields": {"backend": self.name}})
        failed = True
        try:
            async with asyncio.timeout(self._settings.wake):
                await self.backend.wake()
                while True:
                    await asyncio.wait((self.probe(),))
                    if self.health is not None and self.health.state == "ready":
                        break
                    await asyncio.sleep(WAKE_POLL)
            self._asleep.clear()
            failed = False
        except (GatewayError, TimeoutError) as error:
            log.warning("not woken", extra={"fields": {"backend": self.name, "reason": str(error)[:200]}})
        except Exception:
            log.exception("%s: cannot be woken", self.name)
        finally:
            self._waking = None
            if failed:
                self._wake_again_at = time.monotonic() + RETRY_AFTER

    # -------------------------------------------------------------------------------------------------- one request

    async def count(self, prepared: Prepared) -> int | None:
        try:
            return await self.backend.count(prepared)
        except GatewayError as error:
            if error.kind is Kind.ASLEEP:
                self._refused_asleep(error, prepared.request.model)
            raise

    def stream(self, prepared: Prepared, sink: Sink, spare: Callable[[], bool]) -> Awaitable[None]:
        """Raises what the backend raises, and `Lost`. What the end says about the server is remembered. `spare` says
        whether another server could take the request now. That an answer in one piece is late says nothing about the
        server."""
        work = partial(self.backend.stream, prepared)
        return self._attempted(work, prepared, sink, spare, may_be_late=prepared.whole)

    @property
    def forwards(self) -> bool:
        return isinstance(self.backend, Forwarder)

    def forward(self, asked: Forwarded, sink: Receiver[Piece], spare: Callable[[], bool]) -> Awaitable[None]:
        """As `stream`. The first bytes of an answer that is no stream come when all of it is made, so that their being
        late says nothing about the server."""
        backend = self.backend
        assert isinstance(backend, Forwarder)
        work = partial(backend.forward, asked)
        return self._attempted(work, asked, sink, spare, may_be_late=not asked.streaming)

    async def _attempted(
        self,
        work: Callable[[Attempt[T]], Awaitable[None]],
        prepared: Prepared,
        sink: Receiver[T],
        spare: Callable[[], bool],
        *,
        may_be_late: bool = False,
    ) -> None:
        trial = self._breaker.begin(time.monotonic())
        attempt = Attempt(sink, self._verdict, self._heard, spare, trial)
        self._running.add(attempt)
        self._idle.clear()
        if may_be_late:
            attempt.listen()
        else:
            self._listen(attempt)
        try:
            await work(attempt)
            if attempt.abandoned:
                raise Lost
            if not attempt.left:
                attempt.decide(True)
        except Lost:
            attempt.decide(False)
            raise
        except GatewayError as error:
            self._judge(error, attempt, prepared.request.model)
            raise
        finally:
            attempt.close()
            self._running.discard(attempt)
            if not self._running:
                self._idle.set()
            self._silent.discard(attempt)
            if trial and attempt.verdict is None:
                self._breaker.undecided()
            self._decide()

    def _listen(self, waiting: Attempt[Any]) -> None:
        """From now on, for `slow` seconds, this request waits for its first event, or for progress with its prompt, and
        any event of any request shows that the server works."""
        waiting.listen()
        waiting.wait(time.monotonic(), asyncio.get_running_loop().call_later(self._settings.slow, self._late, waiting))
        if self._listening is None:
            self._listen_to_all()
        else:
            self._listens_again = True

    def _listen_to_all(self) -> None:
        """At most once in `LISTEN_EVERY` seconds, and once after the last request that asked for it: with each request,
        hundreds that run would notice their next events."""
        for attempt in self._running:
            attempt.listen()
        self._listens_again = False
        if self._listening is not None:
            self._listening.cancel()
        every = min(LISTEN_EVERY, self._settings.slow / SHARE)
        self._listening = asyncio.get_running_loop().call_later(every, self._listened)

    def _listened(self) -> None:
        self._listening = None
        if self._listens_again:
            self._listen_to_all()

    def _late(self, attempt: Attempt[Any]) -> None:
        if attempt.touched:
            return
        if attempt.progressed:
            attempt.progressed = False
            self._listen(attempt)
            return
        attempt.decide(False)
        if self._heard_at < attempt.since:
            self._silent.add(attempt)
            self._decide()
            self._listen_to_all()  # the next event ends it
        self._listen(attempt)

    def _heard(self) -> None:
        self._heard_at = time.monotonic()
        if self._silent:
            self._silent.clear()
            self._decide()

    def _judge(self, error: GatewayError, attempt: Attempt[Any], model: str) -> None:
        if error.source != "backend" and error.kind not in BLAMED:
            return
        if error.kind is Kind.ASLEEP:
            self._refused_asleep(error, model)
            return
        if not error.certain:
            if error.kind in BLAMED:
                self._doubt()  # its health says whether the words were true
            return
        match error.kind:
            case Kind.BUSY | Kind.RATE_LIMITED:
                self._busy_until = time.monotonic() + min(error.retry_after or 1.0, LONGEST_WAIT)
            case kind if kind in BLAMED:
                attempt.decide(False, again=True)
            case _:
                attempt.decide(True)  # it refused the request, in good health

    def _refused_asleep(self, error: GatewayError, model: str) -> None:
        """One model of several may sleep: whether the whole server does, its health says."""
        now = time.monotonic()
        if error.certain and error.source == "backend":
            self._asleep = {name: each for name, each in self._asleep.items() if now < each[0]}
            if len(self._asleep) < MOST_MODELS:
                until = now + min(error.retry_after or RETRY_AFTER, LONGEST_WAIT)
                self._asleep[model] = (until, Health("asleep", error.message, error.retry_after))
        self._doubt()

    def _verdict(self, good: bool) -> None:
        if good:
            self._breaker.success()
        else:
            self._breaker.failure(time.monotonic())
        self._decide()
