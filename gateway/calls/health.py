"""The gate before every model call: what it waits for, and when it is refused because the model sleeps.

A group of servers (`backends.pool`) knows how they are. A call waits, within limits, for a start and, where the
configuration allows that, for a server to wake. Only a group that reports that it sleeps or loads is refused; whether
an unreachable one is really down, the request itself finds out. The gate also carries what groups report into the
metrics, and hands them on when the configuration is read again.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection, Iterable
from functools import partial

from dragoman.backends.base import Backend, Health
from dragoman.backends.pool.pool import Pool, asleep
from dragoman.backends.pool.replica import RETRY_AFTER, Replica, ReplicaState
from dragoman.gateway.config import Timeouts
from dragoman.gateway.telemetry.logs import log
from dragoman.gateway.telemetry.metrics import Metrics
from dragoman.translators.errors import GatewayError, Kind


class Gate:
    """`wakes` names the groups that a call wakes; calls to others are refused while they sleep. `reused` are those of
    an older gate, which has to close them until `take_over` is called."""

    def __init__(
        self,
        groups: Iterable[Pool],
        metrics: Metrics,
        timeouts: Timeouts,
        wakes: Collection[str] = (),
        reused: Collection[Pool] = (),
    ) -> None:
        self.groups = {group.name: group for group in groups}
        self._own = {name: group for name, group in self.groups.items() if group not in reused}
        self._metrics = metrics
        for group in self._own.values():
            self._connect(group)
        self._start_limit = timeouts.start
        self._wakes = wakes

    def _connect(self, group: Pool) -> None:
        metrics = self._metrics
        metrics.backend_ready.labels(group.name)
        group.changed = partial(self._report, group)
        group.retried = partial(_count_retry, metrics, group.name)
        group.joined = partial(_listen, metrics)
        group.gone = partial(self._report_gone, group)
        for replica in group.replicas:
            _listen(metrics, replica)

    async def start(self) -> None:
        for group in self._own.values():
            group.begin()
        for group in self._own.values():
            await group.started(0)  # a backend that starts at once has started before the first request

    def take_over(self, older: Gate) -> None:
        """From now on this gate closes the groups that both share. Of the others the older one has, nothing more is
        reported: for alerts, a group that is no longer configured is neither ready nor down."""
        for name, group in older.groups.items():
            if self.groups.get(name) is group:
                older._own.pop(name, None)
                self._own[name] = group
                self._connect(group)
                continue
            group.changed = group.gone = _ignore
            if name not in self.groups:
                self._metrics.backend_ready.labels(name).set(math.nan)
            for server in _series(group) - (_series(self.groups[name]) if name in self.groups else set()):
                self._metrics.replica(name, server, "")

    async def close(self) -> None:
        for failure in await asyncio.gather(*(each.close() for each in self._own.values()), return_exceptions=True):
            if failure is not None:
                log.error("a backend could not be closed", exc_info=failure)

    async def admit(self, backend: Backend, model: str) -> None:
        """Returns once the backend may be asked for the model; raises ASLEEP if that sleeps, loads, or does not start
        in time."""
        group = self.groups[backend.name]
        if not await group.started(self._start_limit) and group.start_error is not None:
            raise GatewayError(Kind.BACKEND_DOWN, "The model could not be started.", retry_after=RETRY_AFTER)
        if (health := await group.health(model)).state == "asleep":
            if not self.wakes(group):
                raise asleep(health)
            await group.wake(model)

    async def ready(self, backend: Backend, model: str) -> bool:
        """Whether a call may go there that could also go elsewhere. One that is to be woken counts: who configured that
        wants it awake."""
        group = self.groups[backend.name]
        if group.starting:
            return False
        state = (await group.health(model)).state
        return state == "ready" or (state == "asleep" and self.wakes(group))

    def fell_back(self, own: Backend | None, to: Backend) -> None:
        self._metrics.fallbacks.labels("" if own is None else own.name, to.name).inc()

    def wakes(self, backend: Backend) -> bool:
        return backend.name in self._wakes and backend.traits.wakes

    async def admit_any(self) -> None:
        """For a request of which nothing is known yet: raises only if every backend is asleep."""
        if len(self.groups) > 1 and any(group.state.ready for group in self.groups.values()):
            return  # without a wait for one that hangs; how the call's own is now, `admit` asks
        health = Health("asleep")
        for group in self.groups.values():
            if group.starting or self.wakes(group) or (health := await group.health()).state != "asleep":
                return
        raise asleep(health)

    async def some_started(self) -> None:
        """Waits, with a limit, while every backend is still starting: until then the models are unknown."""
        groups = list(self.groups.values())
        if all(group.starting for group in groups):
            waits = [asyncio.ensure_future(group.started(self._start_limit)) for group in groups]
            try:
                await asyncio.wait(waits, return_when="FIRST_COMPLETED")
            finally:
                for wait in waits:
                    wait.cancel()
            if all(group.starting for group in groups):
                raise asleep(Health("asleep"))

    async def states(self) -> dict[str, Health]:
        found = await asyncio.gather(*(group.health() for group in self.groups.values()))
        return dict(zip(self.groups, found, strict=True))

    def able(self) -> list[str]:
        """The groups that calls may be sent to, as last known: those that are ready, and those that sleep until a call
        wakes them, which none could do that is kept away until they are ready."""
        return [name for name, group in self.groups.items() if self._able(group)]

    def _able(self, group: Pool) -> bool:
        return group.state.ready or (group.state is ReplicaState.ASLEEP and self.wakes(group))

    def replicas(self) -> dict[str, dict[str, str]]:
        """The state of each server, by its name, of the groups that find their servers themselves."""
        found = {name: group.replicas for name, group in self.groups.items() if group.discovers}
        return {name: {each.name: each.state.word for each in replicas} for name, replicas in found.items()}

    async def words(self) -> dict[str, str]:
        """The state of each group as `/readyz` shows it: ready, asleep, down, hangs or fails."""
        await self.states()
        return {name: group.state.word for name, group in self.groups.items()}

    def _report(self, group: Pool, replica: Replica) -> None:
        self._metrics.backend_ready.labels(group.name).set(self._able(group))
        if replica.name != group.name:
            self._metrics.replica(group.name, replica.name, replica.state.label)

    def _report_gone(self, group: Pool, replica: Replica) -> None:
        self._metrics.backend_ready.labels(group.name).set(self._able(group))
        self._metrics.replica(group.name, replica.name, "")

    def markup(self) -> list[tuple[str, str, str]]:
        """Group, model and family, where a server's answers have proven how the model writes calls."""
        groups = self.groups.items()
        return [(name, *each) for name, group in groups for each in sorted(group.traits.markup.items())]


def _series(group: Pool) -> set[str]:
    """The servers that have series of their own: all but one that is a group by itself."""
    return {each.name for each in group.replicas} - {group.name}


def _listen(metrics: Metrics, replica: Replica) -> None:
    replica.backend.learned = partial(_count_refused, metrics, replica.name)


def _ignore(replica: Replica) -> None:
    """What is done with the changes of a group that is no longer configured."""


def _count_retry(metrics: Metrics, pool: str, backend: str) -> None:
    metrics.replica_retries.labels(pool, backend).inc()


def _count_refused(metrics: Metrics, backend: str, field: str) -> None:
    metrics.refused_fields.labels(backend, field).inc()
