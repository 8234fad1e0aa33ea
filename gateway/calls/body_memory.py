"""The memory that the bodies of all running calls may take together, and what they continue of kept conversations.

One large body takes about three times its size while its call runs: as it came, as values, and as the backend is sent
it. Their number is what admission limits, if it does; their sum is limited here. A body that finds no room waits for
it before it is received, so that the client keeps what it would send, and in turn, so that none waits for ever. Bodies
up to `UNCOUNTED` are not counted: there may be thousands, and they would wait for a few large ones.
"""

from __future__ import annotations

import asyncio
from collections import deque

UNCOUNTED = 1024 * 1024  # bytes


class BodyMemory:
    """`most` is in bytes, and no less than the largest body."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._taken = 0
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()

    @property
    def taken(self) -> int:
        return self._taken

    def takes(self, size: int) -> bool:
        """At once, where nobody waits."""
        fits = not self._waiting and self._taken + size <= self.most
        self._taken += size if fits else 0
        return fits

    async def take(self, size: int) -> None:
        if self.takes(size):
            return
        place = asyncio.get_running_loop().create_future()
        self._waiting.append((place, size))
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._taken -= size
            else:
                self._waiting.remove((place, size))
            self._admit()
            raise

    def give_back(self, size: int) -> None:
        self._taken -= size
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self._taken + self._waiting[0][1] <= self.most:
            place, size = self._waiting.popleft()
            self._taken += size
            place.set_result(None)


class Share:
    """What one call has taken, of the memory that it first asked. It may grow while a body of unknown size arrives;
    `free` it when the call ends."""

    __slots__ = ("_memory", "_size", "waits")

    def __init__(self) -> None:
        self._memory: BodyMemory | None = None
        self._size = 0
        self.waits = False  # for room, now or when the wait was given up

    async def grow(self, size: int, memory: BodyMemory) -> None:
        """To `size` bytes in all; returns when there is room."""
        if size <= UNCOUNTED or size <= self._size:
            return
        self._memory, self.waits = memory, True
        await memory.take(size - self._size)
        self._size, self.waits = size, False

    def adds(self, more: int, memory: BodyMemory) -> bool:
        """Whether there is room for `more` bytes beside what was taken, without waiting."""
        size = self._with(more, memory)
        if size > self._size:
            if not memory.takes(size - self._size):
                return False
            self._memory, self._size = memory, size
        return True

    async def add(self, more: int, memory: BodyMemory) -> None:
        await self.grow(self._with(more, memory), memory)

    def _with(self, more: int, memory: BodyMemory) -> int:
        """No more than there can ever be room for."""
        return min(self._size + more, memory.most) if more > UNCOUNTED else self._size

    def free(self) -> None:
        size, self._size = self._size, 0
        if self._memory is not None and size:
            self._memory.give_back(size)
