"""Calls whose parameters are tagged one by one: Qwen3-Coder's XML, GLM's key and value tags, DeepSeek's DSML.

The JSON of the arguments is written here. Strings stream as they come; other values are converted once they are whole,
by the type that the tool's schema declares, else by how they look. A value ends only where the next tag follows its
closing tag, so that the closing tag may occur in a value. Nothing is checked beyond the type.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Mapping
from typing import Any, ClassVar

from dragoman.backends.markup.scanner import Markers, Markup, markers_of

LITERAL_LIMIT = 10_000  # characters of a value that are tried as a Python literal


class TaggedCalls(Markup):
    """`call_tag` reads the rest of a call's opening tag, with the name as its first group; `parameter_tag` reads the
    whole opening tag of a parameter, with the group `key`. `next_calls` names the state after what begins another call
    of the same section."""

    call_tag: ClassVar[re.Pattern[str]] = re.compile(r"(?!)")
    parameter_open: ClassVar[str] = ""
    parameter_tag: ClassVar[re.Pattern[str]] = re.compile(r"(?!)")
    parameter_tag_ends: ClassVar[str] = ">"
    value_ends: ClassVar[tuple[str, ...]] = ()
    call_ends: ClassVar[tuple[str, ...]] = ()
    next_calls: ClassVar[Mapping[str, str]] = {}
    section_ends: ClassVar[tuple[str, ...]] = ()
    trims_newline: ClassVar[bool] = False  # one newline at each end of a value belongs to its tags

    def _call_tag(self) -> bool:
        end = self._until(">")
        if end == -1:
            return False
        match = self.call_tag.fullmatch(self._text, self._at, end + 1) if end is not None else None
        if match is None:
            return self._broken()
        self._take(match.end())
        return self._parameters_of(match[1])

    def _parameters_of(self, name: str) -> bool:
        self._tool = name
        self._first = True
        self._state = self._parameters
        return True

    def _parameters(self) -> bool:
        if not self._skip_blank():
            return False
        found = self._literal(self.parameter_open, *self.call_ends)
        if found == "":
            return False
        if found is None:
            return self._broken()
        if found != self.parameter_open:
            self._take(self._at + len(found))
            self._open()
            self._emit_arguments("{}" if self._first else "}")
            self._end_call()
            self._state = self._between_calls
            return True
        end = self._until(self.parameter_tag_ends)
        if end == -1:
            return False
        match = None
        if end is not None:
            match = self.parameter_tag.fullmatch(self._text, self._at, end + len(self.parameter_tag_ends))
        if match is None:
            return self._broken()
        self._take(match.end())
        self._begin_value(match)
        return True

    def _open(self) -> None:
        if self._first:
            self._announce(self._tool)

    def _begin_value(self, match: re.Match[str]) -> None:
        key = match["key"].strip()
        types = self._types(key)
        tagged = self._is_string(match)
        self._string = tagged if tagged is not None else types is not None and "string" in types
        self._nullable = tagged is None and types is not None and "null" in types
        self._kinds = types if tagged is None else None
        self._pieces: list[str] = []
        self._started = False  # a piece of a string has left
        self._trim = self.trims_newline
        ends = (f"\n{end}" for end in self.value_ends) if self.trims_newline else ()
        self._value_marks: Markers = markers_of((*self.value_ends, *ends))
        self._open()
        self._emit_arguments(f"{'{' if self._first else ', '}{json.dumps(key, ensure_ascii=False)}: ")
        self._first = False
        self._state = self._value_text

    def _is_string(self, match: re.Match[str]) -> bool | None:
        """What the tag itself says about the value; None where it says nothing."""
        return None

    def _types(self, key: str) -> frozenset[str] | None:
        tool = self._tools.get(self._tool)
        properties = tool.parameters.get("properties") if tool is not None else None
        schema = properties.get(key) if isinstance(properties, Mapping) else None
        return types_of(schema)

    def _value_text(self) -> bool:
        text = self._text
        if self._trim:
            if self._at == len(text):
                return False
            self._trim = False
            self._at += text[self._at] == "\n"
        match = self._value_marks.find(text, self._at)
        if match is None:
            self._value_piece(len(text) if self._final else self._value_marks.held(text, self._at))
            if self._final:
                self._cut_value()
            return False
        self._value_piece(match.start())
        follows = self._follows(match.end())
        if follows is None:
            return False
        if not follows:  # the closing tag is a piece of the value
            self._value_piece(match.end())
            return True
        self._at = match.end()
        self._end_value()
        self._state = self._parameters
        return True

    def _follows(self, at: int) -> bool | None:
        """Whether a tag that may follow a value begins at `at`, after blanks; None while that is open."""
        before, self._at = self._at, at
        while self._at < len(self._text) and self._text[self._at].isspace():
            self._at += 1
        found = self._literal(self.parameter_open, *self.call_ends)
        end, self._at = self._at, before
        if self._final and end == len(self._text):
            return True
        return None if found == "" else found is not None

    def _value_piece(self, end: int) -> None:
        piece, self._at = self._text[self._at : end], max(end, self._at)
        if not piece:
            return
        self._pieces.append(piece)
        if self._string and (self._started or not self._may_be_null()):
            self._string_piece("".join(self._pieces))
            self._pieces.clear()

    def _may_be_null(self) -> bool:
        return self._nullable and "null".startswith("".join(self._pieces).strip())

    def _string_piece(self, text: str) -> None:
        escaped = json.dumps(text, ensure_ascii=False)[1:-1]
        self._emit_arguments(escaped if self._started else f'"{escaped}')
        self._started = True

    def _end_value(self) -> None:
        text = "".join(self._pieces)
        if self._started:
            self._emit_arguments('"')
        elif self._string and not (self._nullable and text.strip() == "null"):
            self._emit_arguments(json.dumps(text, ensure_ascii=False))
        else:
            self._emit_arguments(as_json(text, self._kinds))
        self._started = False
        self._pieces.clear()

    def _cut_value(self) -> None:
        """The answer ended in the value: what there is of it goes out, unclosed."""
        if text := "".join(self._pieces):
            self._pieces.clear()
            self._emit_arguments(text)

    def _between_calls(self) -> bool:
        if not self._skip_blank():
            return False
        found = self._literal(*self.section_ends, *self.next_calls)
        if found == "":
            return False
        if found is not None and found in self.next_calls:
            self._take(self._at + len(found))
            self._state = getattr(self, self.next_calls[found])
        elif found is not None:
            self._at += len(found)
            self._raw = None
            self._state = self._outside
        elif "".join(self._raw or ()).strip():  # only the section's opener was there
            return self._broken()
        else:
            return self._leave()
        return True


def types_of(schema: object) -> frozenset[str] | None:
    """The JSON types that a property's schema allows, None where it does not say."""
    if not isinstance(schema, Mapping):
        return None
    declared = schema.get("type")
    if isinstance(declared, str):
        return frozenset({declared})
    if isinstance(declared, list):
        return frozenset(str(item) for item in declared) or None
    found: set[str] = set()
    for word in ("anyOf", "oneOf"):
        branches = schema.get(word)
        for branch in branches if isinstance(branches, list) else ():
            found |= types_of(branch) or set()
    values = schema.get("enum")
    if not found and isinstance(values, list) and values and all(isinstance(value, str) for value in values):
        found = {"string"}
    return frozenset(found) or None


def as_json(text: str, types: frozenset[str] | None) -> str:
    """JSON of a value that is not declared to be a string: its own JSON, a Python literal's, else a string's."""
    stripped = text.strip()
    for read in (_from_json, _from_python):
        value, found = read(stripped)
        if found and _fits(value, types):
            return stripped if read is _from_json else json.dumps(value, ensure_ascii=False)
    return json.dumps(text, ensure_ascii=False)


def _from_json(text: str) -> tuple[Any, bool]:
    try:
        return json.loads(text, parse_constant=_refuse), True
    except (ValueError, RecursionError):
        return None, False


def _refuse(word: str) -> None:
    raise ValueError(word)


def _from_python(text: str) -> tuple[Any, bool]:
    """True, None and {'a': 1}, which models learn from templates that print values without tojson."""
    if len(text) > LITERAL_LIMIT:
        return None, False
    named = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in named:
        return named[text.lower()], True
    if text[:1] not in ("{", "["):
        return None, False
    try:
        with warnings.catch_warnings():  # about odd escapes in the model's strings
            warnings.simplefilter("ignore")
            value = ast.literal_eval(text)
        json.dumps(value, allow_nan=False)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None, False
    return value, True


def _fits(value: Any, types: frozenset[str] | None) -> bool:
    if types is None:
        return not isinstance(value, str)
    match value:
        case bool():
            return "boolean" in types
        case None:
            return "null" in types
        case int() | float():
            return bool(types & {"integer", "number"})
        case str():
            return "string" in types
        case list():
            return "array" in types
        case _:
            return "object" in types
