"""One argument that is written as bare text, on its way into the JSON of a call: strings as their pieces come, other
values once they are whole."""

from __future__ import annotations

import json
from collections.abc import Callable

from dragoman.backends.markup.values import WORD_LIMIT, Types, as_json, begun_as_json, given_as_json, may_be_other


class Argument:
    """`types` are those that the schema allows, `is_string` is what the markup itself says, None if it says
    nothing."""

    def __init__(self, write: Callable[[str], None], types: Types, is_string: bool | None = None) -> None:
        self._write = write
        self._types = types
        self._tagged = is_string is not None
        self._string = is_string if is_string is not None else types is not None and "string" in types
        self.begun = False
        self._pieces: list[str] = []
        self._begin = ""  # of the value, as far as it decides between a string and another type
        self._started = False  # a piece of a string has left

    def add(self, piece: str) -> None:
        self.begun = True
        self._pieces.append(piece)
        if self._string and (self._started or not self._may_be_other(piece)):
            self._string_piece("".join(self._pieces))
            self._pieces.clear()

    def _may_be_other(self, piece: str) -> bool:
        if self._tagged:
            return False
        if len(self._begin) <= WORD_LIMIT:
            self._begin = (self._begin + piece).lstrip()[: WORD_LIMIT + 1]
        return may_be_other(self._begin, self._types)

    def _string_piece(self, text: str) -> None:
        escaped = json.dumps(text, ensure_ascii=False)[1:-1]
        self._write(escaped if self._started else f'"{escaped}')
        self._started = True

    def end(self) -> None:
        text = "".join(self._pieces)
        self._pieces.clear()
        if self._started:
            self._write('"')
        elif self._tagged:
            self._write(json.dumps(text, ensure_ascii=False) if self._string else given_as_json(text))
        else:
            self._write(as_json(text, self._types))

    def cut(self) -> None:
        """The answer was cut in the value."""
        if not self._started:
            self._write(begun_as_json("".join(self._pieces), None if self._tagged else self._types))
