"""How much to think, in the words that a server or a template knows."""

from __future__ import annotations

from collections.abc import Collection

from dragoman.translators.soft_words import EFFORTS


def nearest_effort(effort: str, accepted: Collection[str]) -> str:
    """The effort itself where it is accepted, else the closest that is, of two the smaller."""
    if effort in accepted:
        return effort
    wanted = EFFORTS.index(effort)
    known = [word for word in EFFORTS if word in accepted]
    return min(known, key=lambda word: abs(EFFORTS.index(word) - wanted)) if known else next(iter(accepted))
