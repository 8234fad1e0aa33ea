"""Python's literals as models write them, into JSON: where they end, and what they say.

Strings in either kind of quotes, one or three of them, numbers, True, False, None and JSON's words for them, lists,
tuples, sets and dictionaries. Nothing is evaluated. Strings that hold their own quotes, as shell commands do, and words
without quotes are read in a second try (`loose_arguments`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import ClassVar

DEPTH_LIMIT = 64

_STRINGS = "|".join(
    rf"{quote}{{3}}(?:[^{quote}\\]|\\.|{quote}(?!{quote}{{2}}))*+{quote}{{3}}|{quote}(?:[^{quote}\\]|\\.)*+{quote}"
    for quote in "\"'"
)
_TOKEN = re.compile(
    rf"""\s*(?:(?P<string>[rRuUbB]?(?:{_STRINGS}))"""
    r"""|(?P<number>[-+]?(?:0[xX][0-9a-fA-F]+|(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?))(?![\w.])"""
    r"""|(?P<name>[A-Za-z_][\w.-]*)"""
    r"""|(?P<mark>[()\[\]{},:=]))""",
    re.DOTALL,
)
_WORDS = {"True": "true", "False": "false", "None": "null", "true": "true", "false": "false", "null": "null"}
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U(000[0-9a-fA-F]{5})|(.))", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "a": "\a", "v": "\v", "0": "\0", "\n": ""}


class Brackets:
    """Finds where brackets that are open already close, as the text comes."""

    _OUTSIDE = re.compile(r"""["'()\[\]{}]""")
    _INSIDE: ClassVar = {quote: re.compile(rf"\\.?|{quote}", re.DOTALL) for quote in "\"'"}

    def __init__(self, depth: int = 1) -> None:
        self._depth = depth
        self._quote = ""  # of the open string; three where it is one of three
        self._empty = False  # the open string
        self._closed = ""  # the quote of an empty string that has just closed
        self._quotes = 0  # those that stand at the end of an open string of three
        self._escaped = False

    @property
    def complete(self) -> bool:
        return self._depth == 0

    def scan(self, text: str, at: int) -> int:
        """Reads from `at` on; gives where the last bracket has closed, the length of the text where that is to come."""
        while at < len(text) and not self.complete:
            if self._escaped:
                at, self._escaped = at + 1, False
            elif self._quote:
                at = self._in_string(text, at)
            elif self._closed == text[at]:
                self._quote, self._quotes, self._closed = text[at] * 3, 0, ""
                at += 1
            else:
                at = self._outside(text, at)
        return at

    def _outside(self, text: str, at: int) -> int:
        self._closed = ""
        match = self._OUTSIDE.search(text, at)
        if match is None:
            return len(text)
        if match[0] in "\"'":
            self._quote, self._empty = match[0], True
        else:
            self._depth += 1 if match[0] in "([{" else -1
        return match.end()

    def _in_string(self, text: str, at: int) -> int:
        match = self._INSIDE[self._quote[0]].search(text, at)
        if match is None or match.start() > at:
            self._empty, self._quotes = False, 0
        if match is None:
            return len(text)
        if match[0][0] == "\\":
            self._escaped = len(match[0]) == 1
            self._empty, self._quotes = False, 0
            return match.end()
        self._quotes += 1
        if len(self._quote) == 1:
            self._closed = self._quote if self._empty else ""
            self._quote = ""
            self._quotes = 0
        elif self._quotes == 3:
            self._quote = ""
        return match.end()


class _Unreadable(Exception):
    pass


def arguments_of(text: str, names: Sequence[str] = ()) -> str | None:
    """The JSON object of `a=1, b="x"`; None where that is not what it says. Values without a name are those of `names`,
    in their order."""
    members: list[str] = []
    unnamed = iter(names)
    try:
        tokens = _Tokens(text)
        while tokens.kind:
            if tokens.kind == "name" and tokens.text not in _WORDS:
                name = tokens.take("name")
                tokens.take_mark("=")
            elif (name := next(unnamed, "")) == "":
                raise _Unreadable
            members.append(f"{_string(name)}: {_value(tokens, 0)}")
            if tokens.kind:
                tokens.take_mark(",")
    except _Unreadable:
        return None
    return f"{{{', '.join(members)}}}"


_NAME = re.compile(r"\s*([A-Za-z_]\w*)\s*=\s*")
_WORD = re.compile(r"[\w./:@~+-]+")
# what may follow an argument: the next one, or the end of the call
_FOLLOWS = re.compile(r"""\s*(?:,\s*[A-Za-z_]\w*\s*=(?!=)|,?\s*\)\s*(?:\Z|[\],<]|[A-Za-z_][\w.]*\())""")


def loose_arguments(text: str) -> tuple[str, int] | None:
    """The JSON object of `a='b 'c' d', e=f)`, and where it ends; None where no such arguments are read. A quote ends a
    string only where what follows may follow an argument."""
    members: list[str] = []
    at = 0
    while (match := _NAME.match(text, at)) is not None:
        found = _loose_value(text, match.end())
        if found is None:
            return None
        value, at = found
        members.append(f"{_string(match[1])}: {value}")
        follows = re.compile(r"\s*,?\s*").match(text, at)
        assert follows is not None
        at = follows.end()
    return (f"{{{', '.join(members)}}}", at + 1) if members and text[at : at + 1] == ")" else None


def _loose_value(text: str, at: int) -> tuple[str, int] | None:
    first = text[at : at + 1]
    if first and first in "\"'":
        size = 3 if text.startswith(first * 3, at) else 1
        for match in re.compile(rf"(?<!\\)(?:\\\\)*{first * size}").finditer(text, at + size):
            if _FOLLOWS.match(text, match.end()):
                return _string(_unescaped(text[at + size : match.end() - size])), match.end()
        return None
    if first and first in "([{":
        brackets = Brackets()
        end = brackets.scan(text, at + 1)
        try:
            return (_value(_Tokens(text[at:end]), 0), end) if brackets.complete else None
        except _Unreadable:
            return None
    word = _WORD.match(text, at)
    if word is None or not _FOLLOWS.match(text, word.end()):
        return None
    number = _TOKEN.fullmatch(word[0])
    try:
        return _value(_Tokens(word[0]), 0) if number else _string(word[0]), word.end()
    except _Unreadable:
        return _string(word[0]), word.end()


class _Tokens:
    """The next token: its `kind`, "" at the end, and its `text`."""

    def __init__(self, text: str) -> None:
        self._rest = _tokens(text)
        self.kind, self.text = next(self._rest)

    def take(self, kind: str) -> str:
        if self.kind != kind:
            raise _Unreadable
        taken = self.text
        self.kind, self.text = next(self._rest)
        return taken

    def take_mark(self, mark: str) -> None:
        if self.take("mark") != mark:
            raise _Unreadable

    def at_mark(self, mark: str) -> bool:
        return self.kind == "mark" and self.text == mark


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    at, end = 0, len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise _Unreadable
        yield match.lastgroup, match[match.lastgroup]
        at = match.end()
    yield "", ""


def _value(tokens: _Tokens, depth: int) -> str:
    if depth > DEPTH_LIMIT:
        raise _Unreadable
    match tokens.kind:
        case "string":
            pieces = []
            while tokens.kind == "string":  # strings beside each other are one
                pieces.append(_unquoted(tokens.take("string")))
            return _string("".join(pieces))
        case "number":
            return _number(tokens.take("number"))
        case "name":
            word = _WORDS.get(tokens.take("name"))
            if word is None:
                raise _Unreadable
            return word
        case _:
            return _collection(tokens, depth)


def _collection(tokens: _Tokens, depth: int) -> str:
    for opener, closer in (("[", "]"), ("(", ")")):
        if tokens.at_mark(opener):
            return f"[{', '.join(_items(tokens, closer, depth, pairs=False)[0])}]"
    if tokens.at_mark("{"):
        items, pairs = _items(tokens, "}", depth, pairs=True)
        return f"{{{', '.join(items)}}}" if pairs else f"[{', '.join(items)}]"
    raise _Unreadable


def _items(tokens: _Tokens, closer: str, depth: int, *, pairs: bool) -> tuple[list[str], bool]:
    """The items of a collection, and whether they are pairs after all."""
    tokens.take("mark")
    items: list[str] = []
    while not tokens.at_mark(closer):
        item = _value(tokens, depth + 1)
        if pairs and not items and (tokens.at_mark(",") or tokens.at_mark(closer)):
            pairs = False  # a set
        if pairs:
            if not item.startswith('"'):
                item = _string(item)
            tokens.take_mark(":")
            item = f"{item}: {_value(tokens, depth + 1)}"
        items.append(item)
        if not tokens.at_mark(closer):
            tokens.take_mark(",")
    tokens.take("mark")
    return items, pairs


def _number(text: str) -> str:
    """JSON allows no sign and no bare point before digits, and no zeros."""
    try:
        if "x" in text.lower():
            return json.dumps(int(text, 16))
        whole = text.lstrip("+-").replace("_", "").isdigit()
        return json.dumps(int(text)) if whole else json.dumps(float(text), allow_nan=False)
    except ValueError:
        raise _Unreadable from None


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _unquoted(token: str) -> str:
    raw = token[0] in "rR"
    quoted = token.lstrip("rRuUbB")
    size = 3 if len(quoted) >= 6 and quoted.startswith(('"""', "'''")) else 1
    inner = quoted[size:-size]
    return inner if raw else _unescaped(inner)


def _unescaped(inner: str) -> str:
    if "\\" not in inner:
        return inner
    text = _ESCAPE.sub(_escaped, inner)
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")  # halves of pairs are joined


def _escaped(match: re.Match[str]) -> str:
    digits = match[1] or match[2] or match[3]
    if digits:
        return chr(int(digits, 16)) if int(digits, 16) < 0x110000 else match[0]
    return _ESCAPED.get(match[4], match[4] if match[4] in "\\'\"" else match[0])
