"""One server of a pool: what is known about it, and one request on it.

Its health is probed when somebody asks for it, and all who ask share the probe. Requests say more (outlier detection):
failures in a row and first events that come too late open its breaker, and after a refusal for lack of room other
servers are preferred for a moment. A server that is found down loses the requests that have not had their first event,
so that they can be tried elsewhere. An error that is not certain (a server's text may quote a client) is only a reason
to probe. Choosing a server is the pool's work.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from dragoman.backends.base import Backend, Flow, Health, Prepared, Sink, nothing
from dragoman.backends.pool.breaker import Breaker, BreakerRules, BreakerState
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Event, Note

log = logging.getLogger(__name__)

PROBE_LIMIT = 5.0  # seconds
LONGEST_BUSY = 10.0
BLAMED = frozenset({Kind.BACKEND_DOWN, Kind.BACKEND_FAILED, Kind.TIMEOUT})


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """Times in seconds. `spread`: how many times its fair share of the load a server takes before a session goes
    elsewhere; `down_after`: probes in a row that must fail; `slow`: a first event later than this is a failure."""

    probe: float = 5.0
    down_after: int = 2
    slow: float = 120.0
    retries: int = 2
    spread: float = 1.25
    breaker: BreakerRules = field(default_factory=BreakerRules)


class Lost(GatewayError):
    """The probe found the server down while a request waited for its first event."""

    def __init__(self) -> None:
        super().__init__(Kind.BACKEND_DOWN, "The model server stopped answering.", retry_after=1.0, source="backend")


class Replica:
    def __init__(
        self, backend: Backend, identity: str, settings: PoolSettings, changed: Callable[[Replica], None]
    ) -> None:
        self.backend = backend
        self.identity = identity
        self.pending = 0
        self.health: Health | None = None
        self.started = False
        self._settings = settings
        self._breaker = Breaker(settings.breaker)
        self._changed = changed
        self._busy_until = 0.0
        self._probed_at = -math.inf
        self._misses = 0  # probes in a row that found it down
        self._probe: asyncio.Task[None] | None = None
        self._waiting: set[_Attempt] = set()

    @property
    def name(self) -> str:
        return self.backend.name

    @property
    def state(self) -> str:
        """ready, asleep, down, or open while its breaker is; a server never probed counts as ready."""
        if not self.started:
            return "asleep"
        if self.health is not None and self.health.state != "ready":
            return self.health.state
        return "ready" if self._breaker.state is BreakerState.CLOSED else "open"

    def available(self, now: float) -> bool:
        if not self.started or (self.health is not None and self.health.state != "ready"):
            return False
        return self._breaker.allows(now)

    def known_for(self, seconds: float) -> bool:
        """Whether a probe has ended in the last so many seconds."""
        return time.monotonic() - self._probed_at <= seconds

    def busy(self, now: float) -> bool:
        return now < self._busy_until

    @property
    def load(self) -> float:
        """Our requests, or everybody's where the server reports them."""
        reported = self.backend.traits.load
        return float(self.pending) if reported is None else max(reported, float(self.pending))

    # ----------------------------------------------------------------------------------------------------- its health

    async def start(self) -> None:
        await self.backend.start()
        self.started = True

    async def close(self) -> None:
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.wait((self._probe,))
        await self.backend.close()

    def probe(self) -> asyncio.Task[None]:
        """The running probe, started where there is none; it never raises, and waiting for it may be given up."""
        if self._probe is None:
            self._probe = asyncio.create_task(self._ask(), name=f"probe {self.name}")
        return self._probe

    async def _ask(self) -> None:
        try:
            health = await asyncio.wait_for(self.backend.health(), PROBE_LIMIT) if self.started else Health("asleep")
        except TimeoutError:
            health = Health("down", "it does not answer")
        except GatewayError as error:
            health = Health("asleep" if error.kind is Kind.ASLEEP else "down", error.message, error.retry_after)
        except Exception:
            log.exception("%s: the probe failed", self.name)
            health = Health("down", "the probe failed")
        finally:
            self._probe = None
        self._probed_at = time.monotonic()
        self.learn(health)

    def learn(self, health: Health) -> None:
        """What a probe or an answer says. One miss may be chance; a server never seen ready gets no second."""
        before = self.state
        if health.state == "down":
            self._misses += 1
            if self._misses < self._settings.down_after and self.health is not None and self.health.state == "ready":
                return
        else:
            self._misses = 0
            if health.state == "ready" and self.health is not None and self.health.state == "down":
                self._breaker.success()  # it is back: its failures from before no longer count
        self.health = health
        if health.state == "down":
            for attempt in list(self._waiting):
                attempt.abandon()
        self._report(before)

    def _report(self, before: str) -> None:
        if self.state != before:
            log.info("%s: %s", self.name, self.state)
            self._changed(self)

    # -------------------------------------------------------------------------------------------------- one request

    async def stream(self, prepared: Prepared, sink: Sink) -> None:
        """Raises what the backend raises, and `Lost`. What the end says about the server is remembered."""
        now = time.monotonic()
        before = self.state
        trial = self._breaker.begin(now)
        attempt = _Attempt(sink, self._verdict, trial)
        slow = asyncio.get_running_loop().call_later(self._settings.slow, attempt.late)
        self.pending += 1
        self._waiting.add(attempt)
        try:
            await self.backend.stream(prepared, attempt)
            if attempt.abandoned:
                raise Lost
            if not attempt.left:
                attempt.decide(True)
        except Lost:
            attempt.decide(False)
            raise
        except GatewayError as error:
            self._judge(error, attempt)
            raise
        finally:
            slow.cancel()
            attempt.close()
            self.pending -= 1
            self._waiting.discard(attempt)
            if trial and attempt.verdict is None:
                self._breaker.undecided()
            self._report(before)

    def _judge(self, error: GatewayError, attempt: _Attempt) -> None:
        if error.source != "backend" and error.kind not in BLAMED:
            return
        if not error.certain:
            if error.kind in BLAMED or error.kind is Kind.ASLEEP:
                self.probe()  # its health says whether the words were true
            return
        match error.kind:
            case Kind.BUSY | Kind.RATE_LIMITED:
                self._busy_until = time.monotonic() + min(error.retry_after or 1.0, LONGEST_BUSY)
            case Kind.ASLEEP:
                self.learn(Health("asleep", error.message, error.retry_after))
            case kind if kind in BLAMED:
                attempt.decide(False, again=True)
            case _:
                attempt.decide(True)  # it refused the request, in good health

    def _verdict(self, good: bool) -> None:
        before = self.state
        if good:
            self._breaker.success()
        else:
            self._breaker.failure(time.monotonic())
        self._report(before)


class _Attempt:
    """The sink of one request on one server. The first event ends a trial; otherwise it passes everything through. A
    request that is `abandoned` ends as if its receiver had left."""

    def __init__(self, sink: Sink, verdict: Callable[[bool], None], trial: bool) -> None:
        self.verdict: bool | None = None
        self.abandoned = False
        self.left = False
        self.note: Callable[[Note], None] = sink.note
        self.prompt_size = sink.prompt_size
        self.feed: Callable[[Sequence[Event]], Flow] = self._first if trial else sink.feed
        self._sink = sink
        self._report = verdict
        self._reading: Callable[[], object] = nothing
        self._outer = sink.on_left
        sink.on_left = self._leave

    @property
    def touched(self) -> bool:
        return self._sink.touched

    @property
    def on_writable(self) -> Callable[[], object]:
        return self._sink.on_writable

    @on_writable.setter
    def on_writable(self, callback: Callable[[], object]) -> None:
        self._sink.on_writable = callback

    @property
    def on_left(self) -> Callable[[], object]:
        return self._reading

    @on_left.setter
    def on_left(self, callback: Callable[[], object]) -> None:
        self._reading = callback
        if self.abandoned:  # before there was anything to end
            callback()

    def _first(self, events: Sequence[Event]) -> Flow:
        if events:
            self.feed = self._sink.feed
            self.decide(True)
        return self._sink.feed(events)

    def _leave(self) -> None:
        self.left = True
        end = self._outer if self._reading is nothing else self._reading
        end()

    def decide(self, good: bool, *, again: bool = False) -> None:
        """One verdict for each request; a failure after a trial's first event is one more."""
        if self.verdict is None or (again and self.verdict is not good):
            self.verdict = good
            self._report(good)

    def late(self) -> None:
        if not self._sink.touched:
            self.decide(False)

    def abandon(self) -> None:
        if not self._sink.touched and not self.abandoned:
            self.abandoned = True
            self._reading()

    def close(self) -> None:
        self._sink.on_left = self._outer
