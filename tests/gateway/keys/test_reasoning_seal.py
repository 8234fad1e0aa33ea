"""Sealed reasoning: deterministic, rotatable, and blind to what is not ours."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.gateway.keys.reasoning_seal import PREFIX, Sealer, own_key


@given(st.text())
def test_what_was_sealed_is_opened(text: str) -> None:
    sealer = Sealer(["a key"])
    assert sealer.open(sealer.seal(text)) == text


def test_the_same_thought_has_the_same_seal_on_every_replica() -> None:
    assert Sealer(["k"]).seal("a thought") == Sealer(["k"]).seal("a thought")
    assert "thought" not in Sealer(["k"]).seal("a thought")


def test_keys_rotate() -> None:
    old, new = Sealer(["old"]), Sealer(["new", "old"])
    assert new.open(old.seal("x")) == "x"
    assert old.open(new.seal("x")) is None


def test_a_changed_seal_does_not_open() -> None:
    sealer = Sealer(["k"])
    sealed = sealer.seal("a thought that matters")
    for at in range(len(PREFIX), len(sealed) - 1):
        other = "A" if sealed[at] != "A" else "B"
        assert sealer.open(sealed[:at] + other + sealed[at + 1 :]) is None


@pytest.mark.parametrize("foreign", ["", "gAAAAABm", PREFIX, PREFIX + "!", PREFIX + "ä", PREFIX + "AAAA", "\ud83d"])
def test_foreign_seals_are_ignored(foreign: str) -> None:
    assert Sealer(["k"]).open(foreign) is None


def test_one_key_for_all_workers_that_nobody_else_reads(tmp_path: Path) -> None:
    key = own_key(tmp_path / "state")
    assert own_key(tmp_path / "state") == key
    files = list((tmp_path / "state").iterdir())
    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600]


def test_a_state_directory_that_cannot_be_written_costs_only_the_restart(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert len(own_key(tmp_path / "file")) == 64
