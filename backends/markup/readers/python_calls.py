"""Calls written as Python: `[list_rooms(floor=2, tags=["a"]), now()]`, in a list or one on a line.

A call is read once its parentheses have closed. Where a list stands bare, it is one of calls only if their names are
declared; a list of anything else is an answer. Only literals are read; those without a keyword are the tool's declared
parameters, in their order.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dragoman.backends.markup.calls import CallReader, Calls, properties_of
from dragoman.backends.markup.literals import Brackets, arguments_of, loose_arguments
from dragoman.backends.markup.text import HEADER_LIMIT, MORE, Signal, Step, Text

_NAME = re.compile(r"([A-Za-z_][\w.-]*)\s{0,8}\(")
_MAY_BE_NAME = re.compile(r"[A-Za-z_][\w.-]*\s{0,8}")


@dataclass(frozen=True, slots=True)
class PythonCalls:
    """`closers` end the calls. `lines`: calls may follow each other without a list."""

    closers: tuple[str, ...] = ()
    lines: bool = False

    def open(self, text: Text, calls: Calls, opener: str) -> Step:
        return _PythonReader(self, text, calls).begin


class _PythonReader(CallReader):
    def __init__(self, form: PythonCalls, text: Text, calls: Calls) -> None:
        super().__init__(text, calls)
        self._form = form
        self._strict = calls.bare
        self._in_list = False
        self._name = ""
        self._brackets = Brackets()
        self._pieces: list[str] = []

    def begin(self) -> Step | Signal:
        if not self.text.skip_blank():
            return MORE
        self._in_list = self.text.all[self.text.at] == "["
        if self._in_list:
            self.text.take(self.text.at + 1)
        return self._call

    def _call(self) -> Step | Signal:
        text = self.text
        if not text.skip_blank():
            return MORE
        if self._in_list and text.all[text.at] == "]" and self.calls.count:
            return self._after_call
        match = _NAME.match(text.all, text.at, text.at + HEADER_LIMIT)
        if match is None:
            whole = text.final or len(text.all) - text.at >= HEADER_LIMIT
            return self.broken() if whole or not _MAY_BE_NAME.fullmatch(text.all, text.at) else MORE
        if self._strict and not self.calls.declared(match[1]):
            return self.broken()
        self._name, self._pieces = match[1], []
        self._brackets = Brackets()
        text.take(match.end())
        return self._arguments

    def _arguments(self) -> Step | Signal:
        text = self.text
        self._pieces.append(text.take(self._brackets.scan(text.all, text.at)))
        unclosed = not self._brackets.complete
        if unclosed and (not text.final or text.cut):
            return MORE
        written = "".join(self._pieces)
        names = [*properties_of(self.calls.schema(self._name))]
        arguments = arguments_of(written[: None if unclosed else -1], names)
        if arguments is None:
            found = loose_arguments(written)
            if found is None:
                return self.broken()
            arguments, end = found
            self.calls.note_mended()
            text.give_back(written[end:])
        self.announce(self._name)
        self.calls.extend(arguments)
        self.end_call()
        return self._after_call

    def _after_call(self) -> Step | Signal:
        text = self.text
        if not text.skip_blank():
            return MORE
        found = text.literal(self._form.closers)
        if found is MORE:
            return MORE
        if found is not None:
            return self.close(found)
        first = text.all[text.at]
        if self._in_list and first in ",]":
            text.take(text.at + 1)
            if first == ",":
                return self._call
            self._in_list = False
            text.hold()
            return self._after_call
        return self._call if self._form.lines and first not in ",]" else Signal.DONE
