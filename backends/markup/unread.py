"""Whether a text that nobody reads for calls shows one: what opens calls in some family, then a declared tool's name.

It only says so. What a client can make a model write decides nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from dragoman.backends.markup.detection import FAMILIES
from dragoman.backends.markup.text import Markers

_MOST_OPENERS = 64
_WINDOW = 120  # characters after an opener in which the name stands
_ARRAY = '[{"name"'  # of calls, bare or after a word
_TOLD = re.compile(r"\s*(?:[<>\[\]]|Action:)")  # fences and other words tell no call
_OPENERS = {opener.strip() for family in FAMILIES.values() for opener in family.openers if _TOLD.match(opener)} | {
    _ARRAY,
    *(marker for family in FAMILIES.values() if family.headers for marker in family.headers.openers[:2]),
}
_MARKERS = Markers(_OPENERS)
_FIRST = sorted({opener[0] for opener in _OPENERS})
BEGINS = re.compile(f"[{re.escape(''.join(_FIRST))}]")  # what an opener begins with


def may_begin(text: str) -> bool:
    """As `BEGINS` says, of a long text in a fifth of the time."""
    return any(first in text for first in _FIRST)


class UnreadCalls:
    """`found`: such a call was in what was fed. While it is not `reading`, text without any of `BEGINS` need not be. Of
    an answer only so many openers are looked at, since a hostile one may consist of them."""

    def __init__(self, names: Iterable[str]) -> None:
        self.found = self.reading = False
        self._names = tuple(names)
        self._tail = ""  # what may begin an opener, or what follows one
        self._opened = False
        self._left = _MOST_OPENERS

    def feed(self, text: str) -> None:
        if self.found or not self._left:
            return
        self._tail += text
        at: int | None = 0
        while at is not None:
            at = self._step(at)
        self.reading = bool(not self.found and self._left and (self._opened or self._tail))

    def _step(self, at: int) -> int | None:
        """Looks at the tail from `at` on; where it goes on, None where more text is needed, or none."""
        if not self._opened:
            match = _MARKERS.find(self._tail, at)
            if match is None:
                self._tail = self._tail[_MARKERS.held(self._tail, at) :]
                return None
            at, self._opened = match.end(), True
        window = self._tail[at : at + _WINDOW]
        self.found = any(name in window for name in self._names)
        if self.found or len(window) < _WINDOW:
            self._tail = self._tail[at:]
            return None
        self._opened = False
        self._left -= 1
        return at if self._left else None
