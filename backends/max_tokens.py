"""The room that a prompt leaves for an answer in the model's context window."""

from __future__ import annotations

MIN_ROOM = 256  # tokens; where fewer are left, the prompt counts as too long


def room_left(window: int | None, tokens: int | None, asked: int | None) -> int | None:
    """The limit with which an answer of `asked` tokens that did not fit can be asked for again; None where there is too
    little room, or where it is not known."""
    if window is None or tokens is None or asked is None:
        return None
    room = window - tokens
    return room if MIN_ROOM <= room < asked else None
