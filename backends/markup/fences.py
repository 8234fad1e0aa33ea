"""Whether a text stands in Markdown's code at its end: there, markup is shown as an example more often than meant."""

from __future__ import annotations

_FENCE = "```"
_LINE_BEGINS = 16  # characters of a line that are looked at


class Fences:
    """Feed what has left; then `open` says whether the next character would stand in a fence, `in_line` whether in the
    back-ticks of its line."""

    __slots__ = ("_line", "_open", "_ticks")

    def __init__(self) -> None:
        self._open = False  # at the beginning of the line
        self._line = ""  # the beginning of the last line
        self._ticks = 0  # back-ticks in it

    def feed(self, text: str) -> None:
        if "`" not in text and "`" not in self._line:
            end = text.rfind("\n")
            if end >= 0:
                self._line, self._ticks = "", 0
            self._line = (self._line + text[end + 1 : end + 1 + _LINE_BEGINS])[:_LINE_BEGINS]
            return
        *lines, last = text.split("\n")
        for line in lines:
            self._open = self._open_after((self._line + line)[:_LINE_BEGINS])
            self._line, self._ticks = "", 0
        if len(self._line) < _LINE_BEGINS:
            self._line = (self._line + last)[:_LINE_BEGINS]
        self._ticks += last.count("`")

    @property
    def open(self) -> bool:
        return self._open_after(self._line)

    @property
    def in_line(self) -> bool:
        return self._ticks % 2 == 1

    def _open_after(self, line: str) -> bool:
        begin = line.strip()
        if self._open:
            return not begin.startswith(_FENCE) or bool(begin.strip("`"))
        return begin.startswith(_FENCE) and begin.count("`") == len(_FENCE)
