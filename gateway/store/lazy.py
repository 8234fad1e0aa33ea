"""A store whose code is loaded when it is opened: at the start where something may be kept already, else at first use.

SQLAlchemy is the largest library of a gateway, and many a client keeps nothing here. Rules: a store that is new
(`address.is_new`) is loaded and opened by the first call that will use it, in a thread, so that other calls go on;
calls that come meanwhile wait for the same opening. One that fails leaves a store that is down, and is tried again by a
later call. Any other store is opened by `start`.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from dragoman.backends.background import end
from dragoman.gateway.store.address import is_new, place
from dragoman.gateway.store.kept import Json, Kept, Room, Sealing, StoreDown
from dragoman.gateway.telemetry.logs import log

if TYPE_CHECKING:
    from dragoman.gateway.store.store import Store

OPEN_LIMIT = 5.0  # seconds that a call waits; the opening itself goes on
REST = 1.0  # seconds between an opening that failed and the next


class LazyStore:
    """Takes what `Store` takes, and is used like one. Two that are `made_of` the same are the same. Generations of a
    gateway share one: it may be open from the first `start` to the last `close`."""

    def __init__(
        self,
        url: str,
        *,
        age: float,
        size: int,
        most: float = math.inf,
        sealer: Sealing | None = None,
        made_of: object = None,
    ) -> None:
        self.made_of = made_of
        self.place = place(url)
        self._url = url
        self._users = 0
        self._load: Callable[[], Store] = lambda: _load(url, age, size, most, sealer)
        self._store: Store | None = None
        self._opening: asyncio.Task[None] | None = None
        self._rests_until = 0.0

    @property
    def down(self) -> bool:
        return time.monotonic() < self._rests_until if self._store is None else self._store.down

    async def start(self) -> None:
        self._users += 1
        if self._users > 1 or is_new(self._url):
            return
        with contextlib.suppress(StoreDown):
            await self.opened()

    async def close(self) -> None:
        self._users -= 1
        if self._users > 0:
            return
        await end(self._opening)
        store, self._store, self._opening = self._store, None, None
        if store is not None:
            await store.close()

    def expect(self) -> None:
        """Begins to open it, for a call that will use it at its end."""
        if self._store is None and self._opening is None and not self.down:
            self._opening = asyncio.create_task(self._open(), name="store")

    async def opened(self) -> Store:
        """Raises `StoreDown`."""
        self.expect()
        if self._opening is not None:
            await asyncio.wait((self._opening,), timeout=OPEN_LIMIT)
        if self._store is None:
            raise StoreDown
        return self._store

    async def _open(self) -> None:
        try:
            store = await asyncio.to_thread(self._load)
            self._store = store  # before it is started: `close` closes it also when the start is cut off
            await store.start()
        except Exception:
            log.exception("the store (%s) cannot be opened", self.place)
            self._rests_until = time.monotonic() + REST
        finally:
            self._opening = None

    # ------------------------------------------------------------------------------------------------- what it can do

    async def put(self, kept: Kept) -> None:
        await (await self.opened()).put(kept)

    async def conversation(self, owner: str, id: str, room: Room | None = None) -> list[Json] | None:
        return await (await self.opened()).conversation(owner, id, room)

    async def get(self, owner: str, id: str, room: Room | None = None) -> Kept | None:
        return await (await self.opened()).get(owner, id, room)

    async def items(self, owner: str, ids: Iterable[str], room: Room | None = None) -> dict[str, Json]:
        return await (await self.opened()).items(owner, ids, room)

    async def delete(self, owner: str, id: str) -> bool:
        return await (await self.opened()).delete(owner, id)


def _load(url: str, age: float, size: int, most: float, sealer: Sealing | None) -> Store:
    from dragoman.gateway.store.store import Store

    return Store(url, age=age, size=size, most=most, sealer=sealer)
