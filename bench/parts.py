"""The parts of a run: each drives one kind of load at one system and returns plain numbers, in seconds and bytes.

A part is measured for each of its systems in turn, and that several times (`rounds`): on a shared machine two moments
do not compare, two systems of one round do. What a system cannot do is left out, not guessed: a process that would need
more than two CPUs for a load is not asked.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from bench import turns
from bench.children import Broken
from bench.rig import Load, Rig, rss_of
from bench.scripts import (
    BURSTS,
    FIRST,
    GAP,
    HELD,
    KINDS,
    LARGE,
    OPEN,
    PACED,
    SLOW_BURSTS,
    TICKING,
    WHOLE,
    Script,
)
from bench.systems import DIRECT, GATEWAY_SYSTEM, TWO_WORKERS, System

Figures = dict[str, float]
Measure = Callable[[Rig, System, int], Awaitable[Figures]]

BURST_STREAMS = {1: 60, 32: 128, 256: 256}
"""Streams at once, and how many of them there are in all."""
PACED_STREAMS = (20, 200)
LEAST_SECONDS = 0.2
SLOW_SECONDS = 10.0
PACED_TRIES = 3
RAMP_SECONDS = 0.413  # no multiple of the gap, so that streams do not beat together
LARGE_REQUESTS = 40
WHOLE_SECONDS = 1.2
ADDED_DELAY = 0.010
MOST_STREAMS = 1600


async def burst(rig: Rig, system: System, round: int) -> Figures:
    return await _burst(rig, system, "text", BURST_STREAMS)


async def _burst(rig: Rig, system: System, kind: str, loads: Mapping[int, int]) -> Figures:
    figures = {}
    for streams, requests in loads.items():
        script = BURSTS[kind]
        seconds = requests * script.deltas * rig.pace[system.key]
        if seconds > SLOW_SECONDS:
            script, requests = SLOW_BURSTS[kind], streams
        elif seconds:  # what only hands bytes on is done in no time, and so is asked more often
            requests *= math.ceil(LEAST_SECONDS / seconds)
        if requests * script.deltas * rig.pace[system.key] <= SLOW_SECONDS:
            load = await rig.load(system, script, streams, requests)
            figures[f"{kind}_burst_{streams}"] = load.cpu / (requests * script.deltas)
    return figures


async def paced(rig: Rig, system: System, round: int) -> Figures:
    return await _paced(rig, system, "text", PACED_STREAMS)


async def _paced(rig: Rig, system: System, kind: str, loads: Sequence[int]) -> Figures:
    """A paced delta costs more than one in a burst: what the first few streams take says whether more can be asked."""
    figures: Figures = {}
    cost, script = rig.pace[system.key], PACED[kind]
    for streams in loads:
        if not manages(cost, streams):
            continue
        load = await _in_time(rig, system, script, streams)
        cost = load.cpu / (streams * script.deltas)
        figures[f"{kind}_paced_{streams}"] = cost
        figures[f"{kind}_delay_p50_{streams}"] = load.delay.p50
        figures[f"{kind}_delay_p99_{streams}"] = load.delay.p99
    return figures


async def _in_time(rig: Rig, system: System, script: Script, streams: int) -> Load:
    """Deltas that other work on the machine holds up are read together, which takes less CPU than is asked about. Of
    several tries the first counts whose deltas are in time, and where none is, the one that comes closest."""
    tries: list[Load] = []
    while len(tries) < PACED_TRIES and not (tries and tries[-1].delay.p99 < ADDED_DELAY):
        tries.append(await rig.load(system, script, streams, streams, ramp=RAMP_SECONDS))
        _all_came(system, script, tries[-1], streams)
    return min(tries, key=lambda each: each.delay.p99)


def manages(cost: float, streams: int, gap: int = GAP) -> bool:
    """Whether so many streams need less than two CPUs: with up to two it is late, beyond them it would take minutes."""
    return cost * streams * 1e6 / gap < 2


def _all_came(system: System, script: Script, load: Load, streams: int) -> None:
    if load.marks != streams * script.marks:
        raise Broken(f"{system.title} handed on {load.marks} of {streams * script.marks} deltas of {script.model}")


async def kinds(rig: Rig, system: System, round: int) -> Figures:
    """All that is not plain text, as text in `burst` and `paced`."""
    figures: Figures = {}
    for kind in KINDS[1:]:
        figures |= await _burst(rig, system, kind, BURST_STREAMS) | await _paced(rig, system, kind, PACED_STREAMS)
    return figures


async def workers(rig: Rig, system: System, round: int) -> Figures:
    """Loads of many streams, which the kernel shares out to the workers that there are; all have the one CPU."""
    bursts = {streams: requests for streams, requests in BURST_STREAMS.items() if streams > 1}
    figures = await _burst(rig, system, "text", bursts) | await _paced(rig, system, "text", PACED_STREAMS[-1:])
    return {f"workers{key.removeprefix('text')}": value for key, value in figures.items()}


async def first(rig: Rig, system: System, round: int) -> Figures:
    load = await rig.load(system, FIRST, 1, 40)
    return {"first": load.first.p50}


async def whole(rig: Rig, system: System, round: int) -> Figures:
    """Answers of 100 tokens that are not streamed, to 16 clients at once."""
    trial = await rig.load(system, WHOLE, 16, 32, whole=True)
    requests = max(32, min(int(trial.rate * WHOLE_SECONDS), 50_000))
    load = await rig.load(system, WHOLE, 16, requests, whole=True)
    return {"whole_rate": load.rate, "whole_cpu": load.cpu / requests}


async def large(rig: Rig, system: System, round: int) -> Figures:
    """Requests of conversations that nobody has seen before, then turns of one conversation, each with a new step."""
    seed = round * 1000 + list(turns.PROTOCOLS).index(system.protocol) * 100
    name = f"{system.protocol}-{round}"
    fresh = [
        rig.file(f"fresh-{name}-{each}", lambda each=each: _large(system, turns.long(seed + each)))
        for each in range(1, LARGE_REQUESTS + 1)
    ]
    conversation = turns.long(seed, turns.STEPS + LARGE_REQUESTS)
    following = [
        rig.file(f"next-{name}-{each}", lambda each=each: _large(system, conversation.until(turns.STEPS + each)))
        for each in range(LARGE_REQUESTS + 1)
    ]
    # What only hands bytes on is so cheap that it is asked longer; that it sees a body twice is nothing to it.
    requests = LARGE_REQUESTS * (4 if system.forwards else 1)
    first = await rig.load(system, LARGE, 1, requests, bodies=fresh)
    await rig.load(system, LARGE, 1, 1, bodies=following[:1])
    later = await rig.load(system, LARGE, 1, requests, bodies=following[1:])
    return {"large_first": first.cpu / requests, "large_next": later.cpu / requests}


def _large(system: System, conversation: turns.Conversation) -> bytes:
    return turns.encode(system.protocol, LARGE.model, conversation)


async def stall(rig: Rig, system: System, round: int) -> Figures:
    """The longest that a delta of another stream waits while requests of 205 kB come in, one after the other."""
    if not manages(rig.pace[system.key], 2, TICKING.gap):
        return {}
    ticking = asyncio.create_task(rig.load(system, TICKING, 2, 2, ramp=0.0005))
    await asyncio.sleep(0.3)
    seed = 500_000 + round * 100
    bodies = [
        rig.file(f"stall-{system.protocol}-{round}-{each}", lambda each=each: _large(system, turns.long(seed + each)))
        for each in range(8)
    ]
    await rig.load(system, LARGE, 1, len(bodies), bodies=bodies)
    return {"stall": (await ticking).delay.most}


async def held(rig: Rig, system: System, round: int) -> Figures:
    """The most paced streams whose deltas come less than 10 ms later at the 99th percentile than without a gateway, to
    within a tenth."""
    trial = await rig.load(system, HELD, 5, 5, ramp=RAMP_SECONDS, failing=True)
    streams = max(2, min(int(GAP / 1e6 / (trial.cpu / (5 * HELD.deltas))), 400))
    most, too_many = 0, 0
    while not too_many or too_many - most > max(1, 0.1 * too_many):
        if await _holds(rig, system, streams):
            most = streams
        else:
            too_many = streams
        if most == MOST_STREAMS or too_many == 1:
            break
        streams = (most + too_many) // 2 if too_many else min(int(most * 1.25) + 1, MOST_STREAMS)
    return {"held": most}


async def _holds(rig: Rig, system: System, streams: int) -> bool:
    """Noise only adds to delays, so the better of two tries counts."""
    for _ in range(2):
        load = await rig.load(system, HELD, streams, streams, ramp=1.013, failing=True)
        if load.answered == streams and load.steady.p99 - await _delay_without(rig, streams) < ADDED_DELAY:
            return True
        if load.cpu / load.seconds > 0.97:
            break
    return False


async def _delay_without(rig: Rig, streams: int) -> float:
    """Measured once for about as many streams."""
    about = 1 << (streams.bit_length() - 1)
    if about not in rig.without:
        rig.without[about] = (await rig.load(DIRECT, HELD, about, about, ramp=1.013)).steady.p99
    return rig.without[about]


async def memory(rig: Rig, system: System, round: int) -> Figures:
    """Of a fresh process: after five requests, and for each of a hundred streams that are open."""
    assert system.process is not None
    async with rig.start(system.process) as child:
        await rig.load(system, FIRST, 5, 5)
        await asyncio.sleep(1)
        idle = rss_of(child.pid)
        load = await rig.load(system, OPEN, 100, 100, ramp=1.5)
        return {"idle": idle, "stream": (load.peak - idle) / 100}


@dataclass(frozen=True, slots=True)
class Part:
    name: str
    title: str
    measure: Measure
    rounds: int
    takes: Callable[[System], bool]


def _whole(system: System) -> bool:
    return system.process is not None and system.only in ("", "whole")


def _proxy(system: System) -> bool:
    return _whole(system) and not system.only


def _main(system: System) -> bool:
    return _proxy(system) and (system.main or not system.ours)


def _workers(system: System) -> bool:
    return system in (GATEWAY_SYSTEM, TWO_WORKERS)


PARTS = (
    Part("burst", "CPU of a delta of text, unpaced", burst, 3, _proxy),
    Part("paced", "CPU and delay of a delta of text, one each 20 ms", paced, 3, _proxy),
    Part("first", "time to the first token", first, 5, lambda system: not system.only),
    Part("whole", "answers that are not streamed", whole, 5, _whole),
    Part("large", "an agent's request of 205 kB", large, 5, _proxy),
    Part("stall", "the longest wait while such a request is handled", stall, 3, _main),
    Part("kinds", "CPU of a delta of what is not plain text", kinds, 2, lambda system: system.compared),
    Part("workers", "CPU of a delta with one worker and with two", workers, 3, _workers),
    Part("held", "streams held", held, 1, _main),
    Part("memory", "memory of a fresh process", memory, 1, _main),
)
