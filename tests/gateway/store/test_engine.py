"""Who can read the store's files."""

from __future__ import annotations

import stat
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
