"""The tables, and how an older database becomes one of this version.

One row for each item and a pointer to the answer before it, so a conversation of fifty turns holds its items once. A
conversation is a tree (an answer may be continued twice); it is used, and it ages, as a whole: what a client goes on
with is never half gone.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    func,
    insert,
    inspect,
    select,
    update,
)

VERSION = 1
LOCK = 0x647261676F6D616E  # "dragoman": the advisory lock under which PostgreSQL's tables are made
MIGRATIONS: dict[int, Callable[[Connection], None]] = {}  # from each version to the next
metadata = MetaData()

conversations = Table(
    "conversations",
    metadata,
    Column("id", String(96), primary_key=True),  # that of its first answer
    Column("owner", String(64), nullable=False),
    Column("used_at", BigInteger, nullable=False),  # Unix seconds
    Column("size", BigInteger, nullable=False),  # bytes of what is kept
    Index("conversations_by_use", "used_at"),
)
answers = Table(
    "answers",
    metadata,
    Column("id", String(96), primary_key=True),
    Column("conversation", ForeignKey("conversations.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("owner", String(64), nullable=False),
    Column("previous", String(96)),
    Column("created_at", BigInteger, nullable=False),
    Column("body", LargeBinary, nullable=False),
)
items = Table(
    "items",
    metadata,
    Column("answer", ForeignKey("answers.id", ondelete="CASCADE"), primary_key=True),
    Column("place", Integer, primary_key=True),  # in the order of the conversation
    Column("asked", Integer, nullable=False),  # 1 for the request's own, 0 for the answer's
    Column("id", String(96), nullable=False, index=True),
    Column("body", LargeBinary, nullable=False),
)
version = Table("store_version", metadata, Column("version", Integer, primary_key=True))


class TooNew(Exception):
    """The database was written by a later version of dragoman."""


def prepare(connection: Connection) -> None:
    """Makes the tables, or brings those of an older version up to this one; raises `TooNew`. In a transaction that
    writes: of two gateways that start together, one waits."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(LOCK)))
    if not inspect(connection).has_table(version.name):
        metadata.create_all(connection)
        connection.execute(insert(version).values(version=VERSION))
        return
    found = connection.execute(select(version.c.version)).scalar_one()
    if found > VERSION:
        raise TooNew(f"its tables are of version {found}, and this dragoman knows {VERSION}")
    for step in range(found, VERSION):
        MIGRATIONS[step](connection)
    if found < VERSION:
        connection.execute(update(version).values(version=VERSION))
