"""What the store asks its database, each function within a transaction that its caller has begun.

Values are always parameters of a statement. A conversation is found from its last answer by the pointers to the answers
before. Its row is changed first wherever something is added, so that a deletion beside it comes before or after, never
between.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Select, bindparam, delete, func, insert, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.dml import ReturningUpdate

from dragoman.gateway.store.tables import answers, conversations, items, version

DEEPEST = 10_000  # answers of one conversation that are followed
AT_ONCE = 500  # ids in one statement
DELETED = 50  # conversations in one transaction: what is to be kept waits meanwhile


@dataclass(frozen=True, slots=True)
class Rows:
    """An answer as it is written: the values of its row, without the conversation, those of its items, and their
    size in bytes."""

    answer: dict[str, Any]
    items: list[dict[str, Any]]
    size: int


def _growing() -> ReturningUpdate[Any]:
    """The conversation of an answer `previous` of `of` becomes `more` bytes larger at `now`; gives its id."""
    found = select(answers.c.conversation).where(
        answers.c.id == bindparam("previous"), answers.c.owner == bindparam("of")
    )
    grown = update(conversations).where(conversations.c.id == found.scalar_subquery())
    values = {"used_at": bindparam("now"), "size": conversations.c.size + bindparam("more")}
    return grown.values(values).returning(conversations.c.id)


def _listing() -> Select[Any]:
    """Of an answer `id` of `of`: the pointer of each answer up to the first one, and the bodies of its items."""
    first = select(answers.c.id, answers.c.previous, literal(0).label("depth"))
    chain = first.where(answers.c.id == bindparam("id"), answers.c.owner == bindparam("of")).cte(
        "chain", recursive=True
    )
    above = answers.alias("above")
    further = select(above.c.id, above.c.previous, chain.c.depth + 1).where(
        above.c.id == chain.c.previous, above.c.owner == bindparam("of"), chain.c.depth < DEEPEST
    )
    chain = chain.union_all(further)
    return (
        select(chain.c.previous, items.c.body)
        .select_from(chain.outerjoin(items, items.c.answer == chain.c.id))
        .order_by(chain.c.depth.desc(), items.c.place)
    )


# Of all calls. Made for each, they would be up to 240 objects that refer to each other and wait for a collection.
GROWING = _growing()
LISTING = _listing()


async def touch(connection: AsyncConnection) -> None:
    """Writes what is there, to see whether anything can be written."""
    await connection.execute(update(version).values(version=version.c.version))


async def put(connection: AsyncConnection, rows: Rows) -> None:
    now, id, owner, previous = int(time.time()), rows.answer["id"], rows.answer["owner"], rows.answer["previous"]
    root: str | None = None
    if previous is not None:
        grown = {"previous": previous, "of": owner, "now": now, "more": rows.size}
        root = (await connection.execute(GROWING, grown)).scalar_one_or_none()
    if root is None:
        root = id
        values = {"id": root, "owner": owner, "used_at": now, "size": rows.size}
        await connection.execute(insert(conversations).values(values))
    await connection.execute(insert(answers).values({**rows.answer, "conversation": root}))
    if rows.items:
        await connection.execute(insert(items), rows.items)


async def conversation(connection: AsyncConnection, owner: str, id: str) -> list[bytes] | None:
    """The bodies of all items, in order; None where an answer is missing."""
    found = (await connection.execute(LISTING, {"id": id, "of": owner})).all()
    if not found or found[0].previous is not None:
        return None
    return [row.body for row in found if row.body is not None]  # an answer may have no items


async def answer(connection: AsyncConnection, owner: str, id: str) -> tuple[Row[Any], list[tuple[int, bytes]]] | None:
    """Its row, and its items: whether each was asked, and its body."""
    row = (await connection.execute(select(answers).where(answers.c.id == id, answers.c.owner == owner))).one_or_none()
    if row is None:
        return None
    listed = select(items.c.asked, items.c.body).where(items.c.answer == id).order_by(items.c.place)
    return row, [(each.asked, each.body) for each in await connection.execute(listed)]


async def named(connection: AsyncConnection, owner: str, ids: Sequence[str]) -> dict[str, bytes]:
    """The bodies of the items with these ids; of two with the same, the one that was kept last."""
    found: dict[str, bytes] = {}
    for start in range(0, len(ids), AT_ONCE):
        listed = (
            select(items.c.id, items.c.body)
            .join(answers, items.c.answer == answers.c.id)
            .where(items.c.id.in_(ids[start : start + AT_ONCE]), answers.c.owner == owner)
            .order_by(answers.c.created_at)
        )
        found.update({row.id: row.body for row in await connection.execute(listed)})
    return found


async def remove(connection: AsyncConnection, owner: str, id: str) -> bool:
    measured = select(func.coalesce(func.sum(func.length(items.c.body)), 0)).where(items.c.answer == id)
    size = int((await connection.execute(measured)).scalar_one())
    gone = delete(answers).where(answers.c.id == id, answers.c.owner == owner)
    row = (await connection.execute(gone.returning(answers.c.conversation, answers.c.body))).one_or_none()
    if row is None:
        return False
    left = conversations.c.size - size - len(row.body)
    await connection.execute(update(conversations).where(conversations.c.id == row.conversation).values(size=left))
    return True


async def clean(connection: AsyncConnection, age: float, size: int) -> bool:
    """Deletes some conversations of those that are too old or too much; whether there may be more of them. One that is
    used while its deletion waits for it stays."""
    unused = conversations.c.used_at < int(time.time() - age)
    old = select(conversations.c.id).where(unused).limit(DELETED)
    gone = await connection.execute(delete(conversations).where(conversations.c.id.in_(old), unused))
    if gone.rowcount:
        return True
    total = (await connection.execute(select(func.coalesce(func.sum(conversations.c.size), 0)))).scalar_one()
    if total <= size:
        return False
    order = conversations.c.used_at, conversations.c.id
    listed = select(conversations.c.id, conversations.c.size, conversations.c.used_at).order_by(*order).limit(DELETED)
    beyond, over, used_at = list[str](), int(total) - size, 0
    for row in await connection.execute(listed):
        if over <= 0:
            break
        beyond.append(row.id)
        over -= row.size
        used_at = row.used_at
    unused = conversations.c.used_at <= used_at
    await connection.execute(delete(conversations).where(conversations.c.id.in_(beyond), unused))
    return over > 0 and bool(beyond)
