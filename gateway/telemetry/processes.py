"""The usual metrics of a process (`process_…`: CPU, memory, files), of one or of all workers together.

The library's collector reads /proc and knows one process; where there is no /proc, there are none.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from dragoman.gateway.telemetry import METRICS_DIRECTORY

LIVE = re.compile(r"gauge_live\w+_(\d+)\.db")  # the library's files of workers that run
OLDEST = "process_start_time_seconds"  # all else is added up


class Processes(Collector):
    """`pids` names the processes as /proc does."""

    def __init__(self, pids: Callable[[], Iterable[str]]) -> None:
        self._pids = pids

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for pid in self._pids():
            for family in _of_one(pid):
                known = families.setdefault(family.name, family)
                if known is not family:
                    known.samples = [
                        mine._replace(value=(min if family.name == OLDEST else _sum)(mine.value, other.value))
                        for mine, other in zip(known.samples, family.samples, strict=True)
                    ]
        yield from families.values()


def live_workers() -> list[str]:
    """The processes that share the directory of metrics and have not ended."""
    names = (path.name for path in Path(os.environ[METRICS_DIRECTORY]).iterdir())
    return sorted({found[1] for name in names if (found := LIVE.fullmatch(name))})


def _of_one(pid: str) -> list[Metric]:
    try:
        return list(ProcessCollector(pid=partial(str, pid), registry=None).collect())
    except (ValueError, IndexError):  # a limit may be `unlimited`, and the process may end while it is read
        return []


def _sum(one: float, other: float) -> float:
    return one + other
