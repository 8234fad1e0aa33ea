"""A time limit that moves with every read, at the cost of an assignment instead of a timer.

`asyncio.timeout` may be rescheduled, but each time that cancels one timer and makes another; a stream moves its limit
with every token. Here one timer looks at the limit when the old one would have expired and goes back to sleep.
`pause` is for waiting on someone else (a slow client).
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from types import TracebackType


@dataclass(frozen=True, slots=True)
class Timeouts:
    """The limits of one call in seconds: connecting, the first event, between two reads, and for usage after the finish
    reason."""

    connect: float = 3.0
    first: float = 600.0
    between: float = 120.0
    usage: float = 2.0


class Deadline:
    """`async with Deadline(seconds) as deadline:` raises TimeoutError in the block when the limit has passed."""

    __slots__ = ("_at", "_loop", "_scope", "_timer")

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._at = self._loop.time() + seconds
        self._scope = asyncio.timeout(None)
        self._timer = self._loop.call_at(self._at, self._look)

    async def __aenter__(self) -> Deadline:
        await self._scope.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        await self._scope.__aexit__(kind, error, trace)

    def move(self, seconds: float) -> None:
        """The limit passes `seconds` from now."""
        self._at = self._loop.time() + seconds
        if self._at < self._timer.when():
            self._timer.cancel()
            self._timer = self._loop.call_at(self._at, self._look)

    def pause(self) -> None:
        """No limit until the next `move`."""
        self._at = math.inf

    def _look(self) -> None:
        now = self._loop.time()
        if now >= self._at:
            self._scope.reschedule(now)
        else:
            # paused: look again later, `move` brings the timer forward where that is needed
            self._timer = self._loop.call_at(min(self._at, now + 3600.0), self._look)
