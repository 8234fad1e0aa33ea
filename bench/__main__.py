"""`python -m bench`: the gateway and an aiohttp byte pass-through, measured in turns in one run, beside the budgets.

Rounds are interleaved and figures are medians, because on a shared machine two runs never compare; a ratio is the
median of the rounds' own ratios. A missed budget fails the run only with --strict. Exit code 1: something
broke and the figures do not count; 2: --strict and a budget was missed.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import shlex
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from bench.children import GATEWAY, PASSTHROUGH, UPSTREAM, Broken, Child, started
from bench.loop import run
from bench.measures import FULL, QUICK, Proxy, Sizes, measure

RUN_SECONDS = 280.0


@dataclass(frozen=True)
class Row:
    """One figure: how it is called, the unit it is shown in, and at most one budget, as a ratio or in that unit."""

    key: str
    title: str
    unit: str
    scale: float
    ratio_budget: float | None = None
    budget: float | None = None


ROWS = (
    Row("burst_cpu", "CPU of a delta, {burst_streams} streams in burst", "µs", 1e6, ratio_budget=3.0),
    Row("paced_cpu", "CPU of a delta, {paced_streams} streams, one each 20 ms", "µs", 1e6, ratio_budget=1.5),
    Row("paced_gap", "… p99 of the gap beyond 20 ms", "ms", 1e3),
    Row("first_median", "added time to first token, median", "ms", 1e3),
    Row("first_p99", "added time to first token, p99", "ms", 1e3),
    Row("whole_rate", "whole answers, {whole_clients} at once", "1/s", 1.0),
    Row("whole_cpu", "CPU of a whole answer", "µs", 1e6),
    Row("first_turn_cpu", "CPU of an agent's request of 205 kB, first turn", "ms", 1e3, ratio_budget=2.5),
    Row("next_turn_cpu", "… next turn of the session", "ms", 1e3, ratio_budget=1.8),
    Row("idle_rss", "memory of the idle process", "MB", 1e-6, budget=80.0),
    Row("stream_rss", "memory of an open stream ({held_streams} open)", "kB", 1e-3, budget=60.0),
)


@dataclass(frozen=True)
class Result:
    """Medians of both sides in the row's unit; `met` is None where there is no budget."""

    row: Row
    unit: float
    gateway: float
    ratio: float | None

    @property
    def met(self) -> bool | None:
        if self.row.ratio_budget is not None:
            return self.ratio is not None and self.ratio <= self.row.ratio_budget
        return None if self.row.budget is None else self.gateway <= self.row.budget


async def compare(sizes: Sizes, gateway: Sequence[str] | None = None) -> list[Result]:
    """Both sides, `sizes.rounds` times in turn, each round in fresh processes. `gateway` replaces our own command; the
    upstream's URL is put in place of `{upstream}`."""
    units: list[dict[str, float]] = []
    gateways: list[dict[str, float]] = []
    async with asyncio.timeout(RUN_SECONDS), started("upstream", UPSTREAM) as upstream:
        backend = f"{upstream.url}/v1"
        ours = gateway or [*GATEWAY, "serve", "--backend", "{upstream}", "--host", "127.0.0.1", "--port", "0"]
        for _ in range(sizes.rounds):
            units.append(
                await _round("pass-through", [*PASSTHROUGH, backend], b'"finish_reason":"stop"', upstream, sizes)
            )
            command = [word.replace("{upstream}", backend) for word in ours]
            gateways.append(await _round("gateway", command, b"response.completed", upstream, sizes))
    return [_result(row, units, gateways) for row in ROWS]


async def _round(name: str, command: Sequence[str], success: bytes, upstream: Child, sizes: Sizes) -> dict[str, float]:
    async with started(name, command) as child:
        return await measure(Proxy(child, upstream, "/v1/responses", success), sizes)


def _result(row: Row, units: list[dict[str, float]], gateways: list[dict[str, float]]) -> Result:
    pairs = [(unit[row.key], gateway[row.key]) for unit, gateway in zip(units, gateways, strict=True)]
    # Differences of two medians may come out as nothing or less: then there is no ratio to speak of.
    ratios = [gateway / unit for unit, gateway in pairs if unit > 0]
    return Result(
        row,
        statistics.median(unit for unit, _ in pairs) * row.scale,
        statistics.median(gateway for _, gateway in pairs) * row.scale,
        statistics.median(ratios) if len(ratios) == len(pairs) else None,
    )


def table(results: Sequence[Result], sizes: Sizes) -> str:
    titles = [result.row.title.format(**dataclasses.asdict(sizes)) for result in results]
    width = max(map(len, titles))
    lines = [f"{'':{width}}  {'pass-through':>14}  {'gateway':>14}  {'ratio':>6}  budget"]
    for title, result in zip(titles, results, strict=True):
        unit = result.row.unit
        ratio = "-" if result.ratio is None else f"{result.ratio:.2f}x"
        lines.append(
            f"{title:{width}}  {_number(result.unit):>10} {unit:<3}  {_number(result.gateway):>10} {unit:<3}"
            f"  {ratio:>6}  {_verdict(result)}".rstrip()
        )
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 1 else f"{value:.1f}"


def _verdict(result: Result) -> str:
    row = result.row
    if result.met is None:
        return ""
    bound = f"{row.ratio_budget:g}x" if row.ratio_budget is not None else f"{row.budget:g} {row.unit}"
    return f"at most {bound}: {'pass' if result.met else 'FAIL'}"


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure the gateway against a pass-through.")
    parser.add_argument("--quick", action="store_true", help="smaller and shorter; the figures are rougher")
    parser.add_argument("--strict", action="store_true", help="exit code 2 when a budget is missed")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds of both sides (3; 2 with --quick)")
    parser.add_argument("--paced", type=int, default=20, metavar="N", help="streams in the paced measure (20)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON instead of the table")
    parser.add_argument(
        "--gateway", type=shlex.split, metavar="COMMAND", help="measure this instead; {upstream} stands for the server"
    )
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    given = _arguments(words)
    sizes = dataclasses.replace(QUICK if given.quick else FULL, paced_streams=given.paced)
    if given.rounds is not None:
        sizes = dataclasses.replace(sizes, rounds=max(1, given.rounds))
    try:
        results = run(compare(sizes, given.gateway))
    except (Broken, OSError, TimeoutError) as error:
        print(f"bench: {error or type(error).__name__}", file=sys.stderr)
        return 1
    if given.json:
        print(json.dumps([{**dataclasses.asdict(each), "met": each.met} for each in results], indent=2))
    else:
        print(table(results, sizes))
    return 2 if given.strict and any(result.met is False for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
