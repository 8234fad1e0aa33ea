"""Words that matter little: how much to think, how long to write, what to show.

Clients use new words before servers know them, and a refusal would cost them the whole request. So an unknown word is
taken for a known one and noted; an empty one counts as absent. Words that change what an answer is (a role, a format, a
kind of `tool_choice`) and values of another type are refused by the parsers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from dragoman.translators.ir import Note

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
SUMMARIES = ("auto", "concise", "detailed")
VERBOSITIES = ("low", "medium", "high")
OFF = frozenset({"no", "none", "off", "false", "never", "disable", "disabled"})
_LOOKED_AT = 64  # notes, each of which has been added for one that is not among them: of more, names are counted later
_UNSAID = frozenset({"auto", "default", "adaptive", "dynamic"})

Effort = Annotated[str, Field(examples=list(EFFORTS))]


def effort(word: str | None, field: str, notes: list[Note]) -> str | None:
    """How much to think: a word of `EFFORTS`, or None where it is left to the server. Of unknown words, those for "off"
    become `none`; `auto` and the like become None. One that begins or ends with a known word becomes that word
    (`very_high`, `maximum`). Any other becomes `max`: every new word so far has meant more than those before it."""
    if not word or word in EFFORTS:
        return word or None
    _note(field, notes)
    plain = plainly(word)
    if plain in _UNSAID:
        return None
    if plain in OFF:
        return "none"
    near = [known for known in EFFORTS if plain.startswith(known) or plain.endswith(known)]
    return max(near, key=len, default="minimal" if plain.startswith("min") else "max")


def known(word: str | None, words: Sequence[str], otherwise: str | None, field: str, notes: list[Note]) -> str | None:
    """One of `words`, also where it is spelled another way, or `otherwise`."""
    if not word or word in words:
        return word or None
    _note(field, notes)
    return plain if (plain := plainly(word)) in words else otherwise


def plainly(word: str) -> str:
    """`X-High` → `xhigh`"""
    return re.sub(r"[^a-z]", "", word[:64].lower())


def _note(field: str, notes: list[Note]) -> None:
    if (note := Note("field", field)) not in notes[:_LOOKED_AT]:
        notes.append(note)
