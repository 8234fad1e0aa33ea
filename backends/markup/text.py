"""What a model has written and nobody has read yet, and the one value that says that more of it is needed.

Readers ask for what stands at `at` and move it forward with `take`. Every question has the same three outcomes: what
was asked for, None when it certainly does not stand there, `MORE` while the next piece may still decide it. What a
reader takes before it is certain that there is a call is held, so that it can be given back as text.

Every look-ahead is bounded: by a marker's length, `HEADER_LIMIT` or `BLANK_LIMIT`. So the work stays linear in the text
however it is cut.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from enum import Enum
from functools import cache
from typing import Literal

HEADER_LIMIT = 1_024  # characters of a name, a key or a tag
BLANK_LIMIT = 256  # characters of white space between two tags

_BLANK = re.compile(r"\s*")
_OBJECT_BEGINS = re.compile(rf'\{{\s{{0,{BLANK_LIMIT}}}["\'}}]')
_OBJECT_MAY_BEGIN = re.compile(rf"\{{\s{{0,{BLANK_LIMIT}}}\Z")


class Signal(Enum):
    MORE = 0  # nothing can be said before the next piece has come
    DONE = 1  # the calls are over
    NO_CALL = 2  # what was taken is no call after all


MORE: Literal[Signal.MORE] = Signal.MORE
Open = Literal[Signal.MORE]

# A step reads what has become certain and says what comes next. Where it needs more, it is asked again.
Step = Callable[[], "Step | Signal"]


class Markers:
    """A fixed set of markers: the next one in a text, and where one may have begun at its end."""

    def __init__(self, markers: Iterable[str]) -> None:
        ordered = sorted(set(markers), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, ordered)) or r"(?!)")
        self._prefixes = frozenset(marker[:length] for marker in ordered for length in range(1, len(marker)))
        self._firsts = frozenset(marker[0] for marker in ordered)
        self._longest = max(map(len, ordered), default=0)

    def find(self, text: str, at: int) -> re.Match[str] | None:
        return self._pattern.search(text, at)

    def none_in(self, text: str) -> bool:
        """Whether there is certainly none, not even the beginning of one."""
        return self._firsts.isdisjoint(text)

    def held(self, text: str, at: int) -> int:
        """Where in `text` (after `at`) a marker begins that is not whole yet, its length if there is none."""
        begin = max(at, len(text) - self._longest + 1)
        if self._firsts.isdisjoint(text[begin:]):
            return len(text)
        for start in range(begin, len(text)):
            if text[start] in self._firsts and text[start:] in self._prefixes:
                return start
        return len(text)


markers_of = cache(Markers)


class Text:
    """`all` from `at` on is unread. `final`: nothing more comes. `cut`: and the model had not finished."""

    def __init__(self) -> None:
        self.all = ""
        self.at = 0
        self.final = False
        self.cut = False
        self._held: list[str] | None = None
        self.held_size = 0

    def feed(self, piece: str) -> None:
        self.all = self.all[self.at :] + piece
        self.at = 0

    @property
    def over(self) -> bool:
        """The end of the whole text has been reached."""
        return self.final and self.at == len(self.all)

    @property
    def empty(self) -> bool:
        return self.at == len(self.all)

    # ------------------------------------------------------------------------------------------ what a reader has taken

    def hold(self, *taken: str) -> None:
        """From here on, what is taken is held; `taken` was already."""
        self._held = [*taken]
        self.held_size = 0

    @property
    def holding(self) -> bool:
        return self._held is not None

    @property
    def held(self) -> str:
        return "".join(self._held or ())

    def release(self) -> list[str]:
        held, self._held = self._held or [], None
        return held

    def give_back(self, rest: str) -> None:
        """`rest` is unread again."""
        self.all, self.at = rest + self.all[self.at :], 0

    def take(self, end: int) -> str:
        piece, self.at = self.all[self.at : end], end
        if self._held is not None and piece:
            self._held.append(piece)
            self.held_size += len(piece)
        return piece

    # ---------------------------------------------------------------------------------------------- what stands at `at`

    def skip_blank(self) -> bool:
        """Takes white space. Whether anything else has come after it."""
        match = _BLANK.match(self.all, self.at)
        assert match is not None
        self.take(match.end())
        return self.at < len(self.all)

    def literal(self, options: Iterable[str], at: int | None = None) -> str | Open | None:
        """Which of the options stands here, the first that does; of two that begin alike the longer is to be first."""
        at = self.at if at is None else at
        rest = self.all[at : at + HEADER_LIMIT]
        for option in options:
            if rest.startswith(option):
                return option
            if not self.final and option.startswith(rest):
                return MORE
        return None

    def until(self, mark: str, at: int | None = None) -> int | Open | None:
        """Where `mark` begins, if it does within a header's bound."""
        at = self.at if at is None else at
        found = self.all.find(mark, at, at + HEADER_LIMIT)
        if found >= 0:
            return found
        return None if self.final or len(self.all) - at >= HEADER_LIMIT else MORE

    def past_blank(self, at: int) -> int | Open:
        """Where after `at` something other than white space stands; the end of the text where none follows. White
        space beyond its bound counts as something else."""
        match = _BLANK.match(self.all, at, at + BLANK_LIMIT)
        assert match is not None
        if match.end() == len(self.all) and not self.final and match.end() - at < BLANK_LIMIT:
            return MORE
        return match.end()

    def object_begins(self) -> bool | Open:
        if self.at == len(self.all) or _OBJECT_MAY_BEGIN.match(self.all, self.at):
            return False if self.final else MORE
        return _OBJECT_BEGINS.match(self.all, self.at) is not None
