"""The metrics of a process, and of several added up."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector

from dragoman.gateway.telemetry import METRICS_DIRECTORY
from dragoman.gateway.telemetry.processes import Processes, live_workers


def values(families: list[Metric]) -> dict[str, float]:
    return {sample.name: sample.value for family in families for sample in family.samples}


def test_processes_are_added_up_and_the_oldest_start_counts() -> None:
    own, parent = str(os.getpid()), str(os.getppid())
    one, other = (values(list(Processes(lambda pid=pid: [pid]).collect())) for pid in (own, parent))  # type: ignore[misc]
    both = values(list(Processes(lambda: [own, parent]).collect()))
    assert set(both) == set(one) == set(other)
    assert both["process_start_time_seconds"] == min(each["process_start_time_seconds"] for each in (one, other))
    assert both["process_max_fds"] == one["process_max_fds"] + other["process_max_fds"]
    assert both["process_cpu_seconds_total"] >= one["process_cpu_seconds_total"]


def test_a_process_that_has_ended_or_cannot_be_read_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(Processes(lambda: ["4194304"]).collect()) == []

    def unlimited(self: ProcessCollector) -> list[Metric]:
        raise ValueError("could not convert string to float: b'unlimited'")

    monkeypatch.setattr(ProcessCollector, "collect", unlimited)
    assert list(Processes(lambda: ["self"]).collect()) == []


def test_workers_are_found_by_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(METRICS_DIRECTORY, str(tmp_path))
    for name in (
        "gauge_livesum_12.db",
        "gauge_livemax_12.db",
        "gauge_livesum_7.db",
        "counter_9.db",
        "gauge_livesum_.db",
    ):
        (tmp_path / name).touch()
    assert live_workers() == ["12", "7"]
