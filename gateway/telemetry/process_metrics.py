"""Metrics of the process, sampled twice a second: how late the event loop is, and how much memory is in use.

A timer, not a task: nothing has to be awaited at the end, and a sample costs a few microseconds.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from dragoman.gateway.telemetry.metrics import Metrics

PERIOD = 0.5
_STATM = Path("/proc/self/statm")  # Linux; elsewhere the memory stays unknown
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


class ProcessMetrics:
    """Samples from its creation until `close`; needs a running loop."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time() + PERIOD
        self._timer = self._loop.call_at(self._due, self._sample)
        self._measure_memory()

    def close(self) -> None:
        self._timer.cancel()

    def _sample(self) -> None:
        now = self._loop.time()
        self._metrics.loop_lag.observe(max(0.0, now - self._due))
        self._measure_memory()
        self._due = now + PERIOD
        self._timer = self._loop.call_at(self._due, self._sample)

    def _measure_memory(self) -> None:
        if (memory := resident()) is not None:
            self._metrics.resident.set(memory)


def resident() -> int | None:
    """Bytes of this process that are in memory."""
    try:
        return int(_STATM.read_bytes().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return None
