"""JSON while it is still being written: where a value is complete, and the text of a string as its pieces come.

Tool arguments arrive as pieces of JSON text. `Balance` finds the character at which the outermost object or array
closes, so that a call can be ended as soon as it is whole. `StringReader` un-escapes the one string property that
carries the input of a free-form tool. Neither validates: a model's broken JSON must still reach the client as it is.
`without_lone_surrogates` repairs the one fault that honest clients and servers both make.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from enum import Enum
from io import StringIO
from typing import Any, ClassVar

import orjson

from dragoman.translators.steps import Steps

MOST_VALUES = 200_000
DEEPEST = 200  # levels that can be written again: the encoder goes to 254, with what stands around them
_BETWEEN = "\x7f"  # JSON leaves it as it is
_IN_STRING = re.compile(r'\\.?|"', re.DOTALL)


def encoded(texts: Sequence[str]) -> list[bytes]:
    """Each as a JSON string without its quotes; there is at least one."""
    joined = _BETWEEN.join(texts)
    if joined.count(_BETWEEN) < len(texts):  # no text has one itself
        return orjson.dumps(joined)[1:-1].split(_BETWEEN.encode())
    return [orjson.dumps(text)[1:-1] for text in texts]


class JsonScanner:
    """Finds where one JSON object, array or string ends, as its text comes. A subclass may look for more than
    `structure`: whatever else matches outside of strings is not JSON and ends the value as `broken`."""

    __slots__ = ("_depth", "_escaped", "_string", "broken", "complete")
    structure: ClassVar[re.Pattern[str]] = re.compile(r'["{}\[\]]')

    def __init__(self) -> None:
        self._depth = 0
        self._string = False
        self._escaped = False
        self.complete = False
        self.broken = False

    def scan(self, text: str, at: int) -> int:
        """Reads `text` from `at` on; gives where the value ends in it, its length where the value goes on."""
        if self._escaped and at < len(text):
            at, self._escaped = at + 1, False
        while (match := (_IN_STRING if self._string else self.structure).search(text, at)) is not None:
            at, found = match.end(), match[0]
            if found == '"':
                self._string = not self._string
                if not self._string and not self._depth:
                    self.complete = True
                    return at
            elif found == "\\":
                self._escaped = True
            elif found in "{[":
                self._depth += 1
            elif found in "}]":
                self._depth -= 1
                if self._depth <= 0:
                    self.complete = True
                    return at
            elif not self._string:
                self.broken = True
                return at - 1
        return len(text)


class Balance(JsonScanner):
    """Feed pieces; `complete` becomes True when the outermost brackets have closed. A text that does not begin with an
    object or an array never completes by itself: it ends with the answer."""

    __slots__ = ("bare", "begun")

    def __init__(self) -> None:
        super().__init__()
        self.begun = False  # anything but white space has come
        self.bare = False  # and it is neither an object nor an array

    @property
    def in_string(self) -> bool:
        return self._string

    def feed(self, text: str) -> int:
        """How many characters of `text` belong to the value; fewer than all only once it is complete."""
        if self.complete or not text:
            return 0
        at = 0
        if not self.begun:
            at = len(text) - len(text.lstrip())
            if at == len(text):
                return at
            self.begun = True
            self.bare = text[at] not in "{["
        return len(text) if self.bare else self.scan(text, at)


def is_bulky(raw: bytes, most: int) -> bool:
    """Whether JSON may hold more than `most` values. They are counted by the commas and opening brackets, so that those
    in strings count too. A value takes some hundred bytes of memory, and as long as twenty bytes of text."""
    return len(raw) > most and raw.count(b",") + raw.count(b"[") + raw.count(b"{") > most


def is_object(text: str) -> bool:
    """Whether `text` is the JSON text of an object, which is what chat templates demand of tool arguments."""
    try:
        return isinstance(orjson.loads(text), dict)
    except orjson.JSONDecodeError:
        return False


def deeper_than(value: Any, depth: int) -> bool:
    """Whether an object or an array has more than `depth` levels. Level by level, over containers only: a fraction of
    the cost of parsing, and no recursion."""
    level = [value]
    for _ in range(depth):
        level = [
            child
            for container in level
            for child in (container.values() if type(container) is dict else container)
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return False
    return True


def bounded_loads(text: str, most: int = MOST_VALUES) -> Any:
    """JSON that came as text inside of JSON. Raises ValueError for more than `most` values too, which would take fifty
    times their size in memory."""
    if values_in(text, most) > most:
        raise ValueError(f"more than {most} values")
    return orjson.loads(text)


def values_in(text: str, most: int) -> int:
    """How many values JSON text holds: exact only where it might be more than `most`, else rather too many. Each value
    but the first follows a comma or an opening bracket; those inside strings are left out in a second pass."""
    many = 1 + text.count(",") + text.count("[") + text.count("{")
    return many if many <= most else 1 + sum(separators(text.encode("utf-8", "replace")))


_OTHERS = bytes(set(range(256)) - set(b'",[{'))


def separators(raw: bytes) -> Iterator[int]:
    """The number of commas and opening brackets outside of strings, block by block."""
    inside = 0
    for block in blocks(raw):
        # without escapes, a quote begins or ends a string
        pieces = block.replace(rb"\\", b"").replace(rb"\"", b"").translate(None, _OTHERS).split(b'"')
        yield sum(map(len, pieces[inside::2]))
        inside = (inside + len(pieces) - 1) % 2


class _Reading(Enum):
    HEAD = 0  # not clear yet what kind it is
    VALUE = 1  # inside the string
    BARE = 2  # not JSON at all: the text itself
    WHOLE = 3  # JSON of another shape: decided at the end
    OVER = 4


class StringReader:
    """Takes the input of a free-form tool out of the JSON that carries it, un-escaped as its pieces come.

    Models write {"input": "..."}, {"patch": "..."} and the like, a JSON string, or the bare text; the result is the
    text in each case. `feed` returns what became certain, `finish` the rest. An escape that is cut between two pieces
    waits for its end, half of a surrogate pair for its other half; one that the end of the answer cuts is dropped. A
    backslash that begins no escape is kept as it is. Where the first property is the input, the others are ignored.
    What does not show in its first `HEAD` characters which kind it is, is decided at the end.
    """

    __slots__ = ("_buffer", "_pieces", "_state")

    def __init__(self) -> None:
        self._state = _Reading.HEAD
        self._buffer = ""  # what is looked at again with the next piece
        self._pieces = StringIO()  # what is decided at the end

    def feed(self, piece: str) -> str:
        if self._state is _Reading.OVER:
            return ""
        if self._state is _Reading.WHOLE:
            self._pieces.write(piece)
            return ""
        self._buffer += piece
        if self._state is _Reading.HEAD:
            self._recognise()
        if self._state is _Reading.VALUE:
            return self._value()
        if self._state is _Reading.BARE:
            text, self._buffer = self._buffer, ""
            return text
        return ""

    def finish(self) -> str:
        state, self._state = self._state, _Reading.OVER
        text = self._pieces.getvalue() + self._buffer
        return _whole(text) if state in (_Reading.HEAD, _Reading.WHOLE) else ""

    def _recognise(self) -> None:
        if (match := _FIRST_PROPERTY.match(self._buffer, 0, HEAD)) is not None:
            known = match[1] in _INPUT_NAMES and match[2] == '"'
            self._state = _Reading.VALUE if known else _Reading.WHOLE
            if known:
                self._buffer = self._buffer[match.end() :]
        elif (text := self._buffer[:HEAD].lstrip()) and text[0] != "{":
            self._state = _Reading.WHOLE if text[0] == '"' else _Reading.BARE
        elif len(self._buffer) >= HEAD:
            self._state = _Reading.WHOLE
        if self._state is _Reading.WHOLE:
            self._pieces.write(self._buffer)
            self._buffer = ""

    def _value(self) -> str:
        match = _VALUE.match(self._buffer)
        assert match is not None  # it matches the empty string
        raw, rest = match[0], self._buffer[match.end() :]
        if rest.startswith('"'):
            self._state, rest = _Reading.OVER, ""
        self._buffer = rest
        return _unescape(raw)


HEAD = 512  # characters
_INPUT_NAMES = frozenset({"input", "patch", "content", "code", "text", "script", "command"})
_FIRST_PROPERTY = re.compile(r'\s*\{\s*"([^"\\]*)"\s*:\s*(\S)')
_HEX = "[0-9a-fA-F]"
_HALF = rf"[dD][89abAB]{_HEX}{{2}}(?:\\(?:u{_HEX}{{0,3}})?)?\Z"  # of a pair of which the other half is still to come
_VALUE = re.compile(rf'(?:[^"\\]+|\\(?:u(?!{_HALF}){_HEX}{{4}}|u(?!{_HEX}{{0,3}}\Z|{_HEX}{{4}})|[^u]))*+', re.DOTALL)
_ESCAPE = re.compile(rf"\\(u{_HEX}{{4}}|.)", re.DOTALL)
_ESCAPED = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


def _unescape(raw: str) -> str:
    if "\\" not in raw:
        return raw
    with contextlib.suppress(ValueError):  # raised for a backslash that begins no escape
        return joined_halves(json.loads(f'"{raw}"', strict=False))
    return joined_halves(
        _ESCAPE.sub(lambda m: chr(int(m[1][1:], 16)) if len(m[1]) == 5 else _ESCAPED.get(m[1], m[0]), raw)
    )


def joined_halves(text: str) -> str:
    """Halves of surrogate pairs joined, lone ones replaced."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _whole(text: str) -> str:
    try:
        value = json.loads(text, strict=False)  # models forget to escape line ends
    except (ValueError, RecursionError):
        return text
    if isinstance(value, dict):
        strings = [v for v in value.values() if isinstance(v, str)]
        value = value["input"] if isinstance(value.get("input"), str) else strings[0] if len(strings) == 1 else value
        value = "" if value == {} else value
    return joined_halves(value) if isinstance(value, str) else text


# --------------------------------------------------------------------------------------------------- lone surrogates

_LOW_FOLLOWS = rb"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_AFTER_HIGH = rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD]"
_LONE = (
    re.compile(rb"\\u[dD](?:[89abAB][0-9a-fA-F]{2}(?!%b)|(?<!%b)[c-fC-F][0-9a-fA-F]{2})" % (_LOW_FOLLOWS, _AFTER_HIGH)),
    re.compile(rb"\xed[\xa0-\xbf][\x80-\xbf]"),  # as bytes, which UTF-8 never holds
)
_REPLACEMENTS = {6: rb"\ufffd", 3: "\ufffd".encode()}
_MAX_REPAIRED = 100_000  # more than that do not come from strings that were cut
BLOCK = 128 * 1024


def without_lone_surrogates(raw: bytes) -> Steps[bytes]:
    """JSON text with U+FFFD for each half of a surrogate pair that stands alone; `raw` itself where there is none.

    JavaScript writes them when a string was cut inside an emoji. Nothing else changes, not even the length, so an error
    elsewhere in the text is still reported at its place."""
    hidden, repaired, left = bytearray(), bytearray(), _MAX_REPAIRED
    for block in blocks(raw):
        hidden += block.replace(rb"\\", b"\xff\xff")  # an escaped backslash begins no escape
        yield
    for lone in _LONE:
        for at in range(0, len(raw), BLOCK):
            for match in lone.finditer(hidden, at, at + BLOCK + 11):  # a pair that begins in the block ends by then
                if match.start() >= at + BLOCK:
                    break
                if not left:
                    return raw
                left -= 1
                repaired = repaired or bytearray(raw)
                repaired[match.start() : match.end()] = _REPLACEMENTS[len(match[0])]
            yield
    return bytes(repaired) if repaired else raw


def blocks(raw: bytes) -> Iterator[bytes]:
    """JSON text in pieces. A backslash and the character after it stay together."""
    at = 0
    while at < len(raw):
        block = raw[at : at + BLOCK]
        if (len(block) - len(block.rstrip(b"\\"))) % 2:
            block = raw[at : at + BLOCK + 1]
        yield block
        at += len(block)
