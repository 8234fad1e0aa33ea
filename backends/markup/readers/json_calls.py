"""Calls written as JSON objects, `{"name": …, "arguments": {…}}`, one or several, bare or in an array.

The members may come in any order; arguments stream once the name is known. `parameters` is Llama's word for arguments,
`function` may hold the name or an object with both. Arguments as a string that holds an object are that object; where
there are none, the members that have no other meaning are the arguments. What small models leave out or write twice at
the end (brackets, commas) is forgiven once the arguments are whole, and so is a Markdown fence around the objects.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import orjson

from dragoman.backends.markup.calls import CallReader, Calls, properties_of
from dragoman.backends.markup.text import HEADER_LIMIT, MORE, Signal, Step, Text
from dragoman.backends.markup.values import in_pairs
from dragoman.translators.json_text import is_object

_KEY = re.compile(r"""\"((?:[^"\\]|\\.)*)\"|'((?:[^'\\]|\\.)*)'""", re.DOTALL)
_FENCES = ("```json", "```")
_SCALAR = re.compile(r"[\w.+-]*")
_ARGUMENTS = frozenset({"arguments", "parameters", "args"})
_MEANINGLESS = frozenset({"type", "index"})
_WORDS = {"None": "null", "True": "true", "False": "false"}


@dataclass(frozen=True, slots=True)
class JsonCalls:
    """`arrays`: the objects may stand in an array, which the opener has begun already where it ends in a bracket.
    `closers` end the calls; `separators` may stand between objects without an array. `name_is_key`: an object holds the
    arguments under the name. `fenced`: a Markdown fence may stand around them also where they stand bare. `declared`:
    only a declared name makes a call."""

    closers: tuple[str, ...] = ()
    arrays: bool = True
    separators: str = ","
    name_keys: frozenset[str] = frozenset({"name", "function"})
    id_keys: frozenset[str] = frozenset({"id"})
    name_is_key: bool = False
    fenced: bool = False
    declared: bool = False

    def open(self, text: Text, calls: Calls, opener: str) -> Step:
        return _JsonReader(self, text, calls, opener).begin


class _JsonReader(CallReader):
    """`strict` while the objects stand where text may stand: only known members and declared names make a call."""

    def __init__(self, form: JsonCalls, text: Text, calls: Calls, opener: str) -> None:
        super().__init__(text, calls)
        self._form = form
        self._in_array = opener.endswith("[")
        self._in_fence = opener.endswith(_FENCES)
        self._strict = calls.bare or form.declared
        self._ends = tuple(filter(None, (opener.strip(), *form.closers, "<|", "<\uff5c")))
        self._name = self._id = self._key = ""
        self._early: list[str] | None = None  # arguments that came before the name
        self._whole = False  # the arguments are complete
        self._others: dict[str, Any] = {}  # members without a meaning
        self._pieces: list[str] = []

    def begin(self) -> Step | Signal:
        text = self.text
        if not text.skip_blank():
            return MORE
        if (self._form.fenced or not self._strict) and not self._in_fence:
            fence = text.literal(_FENCES)
            if fence is MORE:
                return MORE
            if fence is not None:
                self._in_fence = True
                text.take(text.at + len(fence))
                return self.begin
        if not self._in_array and self._form.arrays and text.all[text.at] == "[":
            self._in_array = True
            text.take(text.at + 1)
        return self._object

    def _object(self) -> Step | Signal:
        text = self.text
        if not text.skip_blank():
            return MORE
        begins = text.object_begins()
        if begins is MORE:
            return MORE
        if not begins:
            if self._in_array and text.all[text.at] == "]" and self.calls.count:
                return self._after_object
            return self.broken()
        text.take(text.at + 1)
        self._name = self._id = self._key = ""
        self._early = None
        self._whole = False
        self._others = {}
        return self._member

    def _member(self) -> Step | Signal:
        text = self.text
        if not text.skip_blank():
            return MORE
        match text.all[text.at]:
            case ",":
                text.take(text.at + 1)
                return self._member
            case "}":
                return self._object_ends()
            case '"' | "'":
                match = _KEY.match(text.all, text.at)
                if match is None:
                    return self.broken() if len(text.all) - text.at > HEADER_LIMIT else MORE
                self._key = match[1] or match[2] or ""
                if self._strict and not self._known(self._key):
                    return self.broken()
                text.take(match.end())
                return self._colon
            case _:
                return self._no_member()

    def _known(self, key: str) -> bool:
        return key in _ARGUMENTS | self._form.name_keys | self._form.id_keys | _MEANINGLESS

    def _no_member(self) -> Step | Signal:
        """A bracket too few, with the arguments whole: the call counts."""
        if self._whole and not self.text.holding:
            self.calls.note("malformed_call")
            self.end_call()
            return self._after_object
        return self.broken()

    def _colon(self) -> Step | Signal:
        if not self.text.skip_blank():
            return MORE
        if self.text.all[self.text.at] != ":":
            return self.broken()
        self.text.take(self.text.at + 1)
        return self._value

    def _value(self) -> Step | Signal:
        text = self.text
        if not text.skip_blank():
            return MORE
        self.begin_json(*self._ends, *(("```",) if self._in_fence else ()))
        first = text.all[text.at]
        if self._form.name_is_key and not self._name and first not in "\"'":
            if not self._key:
                return self.broken()
            self._name, self._key = self._key, "arguments"
        if self._key in _ARGUMENTS and not self._whole and first in "{[":
            begins = text.object_begins()
            if begins is MORE:
                return MORE
            if not begins:
                return self.broken()
            if self._name:
                self.announce(self._name, self._id)
                return self._arguments
            self._early = []
            return self._early_arguments
        if first in "{[\"'":
            self._pieces = []
            return self._nested
        return self._scalar

    def _arguments(self) -> Step | Signal:
        if not self.stream_arguments():
            return MORE
        if self.broken_json:
            self.end_call()
            return self._after_object
        self._whole = True
        return self._member

    def _early_arguments(self) -> Step | Signal:
        assert self._early is not None
        self._early.append(self.json_piece())
        if not self.json_over:
            return MORE
        if self.broken_json:
            return Signal.NO_CALL
        self._whole = True
        return self._member

    def _nested(self) -> Step | Signal:
        self._pieces.append(self.json_piece())
        if not self.json_over:
            return MORE
        return self.broken() if self.broken_json else self._member_is("".join(self._pieces))

    def _scalar(self) -> Step | Signal:
        text = self.text
        match = _SCALAR.match(text.all, text.at)
        assert match is not None
        if match.end() == len(text.all) and len(match[0]) < HEADER_LIMIT:
            return MORE
        return self._member_is(text.take(match.end())) if match[0] else self.broken()

    def _member_is(self, written: str) -> Step | Signal:
        """A member other than an object of arguments was read to its end."""
        try:
            value = orjson.loads(_WORDS.get(written, written))
        except orjson.JSONDecodeError:
            return self.broken()
        if self._key in _ARGUMENTS and not self._whole:
            return self._odd_arguments(value)
        if self._key == "function" and isinstance(value, dict):
            inner: Any = next((value[key] for key in _ARGUMENTS if key in value), None) or {}
            text = inner if isinstance(inner, str) and is_object(inner) else orjson.dumps(inner).decode()
            self._early = [in_pairs(text)]
            self._whole = True
            value = value.get("name")
        if self._key in self._form.name_keys and isinstance(value, str) and not self._name:
            return self._named(value.strip())
        if self._key in self._form.name_keys and isinstance(value, str) and self._whole and not self.text.holding:
            return self._next_name(value.strip())
        if self._key in self._form.id_keys and isinstance(value, str):
            self._id = value
        elif not self._known(self._key):
            self._others[self._key] = value
        return self._member

    def _next_name(self, name: str) -> Step | Signal:
        """A second name in one object: the brackets between two calls are missing."""
        self.calls.note_mended()
        self.end_call()
        self._id, self._whole, self._others = "", False, {}
        return self._named(name)

    def _odd_arguments(self, value: Any) -> Step | Signal:
        """Arguments that are a string of JSON, or nothing."""
        written = in_pairs(value) if isinstance(value, str) and value.strip() else "{}"
        if value not in (None, "", False) and not is_object(written):
            return self.broken()
        self._whole = True
        self._early = [written]
        return self._named(self._name) if self._name else self._member

    def _named(self, name: str) -> Step | Signal:
        if not name or (self._strict and not self.calls.declared(name)):
            return self.broken()
        self._name = name
        if self._early is not None:
            self.announce(name, self._id)
            self.calls.extend("".join(self._early))
            self._early = None
        return self._member

    def _object_ends(self) -> Step | Signal:
        if not self._name or (self._strict and not self._whole):
            return self.broken()
        if self.text.holding:
            self.announce(self._name, self._id)
            if self._others:
                self.calls.extend(orjson.dumps(self._other_arguments()).decode())
        if self._others:
            self.calls.note_mended()
        self.text.take(self.text.at + 1)
        self.end_call()
        return self._after_object

    def _other_arguments(self) -> dict[str, Any]:
        """Arguments that stand beside the name, or in an object under a name of their own."""
        declared = properties_of(self.calls.schema(self._name))
        inner = [value for key, value in self._others.items() if isinstance(value, dict) and key not in declared]
        return inner[0] if len(inner) == len(self._others) == 1 else self._others

    def _after_object(self) -> Step | Signal:
        text, form = self.text, self._form
        if not text.skip_blank():
            return MORE
        first = text.all[text.at]
        found = text.literal(("```", *form.closers) if self._in_fence else form.closers)
        if found is MORE:
            return MORE
        if found == "```" and self._in_fence and {*form.closers} - {found}:
            self._in_fence = False
            text.at += len(found)
            return self._after_object
        if found is not None:
            return self.close(found)
        if self._in_array and first == "]":
            self._in_array = False
            text.take(text.at + 1)
            text.hold()
        elif first in ("," if self._in_array else form.separators):
            text.take(text.at + 1)
            return self._object
        elif first == "{":
            return self._object
        elif first == "}" and form.closers:
            text.at += 1  # one bracket too many
        else:
            return Signal.DONE
        return self._after_object
