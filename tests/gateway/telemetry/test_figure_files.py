"""The files of several workers' figures on a disk that fills up."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from dragoman.gateway.telemetry.figure_files import FigureFile, forget


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_file_has_its_room_before_it_is_written_to(tmp_path: Path) -> None:
    """A hole that cannot be filled ends the process."""
    path = tmp_path / "counter_1.db"
    file = FigureFile(str(path))
    for number in range(3000):
        file.write_value(f"key {number}", number, 0.0)
        assert path.stat().st_blocks * 512 >= path.stat().st_size > 0
    assert {key: value for key, value, _, _ in FigureFile.read_all_values_from_file(path)} == {
        f"key {number}": number for number in range(3000)
    }
    file.close()


def test_without_room_the_figures_go_on_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "counter_1.db"
    begun = FigureFile(str(path))
    begun.write_value("before", 1.0, 0.0)
    monkeypatch.setattr("os.posix_fallocate", full)
    made = FigureFile(str(tmp_path / "counter_2.db"))
    for file in (begun, made):
        for number in range(3000):
            file.write_value(f"key {number}", number, 0.0)
        assert [file.read_value(f"key {number}")[0] for number in range(3000)] == list(range(3000))
    assert begun.read_value("before")[0] == 1.0
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    assert path.stat().st_size == 65_536
    assert caplog.text.count("no longer seen by others: No space left on device") >= 2
    for file in (begun, made):
        file.close()


def test_what_a_worker_leaves_that_counted_nothing_is_removed(tmp_path: Path) -> None:
    for name, value in (("counter_7", 0.0), ("histogram_7", 1.0), ("counter_77", 0.0)):
        file = FigureFile(str(tmp_path / f"{name}.db"))
        file.write_value("key", value, 0.0)
        file.close()
    (tmp_path / "broken_7.db").touch()
    forget(str(tmp_path), 7)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["broken_7.db", "counter_77.db", "histogram_7.db"]
