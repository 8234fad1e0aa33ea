"""A sink that writes down what it was fed, for tests of backends and stages, and the two ways to ask a backend."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from dragoman.backends.base import Backend, Flow, Sink, nothing
from dragoman.translators.fold import Fold
from dragoman.translators.ir import (
    Delta,
    Deltas,
    Event,
    Finished,
    Message,
    Note,
    Reasoning,
    Refusal,
    Request,
    Text,
    ToolCall,
)
from tests.waiting import LIMIT


class Recorder:
    """`enough` decides after each feed whether it wants no more; while `held` is set it lets the reader wait."""

    def __init__(self, enough: Callable[["Recorder"], bool] | None = None) -> None:
        self.on_writable: Callable[[], object] = nothing
        self.on_left: Callable[[], object] = nothing
        self.events: list[Event] = []
        self.feeds: list[list[Event]] = []
        self.notes: list[Note] = []
        self.size: int | None = None
        self.read: list[tuple[int, int]] = []
        self.held = False
        self.waits = 0
        self.works = 0  # how often it was said of the server
        self._enough = enough
        self._changed = asyncio.Event()

    @property
    def touched(self) -> bool:
        return bool(self.events)

    def feed(self, events: Sequence[Event]) -> Flow:
        self.events += events
        self.feeds.append(list(events))
        self._changed.set()
        self._changed = asyncio.Event()
        if self._enough is not None and self._enough(self):
            return Flow.ENOUGH
        self.waits += self.held
        return Flow.WAIT if self.held else Flow.MORE

    def prompt_size(self, tokens: int) -> None:
        self.size = self.size or tokens

    def prompt_read(self, tokens: int, total: int) -> None:
        self.read.append((tokens, total))

    def at_work(self) -> None:
        self.works += 1

    def release(self) -> None:
        self.held = False
        self.on_writable()

    def note(self, note: Note) -> None:
        self.notes.append(note)

    async def until(self, happened: Callable[[], bool], within: float = LIMIT) -> None:
        async with asyncio.timeout(within):
            while not happened():
                await self._changed.wait()

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, Delta | Deltas))

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


class Moody(Recorder):
    """Answers each feed with the next of `flows`, then always with MORE."""

    def __init__(self, flows: Iterable[Flow]) -> None:
        super().__init__()
        self.flows = iter(flows)
        self.said: list[Flow] = []

    def feed(self, events: Sequence[Event]) -> Flow:
        super().feed(events)
        self.said.append(next(self.flows, Flow.MORE))
        return self.said[-1]


def ask(text: str = "hi", **changes: Any) -> Request:
    """A request of one user message."""
    fields: dict[str, Any] = {"messages": (Message("user", (Text(text),)),), **changes}
    return Request(id="0" * 24, model="m", **fields)


async def feed(sink: Sink, events: Sequence[Event]) -> Flow:
    """As a reader does it: it waits while the sink cannot take more."""
    flow = sink.feed(events)
    if flow is Flow.WAIT:
        writable = asyncio.Event()
        sink.on_writable = writable.set
        await writable.wait()
        sink.on_writable = nothing
    return flow


async def answered(backend: Backend, request: Request, sink: Sink) -> None:
    """The backend's answer to a request, fed into the sink."""
    await backend.stream(await backend.prepare(request), sink)


async def counted(backend: Backend, request: Request) -> int | None:
    return await backend.count(await backend.prepare(request))
