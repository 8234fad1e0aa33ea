"""What a probe receives: the stream of no protocol, which keeps the answer and when its first event came."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from dragoman.translators.errors import GatewayError
from dragoman.translators.fold import Fold
from dragoman.translators.ir import Event, Note, Reasoning, StopReason, Text, ToolCall, Usage
from dragoman.translators.protocol import Json


class ProbeStream:
    """`notes`: what was left out or not enforced for the answer; `refused`: the parameters that the server has refused
    by name, without which it was asked again; `in_turns`: it was asked again in another order of roles."""

    def __init__(self) -> None:
        self.fold = Fold()
        self.unseen = True
        self.notes: list[Note] = []
        self.refused: frozenset[str] = frozenset()
        self.in_turns = False
        self.first: float | None = None
        self.begun = asyncio.Event()

    def start(self) -> list[bytes]:
        return []

    def keepalive(self) -> list[bytes]:
        return []

    def feed(self, events: Sequence[Event]) -> list[bytes]:
        self.first = self.first or time.monotonic()
        self.begun.set()
        self.fold.feed(events)
        return []

    def fail(self, error: GatewayError) -> list[bytes]:
        return []

    def body(self) -> Json:
        return {}

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
