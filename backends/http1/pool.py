"""The connections to one server: made when they are needed, kept for a while after an exchange.

There is no limit on their number: admission limits the requests, and could not see a queue in here. A connection that
was used last is used again first, so that the others grow old and are closed.
"""

from __future__ import annotations

import asyncio
from collections import deque

from dragoman.backends.dial import Dialer
from dragoman.backends.http1.connection import Connection

KEEPALIVE = 15.0  # seconds that an unused connection is kept


class ConnectionPool:
    def __init__(self, dialer: Dialer) -> None:
        self._dialer = dialer
        self._idle: deque[tuple[float, Connection]] = deque()  # with the time until which it is kept, the oldest first
        self._all: set[Connection] = set()
        self._closed = False
        self._sweep: asyncio.TimerHandle | None = None

    async def take(self, *, fresh: bool = False) -> Connection:
        """A connection for one exchange; raises `CannotConnect`."""
        while self._idle and not fresh:
            _, connection = self._idle.pop()
            if connection.usable:
                return connection
        connection = await self._dialer.dial(Connection)
        self._all.add(connection)
        connection.on_closed = self._all.discard
        return connection

    def give_back(self, connection: Connection, *, keep: bool = True) -> bool:
        """After an exchange, however it ended: whether the connection is kept."""
        if not keep or self._closed:
            connection.abort()
            return False
        if kept := connection.release():
            now = asyncio.get_running_loop().time()
            self._idle.append((now + KEEPALIVE, connection))
            self._sweep_at(now + KEEPALIVE)
        return kept

    async def close(self) -> None:
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        self._idle.clear()
        for connection in list(self._all):
            connection.abort()
        await asyncio.sleep(0)  # the sockets are closed in the loop's next turn

    def _sweep_at(self, when: float) -> None:
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_at(when, self._close_old)

    def _close_old(self) -> None:
        self._sweep = None
        now = asyncio.get_running_loop().time()
        while self._idle and (self._idle[0][0] <= now or not self._idle[0][1].usable):
            self._idle.popleft()[1].abort()
        if self._idle:
            self._sweep_at(self._idle[0][0])
