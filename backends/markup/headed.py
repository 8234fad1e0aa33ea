"""Calls written as a header with the name, followed by the bare JSON of the arguments.

A family says what separates the two, what its header holds, and what may follow the arguments.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from dragoman.backends.markup.scanner import JsonText, Markup


class BareArguments(Markup, ABC):
    """The states from the end of a call's header to the end of its arguments."""

    def _arguments_of(self, name: str, id: str = "") -> bool:
        """Announces the call where an object begins here; otherwise it is no call."""
        begins = self._object_stands_here()
        if begins is None:
            return False
        if not begins:
            return self._broken()
        self._announce(name, id)
        self._json = JsonText()
        self._state = self._bare_arguments
        return True

    def _bare_arguments(self) -> bool:
        if not self._stream_object():
            return False
        if self._json.broken:
            self._note("malformed_call")
        return self._call_ended()

    def _call_ended(self) -> bool:
        self._end_call()
        self._state = self._after_call
        return True

    @abstractmethod
    def _after_call(self) -> bool:
        """What the family skips after a call, and which state follows."""


class HeadedCalls(BareArguments):
    """`separator` ends the header, `again` begins the next call of a section, `closers` are skipped after a call."""

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

    @abstractmethod
    def _read_header(self, header: str) -> tuple[str, str] | None:
        """Name and id, "" for a missing id; None where this is no header."""

    def _arguments_begin(self) -> bool:
        if not self._skip_blank():
            return False
        return self._arguments_of(*self._head)

    def _after_call(self) -> bool:
        self._state = self._section
        return True
