"""Calls written as `call:list_rooms{floor:2,tags:[<|"|>quiet<|"|>]}`: bare keys, strings between delimiters of their
own, in which nothing is escaped.

Strings stream; other values are read once they are whole. A bare word is what the schema says, else what it looks like.
What stands in JSON's quotes is JSON: all arguments, or one value, also within an object or a list, and a key. All
arguments, one value and a key may stand in Python's quotes too, and the arguments in parentheses: `call:f(floor=2)`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from dragoman.backends.markup.argument import Argument
from dragoman.backends.markup.calls import CallReader, Calls, properties_of
from dragoman.backends.markup.model_json import ModelJson
from dragoman.backends.markup.text import HEADER_LIMIT, MORE, Open, Signal, Step, Text, markers_of
from dragoman.backends.markup.values import STRING, VALUE_LIMIT, as_json, broken_off, types_of_parameter

DEPTH_LIMIT = 64
_DEPTHS = {**dict.fromkeys("{[(", 1), **dict.fromkeys("}])", -1)}
_OPEN = ("", "{", "[", ",", ":", "=", "(")  # after these a string may begin
_HEADER = re.compile(r"\s*([\w.:/-]+)\s*([{(])")
_MAY_BE_HEADER = re.compile(r"\s*[\w.:/-]*\s*")
_JSON_STRING = r'"(?:[^"\\]|\\.)*+(?:"(?=\s*(?:[,:}\]]|\Z))|\\?\Z)'


@dataclass(frozen=True, slots=True)
class BraceCalls:
    """`word` stands before the name, `quote` on both sides of a string. `typed`: every value is quoted, whatever its
    type. `opener` is the tag that makes a call by itself; after any other one, and where the word is missing, only a
    declared name makes a call."""

    word: str
    quote: str
    closer: str
    typed: bool = False
    opener: str = ""

    def open(self, text: Text, calls: Calls, opener: str) -> Step:
        reader = _BraceReader(self, text, calls)
        reader.only_declared = opener.strip() != (self.opener or opener.strip())
        return reader.name if opener.endswith(self.word) else reader.begin


class _BraceReader(CallReader):
    def __init__(self, form: BraceCalls, text: Text, calls: Calls) -> None:
        super().__init__(text, calls)
        self._form = form
        self._quote = markers_of((form.quote,))
        self._ends = markers_of(self._marks("{}[]"))
        self._sets, self._last = ":", "}"  # what stands between key and value, and after all of them
        self._tool = self._key = ""
        self._written = False  # a member has been
        self._argument = Argument(calls.extend, None)
        self._pieces: list[str] = []
        self._depth = 0
        self._quoted = self._in_json = False
        self._before = ""  # the last character of a bare value, other than white space

    def begin(self) -> Step | Signal:
        text = self.text
        if not text.skip_blank():
            return MORE
        found = text.literal((self._form.word, f":{self._form.word}"))
        if found is MORE:
            return MORE
        if found is None:
            self.only_declared = True
        text.take(text.at + len(found or ""))
        return self.name

    def name(self) -> Step | Signal:
        text = self.text
        header = _HEADER.match(text.all, text.at, text.at + HEADER_LIMIT)
        if header is None:
            may_come = _MAY_BE_HEADER.fullmatch(text.all, text.at) is not None
            return MORE if may_come and len(text.all) - text.at < HEADER_LIMIT else self.broken()
        text.take(header.end())
        if header[2] == "(":
            self._ends = markers_of(self._marks("{}[]()"))
            self._sets, self._last = "=", ")"
        self._tool = header[1]
        self.announce(self._tool)
        self.calls.extend("{")
        return self._member

    def _marks(self, brackets: str) -> tuple[str, ...]:
        """Those in a bare value that decide where it ends."""
        return (self._form.quote, self._form.closer, ",", *brackets, '"', r"\"", r"\\")

    def _member(self) -> Step | Signal:
        text = self.text
        if not text.skip_blank():
            return MORE
        closes = text.literal((self._form.closer,))
        if closes is MORE:
            return MORE
        if closes is not None:
            return self._end()
        first = text.all[text.at]
        if first == ",":
            text.at += 1
            return self._member
        if first in "\"'" and not self._written and self._last == "}":
            self.begin_json(self._form.closer)
            self._json.read("{", 0, final=False)
            return self._json_body
        if first == self._last:
            text.at += 1
            return self._end()
        return self._key_begins

    def _end(self) -> Step:
        self.calls.extend("}")
        self.end_call()
        return self._after_call

    def _json_body(self) -> Step | Signal:
        if not self.stream_arguments():
            return MORE
        self.end_call()
        return self._after_call

    def _json_value(self) -> Step | Signal:
        return self._member if self.stream_object() else MORE

    def _key_begins(self) -> Step | Signal:
        text = self.text
        end = text.until(self._sets)
        if end is MORE or end is None:
            return MORE if end is MORE else self.broken()
        key = text.all[text.at : end].strip().removeprefix(self._form.quote).removesuffix(self._form.quote)
        self._key = key[1:-1] if len(key) > 1 and key[0] == key[-1] and key[0] in "\"'" else key
        text.at = end + 1
        self.calls.extend(f"{', ' if self._written else ''}{json.dumps(self._key, ensure_ascii=False)}: ")
        self._written = True
        return self._value

    def _value(self) -> Step | Signal:
        text = self.text
        if not text.skip_blank():
            return MORE
        found = text.literal((self._form.quote,))
        if found is MORE:
            return MORE
        if found is None and text.all[text.at] in "\"'":
            self.begin_json(self._form.closer)
            return self._json_value
        if found is None:
            self._pieces, self._depth, self._quoted, self._in_json, self._before = [], 0, False, False, ""
            return self._bare
        text.at += len(found)
        types = types_of_parameter(self.calls.schema(self._tool), self._key)
        self._argument = Argument(self.calls.extend, types, None if self._form.typed else True)
        return self._string

    def _string(self) -> Step | Signal:
        text = self.text
        match = self._quote.find(text.all, text.at)
        end = match.start() if match else len(text.all) if text.final else self._quote.held(text.all, text.at)
        if end > text.at:
            self._argument.add(text.take(end))
        if match is None:
            if not text.final:
                return MORE
            if text.cut:
                self._argument.cut()
                return MORE
        else:
            text.at = match.end()
        self._argument.end()
        return self._member

    def _bare(self) -> Step | Signal:
        """A value without delimiters around it, which may hold some."""
        text = self.text
        while (match := self._ends.find(text.all, text.at)) is not None:
            mark = match[0]
            if mark == '"' and not text.final and self._ends.held(text.all, text.at) < match.start():
                break  # it may belong to a delimiter
            self._bare_piece(match.start())
            if mark == self._form.closer:  # brackets or quotes were forgotten
                return self._bare_ends()
            if mark == self._form.quote and not self._in_json:
                over = not self._quoted and self._before not in _OPEN and self._string_ends(match.end())
                if over is MORE:
                    return MORE
                if over and not self._depth:
                    text.at = match.end()
                    return self._unopened_ends()
                self._quoted = not self._quoted and not over
            elif mark == '"' and not self._quoted:
                self._in_json = not self._in_json and self._depth > 0 and self._before in "{[,:"
            elif not self._quoted and not self._in_json:
                if mark in (",", self._last) and not self._depth:
                    within = mark == "," and self._comma_in_string(match.end())
                    if not within:
                        return self._bare_ends()
                    if within is MORE:
                        return MORE
                self._depth = max(0, self._depth + _DEPTHS.get(mark, 0))
            self._bare_piece(match.end())
        self._bare_piece(len(text.all) if text.final else self._ends.held(text.all, text.at))
        if text.cut:
            self.calls.extend(broken_off(self._bare_json()))
        return self._bare_ends() if text.final and not text.cut else MORE

    def _string_ends(self, at: int) -> bool | Open:
        """Whether what may follow a string stands at `at`, after a delimiter."""
        text = self.text
        begin = text.past_blank(at)
        closes = text.literal((self._form.closer,), begin) if begin is not MORE else MORE
        if begin is MORE or closes is MORE:
            return MORE
        return closes is not None or begin == len(text.all) or text.all[begin] in ",}])"

    def _comma_in_string(self, at: int) -> bool | Open:
        """Whether a comma stands in a string whose first delimiter was forgotten: the other one comes before the next
        key does."""
        text = self.text
        types = types_of_parameter(self.calls.schema(self._tool), self._key)
        if types is not None and "string" not in types:
            return False
        decides = re.compile(rf"{re.escape(self._form.quote)}|{re.escape(self._form.closer)}|[{self._sets}(){{}}\[\]]")
        match = decides.search(text.all, at, at + HEADER_LIMIT)
        if match is None:
            return False if text.final or len(text.all) - at >= HEADER_LIMIT else MORE
        if match[0] != self._form.quote or not text.all[at : match.start()].strip():
            return False
        return self._string_ends(match.end())

    def _unopened_ends(self) -> Step | Signal:
        types = types_of_parameter(self.calls.schema(self._tool), self._key)
        self.calls.extend(as_json("".join(self._pieces), types or STRING))
        return self._member

    def _bare_piece(self, end: int) -> None:
        piece = self.text.take(end)
        self._pieces.append(piece)
        self._before = piece.rstrip()[-1:] or self._before

    def _bare_ends(self) -> Step | Signal:
        self.calls.extend(self._bare_json())
        return self._member

    def _bare_json(self) -> str:
        written = "".join(self._pieces)
        schema = self.calls.schema(self._tool)
        declared = self._key in properties_of(schema)
        if written[:1] in ("{", "[") and len(written) <= VALUE_LIMIT:
            value = _Nested(written, self._form.quote).read()
            return json.dumps(value, ensure_ascii=False)
        return as_json(written, types_of_parameter(schema, self._key) if declared else None)

    def _after_call(self) -> Step | Signal:
        text = self.text
        if not text.skip_blank():
            return MORE
        found = text.literal((self._form.closer, self._form.word))
        if found is MORE:
            return MORE
        if found == self._form.closer:
            return self.close(found)
        if found is None:
            return Signal.DONE
        text.take(text.at + len(found))
        self.only_declared, self._written = True, False
        return self.name


class _Nested:
    """An object or a list in a value, which is whole or breaks off; what is missing at its end is left out."""

    def __init__(self, text: str, quote: str) -> None:
        mark = re.escape(quote)
        pieces = re.finditer(
            rf"\s*(?:{mark}(?P<string>.*?)(?:{mark}|\Z)|(?P<mark>[{{}}\[\],:])"
            rf"|(?P<unopened>(?:(?!{mark})[^{{}}\[\],:])+){mark}(?=\s*(?:[}}\],]|\Z))"
            rf"|(?P<json>{_JSON_STRING})|(?P<bare>.+?)(?=[{{}}\[\],:]|{mark}|\Z))",
            text,
            re.DOTALL,
        )
        self._tokens = [(match.lastgroup or "", match[match.lastgroup or 0]) for match in pieces]
        self._at = 0

    def read(self, depth: int = 0) -> Any:
        kind, text = self._next()
        if kind in ("string", "unopened") or depth > DEPTH_LIMIT:
            return text
        if kind == "json":
            return _string(text)
        if kind == "mark" and text == "[":
            items = []
            while self._more("]"):
                items.append(self.read(depth + 1))
            return items
        if kind == "mark" and text == "{":
            members = {}
            while self._more("}"):
                key = str(self.read(depth + 1))
                if self._peek() == ("mark", ":"):
                    self._next()
                members[key] = self.read(depth + 1)
            return members
        return json.loads(as_json(text, None))

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("", "")

    def _next(self) -> tuple[str, str]:
        token = self._peek()
        self._at += 1
        return token

    def _more(self, closer: str) -> bool:
        """Whether another item comes before the closer."""
        while self._peek() == ("mark", ","):
            self._at += 1
        if self._peek() == ("mark", closer):
            self._at += 1
            return False
        return bool(self._peek()[0])


def _string(text: str) -> str:
    """What a JSON string says that may break off."""
    found = ModelJson()
    _, written = found.read(text, 0, final=True)
    return str(json.loads(written if found.complete else f'{written}"'))
