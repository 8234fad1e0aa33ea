"""The process's own figures: the event loop's lag and the memory."""

from __future__ import annotations

import asyncio

import pytest

from dragoman.gateway.telemetry.metrics import Metrics
from dragoman.gateway.telemetry.process_metrics import ProcessMetrics, resident
from tests.waiting import until


async def test_lag_and_memory_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dragoman.gateway.telemetry.process_metrics.PERIOD", 0.02)
    metrics = Metrics()
    process_metrics = ProcessMetrics(metrics)
    await until(lambda: (metrics.registry.get_sample_value("dragoman_loop_lag_seconds_count") or 0) >= 3)
    process_metrics.close()
    count = metrics.registry.get_sample_value("dragoman_loop_lag_seconds_count")
    memory = metrics.registry.get_sample_value("dragoman_resident_memory_bytes") or 0
    assert 10_000_000 < memory < 4_000_000_000
    assert resident() is not None
    await asyncio.sleep(0.05)
    assert metrics.registry.get_sample_value("dragoman_loop_lag_seconds_count") == count
