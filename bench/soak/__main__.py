"""The run: servers, clients, reloads, and the verdict. Exit code 1 when something is wrong, with a line for each."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import yaml

from bench.attack.__main__ import HOSTILE
from bench.attack.clients import KEY
from bench.attack.hostile import SCRIPTS
from bench.children import GATEWAY, UPSTREAM, Broken, Child, started
from bench.client import Line, fetch, get
from bench.loop import run
from bench.soak.attacker import PLAYED, SETTINGS, attacker, prepared
from bench.soak.clients import Client, Leave
from bench.soak.endings import End
from bench.soak.resting import Resting, Servers, children, memory, rest, settled
from bench.soak.tally import OTHER, Tally, counted, differences, percentile

# Short limits, so that a hang ends within the run and keepalives flow; and a quiet log.
TIMEOUTS = {"first_event": 3, "between_events": 2, "head_after": 1, "keepalive": 1, "client": 4, "body": 10}
MEMO_BYTES = 8 * 1024 * 1024  # full before the warm-up ends, so that what grows after it is not the memo
RELOAD_SECONDS = 20.0  # until a configuration that was read again must be seen


@dataclass(frozen=True)
class Settings:
    """`attacks`: the names of those that are played, one after the other. With `kill`, one worker is killed half-way
    through."""

    minutes: float = 10.0
    streams: int = 200
    seed: int = 1
    growth_mb: float = 10.0
    workers: int = 1
    kill: bool = False
    attacks: Sequence[str] = tuple(PLAYED)

    @property
    def seconds(self) -> float:
        return self.minutes * 60

    @property
    def warm_up(self) -> float:
        return min(60.0, self.seconds / 4)

    @property
    def reload_every(self) -> float:
        return min(60.0, self.seconds / 3)


@dataclass(frozen=True)
class Outcome:
    """The figures of one run; memory in MB, times in seconds. `rss` is ten medians over the run, `rss_warm` None where
    too little of it was left after the warm-up. `failures` is empty when all held."""

    tally: Tally
    rss_start: float
    rss_warm: float | None
    rss_end: float
    rss: list[float]
    before: Resting
    after: Resting
    counted: int
    departures: int
    close_median: float
    close_p99: float
    failures: list[str]


async def soak(settings: Settings) -> Outcome:
    with tempfile.TemporaryDirectory(prefix="dragoman-soak-") as folder:
        async with (
            asyncio.timeout(settings.seconds + 180),
            started("upstream", UPSTREAM) as upstream,
            started("hostile server", HOSTILE) as hostile,
        ):
            path = Path(folder) / "gateway.yaml"
            configuration = _configuration(Path(folder), upstream, hostile, settings.workers)
            path.write_text(yaml.safe_dump(configuration))
            environment = {"DRAGOMAN_API_KEYS": KEY, "DRAGOMAN_STORE__URL": f"sqlite:{folder}/answers.db"}
            command = [*GATEWAY, "serve", "--config", str(path), "--host", "127.0.0.1", "--port", "0"]
            async with started("gateway", command, environment) as gateway, aiohttp.ClientSession() as session:
                servers = Servers(gateway, upstream, hostile)
                return await _played(settings, servers, session, Reloads(path, configuration, gateway))


def _configuration(folder: Path, upstream: Child, hostile: Child, workers: int) -> dict[str, object]:
    return {
        "backends": [
            {"name": "gpu", "url": f"{upstream.url}/v1"},
            {"name": "hostile", "url": f"{hostile.url}/v1", "settings": SETTINGS},
        ],
        "models": [
            {"prefixes": [""], "backend": "gpu"},
            *({"name": name, "backend": "hostile"} for name in SCRIPTS),
        ],
        "workers": workers,
        "metrics_public": True,
        "state_dir": str(folder),
        "timeouts": TIMEOUTS,
        "limits": {"memo_bytes": MEMO_BYTES},
        "log": {"level": "error"},
    }


async def _played(settings: Settings, servers: Servers, session: aiohttp.ClientSession, reloads: Reloads) -> Outcome:
    tally, url = Tally(), servers.gateway.url
    requests = await asyncio.to_thread(prepared, url, settings.attacks)
    # what the first request loads, stays
    await Client(url, random.Random(0), tally, session).stream("responses", "first", Leave.STAYS)
    before, rss_start = await rest(servers), memory(servers.gateway)
    end = time.monotonic() + settings.seconds
    seeds = [settings.seed * 100_000 + number for number in range(settings.streams + 1)]
    work = [Client(url, random.Random(seed), tally, session).run(end) for seed in seeds[1:]]
    work += [attacker(url, requests, seeds[0], end, tally), reloads.repeat(settings.reload_every, end, tally)]
    if settings.kill:
        work.append(_kill(servers.gateway, settings.seconds / 2, tally))
    samples: list[tuple[float, float]] = []
    async with asyncio.TaskGroup() as tasks:
        for each in work:
            tasks.create_task(each)
        while (now := time.monotonic()) < end:
            samples.append((now - end + settings.seconds, memory(servers.gateway)))
            await asyncio.sleep(min(1.0, max(0.05, settings.seconds / 50)))
    after = await settled(servers, before)
    closings = json.loads(await fetch(servers.upstream.url, "/closings"))
    metrics = (await fetch(url, "/metrics")).decode()
    warm_at = settings.seconds if tally.warm_at is None else tally.warm_at - end + settings.seconds
    memories = Memories(settings, rss_start, samples, max(settings.warm_up, warm_at))
    return _outcome(settings, tally, memories, (before, after), closings, metrics)


class Reloads:
    """Writes the configuration anew, with a model that says which one it is, and has the gateway read it again."""

    def __init__(self, path: Path, configuration: dict[str, object], gateway: Child) -> None:
        self._path = path
        self._configuration = configuration
        self._gateway = gateway

    async def repeat(self, every: float, end: float, tally: Tally) -> None:
        while time.monotonic() + every < end:
            await asyncio.sleep(every)
            number = tally.reloads + 1
            try:
                async with asyncio.timeout(RELOAD_SECONDS):
                    await self._reload(f"generation-{number}", tally)
            except TimeoutError:
                tally.wrong[f"reload {number} was not seen within {RELOAD_SECONDS:.0f} s"] += 1
            tally.reloads = number

    async def _reload(self, model: str, tally: Tally) -> None:
        models = self._configuration["models"]
        assert isinstance(models, list)
        written = {**self._configuration, "models": [*models, {"name": model, "backend": "gpu"}]}
        await asyncio.to_thread(self._path.write_text, yaml.safe_dump(written))
        os.kill(self._gateway.pid, signal.SIGHUP)
        while True:
            line = await Line.open(self._gateway.url)
            try:
                reply = await line.ask(get(self._gateway.url, f"/v1/models/{model}", KEY))
            finally:
                line.leave()
            if reply.status == 200:
                return
            if reply.status:
                tally.ended(OTHER, reply.status, End.FAILED)
            await asyncio.sleep(0.2)


async def _kill(gateway: Child, after: float, tally: Tally) -> None:
    """Kills one worker; the supervisor starts another in its place."""
    await asyncio.sleep(after)
    tally.killed_at = time.monotonic()
    os.kill(children(gateway.pid)[0], signal.SIGKILL)


# ---------------------------------------------------------------------------------------------------------- the verdict


@dataclass(frozen=True)
class Memories:
    """Resident bytes at seconds of the run. It is warm once the time for that is over and every attack was played:
    what an attack takes for a moment, the allocator keeps for a while. So floors are compared, in MB, of the first and
    the last third of what follows: a leak lifts them, an attack does not."""

    settings: Settings
    start: float
    samples: Sequence[tuple[float, float]]
    warm_at: float

    def between(self, begin: float, end: float) -> list[float]:
        return [rss / 1e6 for at, rss in self.samples if begin <= at < end]

    @property
    def third(self) -> float:
        return (self.settings.seconds - self.warm_at) / 3

    @property
    def warm(self) -> float | None:
        """None where too little of the run is left."""
        if 3 * self.third < self.settings.warm_up:
            return None
        return _floor(self.between(self.warm_at, self.warm_at + self.third))

    @property
    def last(self) -> float:
        third = self.third if self.warm is not None else self.settings.seconds / 3
        return _floor(self.between(self.settings.seconds - third, math.inf))

    @property
    def course(self) -> list[float]:
        tenth = self.settings.seconds / 10
        tenths = [self.between(place * tenth, (place + 1) * tenth) for place in range(10)]
        return [statistics.median(each) for each in tenths if each]

    def failures(self) -> list[str]:
        if self.warm is None or (grown := self.last - self.warm) <= (most := self.settings.growth_mb):
            return []
        return [f"memory grew by {grown:.1f} MB after the warm-up (bound: {most:g})"]


def _floor(values: Sequence[float]) -> float:
    """The lowest quarter ends here."""
    return sorted(values)[len(values) // 4] if values else 0.0


def _outcome(
    settings: Settings,
    tally: Tally,
    memories: Memories,
    resting: tuple[Resting, Resting],
    closings: Sequence[tuple[int, float]],
    metrics: str,
) -> Outcome:
    before, after = resting
    delays = [at - tally.left[mark] for mark, at in closings if mark in tally.left]
    requests = counted(metrics)
    failures = [f"{count} times {what}" for what, count in tally.wrong.items()]
    failures += memories.failures()
    failures += after.failures(before, settings.workers)
    failures += differences(tally, requests)
    return Outcome(
        tally=tally,
        rss_start=memories.start / 1e6,
        rss_warm=memories.warm,
        rss_end=memories.last,
        rss=memories.course,
        before=before,
        after=after,
        counted=sum(requests.values()),
        departures=len(delays),
        close_median=statistics.median(delays) if delays else 0.0,
        close_p99=percentile(delays, 99),
        failures=failures,
    )


def report(outcome: Outcome, settings: Settings) -> str:
    tally, before, after = outcome.tally, outcome.before, outcome.after
    stayed, unread = tally.stayed.total(), tally.left_unread.total()
    lines = [
        f"{tally.asked:,} requests in {settings.minutes:g} minutes, {settings.streams} clients at once, "
        f"{tally.attacks} attacks, {tally.reloads} reloads",
        *(f"  {count:>8,}  {what}" for what, count in tally.outcomes.most_common()),
        f"memory: {outcome.rss_start:.1f} MB idle, {_warm(outcome.rss_warm)}, {outcome.rss_end:.1f} at the end "
        f"(bound: {settings.growth_mb:g} MB of growth); by tenths of the run: "
        + " ".join(f"{each:.0f}" for each in outcome.rss),
        f"left open: {max(0, after.sockets - before.sockets)} sockets, {after.streams} upstream streams, "
        f"{max(0, after.calls - before.calls)} calls in flight; {after.threads - before.threads} more threads, "
        f"{after.processes - before.processes} more processes",
        f"from a client's leaving to the end of the upstream's work: median {outcome.close_median * 1e3:.1f} ms, "
        f"p99 {outcome.close_p99 * 1e3:.1f} ms of {outcome.departures:,}",
        f"counted by the gateway: {outcome.counted:,} requests; clients stayed for {stayed:,} answers and left "
        f"{tally.left_read.total():,} after a head, {unread:,} before one",
    ]
    verdict = [f"FAIL: {failure}" for failure in outcome.failures] or ["pass"]
    return "\n".join([*lines, *verdict])


def _warm(rss: float | None) -> str:
    return f"{rss:.1f} after the warm-up" if rss is not None else "growth not judged, since the run is too short"


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description="Minutes of everything at once.")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (10)")
    parser.add_argument("--streams", type=int, default=200, help="clients at once (200)")
    parser.add_argument("--seed", type=int, default=1, help="of the random choices (1)")
    parser.add_argument("--growth", type=float, default=10.0, help="MB that may be gained after the warm-up (10)")
    parser.add_argument("--workers", type=int, default=1, help="processes of the gateway (1)")
    parser.add_argument("--kill", action="store_true", help="kill one of several workers half-way through")
    given = parser.parse_args(words)
    if given.kill and given.workers < 2:
        parser.error("--kill takes at least two workers")
    settings = Settings(given.minutes, given.streams, given.seed, given.growth, given.workers, given.kill)
    try:
        outcome = run(soak(settings))
    except (Broken, OSError, TimeoutError) as error:
        print(f"soak: {error or type(error).__name__}", file=sys.stderr)
        return 1
    print(report(outcome, settings))
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    sys.exit(main())
