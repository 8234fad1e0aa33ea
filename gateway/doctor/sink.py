"""The sink that probes stream into: it keeps the answer and when its first event came."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from dragoman.backends.base import Flow, nothing
from dragoman.translators.fold import Fold
from dragoman.translators.ir import Event, Note, Reasoning, StopReason, Text, ToolCall, Usage


class ProbeSink:
    def __init__(self) -> None:
        self.fold = Fold()
        self.notes: list[Note] = []
        self.first: float | None = None
        self.on_writable: Callable[[], object] = nothing
        self.on_left: Callable[[], object] = nothing
        self.begun = asyncio.Event()

    @property
    def touched(self) -> bool:
        return self.first is not None

    def feed(self, events: Sequence[Event]) -> Flow:
        self.first = self.first or time.monotonic()
        self.begun.set()
        self.fold.feed(events)
        return Flow.MORE

    def prompt_size(self, tokens: int) -> None:
        """No probe needs it before the answer."""

    def note(self, note: Note) -> None:
        self.notes.append(note)

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.fold.parts if isinstance(part, Text))

    @property
    def calls(self) -> list[ToolCall]:
        return [part for part in self.fold.parts if isinstance(part, ToolCall)]

    @property
    def thoughts(self) -> bool:
        return any(isinstance(part, Reasoning) for part in self.fold.parts)

    @property
    def cut(self) -> bool:
        """Whether something other than the model ended the answer."""
        return self.fold.finished is None or self.fold.finished.reason is not StopReason.STOP

    @property
    def usage(self) -> Usage | None:
        return self.fold.finished.usage if self.fold.finished is not None else None
