"""The tables: made once, brought up to date step by step, and left alone when they are of a later version."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, create_engine, inspect, select

from dragoman.gateway.store import tables
from dragoman.gateway.store.tables import TooNew, prepare, version


@pytest.fixture
def connection() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    with engine.begin() as opened:
        yield opened
    engine.dispose()


def found(connection: Connection) -> int:
    number: int = connection.execute(select(version.c.version)).scalar_one()
    return number


def test_they_are_made_once(connection: Connection) -> None:
    prepare(connection)
    prepare(connection)
    names = set(inspect(connection).get_table_names())
    assert (names, found(connection)) == (set(tables.metadata.tables), tables.VERSION)


def test_an_older_version_is_brought_up_to_date_step_by_step(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[int] = []
    prepare(connection)
    monkeypatch.setattr(tables, "VERSION", 3)
    monkeypatch.setattr(tables, "MIGRATIONS", {1: lambda _: done.append(1), 2: lambda _: done.append(2)})
    prepare(connection)
    prepare(connection)
    assert (done, found(connection)) == ([1, 2], 3)


def test_a_later_version_is_refused(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "VERSION", 2)
    prepare(connection)
    monkeypatch.setattr(tables, "VERSION", 1)
    with pytest.raises(TooNew, match="version 2"):
        prepare(connection)
