"""Events back into finished parts: a whole answer is the fold of its stream."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO

from dragoman.translators.ir import (
    Delta,
    Deltas,
    Event,
    Finished,
    PartEnded,
    PartStarted,
    Reasoning,
    Refusal,
    SearchEnded,
    SearchStarted,
    Started,
    Text,
    ToolCall,
)


class Fold:
    """Events into the parts that they amount to. `cut` holds the positions of the parts that ended incomplete.
    Searches are no parts."""

    def __init__(self) -> None:
        self.parts: list[Text | Refusal | Reasoning | ToolCall] = []
        self.cut: set[int] = set()
        self.finished: Finished | None = None
        self._open: PartStarted | None = None
        self._pieces = StringIO()

    def feed(self, events: Sequence[Event]) -> None:
        for event in events:
            match event:
                case Delta() | Deltas():
                    self._pieces.write(event.text)
                case PartStarted():
                    self._open = event
                case PartEnded():
                    self._close(event.complete)
                case Finished():
                    self.finished = event
                case Started() | SearchStarted() | SearchEnded():
                    pass

    def _close(self, complete: bool) -> None:
        started, text = self._open, self._pieces.getvalue()
        assert started is not None, "a part ended that was never started"
        self._pieces = StringIO()
        self._open = None
        if not complete:
            self.cut.add(len(self.parts))
        match started.kind:
            case "text":
                self.parts.append(Text(text))
            case "refusal":
                self.parts.append(Refusal(text))
            case "reasoning":
                self.parts.append(Reasoning(text))
            case "call":
                self.parts.append(ToolCall(started.id, started.name, text))
