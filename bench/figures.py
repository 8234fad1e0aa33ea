"""The figures of a run, what is made of their rounds, and what they should be.

Of CPU the least of the rounds counts and of a rate the most: other work on the machine takes the caches, and so only
adds to the one and takes from the other. Of the CPU of paced deltas the median counts, because deltas that other work
holds up are read together and take less; so it does of delays and memory. A ratio is to the pass-through, and that of
two workers to one worker.
"""

from __future__ import annotations

import re
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from bench.scripts import KINDS
from bench.systems import DIRECT, GATEWAY_SYSTEM, TWO_WORKERS, UNIT, System


@dataclass(frozen=True, slots=True)
class Bound:
    """What a figure should be: its ratio to that of `Figure.beside`, its value, or how much more it is."""

    of: str  # "ratio", "value" or "excess"
    limit: float
    least: bool = False

    def met(self, value: float) -> bool:
        return value >= self.limit if self.least else value <= self.limit


@dataclass(frozen=True, slots=True)
class Figure:
    """A row of the table. `relative`: its ratio is shown beside it. The bound is that of the system `of`."""

    key: str
    title: str
    unit: str
    scale: float
    relative: bool = False
    bound: Bound | None = None
    of: System = GATEWAY_SYSTEM
    beside: System = UNIT


def _cpu(key: str, title: str, limit: float | None = None) -> Figure:
    return Figure(key, title, "µs", 1e6, True, None if limit is None else Bound("ratio", limit))


FIGURES = (
    _cpu("text_burst_1", "CPU of a delta, 1 stream, unpaced"),
    _cpu("text_burst_32", "CPU of a delta, 32 streams, unpaced", 1.4),
    _cpu("text_burst_256", "CPU of a delta, 256 streams, unpaced"),
    _cpu("text_paced_20", "CPU of a delta, 20 streams, one each 20 ms", 0.9),
    _cpu("text_paced_200", "CPU of a delta, 200 streams, one each 20 ms", 0.75),
    Figure("text_delay_p50_20", "one-way delay, 20 streams, median", "ms", 1e3),
    Figure("text_delay_p99_20", "one-way delay, 20 streams, p99", "ms", 1e3),
    Figure("text_delay_p50_200", "one-way delay, 200 streams, median", "ms", 1e3),
    Figure("text_delay_p99_200", "one-way delay, 200 streams, p99", "ms", 1e3, bound=Bound("value", 2.0)),
    Figure("held", "streams held, p99 less than 10 ms later", "", 1.0, True, Bound("value", 600, least=True)),
    Figure("first_added", "added time to first token", "ms", 1e3, bound=Bound("excess", 0.4)),
    Figure("whole_rate", "whole answers, 16 at once", "1/s", 1.0, True, Bound("ratio", 0.6, least=True)),
    Figure("whole_cpu", "CPU of a whole answer", "µs", 1e6, True),
    Figure("large_first", "CPU of a 205 kB request, first turn", "ms", 1e3, True, Bound("ratio", 2.5)),
    Figure("large_next", "CPU of a 205 kB request, next turn", "ms", 1e3, True, Bound("ratio", 1.8)),
    Figure("stall", "longest wait of other streams meanwhile", "ms", 1e3),
    Figure("idle", "memory, idle", "MB", 1e-6, bound=Bound("value", 60)),
    Figure("stream", "memory of an open stream", "kB", 1e-3, bound=Bound("value", 25)),
)
WORKERS_FIGURES = tuple(
    Figure(f"workers_{load}", title, "µs", 1e6, True, Bound("ratio", 1.15), of=TWO_WORKERS, beside=GATEWAY_SYSTEM)
    for load, title in (
        ("burst_32", "CPU of a delta, 32 streams, unpaced"),
        ("burst_256", "CPU of a delta, 256 streams, unpaced"),
        ("paced_200", "CPU of a delta, 200 streams, one each 20 ms"),
    )
)
"""Of the supervisor and its workers together, which have one CPU."""
ALL_FIGURES = (*FIGURES, *WORKERS_FIGURES)
_BESIDE = {figure.key: figure.beside for figure in ALL_FIGURES}
_CPU = re.compile(r"_burst_|_paced_|_cpu$|^large_")
_RATES = ("whole_rate",)
LOADS = ("burst_1", "burst_32", "burst_256", "paced_20", "paced_200")


def beside(figure: str) -> System:
    """To which system the ratios of a figure are."""
    return _BESIDE.get(figure, UNIT)


def of_work(figure: str) -> bool:
    """Whether it is CPU or a rate, and not a delay, memory or a number of streams."""
    return figure in _RATES or _CPU.search(figure) is not None


def typical(figure: str) -> Callable[[Iterable[float]], float]:
    """What is made of the rounds of a figure."""
    if figure in _RATES:
        return max
    return min if of_work(figure) and "_paced_" not in figure else statistics.median


@dataclass(slots=True)
class Results:
    """`rounds[figure][system][round]`, in seconds and bytes."""

    rounds: dict[str, dict[str, dict[int, float]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(dict))
    )
    missing: dict[str, str] = field(default_factory=dict)
    """Why a system has no figures of a part: "system, part" to the reason."""

    def add(self, system: System, round: int, figures: dict[str, float]) -> None:
        for key, value in figures.items():
            self.rounds[key][system.key][round] = value

    def derive(self) -> None:
        """The time to the first token beyond that without a gateway."""
        direct = self.rounds["first"][DIRECT.key]
        for key, values in list(self.rounds["first"].items()):
            added = {round: value - direct[round] for round, value in values.items() if round in direct}
            if key != DIRECT.key and added:
                self.rounds["first_added"][key] = added

    def value(self, figure: str, system: str) -> float | None:
        values = self.rounds[figure][system].values() if system in self.rounds[figure] else ()
        return typical(figure)(values) if values else None

    def ratio(self, figure: str, system: str) -> float | None:
        value, unit = self.value(figure, system), self.value(figure, beside(figure).key)
        return None if value is None or unit is None or unit <= 0 else value / unit

    def bounded(self, figure: Figure) -> float | None:
        """The figure as its bound is meant; in the figure's unit, or a ratio."""
        value, unit = self.value(figure.key, figure.of.key), self.value(figure.key, figure.beside.key)
        if figure.bound is None or value is None:
            return None
        if figure.bound.of == "ratio":
            return self.ratio(figure.key, figure.of.key)
        if figure.bound.of == "excess":
            return None if unit is None else (value - unit) * figure.scale
        return value * figure.scale

    def missed(self) -> list[Figure]:
        return [
            each
            for each in ALL_FIGURES
            if each.bound and (found := self.bounded(each)) is not None and not each.bound.met(found)
        ]

    def systems(self, given: Sequence[System], figures: Sequence[str]) -> list[System]:
        return [each for each in given if any(self.value(figure, each.key) is not None for figure in figures)]


def kinds_measured(results: Results) -> list[str]:
    return [kind for kind in KINDS if any(f"{kind}_{load}" in results.rounds for load in LOADS)]
