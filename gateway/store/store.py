"""The store: one implementation over SQLAlchemy, for SQLite (also in memory) and PostgreSQL.

Rules: every question is bounded in time, from the moment at which it has its turn, and one that fails makes the store
*down*: then nothing waits for it, until a look beside the traffic finds it usable again. Where only the room is used up
(a full disk), what is kept can still be read. What was begun is done also if the client leaves meanwhile. What is kept
is deleted beside the traffic, whole conversations at a time: those unused for too long, then, beyond the limit on the
size, the longest unused. Bodies may be sealed. A file that is no database, or one of a later version, is reported and
never written to.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, TypeVar

import orjson
import zstandard
from sqlalchemy import Row
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from dragoman.backends.background import end, in_background
from dragoman.gateway.store import statements
from dragoman.gateway.store.address import MEMORY, SQLITE, place
from dragoman.gateway.store.engine import CONNECTIONS, WRITES, open_engine
from dragoman.gateway.store.kept import Json, Kept, Room, Sealing, StoreDown, TooMuch
from dragoman.gateway.store.statements import Rows
from dragoman.gateway.store.tables import TooNew, prepare
from dragoman.gateway.telemetry.logs import log

T = TypeVar("T")
Work = Callable[[AsyncConnection], Awaitable[T]]

WRITE_LIMIT = 1.0  # seconds; the end of an answer waits for it
READ_LIMIT = 3.0
TURN_LIMIT = 10.0  # for what is read, while many read
FULL_FOR = 60.0
REST = 1.0  # seconds between two looks at a store that is down
CLEAN_EVERY = 60.0
CLEAN_LIMIT = 30.0
SHORT = 512  # bytes that are not worth compressing
MOST_ITEMS = 5_000  # of one answer with its request
MOST_BYTES = 16 * 1024 * 1024
MOST_NAMED = 2_000  # items that one request may name
FINDABLE = re.compile(r"[!-~]{1,96}")  # the ids by which something is looked for


class Unreadable(Exception):
    """Something was sealed with a key that is no longer known: as good as gone."""


class Store:
    """`url`: `memory`, `sqlite:PATH` or `postgresql://…`. `age` in seconds since a conversation was last used, `size`
    in bytes. `most`: bytes of JSON in what one request continues or names. `sealer` encrypts what is kept. It is open
    from `start`, or its first use, to `close`."""

    def __init__(
        self, url: str, *, age: float, size: int, most: float = math.inf, sealer: Sealing | None = None
    ) -> None:
        self.place = place(url)
        self.down = False
        self._url = url
        self._age = age
        self._size = size
        self._most = most
        self._sealer = sealer
        self._engine: AsyncEngine | None = None
        self._ready = False
        self._cleaning: asyncio.Task[None] | None = None
        self._mending: asyncio.Task[None] | None = None
        self._working: set[asyncio.Task[object]] = set()
        self._starting = asyncio.Lock()
        self._full_until = 0.0  # for so long nobody is told again
        self._turn = asyncio.Lock()  # SQLite has one writer at a time, and in memory one connection
        self._places = asyncio.Semaphore(CONNECTIONS)  # for all else

    async def start(self) -> None:
        """A store that is not there yet is no failure: it is looked for again."""
        self._cleaning = in_background(self._keep_clean(), "store")
        with contextlib.suppress(StoreDown):
            await self._ask(_nothing, READ_LIMIT)

    async def close(self) -> None:
        await end(self._cleaning, self._mending)
        if self._working:
            await asyncio.wait(self._working, timeout=WRITE_LIMIT)
        await end(*self._working)
        await self._let_go()

    # ------------------------------------------------------------------------------------------------- what it can do

    async def put(self, kept: Kept) -> None:
        """Raises `StoreDown`; then it is not known to be kept. So does what is so much that others would wait."""
        if len(kept.asked) + len(kept.answered) > MOST_ITEMS:
            raise StoreDown
        rows = await asyncio.to_thread(self._rows, kept)
        if rows.size > MOST_BYTES:
            raise StoreDown
        await self._ask(lambda connection: statements.put(connection, rows), WRITE_LIMIT, writes=True)

    async def conversation(self, owner: str, id: str, room: Room | None = None) -> list[Json] | None:
        """The items of an answer and of all that it continues, in order; None where one of them is missing. Raises
        `TooMuch`."""
        if not FINDABLE.fullmatch(id):
            return None
        bodies = await self._read(partial(statements.conversation, owner=owner, id=id), _as_they_are, room)
        return None if bodies is None else await self._decoded(bodies)

    async def get(self, owner: str, id: str, room: Room | None = None) -> Kept | None:
        if not FINDABLE.fullmatch(id):
            return None
        found = await self._read(partial(statements.answer, owner=owner, id=id), _bodies_of_answer, room)
        if found is None:
            return None
        row, items = found
        decoded = await self._decoded(_bodies_of_answer(found), bounded=False)
        if decoded is None:
            return None
        both = list(zip((asked for asked, _ in items), decoded[1:], strict=True))
        asked, answered = ([item for was_asked, item in both if was_asked == part] for part in (1, 0))
        return Kept(id, owner, row.previous, row.created_at, decoded[0], asked, answered)

    async def items(self, owner: str, ids: Iterable[str], room: Room | None = None) -> dict[str, Json]:
        """Those that are found, of any answer, by their own ids. Raises `TooMuch`."""
        wanted = [id for id in dict.fromkeys(ids) if FINDABLE.fullmatch(id)][:MOST_NAMED]
        if not wanted:
            return {}
        found = await self._read(partial(statements.named, owner=owner, ids=wanted), _values, room)
        decoded = await self._decoded(list(found.values()))
        return {} if decoded is None else dict(zip(found, decoded, strict=True))

    async def delete(self, owner: str, id: str) -> bool:
        """Whether there was such an answer. What continues it can no longer be continued."""
        if not FINDABLE.fullmatch(id):
            return False
        return await self._ask(lambda connection: statements.remove(connection, owner, id), READ_LIMIT, writes=True)

    async def clean(self) -> None:
        """Deletes what is too old or too much."""
        with contextlib.suppress(StoreDown):
            more = True
            while more:
                more = await self._ask(
                    lambda connection: statements.clean(connection, self._age, self._size), CLEAN_LIMIT, writes=True
                )

    async def _keep_clean(self) -> None:
        while True:
            await asyncio.sleep(CLEAN_EVERY)
            await self.clean()

    # ----------------------------------------------------------------------------------------------------------- asking

    async def _read(self, work: Work[T], bodies: Callable[[T], list[bytes]], room: Room | None) -> T:
        """What is found, when there is room for it: what has to wait is let go and asked for again, since many may."""
        found = await self._ask(work, READ_LIMIT)
        size = sum(map(_plain_size, bodies(found)))
        if room is None or room.takes(size):
            return found
        del found
        await room.wait(size)
        return await self._ask(work, READ_LIMIT)

    async def _ask(self, work: Work[T], limit: float, *, writes: bool = False) -> T:
        """In one transaction, within `limit` seconds, in a task of its own: the caller is not held up by how long an
        ended one takes to let go, and a caller that is cancelled ends nothing halfway."""
        if self.down:
            raise StoreDown
        release = await self._in_turn(limit if writes else max(limit, TURN_LIMIT), writes)
        if self.down:  # since then
            release()
            raise StoreDown
        task = asyncio.create_task(self._bounded(work, limit, writes), name="store")
        self._working.add(task)
        task.add_done_callback(partial(self._worked, release))
        done, _ = await asyncio.wait((task,), timeout=limit + 0.1)
        if not done:
            self._fail(f"no answer within {limit:g} s")
            raise StoreDown
        try:
            return task.result()
        except IntegrityError:
            raise  # a bug of ours, not of the store
        except DBAPIError as error:
            if _is_full(error):
                self._has_no_room(error)
            else:
                self._fail(_reason(error, limit))
            raise StoreDown from None
        except (SQLAlchemyError, OSError, TimeoutError, TooNew) as error:
            self._fail(_reason(error, limit))
            raise StoreDown from None

    async def _in_turn(self, limit: float, writes: bool) -> Callable[[], object]:
        """What ends the turn. A store that so many ask at once is not down, but this question has no room."""
        alone = self._url == MEMORY or (writes and self._url.startswith(SQLITE))
        turn = self._turn if alone else self._places
        try:
            async with asyncio.timeout(limit):
                await turn.acquire()
        except TimeoutError:
            raise StoreDown from None
        return turn.release

    async def _bounded(self, work: Work[T], limit: float, writes: bool) -> T:
        # in memory nothing can hang, and a connection that is broken off would take everything with it
        async with asyncio.timeout(None if self._url == MEMORY else limit):
            try:
                return await self._transaction(work, writes)
            except DBAPIError as error:
                if not error.connection_invalidated:
                    raise
                return await self._transaction(work, writes)  # it was an old connection to a server that has restarted

    async def _transaction(self, work: Work[T], writes: bool) -> T:
        engine = (await self._opened()).execution_options(**{WRITES: writes})
        async with engine.begin() as connection:
            return await work(connection)

    async def _opened(self) -> AsyncEngine:
        async with self._starting:
            if self._engine is None:
                self._engine = await asyncio.to_thread(open_engine, self._url)  # imports the database's driver
            if not self._ready:
                async with self._engine.execution_options(**{WRITES: True}).begin() as connection:
                    await connection.run_sync(prepare)
                self._ready = True
            return self._engine

    async def _let_go(self) -> None:
        """Closes what is open."""
        async with self._starting:
            engine, self._engine, self._ready = self._engine, None, False
        if engine is not None:
            with contextlib.suppress(TimeoutError):  # a server that is frozen never says goodbye
                async with asyncio.timeout(WRITE_LIMIT):
                    await engine.dispose()

    def _worked(self, release: Callable[[], object], task: asyncio.Task[T]) -> None:
        release()
        self._working.discard(task)
        if not task.cancelled():
            task.exception()  # its caller may have left

    # ------------------------------------------------------------------------------------------------------------- down

    def _fail(self, reason: str) -> None:
        if not self.down:
            self.down = True
            log.error("the store (%s) cannot be used: %s", self.place, reason)
            self._mending = in_background(self._mend(), "store")

    def _has_no_room(self, error: DBAPIError) -> None:
        """Small answers may still fit, and would be a good end and a new beginning each time."""
        now = time.monotonic()
        if now >= self._full_until:
            log.error("the store (%s) keeps nothing for which it has no room: %s", self.place, _reason(error, 0))
        self._full_until = now + FULL_FOR

    async def _mend(self) -> None:
        """Looks for the store until it is usable again, which is: until something can be written. It is opened anew,
        since the file may be another one now, and another server the one that takes what is written."""
        while self.down:
            await asyncio.sleep(REST)
            if self._working:
                await asyncio.wait(self._working, timeout=WRITE_LIMIT)
            if self._url != MEMORY:  # which would be empty
                await self._let_go()
            try:
                release = await self._in_turn(READ_LIMIT, writes=True)
                try:
                    await self._bounded(statements.touch, READ_LIMIT, writes=True)
                finally:
                    release()
            except (SQLAlchemyError, OSError, TimeoutError, TooNew, StoreDown):
                continue
            self.down = False
            log.info("the store (%s) can be used again", self.place)

    # ----------------------------------------------------------------------------------------------------------- bodies

    def _rows(self, kept: Kept) -> Rows:
        answer: dict[str, Any] = {
            "id": kept.id,
            "owner": kept.owner,
            "previous": kept.previous,
            "created_at": kept.created_at,
            "body": self._encode(kept.answer),
        }
        both = [(1, item) for item in kept.asked] + [(0, item) for item in kept.answered]
        bodies = [self._encode(item) for _, item in both]
        items = [
            {"answer": kept.id, "place": number, "asked": asked, "id": _findable(item.get("id")), "body": body}
            for number, ((asked, item), body) in enumerate(zip(both, bodies, strict=True))
        ]
        return Rows(answer, items, len(answer["body"]) + sum(map(len, bodies)))

    def _encode(self, value: Json) -> bytes:
        data = orjson.dumps(value)
        if self._sealer is not None:  # with its size, since what is sealed is compressed
            return b"%d %b" % (len(data), self._sealer.seal(data.decode()).encode())
        # most of an answer is the list of tools that each turn brings again
        return zstandard.compress(data, 1) if len(data) > SHORT else data

    async def _decoded(self, bodies: list[bytes], *, bounded: bool = True) -> list[Json] | None:
        """None where one of them cannot be read; raises `TooMuch`."""
        try:
            return await asyncio.to_thread(self._decode, bodies, self._most if bounded else math.inf)
        except Unreadable:
            log.warning("something in the store was sealed with a key that is not known here")
            return None

    def _decode(self, bodies: list[bytes], most: float) -> list[Json]:
        """What is kept may have taken a thousandth of its size."""
        values = list[Json]()
        for body in bodies:
            data = self._plain(body)
            most -= len(data)
            if most < 0:
                raise TooMuch(self._most)
            values.append(orjson.loads(data))
        return values

    def _plain(self, data: bytes) -> bytes:
        if data.startswith(zstandard.FRAME_HEADER):
            return zstandard.decompress(data)
        if data.startswith(b"{"):
            return data
        sealed = data.rpartition(b" ")[2]
        opened = None if self._sealer is None else self._sealer.open(sealed.decode())
        if opened is None:
            raise Unreadable
        return opened.encode()


def _plain_size(body: bytes) -> int:
    """In bytes."""
    if body.startswith(zstandard.FRAME_HEADER):
        return zstandard.frame_content_size(body)
    size = body[:20].partition(b" ")[0]
    return int(size) if size.isdigit() else len(body)


def _as_they_are(found: list[bytes] | None) -> list[bytes]:
    return found or []


def _values(found: dict[str, bytes]) -> list[bytes]:
    return list(found.values())


def _bodies_of_answer(found: tuple[Row[Any], list[tuple[int, bytes]]] | None) -> list[bytes]:
    return [] if found is None else [found[0].body, *(body for _, body in found[1])]


def _findable(id: object) -> str:
    """An id that is nothing to look for is replaced by an empty one; the item itself stays as it is."""
    return id if isinstance(id, str) and FINDABLE.fullmatch(id) else ""


async def _nothing(connection: AsyncConnection) -> None:
    await connection.exec_driver_sql("SELECT 1")


def _is_full(error: DBAPIError) -> bool:
    """By SQLite's code or PostgreSQL's."""
    cause = error.orig
    return getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL or getattr(cause, "sqlstate", "") == "53100"


def _reason(error: BaseException, limit: float) -> str:
    """Without the statement and its values, which hold what clients have said."""
    if isinstance(error, TimeoutError):
        return f"no answer within {limit:g} s"
    cause = getattr(error, "orig", None) or error
    words = " ".join(str(cause).split()) or type(cause).__name__
    return words[:200]
