"""What the scripted server in C plays: the name of the model says it (`bench/native/server.c`).

Deltas that are paced carry the time at which they were sent; those of a burst are words of a few letters, sent as fast
as the socket takes them, so that one read holds many.
"""

from __future__ import annotations

from dataclasses import dataclass

KINDS = ("text", "tools", "reasoning", "counting")
"""Text, fragments of tool calls, reasoning, and text in chunks that each have the usage so far."""
GAP = 20_000
"""Microseconds between two tokens of a stream: a common pace of a busy model server."""


@dataclass(frozen=True, slots=True)
class Script:
    """`deltas` of a kind, `gap` microseconds apart; 0: all at once."""

    kind: str
    deltas: int
    gap: int = 0

    @property
    def model(self) -> str:
        return f"{self.kind}-{self.deltas}-{self.gap}"

    @property
    def marks(self) -> int:
        """How many deltas carry their time: all that are paced, but the first and the last of each of two calls."""
        return 0 if not self.gap else self.deltas - 4 if self.kind == "tools" else self.deltas


BURSTS = {kind: Script(kind, 500) for kind in KINDS}
SLOW_BURSTS = {kind: Script(kind, 50) for kind in KINDS}
"""In place of the others for a system that would take minutes."""
PACED = {
    "text": Script("text", 120, GAP),
    "tools": Script("tools", 80, GAP),
    "reasoning": Script("reasoning", 80, GAP),
    "counting": Script("counting", 80, GAP),
}
WARM_UP = Script("text", 100)
FIRST = Script("text", 4, 5_000)
WHOLE = Script("text", 100)
LARGE = Script("text", 5)
TICKING = Script("text", 1_500, 1_000)
HELD = Script("text", 60, GAP)
OPEN = Script("text", 4, 700_000)
PROFILED = Script("text", 400, GAP)
CHECKED = {kind: Script(kind, 40) for kind in KINDS}

SCRIPTS = (
    *BURSTS.values(),
    *SLOW_BURSTS.values(),
    *PACED.values(),
    WARM_UP,
    FIRST,
    LARGE,
    TICKING,
    HELD,
    OPEN,
    PROFILED,
    *CHECKED.values(),
)
MODELS = tuple(dict.fromkeys(script.model for script in SCRIPTS))
