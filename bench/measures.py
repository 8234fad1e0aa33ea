"""What is measured of one proxy, pass-through and gateway alike: the same requests, the same scripted answers.

Each measure drives load for a bounded time, checks that the answers were whole and successful (a proxy that fails fast
would look cheap), and returns plain numbers. The process measured is fresh, so memory is read before load has grown it.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench import bodies
from bench.children import Broken, Child
from bench.client import Line, Reply, fetch, post
from bench.upstream import SCRIPTS, text_of

LIMIT_SECONDS = 60.0


@dataclass(frozen=True)
class Sizes:
    """How much of everything; `FULL` takes about 15 s a proxy and round."""

    rounds: int = 3
    burst_streams: int = 32
    burst_repeats: int = 3
    burst_script: str = "burst"
    paced_streams: int = 20
    paced_script: str = "paced"
    first_tokens: int = 200
    whole_clients: int = 16
    whole_seconds: float = 2.0
    large_requests: int = 100
    held_streams: int = 200


FULL = Sizes()
QUICK = Sizes(
    rounds=2, burst_repeats=1, paced_script="paced-short", first_tokens=60, whole_seconds=0.7, large_requests=20
)
TINY = Sizes(
    rounds=1,
    burst_streams=4,
    burst_repeats=1,
    burst_script="burst-short",
    paced_streams=2,
    paced_script="paced-short",
    first_tokens=5,
    whole_clients=2,
    whole_seconds=0.2,
    large_requests=3,
    held_streams=10,
)


@dataclass(frozen=True)
class Proxy:
    """A process under measurement. `success` are the bytes in every stream that was not cut short."""

    child: Child
    upstream: Child
    path: str
    success: bytes

    def post(self, body: bytes) -> bytes:
        return post(self.child.url, self.path, body)


async def measure(proxy: Proxy, sizes: Sizes) -> dict[str, float]:
    """All figures of one round by key; seconds and bytes."""
    figures: dict[str, float] = {}
    await check(proxy)
    figures["idle_rss"] = proxy.child.rss()
    figures["stream_rss"] = await memory_of_streams(proxy, sizes.held_streams)
    await streams(proxy, "burst-short", sizes.burst_streams)  # warms both sides alike
    figures["burst_cpu"] = await burst(proxy, sizes)
    figures["paced_cpu"], figures["paced_gap"] = await paced(proxy, sizes)
    figures["first_median"], figures["first_p99"] = await first_token(proxy, sizes.first_tokens)
    figures["whole_rate"], figures["whole_cpu"] = await whole(proxy, sizes)
    figures["first_turn_cpu"] = await large(proxy, bodies.agent_sessions("first"), sizes.large_requests)
    figures["next_turn_cpu"] = await large(proxy, bodies.agent_turns("first"), sizes.large_requests)
    return figures


async def check(proxy: Proxy) -> None:
    """One stream read in full: it must say what the script says."""
    line = await Line.open(proxy.child.url)
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            reply = await line.ask(proxy.post(bodies.question("burst-short")), proxy.success, keep=True)
    finally:
        line.leave()
    told = "".join(_delta(event) for event in reply.content().split(b"\n\n"))
    if reply.status != 200 or not reply.completed or told != text_of(SCRIPTS["burst-short"].deltas):
        shown = reply.content()[-600:].decode(errors="replace")
        raise Broken(f"{proxy.child.name} answered {reply.status}, not what the script says: …{shown}")


def _delta(event: bytes) -> str:
    """The text in one event of a Responses or of a chat-completions stream."""
    _, found, payload = event.partition(b"data: ")
    if not found or payload.startswith(b"[DONE]"):
        return ""
    content = json.loads(payload)
    if content.get("type") == "response.output_text.delta":
        return str(content["delta"])
    return "".join(choice["delta"].get("content") or "" for choice in content.get("choices") or ())


async def memory_of_streams(proxy: Proxy, count: int) -> float:
    """Bytes of memory per stream that is open and has begun."""
    before = proxy.child.rss()
    request = proxy.post(bodies.question("held"))
    lines = [await Line.open(proxy.child.url) for _ in range(count)]
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            for line in lines:
                line.begin(request)
            replies = [await line.token for line in lines]
        if any(reply.status != 200 or reply.first == 0.0 for reply in replies):
            raise Broken(f"{proxy.child.name} did not hold {count} open streams")
        await asyncio.sleep(0.2)
        grown = proxy.child.rss() - before
    finally:
        for line in lines:
            line.leave()
    await _abandoned(proxy)
    return grown / count


async def _abandoned(proxy: Proxy) -> None:
    """Clients that left must reach the upstream; else the figures after this one would measure their streams too."""
    for _ in range(50):
        if json.loads(await fetch(proxy.upstream.url, "/counts"))["streams"] == 0:
            return
        await asyncio.sleep(0.1)
    raise Broken(f"{proxy.child.name} kept upstream streams open 5 s after their clients had left")


async def streams(proxy: Proxy, script: str, count: int, *, repeats: int = 1, arrivals: bool = False) -> list[Reply]:
    """`count` clients at once, each asking `repeats` times; every answer is checked."""
    request = proxy.post(bodies.question(script))

    async def client() -> list[Reply]:
        line = await Line.open(proxy.child.url)
        try:
            replies = []
            for _ in range(repeats):
                if not line.open_still:
                    line = await Line.open(proxy.child.url)
                replies.append(await line.ask(request, proxy.success, arrivals=arrivals))
            return replies
        finally:
            line.leave()

    async with asyncio.timeout(LIMIT_SECONDS):
        replies = [reply for group in await asyncio.gather(*(client() for _ in range(count))) for reply in group]
    _all_good(proxy, replies)
    return replies


def _all_good(proxy: Proxy, replies: Sequence[Reply]) -> None:
    bad = [reply for reply in replies if not (reply.status == 200 and reply.whole and reply.completed)]
    if bad:
        raise Broken(f"{proxy.child.name}: {len(bad)} of {len(replies)} answers failed, the first with {bad[0].status}")


async def burst(proxy: Proxy, sizes: Sizes) -> float:
    before = proxy.child.cpu()
    await streams(proxy, sizes.burst_script, sizes.burst_streams, repeats=sizes.burst_repeats)
    deltas = SCRIPTS[sizes.burst_script].deltas * sizes.burst_streams * sizes.burst_repeats
    return (proxy.child.cpu() - before) / deltas


async def paced(proxy: Proxy, sizes: Sizes) -> tuple[float, float]:
    """CPU of a delta, and the 99th percentile of the time between reads beyond the script's own gap."""
    script = SCRIPTS[sizes.paced_script]
    before = proxy.child.cpu()
    replies = await streams(proxy, sizes.paced_script, sizes.paced_streams, arrivals=True)
    cpu = (proxy.child.cpu() - before) / (script.deltas * sizes.paced_streams)
    # The first gap is drawn by the script, the last read holds the end.
    times = [reply.arrivals[2:-1] for reply in replies if reply.arrivals is not None]
    gaps = [later - earlier for each in times for earlier, later in itertools.pairwise(each)]
    return cpu, percentile(gaps, 99) - script.gap


async def first_token(proxy: Proxy, count: int) -> tuple[float, float]:
    """Median and 99th percentile of the time to the first token, less those without a proxy."""
    direct = post(proxy.upstream.url, "/v1/chat/completions", bodies.question("first"))
    without = await _first_tokens(proxy.upstream, [direct] * count)
    times = await _first_tokens(proxy.child, [proxy.post(bodies.question("first"))] * count)
    return (
        statistics.median(times) - statistics.median(without),
        percentile(times, 99) - percentile(without, 99),
    )


async def _first_tokens(child: Child, requests: Sequence[bytes]) -> list[float]:
    line = await Line.open(child.url)
    times = []
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            for request in requests:
                if not line.open_still:
                    line = await Line.open(child.url)
                reply = await line.ask(request)
                if reply.status != 200 or reply.first == 0.0:
                    raise Broken(f"{child.name} answered {reply.status} without a token")
                times.append(reply.first - reply.asked)
    finally:
        line.leave()
    return times


async def whole(proxy: Proxy, sizes: Sizes) -> tuple[float, float]:
    """Answers that are not streamed: how many a second, and the CPU of one."""
    request = proxy.post(bodies.question("answer", stream=False))
    end = time.perf_counter() + sizes.whole_seconds

    async def client() -> int:
        line = await Line.open(proxy.child.url)
        answers = 0
        try:
            while time.perf_counter() < end:
                reply = await line.ask(request)
                if reply.status != 200 or not reply.whole or reply.first == 0.0:
                    raise Broken(f"{proxy.child.name} gave no whole answer but {reply.status}")
                answers += 1
        finally:
            line.leave()
        return answers

    before, begun = proxy.child.cpu(), time.perf_counter()
    async with asyncio.timeout(LIMIT_SECONDS):
        answers = sum(await asyncio.gather(*(client() for _ in range(sizes.whole_clients))))
    return answers / (time.perf_counter() - begun), (proxy.child.cpu() - before) / answers


async def large(proxy: Proxy, turns: Iterator[bytes], count: int) -> float:
    """CPU of one agent's turn of about 205 kB that is answered with a single token; no two requests are the same."""
    warming = max(1, count // 10)
    requests = [proxy.post(body) for body in itertools.islice(turns, warming + count)]
    await _first_tokens(proxy.child, requests[:warming])
    before = proxy.child.cpu()
    await _first_tokens(proxy.child, requests[warming:])
    return (proxy.child.cpu() - before) / count


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile; 0 where there are too few values to speak of one."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
