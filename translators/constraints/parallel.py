"""`parallel_tool_calls: false` as a stage on the event stream, the same for every protocol and every backend.

It keeps the first call *seen* (by identity, not by an index that servers get wrong) and everything before it, and drops
what follows. Servers get the flag too, but none of them can be relied on to obey it.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from dragoman.translators.ir import (
    Delta,
    Deltas,
    Event,
    Finished,
    PartEnded,
    PartStarted,
    SearchEnded,
    SearchStarted,
    Started,
    StopReason,
)


class _State(Enum):
    BEFORE = 0  # no call yet
    CALL = 1  # inside the call that is kept
    AFTER = 2  # it ended; what follows is dropped


class FirstCallOnly:
    """`enough` becomes True once the kept call is complete and something else has begun: the upstream work may end.
    `dropped` counts the dropped calls."""

    def __init__(self) -> None:
        self.enough = False
        self.dropped = 0
        self._state = _State.BEFORE
        self._complete = False
        self._followed = False  # a part came after the kept call

    def feed(self, events: Sequence[Event]) -> list[Event]:
        kept: list[Event] = []
        for event in events:
            if isinstance(event, Finished):
                kept.append(self._finished(event))
            elif self._state is _State.AFTER:
                self._drop(event)
            else:
                self._watch(event)
                kept.append(event)
        return kept

    def _watch(self, event: Event) -> None:
        match event:
            case PartStarted(kind="call"):
                self._state = _State.CALL
            case PartEnded() if self._state is _State.CALL:
                self._state, self._complete = _State.AFTER, event.complete
            case Started() | PartStarted() | Delta() | Deltas() | PartEnded():
                pass
            case SearchStarted() | SearchEnded() | Finished():
                pass

    def _drop(self, event: Event) -> None:
        if isinstance(event, PartStarted):
            self._followed = True
            self.enough = self._complete
            self.dropped += event.kind == "call"

    def _finished(self, event: Finished) -> Finished:
        if self._followed and self._complete:  # what the limit or a stop string cut was not part of this answer
            return Finished(StopReason.STOP, event.usage)
        return event
