"""Calls written as JSON objects, `{"name": …, "arguments": {…}}`, one or several, bare or in an array.

The members may come in any order; arguments stream once the name is known. `parameters` is Llama's word for arguments,
`function` may hold the name or an object with both. Arguments as a string that holds an object are that object. What
small models leave out or write twice at the end (brackets, commas) is forgiven once the arguments are whole.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import orjson

from dragoman.backends.markup.scanner import HEADER_LIMIT, JsonText, Markup
from dragoman.translators.json_text import is_object

_KEY = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_SCALAR = re.compile(r"[\w.+-]*")
ARGUMENTS = frozenset({"arguments", "parameters", "args"})
NAMES = frozenset({"name", "function", "id", "type"})


class JsonCalls(Markup):
    """The states from `_json_calls`, after the opener, to the end of the last object and its closer."""

    closers: ClassVar[tuple[str, ...]] = ()
    arrays: ClassVar[bool] = False
    strict: bool = False  # only known members and declared names: the objects stand where text may stand

    _array = False

    def _json_calls(self) -> bool:
        if not self._skip_blank():
            return False
        self._array = self.arrays and self._text[self._at] == "["
        if self._array:
            self._take(self._at + 1)
        self._state = self._object
        return True

    def _object(self) -> bool:
        if not self._skip_blank():
            return False
        begins = self._object_stands_here()
        if begins is None:
            return False
        if not begins:
            if self._array and self._text[self._at] == "]" and self._calls:
                self._state = self._after_object
                return True
            return self._broken()
        self._take(self._at + 1)
        self._name = self._id = self._key = ""
        self._early: list[str] | None = None  # arguments that came before the name
        self._whole = False  # the arguments are complete
        self._state = self._member
        return True

    def _member(self) -> bool:
        if not self._skip_blank():
            return False
        match self._text[self._at]:
            case ",":
                self._take(self._at + 1)
                return True
            case "}":
                return self._object_ends()
            case '"':
                match = _KEY.match(self._text, self._at)
                if match is None:
                    return self._broken() if len(self._text) - self._at > HEADER_LIMIT else False
                self._key = match[1]
                if self.strict and self._key not in ARGUMENTS | NAMES:
                    return self._broken()
                self._take(match.end())
                self._state = self._colon
                return True
            case _:
                return self._broken_member()

    def _broken_member(self) -> bool:
        """A bracket too few, with the arguments whole: the call counts."""
        if self._whole and self._raw is None:
            self._note("malformed_call")
            self._end_call()
            self._state = self._after_object
            return True
        return self._broken()

    def _colon(self) -> bool:
        if not self._skip_blank():
            return False
        if self._text[self._at] != ":":
            return self._broken()
        self._take(self._at + 1)
        self._state = self._value
        return True

    def _value(self) -> bool:
        if not self._skip_blank():
            return False
        self._json = JsonText()
        first = self._text[self._at]
        if self._key in ARGUMENTS and not self._whole and first in "{[":
            begins = self._object_stands_here()
            if begins is None:
                return False
            if not begins:
                return self._broken()
            self._state = self._arguments
            if self._name:
                self._announce(self._name, self._id)
            else:
                self._early = []
        elif first in '{["':
            self._pieces: list[str] = []
            self._state = self._nested
        else:
            self._state = self._scalar
        return True

    def _arguments(self) -> bool:
        if self._early is None:
            over = self._stream_object()
        else:
            end = self._json.scan(self._text, self._at)
            self._early.append(self._take(end))
            over = self._json.complete or self._json.broken
        if not over:
            return False
        if self._json.broken:
            return self._broken_arguments()
        self._whole = True
        self._state = self._member
        return True

    def _broken_arguments(self) -> bool:
        if self._raw is not None:
            return self._malformed()
        self._note("malformed_call")
        self._end_call()
        self._state = self._after_object
        return True

    def _nested(self) -> bool:
        self._pieces.append(self._take(self._json.scan(self._text, self._at)))
        if self._json.broken:
            return self._broken()
        return self._member_is("".join(self._pieces)) if self._json.complete else False

    def _scalar(self) -> bool:
        match = _SCALAR.match(self._text, self._at)
        assert match is not None
        if match.end() == len(self._text) and len(match[0]) < HEADER_LIMIT:
            return False
        return self._member_is(self._take(match.end())) if match[0] else self._broken()

    def _member_is(self, text: str) -> bool:
        """A member other than an object of arguments was read to its end."""
        self._state = self._member
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError:
            return self._broken()
        if self._key in ARGUMENTS and not self._whole:
            return self._odd_arguments(value)
        if self._key == "function" and isinstance(value, dict):
            inner: Any = next((value[key] for key in ARGUMENTS if key in value), {})
            self._early = [orjson.dumps(inner).decode()]
            self._whole = True
            value = value.get("name")
        if self._key in ("name", "function") and isinstance(value, str) and not self._name:
            return self._named(value.strip())
        if self._key == "id" and isinstance(value, str):
            self._id = value
        return True

    def _odd_arguments(self, value: Any) -> bool:
        """Arguments that are a string of JSON, or nothing."""
        text = value if isinstance(value, str) and value.strip() else "{}"
        if value not in (None, "", False) and not is_object(text):
            return self._broken()
        self._whole = True
        self._early = [text]
        return self._named(self._name) if self._name else True

    def _named(self, name: str) -> bool:
        if not name or (self.strict and self._closed_world and name not in self._tools):
            return self._broken()
        self._name = name
        if self._early is not None:
            self._announce(name, self._id)
            self._emit_arguments("".join(self._early))
            self._early = None
        return True

    def _object_ends(self) -> bool:
        if not self._name or (self.strict and not self._whole):
            return self._broken()
        if self._raw is not None:
            self._announce(self._name, self._id)
        self._take(self._at + 1)
        self._end_call()
        self._state = self._after_object
        return True

    def _after_object(self) -> bool:
        if not self._skip_blank():
            return False
        first = self._text[self._at]
        found = self._literal(*self.closers)
        if found == "":
            return False
        if found is not None:
            self._at += len(found)
            self._raw = None
            self._state = self._outside
        elif self._array and first == "]":
            self._array = False
            self._take(self._at + 1)
            self._raw = []
        elif first in self._separators():
            self._take(self._at + 1)
            self._state = self._object
        elif first == "{":
            self._state = self._object
        elif first == "}" and self.closers:
            self._at += 1  # one bracket too many
        else:
            return self._leave()
        return True

    def _separators(self) -> str:
        return "," if self._array else ""
