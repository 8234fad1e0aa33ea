"""What has arrived on a WebSocket and is no call's yet: messages that wait for their turn, and one that is not whole.

It counts as bodies do (`gateway.calls.body_memory`). Where there is no room for more of it, the connection is not read
until there is, and closed where that takes too long. So is one whose large message does not become whole in time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import WSCloseCode

from dragoman.backends.background import end, in_background
from dragoman.gateway.calls.body_memory import UNCOUNTED, BodyMemory
from dragoman.gateway.calls.delivery import ClientConnection

NO_ROOM = b"The gateway holds as many large requests as it has memory for; try again."
TOO_SLOW = b"A message did not arrive in time."


class Frames:
    """How much of an `unfinished` message has arrived. Of a client's frames (RFC 6455, section 5.2) only the heads are
    read, which are right or end the connection elsewhere."""

    def __init__(self) -> None:
        self.unfinished = 0
        self._head = bytearray()
        self._left = 0  # of the frame's payload
        self._of_message = False  # the frame is no ping, pong or close
        self._last = False

    def feed(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
                self.unfinished += step if self._of_message else 0
            else:
                step = _missing(self._head)
                self._head += data[at : at + step]
                if not _missing(self._head):
                    self._begin(bytes(self._head))
                    self._head.clear()
            at += step
            if not self._left and not self._head and self._of_message and self._last:
                self.unfinished = 0

    def _begin(self, head: bytes) -> None:
        self._of_message = head[0] & 0x0F < 8
        self._last = head[0] & 0x80 != 0
        size = head[1] & 0x7F
        self._left = size if size < 126 else int.from_bytes(head[2 : 4 if size == 126 else 10], "big")


def _missing(head: bytearray) -> int:
    """Bytes of a frame's head: of its first two, until these tell how many there are."""
    if len(head) < 2:
        return 2 - len(head)
    size, mask = head[1] & 0x7F, 4 if head[1] & 0x80 else 0
    return 2 + (2 if size == 126 else 8 if size == 127 else 0) + mask - len(head)


class Arrivals:
    """`within` is the limit in seconds for a large message to arrive, and for the wait for room. `give_up` closes the
    connection with a code and words."""

    def __init__(
        self,
        connection: ClientConnection,
        memory: BodyMemory,
        within: float | None,
        give_up: Callable[[WSCloseCode, bytes], object],
    ) -> None:
        self._connection = connection
        self._memory = memory
        self._within = within
        self._give_up: Callable[[WSCloseCode, bytes], object] | None = give_up
        self._frames = Frames()
        self._whole = 0  # bytes of messages that wait for their turn
        self._held = 0  # of the memory
        self._growing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        connection.on_arrival = self._arrived

    async def close(self) -> None:
        self._give_up = self._connection.on_arrival = None  # without a cycle all that is kept here is freed at once
        self._stop_timer()
        await end(self._growing)
        held, self._held = self._held, 0
        self._memory.give_back(held)

    def wait(self, size: int) -> None:
        """So many bytes of whole messages wait for their turn."""
        self._whole = size
        self._count()

    def _arrived(self, data: bytes) -> None:
        self._frames.feed(data)
        if self._frames.unfinished <= UNCOUNTED:
            self._stop_timer()
        elif self._timer is None and self._within is not None and self._give_up is not None:
            self._timer = asyncio.get_running_loop().call_later(self._within, self._late)
        self._count()

    def _count(self) -> None:
        if self._give_up is None:
            return
        size = min(self._frames.unfinished + self._whole, self._memory.most)
        size = size if size > UNCOUNTED else 0
        if self._growing is not None:
            if size > self._held:
                return
            self._growing.cancel()
            self._growing = None
            self._connection.read_on()
        if size <= self._held:
            back, self._held = self._held - size, size
            self._memory.give_back(back)
        elif self._memory.takes(size - self._held):
            self._held = size
        else:
            self._connection.hold_reading()
            self._growing = in_background(self._grow(size), "socket")

    async def _grow(self, size: int) -> None:
        try:
            async with asyncio.timeout(self._within):
                await self._memory.take(size - self._held, self._held)
        except TimeoutError:
            if self._give_up is not None:
                self._give_up(WSCloseCode.TRY_AGAIN_LATER, NO_ROOM)
            return
        self._held, self._growing = size, None
        self._connection.read_on()
        self._count()  # what else has come or gone meanwhile

    def _late(self) -> None:
        self._timer = None
        if self._growing is None and self._give_up is not None:  # else it is not the client that is slow
            self._give_up(WSCloseCode.POLICY_VIOLATION, TOO_SLOW)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
