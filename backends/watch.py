"""The clock of a task that drives a reader: it ends the block when the reader is late or over.

`asyncio.timeout` may be rescheduled, but each time that cancels one timer and makes another; a reader's deadline moves
with every token. Here one timer looks at the deadline when the old one would have passed and goes back to sleep; a
driver calls `follow` after each read, in case the deadline came nearer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType

from dragoman.backends.base import WAIT, Flow, nothing
from dragoman.backends.reader import Reader

LONGEST_SLEEP = 3600.0  # seconds that the timer sleeps while there is no deadline


class Watch:
    """`async with Watch(reader) as watch:` raises TimeoutError in the block when the reader's deadline has passed, or
    when it is over before the driver knows. `on_writable` is called when the sink can take more."""

    __slots__ = ("_due", "_loop", "_reader", "_scope", "_timer", "on_writable")

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._loop = asyncio.get_running_loop()
        self._scope = asyncio.timeout(None)
        self.on_writable: Callable[[], object] = nothing
        self._due = 0.0

    async def __aenter__(self) -> Watch:
        await self._scope.__aenter__()
        self._reader.on_change = self._change
        self._due = self._reader.deadline
        self._timer = self._loop.call_at(self._due, self._look)
        if self._reader.over:  # the receiver left before there was anything to end
            self._change()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        self._reader.on_change = nothing
        await self._scope.__aexit__(kind, error, trace)

    def follow(self) -> None:
        """Looks earlier, if the deadline came nearer."""
        if self._reader.deadline < self._due:
            self._timer.cancel()
            self._due = self._reader.deadline
            self._timer = self._loop.call_at(self._due, self._look)

    async def after(self, flow: Flow) -> None:
        """After a read: returns when the sink can take more."""
        if flow is WAIT:
            await self.writable()
        self.follow()

    async def writable(self) -> None:
        """Returns when the sink can take more, without a limit in time: whose sink it is looks after that."""
        changed = asyncio.Event()
        self.on_writable = changed.set
        await changed.wait()

    def _change(self) -> None:
        if self._reader.over:
            self._end(self._loop.time())
        else:
            self.on_writable()
            self.follow()  # while the sink was full there was no deadline, and nothing may come that is followed

    def _look(self) -> None:
        now = self._loop.time()
        if now >= self._reader.deadline:
            self._end(now)
        else:
            self._due = min(self._reader.deadline, now + LONGEST_SLEEP)
            self._timer = self._loop.call_at(self._due, self._look)

    def _end(self, now: float) -> None:
        """Once: a block that is ending already may take a turn of the loop for it."""
        if not self._scope.expired():
            self._scope.reschedule(now)
