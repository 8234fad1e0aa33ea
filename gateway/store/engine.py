"""From the address of a store to an engine of SQLAlchemy.

SQLite is opened in WAL mode and begins what writes with the lock that it needs, so that two processes wait for each
other instead of failing halfway. Its file can be read by its owner alone. PostgreSQL's address is libpq's, with all of
its parameters (`sslmode=`, `passfile=` …), which asyncpg reads by itself.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import StaticPool

from dragoman.gateway.store.address import MEMORY, POSTGRESQL, file_of

BUSY = 900  # milliseconds that SQLite waits for another process
MODE_ATTEMPTS = 25
MODE_REST = 0.02  # seconds
CONNECT_LIMIT = 3.0
CONNECTIONS = 8
_SQLITE = "sqlite+aiosqlite"
WRITES = "writes"  # the execution option of a transaction that writes


def open_engine(url: str) -> AsyncEngine:
    """Connects to no server yet; may take a while. Raises OSError where there can be no file."""
    if url.startswith(POSTGRESQL):
        return _postgresql(url)
    options: dict[str, Any] = {"pool_size": CONNECTIONS, "max_overflow": CONNECTIONS}
    if url == MEMORY:
        place, options = URL.create(_SQLITE, database=":memory:"), {"poolclass": StaticPool}
    else:  # which no later connection makes anew, for everybody to read
        file = f"file:{quote(_made(file_of(url)))}"
        place = URL.create(_SQLITE, database=file, query={"mode": "rw", "uri": "true"})
    engine = create_async_engine(place, connect_args={"isolation_level": None}, **options)
    event.listen(engine.sync_engine, "connect", _set_up)
    event.listen(engine.sync_engine, "begin", _begin)
    return engine


def _made(path: Path) -> str:
    """A file that is there is not opened: closing it would give up the locks that this process holds on it, since POSIX
    counts none by descriptor, and then another process deletes the log to which this one goes on writing."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    if path.stat().st_size == 0:
        _write_ahead(path)
    return str(path)


def _write_ahead(path: Path) -> None:
    """Turns the mode on, which the file keeps. Where two processes do so at the same time, SQLite refuses one of them
    without waiting."""
    for _ in range(MODE_ATTEMPTS):
        with contextlib.suppress(sqlite3.Error):  # what stays wrong is reported by whoever opens it next
            with contextlib.closing(sqlite3.connect(path, timeout=0)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
            return
        time.sleep(MODE_REST)


def _set_up(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    for pragma in (f"busy_timeout={BUSY}", "journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get(WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _postgresql(url: str) -> AsyncEngine:
    import asyncpg

    async def connected() -> Any:
        try:
            return await asyncpg.connect(url, timeout=CONNECT_LIMIT)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
            raise ConnectionError(str(error)) from None

    return create_async_engine(
        "postgresql+asyncpg://", async_creator=connected, pool_size=CONNECTIONS, max_overflow=CONNECTIONS
    )
