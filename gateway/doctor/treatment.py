"""A probe that is not `ok` is tried again with the settings that may help; what made it better stays in force.

So the settings that are proposed at the end were in force together, and nothing is proposed that was not tried. A
setting that an earlier model of the same server needs is left as it is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from dragoman.gateway.config import ConfigError
from dragoman.gateway.doctor import text_probes
from dragoman.gateway.doctor.asking import Asker
from dragoman.gateway.doctor.finding import RANKS, Changes, Finding
from dragoman.gateway.doctor.remedies import remedies
from dragoman.gateway.doctor.show import Show
from dragoman.gateway.doctor.tool_probes import TOOL_CALL
from dragoman.gateway.doctor.trial import Trial
from dragoman.translators.errors import GatewayError

UNUSABLE = (ConfigError, GatewayError, RuntimeError, OSError)  # what keeps a backend from its start
Probe = Callable[[Asker], Awaitable[Finding]]


@dataclass(slots=True)
class _Second:
    """A second try: what the probe found with the changes."""

    finding: Finding
    changes: Changes
    trial: Trial
    asker: Asker


class Treatment:
    """`trial` is the configuration with all that has helped so far, and open; `asker` asks one model by it."""

    def __init__(self, trial: Trial, asker: Asker, show: Show) -> None:
        self.trial = trial
        self.asker = asker
        self._show = show
        self._settled = dict(trial.changes)

    async def adopt(self, trial: Trial, asker: Asker) -> None:
        older, self.trial, self.asker = self.trial, trial, asker
        await older.close()

    async def probed(self, probe: Probe, what: str) -> Finding:
        """What the probe finds, with the settings that made it better."""
        self._show.waiting(what)
        first = await probe(self.asker)
        if first.verdict == "ok":
            return first
        best = await self._best(probe, what, first)
        if best is None:
            return first
        await self.adopt(best.trial, best.asker)
        server_side = first.advice if first.probe == TOOL_CALL else ""
        return replace(first, changes=best.changes, tried=best.finding.result, advice=server_side)

    async def _best(self, probe: Probe, what: str, first: Finding) -> _Second | None:
        best: _Second | None = None
        tried: list[Changes] = [{}]
        async for changes in remedies(self.trial, self.asker, first):
            if changes in tried or self._disputed(changes):
                continue
            tried.append(changes)
            self._show.waiting(f"{what}, with {', '.join(str(key[-1]) for key in changes)} set")
            second = await self._with(changes, probe)
            if second is None:
                continue
            if RANKS[second.finding.verdict] >= RANKS[(best.finding if best else first).verdict]:
                await second.trial.close()
                continue
            if best is not None:
                await best.trial.close()
            best = second
            if best.finding.verdict == "ok":
                break
        return best

    async def _with(self, changes: Changes, probe: Probe) -> _Second | None:
        """None where the settings cannot be used."""
        trial: Trial | None = None
        try:
            trial = self.trial.changed(changes)
            asker = self.asker.on(await trial.open())
            if probe in (text_probes.reasoning, text_probes.usage):  # they read the first answer
                await text_probes.text(asker)
            return _Second(await probe(asker), changes, trial, asker)
        except UNUSABLE:
            if trial is not None:
                await trial.close()
            return None

    def _disputed(self, changes: Changes) -> bool:
        """Whether an earlier model of this server needs another value."""
        return any(key in self._settled and self._settled[key] != value for key, value in changes.items())
