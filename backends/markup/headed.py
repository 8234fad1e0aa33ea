"""Calls written as a header with the name and then the bare JSON of the arguments.

A family says what parts them (`separator`), what it reads out of the header, and what may stand behind the arguments.
"""

from __future__ import annotations

from typing import ClassVar

from dragoman.backends.markup.scanner import JsonText, Markup


class HeadedCalls(Markup):
    """`again` begins the next call of a section, `closers` are skipped where they stand behind a call."""

    separator: ClassVar[str] = ""
    again: ClassVar[tuple[str, ...]] = ()
    closers: ClassVar[tuple[str, ...]] = ()

    def _section(self) -> bool:
        """Between the section's opener and its first call, and between calls."""
        if not self._skip_blank():
            return False
        found = self._literal(*self.again, *self.closers)
        if found == "":
            return False
        if found is None:
            return self._leave() if not "".join(self._raw or ()).strip() else self._broken()
        self._take(self._at + len(found))
        if found in self.again:
            self._state = self._header
        elif self._calls:  # a section's end
            self._raw = []
        else:
            return self._broken()
        return True

    def _header(self) -> bool:
        end = self._until(self.separator)
        if end == -1:
            return False
        read = self._read_header(self._text[self._at : end].strip()) if end is not None else None
        if end is None or read is None:
            return self._broken()
        self._take(end + len(self.separator))
        self._head = read
        self._state = self._arguments_begin
        return True

    def _read_header(self, header: str) -> tuple[str, str] | None:
        """Name and id, "" for an id that is not there; None where this is no header."""
        raise NotImplementedError

    def _arguments_begin(self) -> bool:
        if not self._skip_blank():
            return False
        begins = self._object_stands_here()
        if begins is None:
            return False
        if not begins:
            return self._broken()
        self._announce(*self._head)
        self._json = JsonText()
        self._state = self._headed_arguments
        return True

    def _headed_arguments(self) -> bool:
        if not self._stream_object():
            return False
        if self._json.broken:
            self._note("malformed_call")
        self._end_call()
        self._state = self._behind_call
        return True

    def _behind_call(self) -> bool:
        """What a family skips before the section goes on."""
        self._state = self._section
        return True
