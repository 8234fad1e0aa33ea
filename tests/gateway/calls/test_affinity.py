"""Which session a call belongs to."""

from __future__ import annotations

from dragoman.gateway.calls.affinity import session
from dragoman.translators.ir import Image, Message, Request, Text


def test_a_session_is_of_who_asks_and_of_the_first_words() -> None:
    def asked(*texts: str, affinity: str | None = None) -> Request:
        return Request("x", "m", tuple(Message("user", (Text(text),)) for text in texts), affinity=affinity)

    assert session(asked("a", "b"), "k") == session(asked("a", "c"), "k")
    assert session(asked("a"), "k") != session(asked("a"), "other key")
    assert session(asked("a"), "k") != session(asked("b"), "k")
    assert session(asked("a", affinity="s"), "k") == "s"
    assert session(Request("x", "m", (Message("user", (Image("data:,"),)),)), "k") is None
