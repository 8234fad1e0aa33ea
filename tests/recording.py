"""A sink that writes down what it was fed, for tests of backends and stages."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from dragoman.translators.fold import Fold
from dragoman.translators.ir import Delta, Event, Finished, Message, Note, Reasoning, Refusal, Request, Text, ToolCall
from tests.waiting import LIMIT


class Recorder:
    """`enough` decides after each feed whether it wants no more; while `held` is set it says that it is full."""

    def __init__(self, enough: Callable[["Recorder"], bool] | None = None) -> None:
        self.events: list[Event] = []
        self.feeds: list[list[Event]] = []
        self.notes: list[Note] = []
        self.held = False
        self.waits = 0
        self._enough = enough
        self._changed = asyncio.Event()

    @property
    def touched(self) -> bool:
        return bool(self.events)

    @property
    def full(self) -> bool:
        return self.held

    def feed(self, events: Sequence[Event]) -> bool:
        self.events += events
        self.feeds.append(list(events))
        self._changed.set()
        self._changed = asyncio.Event()
        return self._enough is None or not self._enough(self)

    async def drained(self) -> None:
        self.waits += 1
        while self.held:
            await self._changed.wait()

    def release(self) -> None:
        self.held = False
        self._changed.set()
        self._changed = asyncio.Event()

    def note(self, note: Note) -> None:
        self.notes.append(note)

    async def until(self, happened: Callable[[], bool], within: float = LIMIT) -> None:
        async with asyncio.timeout(within):
            while not happened():
                await self._changed.wait()

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, Delta))

    @property
    def finished(self) -> Finished:
        (last,) = [event for event in self.events if isinstance(event, Finished)]
        assert self.events[-1] is last
        return last

    @property
    def parts(self) -> list[Text | Refusal | Reasoning | ToolCall]:
        fold = Fold()
        fold.feed(self.events)
        return fold.parts


def ask(text: str = "hi", **changes: Any) -> Request:
    """A request of one user message."""
    fields: dict[str, Any] = {"messages": (Message("user", (Text(text),)),), **changes}
    return Request(id="0" * 24, model="m", **fields)
