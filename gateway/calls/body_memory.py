"""The memory that the bodies of all running calls may take together, and what they continue of kept conversations.

One large body takes about three times its size while its call runs: as it came, as values, and as the backend is sent
it. Their number is what admission limits, if it does; their sum is limited here. A body that finds no room waits for
it before it is received, so that the client keeps what it would send, and in turn, so that none waits for ever. One
whose size shows only as it arrives or is decoded may have to wait halfway. Bodies up to `UNCOUNTED` are not counted:
there may be thousands, and they would wait for a few large ones.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

UNCOUNTED = 1024 * 1024  # bytes


@dataclass(eq=False, slots=True)
class _Waiter:
    """`held` is what its body has taken already, as far as it has arrived."""

    size: int
    held: int
    place: asyncio.Future[None]


class BodyMemory:
    """`most` is in bytes, and no less than the largest body."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._taken = 0
        self._waiting: deque[_Waiter] = deque()
        self._held = 0  # by those that wait

    @property
    def taken(self) -> int:
        return self._taken

    def takes(self, size: int) -> bool:
        """At once, where nobody waits."""
        fits = not self._waiting and self._taken + size <= self.most
        self._taken += size if fits else 0
        return fits

    async def take(self, size: int, held: int = 0) -> None:
        """`held`: what the same body has taken before."""
        if self.takes(size):
            return
        waiter = _Waiter(size, held, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        self._held += held
        self._admit()
        try:
            await waiter.place
        except asyncio.CancelledError:
            if waiter in self._waiting:
                self._leave(waiter)
            elif not waiter.place.cancelled():
                self._taken -= size
            self._admit()
            raise

    def give_back(self, size: int) -> None:
        self._taken -= size
        self._admit()

    def _admit(self) -> None:
        while (waiter := self._next()) is not None:
            self._leave(waiter)
            if not waiter.place.done():  # else its call was ended, and has not noticed yet
                self._taken += waiter.size
                waiter.place.set_result(None)

    def _leave(self, waiter: _Waiter) -> None:
        self._waiting.remove(waiter)
        self._held -= waiter.held

    def _next(self) -> _Waiter | None:
        """The first, if it fits. Where all that is taken is held by bodies that wait for more, none would ever end:
        then the one that holds most goes on, beyond the limit by what is left of it."""
        if not self._waiting:
            return None
        if self._taken + self._waiting[0].size <= self.most:
            return self._waiting[0]
        if self._taken == self._held:
            return max(self._waiting, key=lambda each: each.held)
        return None


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
        await memory.take(size - self._size, self._size)
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
