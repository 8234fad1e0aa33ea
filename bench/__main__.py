"""`python -m bench [PART…]`: what the gateway costs, beside a byte pass-through, a splice and gateways of others.

All parts take about ten minutes; docs/performance.md explains them. Systems are measured in turns within a
round, and only figures of one run compare. Prints the tables, and writes JSON and a plot into dist/bench. Exit code 1:
something broke and the figures do not count; 2: --strict and a figure is not what it should be. `--agree` compares runs
(`bench/agreement.py`).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from bench import agreement, peers
from bench.checks import check
from bench.children import Broken
from bench.figures import Results
from bench.native import Programs, build
from bench.parts import PARTS, Part
from bench.plot import svg
from bench.report import (
    Table,
    as_json,
    as_markdown,
    as_text,
    described,
    kinds_table,
    machine,
    main_table,
    pasted,
    summary,
    workers_table,
)
from bench.rig import Rig, preferred, rig
from bench.systems import OURS, System

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "dist" / "bench"
PAGE = ROOT / "docs" / "performance.md"
README = ROOT / "README.md"


@dataclass(frozen=True, slots=True)
class Plan:
    """`rounds` bounds each part's own."""

    parts: Sequence[Part]
    systems: Sequence[System]
    rounds: int | None = None


async def measure(plan: Plan, programs: Programs, folder: Path) -> Results:
    """Everything that the plan asks for; files of the run lie in `folder`."""
    results = Results()
    async with rig(programs, folder) as place, contextlib.AsyncExitStack() as stack:
        systems = await _ready(plan, place, stack, results)
        for part in plan.parts:
            for round in range(min(plan.rounds or part.rounds, part.rounds)):
                await _round(part, round, [each for each in systems if part.takes(each)], place, results)
    results.derive()
    return results


async def _ready(plan: Plan, place: Rig, stack: contextlib.AsyncExitStack, results: Results) -> list[System]:
    """Starts every process; the systems that do their work. A peer that does not is left out and named."""
    broken: set[str] = set()
    for process in dict.fromkeys(each.process for each in plan.systems if each.process is not None):
        _progress(f"starting {process.name}")
        try:
            await stack.enter_async_context(place.start(process))
        except Broken as error:
            if any(each.ours for each in plan.systems if each.process is process):
                raise
            results.missing[process.name] = str(error)
            broken.add(process.name)
    ready = []
    for system in plan.systems:
        if system.process is not None and system.process.name in broken:
            continue
        with _allowed_for_peers(system, "check", results):
            await check(place, system)
            await place.warm_up(system)
            ready.append(system)
    return ready


async def _round(part: Part, round: int, systems: Sequence[System], place: Rig, results: Results) -> None:
    for system in systems:
        if f"{system.title}, {part.name}" in results.missing:
            continue
        _progress(f"{part.title}, round {round + 1}: {system.title}")
        with _allowed_for_peers(system, part.name, results):
            results.add(system, round, await part.measure(place, system, round))


@contextlib.contextmanager
def _allowed_for_peers(system: System, part: str, results: Results) -> Iterator[None]:
    """What breaks of ours ends the run; what breaks of a peer is a hole in the table with a reason."""
    try:
        yield
    except (Broken, TimeoutError) as error:
        if system.ours:
            raise
        results.missing[f"{system.title}, {part}"] = str(error) or type(error).__name__


def _progress(words: str) -> None:
    print(
        f"\r\033[K{words}" if sys.stderr.isatty() else words, end="" if sys.stderr.isatty() else "\n", file=sys.stderr
    )


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure the gateway against a pass-through.")
    names = [part.name for part in PARTS]
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(names)}; all when none is named")
    parser.add_argument("--peers", action="store_true", help="gateways of others too, where they are installed")
    parser.add_argument(
        "--rounds", type=int, metavar="N", help="at most so many rounds of every part (5 to 1, as the part has it)"
    )
    parser.add_argument(
        "--docs", action="store_true", help="write tables and plot into docs/performance.md and the README as well"
    )
    parser.add_argument("--strict", action="store_true", help="exit code 2 when a figure is not what it should be")
    parser.add_argument(
        "--agree",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="measure nothing: in which ratios runs agree whose figures.json were copied to these files",
    )
    parser.add_argument("--patient", action="store_true", help="do not come before other work on this machine")
    given = parser.parse_args(words)
    if unknown := [name for name in given.parts if name not in names]:
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(names)}")
    if given.agree and len(given.agree) < 2:
        parser.error("--agree compares two runs or more")
    return given


def agree(files: Sequence[Path], *, strict: bool) -> int:
    """Prints in how many ratios the runs agree; the exit code."""
    try:
        ratios = agreement.compared([agreement.read(each) for each in files])
    except (Broken, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print(agreement.report(ratios, len(files)))
    return 2 if strict and not all(each.agrees for each in ratios) else 0


def tables(results: Results, systems: Sequence[System]) -> dict[str, Table]:
    """By the names of their places in the page; those of which nothing was measured are empty."""
    makers = {"figures": main_table, "kinds": kinds_table, "workers": workers_table}
    return {name: make(results, systems) for name, make in makers.items()}


def write(results: Results, systems: Sequence[System], facts: dict[str, str], *, docs: bool) -> None:
    """JSON and plot into dist/bench; with `docs` both into the page, and a few rows into the README."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    content = as_json(results, systems, facts)
    (FOLDER / "figures.json").write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2))
    (FOLDER / "figures.svg").write_text(svg(results, systems), "utf-8")
    if not docs:
        return
    page = PAGE.read_text("utf-8")
    sentence = described(facts, peers.versions([each for each in systems if not each.ours]))
    for name, table in tables(results, systems).items():
        if table:
            page = pasted(page, name, f"{sentence}\n\n{as_markdown(table)}")
    PAGE.write_text(page, "utf-8")
    if shown := summary(main_table(results, systems)):
        README.write_text(pasted(README.read_text("utf-8"), "speed", as_markdown(shown)), "utf-8")
    if main_table(results, systems):
        PAGE.with_suffix(".svg").write_text(svg(results, systems), "utf-8")


def main(words: Sequence[str] | None = None) -> int:
    given = _arguments(words)
    if given.agree:
        return agree(given.agree, strict=given.strict)
    plan = Plan([part for part in PARTS if not given.parts or part.name in given.parts], OURS, given.rounds)
    if given.peers:
        present, absent = peers.installed()
        plan = Plan(plan.parts, [*OURS, *present], given.rounds)
        if absent:
            print(f"bench: not installed: {', '.join(absent)}; `make bench-peers` installs them", file=sys.stderr)
    facts = {**machine(), "load at the start": f"{os.getloadavg()[0]:.1f}"}
    begun = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="dragoman-bench-") as folder:
            programs = build(Path(folder))
            with contextlib.nullcontext() if given.patient else preferred():
                results = asyncio.run(measure(plan, programs, Path(folder)))
    except (Broken, OSError, TimeoutError) as error:
        print(f"bench: {error or type(error).__name__}", file=sys.stderr)
        return 1
    facts |= {"load at the end": f"{os.getloadavg()[0]:.1f}", "seconds": f"{time.monotonic() - begun:.0f}"}
    _progress("")
    for table in tables(results, plan.systems).values():
        if table:
            print(as_text(table), end="\n\n")
    for name, reason in results.missing.items():
        print(f"no figures: {name}: {reason[:300]}")
    write(results, plan.systems, facts, docs=given.docs)
    print(f"{facts['seconds']} s; {FOLDER.relative_to(ROOT)}/figures.json and figures.svg")
    return 2 if given.strict and results.missed() else 0


if __name__ == "__main__":
    sys.exit(main())
