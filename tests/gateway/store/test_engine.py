"""Who can read the store's files."""

from __future__ import annotations

import asyncio
import stat
import sys
from pathlib import Path

import pytest

from dragoman.gateway.store.engine import open_engine


@pytest.mark.parametrize("name", ["answers.db", "od d?#%41&x=1.db", "new/folder/a.db"])
async def test_a_file_has_the_name_that_it_was_given_and_is_its_owner_s_alone(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    engine = open_engine(f"sqlite:{path}")
    async with engine.begin() as connection:
        await connection.exec_driver_sql("create table t (a)")
        beside = [each for each in path.parent.iterdir() if each.name.startswith(path.name)]
        assert len(beside) > 1
        for each in beside:
            assert stat.S_IMODE(each.stat().st_mode) == 0o600
    await engine.dispose()


async def test_many_that_make_one_file_at_the_same_time_all_can_use_it(tmp_path: Path) -> None:
    for round in range(10):
        url = f"sqlite:{tmp_path / f'{round}.db'}"
        engines = await asyncio.gather(*(asyncio.to_thread(open_engine, url) for _ in range(4)))
        for engine in engines:
            async with engine.begin() as connection:
                assert (await connection.exec_driver_sql("PRAGMA journal_mode")).scalar_one() == "wal"
            await engine.dispose()


READS = "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute('select count(*) from t').fetchone()[0])"


async def test_what_is_written_after_the_file_was_opened_again_is_not_lost_to_another_process(tmp_path: Path) -> None:
    """A reload with another age opens the file of which the older generation still has connections."""
    path = tmp_path / "answers.db"
    older = open_engine(f"sqlite:{path}")
    async with older.connect() as connection:
        await connection.exec_driver_sql("create table t (a)")
        await connection.commit()
        newer = open_engine(f"sqlite:{path}")
        for written in range(3):  # the other process opens the file and closes it: it may believe to be the last
            assert await _in_another_process(path) == written
            await connection.exec_driver_sql("insert into t values (1)")
            await connection.commit()
        async with newer.connect() as also:
            assert (await also.exec_driver_sql("select count(*) from t")).scalar_one() == 3
    await newer.dispose()
    await older.dispose()


async def _in_another_process(path: Path) -> int:
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", READS, str(path), stdout=asyncio.subprocess.PIPE)
    output, _ = await child.communicate()
    return int(output)
