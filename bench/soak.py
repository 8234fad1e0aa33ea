"""`python -m bench.soak`: minutes of streams, errors and departures, then a count of what is left behind.

Hundreds of clients ask at once; some leave at random stages, and the scripted server cuts, hangs, refuses and talks
nonsense. Every answer has one right outcome, and a wrong one is a failure: a cut stream that claims to be complete, or
a sound one that is not. At the end nothing may be left: no upstream stream, no socket, no request in flight, and no
more memory than after the warm-up plus a stated bound. Exit code 1 when any of that fails, or when something broke.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import random
import re
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from bench import bodies
from bench.children import GATEWAY, UPSTREAM, Broken, Child, started
from bench.client import Line, Reply, fetch, post
from bench.loop import run
from bench.measures import percentile

# Short limits, so that a hang ends within the run and keepalives flow; and a quiet log.
ENVIRONMENT = {
    "DRAGOMAN_TIMEOUTS__FIRST_EVENT": "4",
    "DRAGOMAN_TIMEOUTS__BETWEEN_EVENTS": "2",
    "DRAGOMAN_TIMEOUTS__HEAD_AFTER": "1",
    "DRAGOMAN_TIMEOUTS__KEEPALIVE": "1",
    "DRAGOMAN_LOG__LEVEL": "error",
}
PATIENCE_SECONDS = 30.0
COMPLETED = b"response.completed"
# How often each script is played; the sound ones first.
WEIGHTS = {
    "steady": 40,
    "burst": 12,
    "first": 6,
    "answer": 6,
    "cut": 6,
    "mute": 5,
    "error": 5,
    "garbage": 5,
    "hang": 5,
    "silent": 3,
    "busy": 4,
    "broken": 3,
}
SOUND = frozenset({"steady", "burst", "first", "answer"})
_LEAVE_SHARE = 0.3
_LARGE_SHARE = 0.03


class Leave(Enum):
    """At what stage a client goes."""

    STAYS = "stays"
    AT_ONCE = "before any answer"
    FIRST = "at the first token"
    MIDWAY = "in mid-stream"


@dataclass(frozen=True)
class Settings:
    minutes: float = 10.0
    streams: int = 200
    seed: int = 1
    growth_mb: float = 10.0

    @property
    def seconds(self) -> float:
        return self.minutes * 60

    @property
    def warm_up(self) -> float:
        return min(60.0, self.seconds / 4)


@dataclass
class Tally:
    """What the clients saw. `wrong` names outcomes that must not be; `left` is when each marked client went."""

    asked: int = 0
    outcomes: collections.Counter[str] = field(default_factory=collections.Counter)
    wrong: collections.Counter[str] = field(default_factory=collections.Counter)
    left: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """The figures of one run; memory in MB, times in seconds. `failures` is empty when all held."""

    asked: int
    outcomes: dict[str, int]
    wrong: dict[str, int]
    rss_start: float
    rss_warm: float
    rss_end: float
    sockets_left: int
    streams_left: int
    calls_left: int
    threads_grown: int
    departures: int
    close_median: float
    close_p99: float
    failures: list[str]


@dataclass(frozen=True)
class Resting:
    """What is open at rest. Sockets are those of the gateway without its upstream connections."""

    sockets: int
    streams: int
    calls: int
    threads: int


async def soak(settings: Settings) -> Outcome:
    async with (
        asyncio.timeout(settings.seconds + 120),
        started("upstream", UPSTREAM) as upstream,
        started("gateway", _command(upstream), ENVIRONMENT) as gateway,
    ):
        await _one(gateway.url, "first", Leave.STAYS, Tally(), random.Random(0))  # what the first request loads, stays
        before, rss_start = await _rest(gateway, upstream), gateway.rss()
        tally, samples = Tally(), []
        end = time.monotonic() + settings.seconds
        clients = [
            asyncio.create_task(_client(gateway.url, settings.seed * 100_000 + number, end, tally))
            for number in range(settings.streams)
        ]
        try:
            while (now := time.monotonic()) < end:
                samples.append((now - end + settings.seconds, gateway.rss()))
                await asyncio.sleep(min(1.0, max(0.05, settings.seconds / 50)))
            await asyncio.gather(*clients)
        finally:
            for client in clients:
                client.cancel()
        after = await _settled(gateway, upstream, before)
        closings = json.loads(await fetch(upstream.url, "/closings"))
        return _outcome(settings, tally, (rss_start, samples), (before, after), closings)


def _command(upstream: Child) -> list[str]:
    return [*GATEWAY, "serve", "--backend", f"{upstream.url}/v1", "--host", "127.0.0.1", "--port", "0"]


# -------------------------------------------------------------------------------------------------------------- clients


async def _client(url: str, seed: int, end: float, tally: Tally) -> None:
    """One request after the other until the time is up, each on a connection of its own."""
    choices = random.Random(seed)
    await asyncio.sleep(choices.random())
    while time.monotonic() < end:
        script = choices.choices(tuple(WEIGHTS), tuple(WEIGHTS.values()))[0]
        leaves = choices.random() < _LEAVE_SHARE
        leave = choices.choice((Leave.AT_ONCE, Leave.FIRST, Leave.MIDWAY)) if leaves else Leave.STAYS
        await _one(url, script, leave, tally, choices)
        if script not in SOUND:
            await asyncio.sleep(0.2 * choices.random())


async def _one(url: str, script: str, leave: Leave, tally: Tally, choices: random.Random) -> None:
    tally.asked += 1
    mark = tally.asked
    try:
        line = await Line.open(url)
    except OSError as error:
        tally.wrong[f"no connection: {type(error).__name__}"] += 1
        return
    try:
        answer = line.begin(post(url, "/v1/responses", _body(script, mark, choices)), COMPLETED)
        if leave is not Leave.STAYS:
            await _departure(line, answer, leave, choices)
            if not answer.done():
                tally.left[mark] = time.monotonic()
                tally.outcomes[f"left {leave.value}"] += 1
                return
        async with asyncio.timeout(PATIENCE_SECONDS):
            _judge(script, await answer, tally)
    except TimeoutError:
        tally.wrong[f"{script}: no end within {PATIENCE_SECONDS:.0f} s"] += 1
    finally:
        line.leave()


async def _departure(line: Line, answer: asyncio.Future[Reply], leave: Leave, choices: random.Random) -> None:
    """Waits for the stage at which this client goes, or for the end of the answer."""
    match leave:
        case Leave.FIRST:
            await asyncio.wait([answer, line.token], timeout=PATIENCE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        case Leave.MIDWAY:
            await asyncio.wait([answer], timeout=2 * choices.random())
        case _:
            await asyncio.wait([answer], timeout=0.03 * choices.random())


def _body(script: str, mark: int, choices: random.Random) -> bytes:
    if choices.random() < _LARGE_SHARE:
        return bodies.agent_turn(script)
    return bodies.question(script, stream=script != "answer", text=f"soak-{mark}- Tell me about the court.")


def _judge(script: str, reply: Reply, tally: Tally) -> None:
    """Sound scripts complete; of the others none may, and each must still end as HTTP says an answer ends."""
    completed = reply.whole and reply.status == 200 and (reply.completed or (script == "answer" and reply.first > 0))
    tally.outcomes["completed" if completed else "failed, as it should" if script not in SOUND else "failed"] += 1
    if completed is not (script in SOUND):
        tally.wrong[f"{script}: {'completed' if completed else f'status {reply.status}, not completed'}"] += 1
    elif not completed and reply.status == 0:
        tally.wrong[f"{script}: the connection ended without an answer"] += 1


# --------------------------------------------------------------------------------------------------------- what is left


async def _rest(gateway: Child, upstream: Child) -> Resting:
    calls = _in_flight(await fetch(gateway.url, "/metrics"))
    counts = json.loads(await fetch(upstream.url, "/counts"))
    own = 1  # the connection that asked for the counts
    return Resting(gateway.sockets() - (counts["connections"] - own), counts["streams"], calls, gateway.threads())


def _in_flight(metrics: bytes) -> int:
    values = re.findall(rb"^dragoman_\w*in_flight\w*(?:\{[^}]*\})? ([0-9.e+]+)$", metrics, re.MULTILINE)
    return int(sum(float(value) for value in values))


async def _settled(gateway: Child, upstream: Child, before: Resting) -> Resting:
    """The state at rest: as soon as nothing more is open than before, or else after 20 s."""
    for _ in range(40):
        await asyncio.sleep(0.5)
        after = await _rest(gateway, upstream)
        if after.sockets <= before.sockets and after.streams == 0 and after.calls <= before.calls:
            break
    return after


def _outcome(
    settings: Settings,
    tally: Tally,
    memory: tuple[float, Sequence[tuple[float, float]]],
    resting: tuple[Resting, Resting],
    closings: Sequence[tuple[int, float]],
) -> Outcome:
    rss_start, samples = memory
    before, after = resting
    window = settings.warm_up / 2
    warm = statistics.median([rss for at, rss in samples if settings.warm_up <= at < settings.warm_up + window])
    last = statistics.median([rss for at, rss in samples if at >= settings.seconds - window])
    delays = [at - tally.left[mark] for mark, at in closings if mark in tally.left]
    failures = [f"{count} times {what}" for what, count in tally.wrong.items()]
    if (last - warm) / 1e6 > settings.growth_mb:
        failures.append(
            f"memory grew by {(last - warm) / 1e6:.1f} MB after the warm-up (bound: {settings.growth_mb:g})"
        )
    for what, left in (
        ("sockets", after.sockets - before.sockets),
        ("upstream streams", after.streams),
        ("calls in flight", after.calls - before.calls),
    ):
        if left > 0:
            failures.append(f"{left} {what} are left behind")
    return Outcome(
        asked=tally.asked,
        outcomes=dict(tally.outcomes.most_common()),
        wrong=dict(tally.wrong),
        rss_start=rss_start / 1e6,
        rss_warm=warm / 1e6,
        rss_end=last / 1e6,
        sockets_left=max(0, after.sockets - before.sockets),
        streams_left=after.streams,
        calls_left=max(0, after.calls - before.calls),
        threads_grown=after.threads - before.threads,
        departures=len(delays),
        close_median=statistics.median(delays) if delays else 0.0,
        close_p99=percentile(delays, 99),
        failures=failures,
    )


def report(outcome: Outcome, settings: Settings) -> str:
    lines = [
        f"{outcome.asked:,} requests in {settings.minutes:g} minutes, {settings.streams} clients at once",
        *(f"  {count:>8,}  {what}" for what, count in outcome.outcomes.items()),
        f"memory: {outcome.rss_start:.1f} MB idle, {outcome.rss_warm:.1f} after the warm-up "
        f"of {settings.warm_up:.0f} s, {outcome.rss_end:.1f} at the end (bound: {settings.growth_mb:g} MB of growth)",
        f"left behind: {outcome.sockets_left} sockets, {outcome.streams_left} upstream streams, "
        f"{outcome.calls_left} calls in flight; {outcome.threads_grown} more threads",
        f"from a client's leaving to the end of the upstream's work: median {outcome.close_median * 1e3:.1f} ms, "
        f"p99 {outcome.close_p99 * 1e3:.1f} ms of {outcome.departures:,}",
    ]
    verdict = [f"FAIL: {failure}" for failure in outcome.failures] or ["pass"]
    return "\n".join([*lines, *verdict])


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (10)")
    parser.add_argument("--streams", type=int, default=200, help="clients at once (200)")
    parser.add_argument("--seed", type=int, default=1, help="of the random choices (1)")
    parser.add_argument("--growth", type=float, default=10.0, help="MB that may be gained after the warm-up (10)")
    given = parser.parse_args(words)
    settings = Settings(given.minutes, given.streams, given.seed, given.growth)
    try:
        outcome = run(soak(settings))
    except (Broken, OSError, TimeoutError) as error:
        print(f"soak: {error or type(error).__name__}", file=sys.stderr)
        return 1
    print(report(outcome, settings))
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    sys.exit(main())
