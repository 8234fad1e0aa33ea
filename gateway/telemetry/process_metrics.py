"""Metrics of the process: how late the event loop is, twice a second, and how much memory is in use, now and then.

The lag is that of a timer, which a task could not measure: it would run one turn of the loop later. The memory is read
in a thread, since what /proc says may have to wait for the kernel. How long the loop stood still is measured by a timer
that is due more often: a sample twice a second would miss what lies between two.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from pathlib import Path

from dragoman.backends.background import end, in_background
from dragoman.gateway.telemetry.metrics import Metrics

PERIOD = 0.5
MEMORY_PERIOD = 5.0  # each sample wakes a thread, in a process that has nothing else to do
STALL_PERIOD = 0.1
STALL_WINDOW = 60.0  # seconds for which a stall is shown: most scrape more often
_STATM = Path("/proc/self/statm")  # Linux; elsewhere the memory stays unknown
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


class ProcessMetrics:
    """Samples from its creation until `close`; needs a running loop."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time() + PERIOD
        self._timer = self._loop.call_at(self._due, self._sample)
        self._stalls = Stalls(STALL_WINDOW)
        self._stall_due = self._loop.time() + STALL_PERIOD
        self._stall_timer = self._loop.call_at(self._stall_due, self._sample_stall)
        self._memory = in_background(self._follow_memory(), "memory")

    async def close(self) -> None:
        self._timer.cancel()
        self._stall_timer.cancel()
        await end(self._memory)

    def _sample(self) -> None:
        now = self._loop.time()
        self._metrics.loop_lag.observe(max(0.0, now - self._due))
        self._due = now + PERIOD
        self._timer = self._loop.call_at(self._due, self._sample)

    def _sample_stall(self) -> None:
        now = self._loop.time()
        self._metrics.loop_stall.set(self._stalls.longest(now, max(0.0, now - self._stall_due)))
        self._stall_due = now + STALL_PERIOD
        self._stall_timer = self._loop.call_at(self._stall_due, self._sample_stall)

    async def _follow_memory(self) -> None:
        while True:
            if (memory := await asyncio.to_thread(resident)) is not None:
                self._metrics.resident.set(memory)
            await asyncio.sleep(MEMORY_PERIOD)


class Stalls:
    """The longest of the last `window` seconds: those that a later, longer one outlasts are forgotten."""

    def __init__(self, window: float) -> None:
        self._window = window
        self._kept: deque[tuple[float, float]] = deque()  # when, and how long; ever shorter

    def longest(self, now: float, newest: float) -> float:
        while self._kept and self._kept[-1][1] <= newest:
            self._kept.pop()
        self._kept.append((now, newest))
        while self._kept[0][0] < now - self._window:
            self._kept.popleft()
        return self._kept[0][1]


def resident() -> int | None:
    """Bytes of this process that are in memory."""
    try:
        return int(_STATM.read_bytes().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return None
