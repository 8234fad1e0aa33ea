"""The room that a prompt leaves for an answer in the model's context window."""

from __future__ import annotations

MIN_ROOM = 256  # tokens; where fewer are left, the prompt counts as too long


def room_left(window: int | None, tokens: int | None, asked: int | None, *, at_least: bool = False) -> int | None:
    """The limit with which an answer of `asked` tokens that did not fit can be asked for again; None where there is too
    little room, or where it is not known. `at_least`: the prompt may have more than `tokens`, so half is asked for."""
    if window is None or tokens is None or asked is None:
        return None
    room = window - tokens
    if at_least:
        room = min(room, max(MIN_ROOM, asked // 2))
    return room if MIN_ROOM <= room < asked else None
