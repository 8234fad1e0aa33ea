"""The process's own figures: the event loop's lag and the memory."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from dragoman.gateway.telemetry.metrics import Metrics
from dragoman.gateway.telemetry.process_metrics import ProcessMetrics, Stalls, resident
from tests.waiting import until


async def test_lag_and_memory_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dragoman.gateway.telemetry.process_metrics.PERIOD", 0.02)
    metrics = Metrics()
    process_metrics = ProcessMetrics(metrics)
    await until(lambda: (metrics.registry.get_sample_value("dragoman_loop_lag_seconds_count") or 0) >= 3)
    await until(lambda: metrics.registry.get_sample_value("dragoman_resident_memory_bytes"))
    await process_metrics.close()
    count = metrics.registry.get_sample_value("dragoman_loop_lag_seconds_count")
    memory = metrics.registry.get_sample_value("dragoman_resident_memory_bytes") or 0
    assert 10_000_000 < memory < 4_000_000_000
    assert resident() is not None
    await asyncio.sleep(0.05)
    assert metrics.registry.get_sample_value("dragoman_loop_lag_seconds_count") == count


def test_the_longest_stall_of_a_minute_is_shown_for_a_minute() -> None:
    stalls = Stalls(60)
    shown = [stalls.longest(now, late) for now, late in ((0, 1), (10, 5), (20, 2), (69, 0), (71, 0), (81, 0), (90, 3))]
    assert shown == [1, 5, 5, 5, 2, 0, 3]


def test_stalls_are_kept_in_bounded_memory() -> None:
    stalls = Stalls(60)
    for number in range(10_000):
        stalls.longest(number / 10, 1 / (number + 1))
    assert len(stalls._kept) <= 601


async def test_a_loop_that_stands_still_is_measured() -> None:
    metrics = Metrics()
    process_metrics = ProcessMetrics(metrics)
    await asyncio.sleep(0)
    end = time.monotonic() + 0.5
    while time.monotonic() < end:
        pass
    await until(lambda: (metrics.registry.get_sample_value("dragoman_loop_stall_seconds") or 0) >= 0.3)
    await process_metrics.close()


async def test_memory_is_read_off_the_loop_and_again_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dragoman.gateway.telemetry.process_metrics.MEMORY_PERIOD", 0.001)
    answers: list[int | None] = [None, 7]
    threads: set[int] = set()

    def read() -> int | None:
        threads.add(threading.get_ident())
        return answers.pop(0) if len(answers) > 1 else answers[0]

    monkeypatch.setattr("dragoman.gateway.telemetry.process_metrics.resident", read)
    metrics = Metrics()
    process_metrics = ProcessMetrics(metrics)
    await until(lambda: metrics.registry.get_sample_value("dragoman_resident_memory_bytes") == 7)
    await process_metrics.close()
    assert threading.get_ident() not in threads
