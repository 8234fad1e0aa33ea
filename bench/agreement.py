"""Whether runs agree: `python -m bench --agree FILE FILE…`, each a copy of what a run wrote to dist/bench/figures.json.

Ratios of CPU and of rates are compared; delays, memory and streams held are not. Runs agree in a ratio where the
largest is at most 15 % more than the least. A ratio that one of the runs lacks is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from bench.children import Broken
from bench.figures import beside, of_work

WITHIN = 0.15


@dataclass(frozen=True, slots=True)
class Compared:
    """What each run says of one ratio."""

    figure: str
    system: str
    ratios: tuple[float, ...]

    @property
    def apart(self) -> float:
        """By what part of the least the largest is more."""
        return max(self.ratios) / min(self.ratios) - 1

    @property
    def agrees(self) -> bool:
        return self.apart <= WITHIN


def compared(runs: Sequence[dict[str, Any]]) -> list[Compared]:
    """The ratios that all runs have, those that are furthest apart first. Raises `Broken` where there are none."""
    found = []
    for figure, systems in runs[0].items():
        for system in systems:
            ratios = [run.get(figure, {}).get(system, {}).get("ratio") for run in runs]
            if of_work(figure) and system != beside(figure).key and all(ratios):
                found.append(Compared(figure, system, tuple(ratios)))
    if not found:
        raise Broken("the runs have no ratio of CPU or of a rate in common")
    return sorted(found, key=lambda each: -each.apart)


def read(path: Path) -> dict[str, Any]:
    """The figures of a run. Raises `Broken` for a file that holds none."""
    try:
        content = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError:
        content = None
    figures = content.get("figures") if isinstance(content, dict) else None
    if not isinstance(figures, dict):
        raise Broken(f"{path} holds no figures of a run")
    return figures


def report(ratios: Sequence[Compared], runs: int) -> str:
    """A line for all, and one for each ratio in which the runs do not agree."""
    apart = [each for each in ratios if not each.agrees]
    agreed = f"{len(ratios) - len(apart)} of {len(ratios)}"
    lines = [f"{runs} runs agree to within {WITHIN * 100:.0f} % in {agreed} ratios of CPU and rates"]
    for each in apart:
        shown = ", ".join(f"{ratio:.2f}" for ratio in each.ratios)
        lines.append(f"{each.apart * 100:>4.0f} % apart: {each.figure}, {each.system}: {shown}")
    return "\n".join(lines)
