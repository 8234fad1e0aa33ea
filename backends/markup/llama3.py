"""Llama 3.1 to 3.3: bare JSON, `{"name": …, "parameters": {…}}`, with or without `<|python_tag|>` before it; several
are separated by `;`, a comma or a newline, or stand in an array. Also `<function=name>{…}</function>`.

Bare JSON is a call only where the answer, or what follows a call, begins with it, where it has no other members, and
where its name is declared; any other JSON is an answer in JSON. Code after `<|python_tag|>` (the built-in tools of
ipython) stays text.
"""

from __future__ import annotations

import re
from typing import ClassVar

from dragoman.backends.markup.headed import HeadedCalls
from dragoman.backends.markup.json_calls import JsonCalls

_NAME = re.compile(r"[\w.:/-]+")


class Llama3(JsonCalls, HeadedCalls):
    openers: ClassVar = {"<|python_tag|>": "_json_calls", "<function=": "_header"}
    separator = ">"
    closers = ("</function>",)
    ends = ("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>")
    arrays = True

    _bare = True  # only blanks, reasoning or calls stand before

    def _outside(self) -> bool:
        self.strict = False
        if self._bare and self._at < len(self._text):
            stripped = self._text[self._at :].lstrip()
            if stripped and stripped[0] in "{[":
                self._emit(len(self._text) - len(stripped))
                self._raw, self._held = [], 0
                self.strict = True
                self._state = self._json_calls
                return True
        return super()._outside()

    def _emit_text(self, text: str) -> None:
        self._bare = self._bare and not text.strip()
        super()._emit_text(text)

    def _note(self, name: str) -> None:
        if not (self.strict and name == "malformed_call"):
            super()._note(name)

    def _malformed(self) -> bool:
        if not self._raw:
            self._bare = False  # nothing was taken: it must not be looked at as a call again
        return super()._malformed()

    def _separators(self) -> str:
        return "," if self._array else ",;"

    def _read_header(self, header: str) -> tuple[str, str] | None:
        return (header, "") if _NAME.fullmatch(header) else None
