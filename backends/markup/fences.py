"""Whether a text stands in Markdown's code at its end: there, markup is shown as an example more often than meant."""

from __future__ import annotations

import re

_RUN = re.compile(r"\s*(`{3,}|~{3,})(.*)", re.DOTALL)
_LINE_BEGINS = 16  # characters of a line that are looked at


class Fences:
    """Feed what has left; then `open` says whether the next character would stand in a fence, `in_line` whether in the
    back-ticks of its line. As in CommonMark, a fence ends at a run of its own character that is at least as long and
    that nothing follows; it may be indented by any number of blanks, as in lists."""

    __slots__ = ("_fence", "_line", "_ticks")

    def __init__(self) -> None:
        self._fence = ""  # what opened the one that is open at the beginning of the line
        self._line = ""  # the beginning of the last line
        self._ticks = 0  # back-ticks in it

    def feed(self, text: str) -> None:
        if "`" not in text and "~~~" not in text and "`" not in self._line and "~" not in self._line:
            end = text.rfind("\n")
            if end >= 0:
                self._line, self._ticks = "", 0
            self._line = (self._line + text[end + 1 : end + 1 + _LINE_BEGINS])[:_LINE_BEGINS]
            return
        *lines, last = text.split("\n")
        for line in lines:
            self._fence = self._fence_after((self._line + line)[:_LINE_BEGINS])
            self._line, self._ticks = "", 0
        if len(self._line) < _LINE_BEGINS:
            self._line = (self._line + last)[:_LINE_BEGINS]
        self._ticks += last.count("`")

    @property
    def open(self) -> bool:
        return self._fence_after(self._line) != ""

    @property
    def in_line(self) -> bool:
        return self._ticks % 2 == 1

    def _fence_after(self, line: str) -> str:
        match = _RUN.match(line)
        if match is None:
            return self._fence
        run, rest = match.groups()
        if self._fence:
            ends = run[0] == self._fence[0] and len(run) >= len(self._fence) and not rest.strip()
            return "" if ends else self._fence
        return "" if run[0] == "`" and "`" in rest else run
