"""Whether a backend can serve: a cached probe, the sleep gate that reads it, and the bounded wait for a start.

Every model call of every protocol passes the gate. What the gate knows is less than a second old and shared by all
requests, so the cost is one short probe twice a second. If a server is too busy to answer it at once, its last known
state counts. Only a backend that reports that it sleeps or loads is refused; whether an unreachable one is really down,
the request itself finds out. A backend whose `start` still runs is waited for.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Collection, Iterable, Mapping
from functools import partial

from dragoman.backends.base import Backend, Health
from dragoman.backends.pool.pool import Pool
from dragoman.gateway.config import Timeouts
from dragoman.gateway.telemetry.logs import log
from dragoman.gateway.telemetry.metrics import Metrics
from dragoman.translators.errors import GatewayError, Kind

FRESH = 0.5
PATIENCE = 0.05  # seconds that a request waits for a probe if an older result is known
FIRST_PATIENCE = 2.0
PROBE_LIMIT = 5.0
RETRY_AFTER = 5.0
WAKE_POLL = 0.2


class Watch:
    """One backend's last known health."""

    def __init__(self, backend: Backend, metrics: Metrics) -> None:
        self.backend = backend
        self.last: Health | None = None
        self._at = 0.0
        self._probe: asyncio.Task[None] | None = None
        self._start: asyncio.Task[None] | None = None
        self._wake: asyncio.Task[None] | None = None
        self._wake_again_at = 0.0
        self._gone = False
        self._ready = metrics.backend_ready.labels(backend.name)

    @property
    def starting(self) -> bool:
        return self._start is not None and not self._start.done()

    @property
    def start_error(self) -> BaseException | None:
        done = self._start is not None and self._start.done() and not self._start.cancelled()
        return self._start.exception() if self._start is not None and done else None

    def start(self) -> None:
        """Begins the backend's start without waiting: a model takes seconds to load, and requests wait for it."""
        self._start = asyncio.create_task(self.backend.start(), name=f"start {self.backend.name}")

    async def started(self, limit: float) -> bool:
        if self._start is not None and not self._start.done():
            await asyncio.wait((self._start,), timeout=limit)
        return not self.starting and self.start_error is None

    async def health(self) -> Health:
        if self.starting:
            return Health("asleep", "it is starting")
        if self.start_error is not None:
            return Health("down", "it could not be started")
        if self.last is not None and time.monotonic() - self._at < FRESH:
            return self.last
        if self._probe is None:
            self._probe = asyncio.create_task(self._ask(), name=f"probe {self.backend.name}")
        await asyncio.wait((self._probe,), timeout=FIRST_PATIENCE if self.last is None else PATIENCE)
        return self.last or Health("down", "it does not answer")

    def learn(self, health: Health) -> None:
        """Newer knowledge than the probe's, such as an error that says that the server sleeps."""
        if self.last is None or health.state != self.last.state:
            log.info("backend", extra={"fields": {"backend": self.backend.name, "state": health.state}})
        self.last = health
        self._at = time.monotonic()
        if not self._gone:
            self._ready.set(health.state == "ready")

    def expire(self) -> None:
        """Something contradicts what is known: the next question is answered by a new probe."""
        self._at = -FRESH

    def forget(self) -> None:
        """The configuration no longer has this backend: for alerts it is neither ready nor down."""
        self._gone = True
        self._ready.set(math.nan)

    async def woken(self, limit: float) -> None:
        """Wakes the backend once for all that wait for it; raises ASLEEP if it is not awake in time."""
        if self._wake is None and time.monotonic() >= self._wake_again_at:
            self._wake = asyncio.create_task(self._wake_up(limit), name=f"wake {self.backend.name}")
        if self._wake is not None:
            await asyncio.wait((self._wake,), timeout=limit)
        if self.last is None or self.last.state == "asleep":
            raise asleep(self.last or Health("asleep"))

    async def _wake_up(self, limit: float) -> None:
        log.info("waking", extra={"fields": {"backend": self.backend.name}})
        try:
            async with asyncio.timeout(limit):
                await self.backend.wake()
                while True:
                    health = await self.backend.health()
                    if health.state == "ready":
                        break
                    await asyncio.sleep(WAKE_POLL)
            self.learn(health)
        except (GatewayError, TimeoutError) as error:
            log.warning("not woken", extra={"fields": {"backend": self.backend.name, "reason": str(error)[:200]}})
            self._wake_again_at = time.monotonic() + RETRY_AFTER
        except Exception:
            log.exception("backend %s could not be woken", self.backend.name)
            self._wake_again_at = time.monotonic() + RETRY_AFTER
        finally:
            self._wake = None

    async def close(self) -> None:
        for task in (self._start, self._probe, self._wake):
            if task is not None and not task.done():
                task.cancel()
                await asyncio.wait((task,))
        await self.backend.close()

    async def _ask(self) -> None:
        try:
            health = await asyncio.wait_for(self.backend.health(), PROBE_LIMIT)
        except TimeoutError:
            health = Health("down", "it does not answer")
        except GatewayError as error:
            health = Health("asleep" if error.kind is Kind.ASLEEP else "down", error.message, error.retry_after)
        except Exception:
            log.exception("the probe of backend %s failed", self.backend.name)
            health = Health("down", "the probe failed")
        finally:
            self._probe = None
        self.learn(health)


class Gate:
    """`wakes` names the backends that a call wakes; calls to others are refused while they sleep. `reused` are watches
    of an older gate, which has to close them until `take_over` is called."""

    def __init__(
        self,
        backends: Iterable[Backend],
        metrics: Metrics,
        timeouts: Timeouts,
        wakes: Collection[str] = (),
        reused: Mapping[str, Watch] | None = None,
    ) -> None:
        self._own = {
            backend.name: Watch(backend, metrics) for backend in backends if backend.name not in (reused or {})
        }
        self.watches = {**(reused or {}), **self._own}
        for watch in self._own.values():
            servers = [watch.backend]
            if isinstance(watch.backend, Pool):
                watch.backend.changed = partial(metrics.replica, watch.backend.name)
                watch.backend.retried = partial(_count_retry, metrics, watch.backend.name)
                servers = [replica.backend for replica in watch.backend.replicas]
            for server in servers:
                server.learned = partial(_count_refused, metrics, server.name)
        self._start_limit = timeouts.start
        self._wake_limit = timeouts.wake
        self._wakes = wakes

    async def start(self) -> None:
        for watch in self._own.values():
            watch.start()
        for watch in self._own.values():
            await watch.started(0)  # a backend that starts at once has started before the first request

    def take_over(self, older: Gate) -> None:
        """From now on this gate closes the watches that both share."""
        for name, watch in self.watches.items():
            if older.watches.get(name) is watch:
                older._own.pop(name, None)
                self._own[name] = watch
        for name in older.watches.keys() - self.watches.keys():
            older.watches[name].forget()

    async def close(self) -> None:
        for failure in await asyncio.gather(*(each.close() for each in self._own.values()), return_exceptions=True):
            if failure is not None:
                log.error("a backend could not be closed", exc_info=failure)

    async def admit(self, backend: Backend) -> None:
        """Returns once the backend may be asked; raises ASLEEP if it sleeps, loads, or does not start in time."""
        watch = self.watches[backend.name]
        if not await watch.started(self._start_limit) and watch.start_error is not None:
            raise GatewayError(Kind.BACKEND_DOWN, "The model could not be started.", retry_after=RETRY_AFTER)
        if (health := await watch.health()).state == "asleep":
            if not self.wakes(backend):
                raise asleep(health)
            await watch.woken(self._wake_limit)

    def wakes(self, backend: Backend) -> bool:
        return backend.name in self._wakes and backend.traits.wakes

    async def admit_any(self) -> None:
        """For a request of which nothing is known yet: raises only if every backend is asleep."""
        health = Health("asleep")
        for watch in self.watches.values():
            if watch.starting or self.wakes(watch.backend) or (health := await watch.health()).state != "asleep":
                return
        raise asleep(health)

    async def some_started(self) -> None:
        """Waits, with a limit, while every backend is still starting: until then the models are unknown."""
        watches = list(self.watches.values())
        if all(watch.starting for watch in watches):
            waits = [asyncio.ensure_future(watch.started(self._start_limit)) for watch in watches]
            try:
                await asyncio.wait(waits, return_when="FIRST_COMPLETED")
            finally:
                for wait in waits:
                    wait.cancel()
            if all(watch.starting for watch in watches):
                raise asleep(Health("asleep"))

    async def states(self) -> dict[str, Health]:
        return {name: await watch.health() for name, watch in self.watches.items()}

    def learn(self, backend: Backend, error: GatewayError) -> None:
        if error.kind is not Kind.ASLEEP or error.source != "backend":
            return
        if error.certain:
            self.watches[backend.name].learn(Health("asleep", error.message, error.retry_after))
        else:
            self.watches[backend.name].expire()


def _count_retry(metrics: Metrics, pool: str, backend: str) -> None:
    metrics.replica_retries.labels(pool, backend).inc()


def _count_refused(metrics: Metrics, backend: str, field: str) -> None:
    metrics.refused_fields.labels(backend, field).inc()


def asleep(health: Health) -> GatewayError:
    return GatewayError(
        Kind.ASLEEP,
        "The model is asleep or still loading; try again later.",
        retry_after=health.retry_after or RETRY_AFTER,
        source="backend",
    )
