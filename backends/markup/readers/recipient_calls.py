"""Messages to recipients, `>>>NAME` and a line of its own, then the arguments; what is for everybody is text.

A recipient that is no tool, or a body that is no object (code for an interpreter), is text as it stands.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dragoman.backends.markup.calls import CallReader, Calls
from dragoman.backends.markup.text import HEADER_LIMIT, MORE, Signal, Step, Text

_NAME = re.compile(r"[ \t]*([\w.:/-]*)[ \t]*")


@dataclass(frozen=True, slots=True)
class RecipientCalls:
    """`everybody` names the recipient of text."""

    everybody: str = "all"

    def open(self, text: Text, calls: Calls, opener: str) -> Step:
        return _RecipientReader(self, text, calls).header


class _RecipientReader(CallReader):
    def __init__(self, form: RecipientCalls, text: Text, calls: Calls) -> None:
        super().__init__(text, calls)
        self._form = form
        self._name = ""

    def header(self) -> Step | Signal:
        text = self.text
        match = _NAME.match(text.all, text.at)
        assert match is not None
        if match.end() == len(text.all):
            return MORE if match.end() - text.at < HEADER_LIMIT else self.broken()
        if text.all[match.end()] != "\n":
            return self.broken()
        self._name = match[1]
        if self._name == self._form.everybody:
            return self.close(text.all[text.at : match.end() + 1])
        if not self.calls.declared(self._name):
            return self.broken()
        text.take(match.end() + 1)
        return self._begins

    def _begins(self) -> Step | Signal:
        if not self.text.skip_blank():
            return MORE
        begins = self.text.object_begins()
        if begins is MORE:
            return MORE
        if not begins:
            return self.broken()
        self.begin_json("<|")
        self.announce(self._name)
        return self._arguments

    def _arguments(self) -> Step | Signal:
        if not self.stream_arguments():
            return MORE
        self.end_call()
        return self._after

    def _after(self) -> Step | Signal:
        return self.leave() if self.text.skip_blank() else MORE
