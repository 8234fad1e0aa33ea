"""A run as text, as Markdown and as JSON: one table of systems, and one of what a delta costs by protocol and kind."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.figures import FIGURES, LOADS, WORKERS_FIGURES, Figure, Results, kinds_measured
from bench.systems import DIRECT, System

Table = list[list[str]]
KIND_TITLES = {
    "text": "text",
    "tools": "tool arguments",
    "reasoning": "reasoning",
    "counting": "text, each chunk with the usage so far",
}
LOAD_TITLES = ("1, unpaced", "32, unpaced", "256, unpaced", "20, paced", "200, paced")
SUMMARY_FIGURES = ("text_burst_32", "text_paced_200", "first_added", "whole_rate", "large_next", "idle")
SUMMARY_SYSTEMS = (
    "pass-through",
    "dragoman, Responses",
    "codex-relay, Responses",
    "Switchyard, Responses",
    "LiteLLM, Responses",
)
PACKAGES = ("aiohttp", "httptools", "orjson", "uvloop")


def main_table(results: Results, systems: Sequence[System]) -> Table:
    return _table(results, systems, FIGURES)


def workers_table(results: Results, systems: Sequence[System]) -> Table:
    """What a delta costs with one worker and with two, with the ratio to one."""
    return _table(results, systems, WORKERS_FIGURES)


def _table(results: Results, systems: Sequence[System], figures: Sequence[Figure]) -> Table:
    """A head, then a row for each figure that was measured; empty where nothing was."""
    shown = [each for each in figures if any(results.value(each.key, system.key) is not None for system in systems)]
    columns = results.systems(systems, [each.key for each in shown])
    if not shown:
        return []
    head = ["", *(each.title for each in columns), "should be"]
    return [
        head,
        *(
            [_title(each), *(_cell(results, each, system) for system in columns), _verdict(results, each)]
            for each in shown
        ),
    ]


def kinds_table(results: Results, systems: Sequence[System]) -> Table:
    """What a delta of each kind costs in each protocol, with the ratio to the pass-through of the same bytes."""
    if len(kinds_measured(results)) < 2:
        return []
    rows = [["CPU of a delta, µs", *LOAD_TITLES]]
    for kind in kinds_measured(results):
        figures = [Figure(f"{kind}_{load}", "", "µs", 1e6, True) for load in LOADS]
        for system in results.systems(systems, [f"{kind}_{LOADS[0]}"]):
            if system is DIRECT or not system.compared:
                continue
            rows.append([f"{KIND_TITLES[kind]}: {system.title}", *(_cell(results, each, system) for each in figures)])
    return rows


def summary(table: Table) -> Table:
    """The rows and columns of the main table that stand in the README; empty where one of those systems is missing."""
    head, *rows = table or [[]]
    if not set(SUMMARY_SYSTEMS) <= set(head):
        return []
    places = [head.index(title) for title in SUMMARY_SYSTEMS]
    titles = [_title(each) for each in FIGURES if each.key in SUMMARY_FIGURES]
    chosen = [[row[0], *(row[place] for place in places)] for row in rows if row[0] in titles]
    return [["", *(title.partition(",")[0] for title in SUMMARY_SYSTEMS)], *chosen]


def read(markdown: str) -> Table:
    """What `as_markdown` has written."""
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in (lines[0], *lines[2:])]


def _title(figure: Figure) -> str:
    return f"{figure.title}, {figure.unit}" if figure.unit else figure.title


def _cell(results: Results, figure: Figure, system: System) -> str:
    value, ratio = results.value(figure.key, system.key), results.ratio(figure.key, system.key)
    if value is None:
        return "-"
    shown = number(value * figure.scale)
    return f"{shown} ({ratio:.2f} x)" if figure.relative and ratio is not None else shown


def _verdict(results: Results, figure: Figure) -> str:
    bound, found = figure.bound, results.bounded(figure)
    if bound is None or found is None:
        return ""
    unit = {"ratio": " x", "value": f" {figure.unit}", "excess": f" {figure.unit} over the pass-through"}[bound.of]
    said = f"{'at least' if bound.least else 'at most'} {bound.limit:g}{unit.rstrip()}"
    return f"{said}: {'yes' if bound.met(found) else 'no'}"


def number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def as_text(table: Table) -> str:
    widths = [max(len(row[place]) for row in table) for place in range(len(table[0]))]
    lines = []
    for row in table:
        cells = [
            f"{row[0]:{widths[0]}}",
            *(f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def as_markdown(table: Table) -> str:
    head, *rows = [f"| {' | '.join(row)} |" for row in table]
    return "\n".join([head, "|---" * len(table[0]) + "|", *rows])


def machine() -> dict[str, str]:
    """What the figures were measured on and with."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "processor": f"{len(os.sched_getaffinity(0))} CPUs ({model or platform.machine()})",
        "kernel": f"Linux {platform.release()}",
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        "date": datetime.now(UTC).date().isoformat(),
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def described(facts: dict[str, str], peers: Sequence[str]) -> str:
    """One sentence of where and with what."""
    packages = ", ".join(f"{name} {facts[name]}" for name in PACKAGES)
    beside = f"; {', '.join(peers)}" if peers else ""
    return (
        f"{facts['date']}, {facts['processor']}, {facts['kernel']}, CPython {facts['python']}, {packages}{beside}. "
        f"Load average at the start {facts['load at the start']}, at the end {facts['load at the end']}."
    )


def as_json(results: Results, systems: Sequence[System], facts: dict[str, str]) -> dict[str, Any]:
    """Every round, and the values and ratios made of them; seconds and bytes."""
    figures = {
        key: {
            system.key: {
                "value": results.value(key, system.key),
                "ratio": results.ratio(key, system.key),
                "rounds": list(results.rounds[key][system.key].values()),
            }
            for system in results.systems(systems, [key])
        }
        for key in list(results.rounds)
    }
    return {"machine": facts, "figures": figures, "missing": results.missing}


def pasted(page: str, name: str, content: str) -> str:
    """The page with `content` between `<!-- NAME -->` and `<!-- end of NAME -->`, where it has such a place."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
    return pattern.sub(lambda found: f"{found[1]}{content}\n{found[2]}", page)
