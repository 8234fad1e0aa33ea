"""What the address of a store says without opening it."""

from __future__ import annotations

from pathlib import Path

import pytest

from dragoman.gateway.store.address import is_new, place


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@db.example:5432/answers?password=secret", "postgresql at db.example:5432/answers"),
        ("postgresql:///answers", "postgresql at localhost/answers"),
        ("sqlite:/var/lib/a.db", "sqlite:/var/lib/a.db"),
        ("memory", "memory"),
    ],
)
def test_its_place_is_shown_without_a_password(url: str, shown: str) -> None:
    assert place(url) == shown


@pytest.mark.parametrize(
    ("url", "new"),
    [
        ("memory", True),
        ("sqlite:{}/a.db", True),
        ("sqlite:{}/new/deep/a.db", True),
        ("sqlite:~/a.db", True),
        ("sqlite:a.db", True),
        ("sqlite:{}/there.db", False),
        ("sqlite:{}/link.db", False),
        ("sqlite:{}/there.db/a.db", False),  # a file where a folder should be
        ("sqlite:{}", False),
        ("sqlite:/", False),
        ("postgresql:///answers", False),
    ],
)
def test_a_store_is_new_where_nothing_is_there_and_nothing_is_in_the_way(
    url: str, new: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.db").touch()
    (tmp_path / "link.db").symlink_to(tmp_path / "gone.db")
    assert is_new(url.format(tmp_path)) is new
