"""What is missing at the end of a JSON object that a model stopped writing: quotes, brackets, the rest of a word.

Nothing that was written is taken back, so a name without a value gets null.
"""

from __future__ import annotations

import re
from enum import Enum

import orjson

_STRING = re.compile(r'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[{}\[\],:]|[^\s"{}\[\],:]+', re.DOTALL)
_CUT_ESCAPE = re.compile(r"(?<!\\)(?:\\\\)*\\(?P<rest>u[0-9a-fA-F]{0,3})?\Z")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_WORDS = ("true", "false", "null")


class Expected(Enum):
    KEY = 0
    COLON = 1
    VALUE = 2
    COMMA = 3


def closing(text: str) -> str:
    """What makes a JSON object of `text`, which begins one; "" where nothing does."""
    open_, expected, last, at_comma = _read(text)
    rest = _end_of(last) if text.endswith(last) else ""
    match expected:
        case Expected.KEY:
            rest += '"": null' if at_comma else ""
        case Expected.COLON:
            rest += ": null"
        case Expected.VALUE:
            rest += "null" if open_[-1:] == ["}"] or at_comma else ""
        case Expected.COMMA:
            pass
    rest += "".join(reversed(open_))
    try:
        return rest if isinstance(orjson.loads(text + rest), dict) else ""
    except orjson.JSONDecodeError:
        return ""


def _read(text: str) -> tuple[list[str], Expected, str, bool]:
    """The brackets that are open, what is expected at the end, the last token, and whether it was a comma."""
    open_: list[str] = []
    expected, last = Expected.VALUE, ""
    for match in _TOKEN.finditer(text):
        last = match[0]
        if last in ("{", "["):
            open_.append("}" if last == "{" else "]")
            expected = Expected.KEY if last == "{" else Expected.VALUE
        elif last in ("}", "]"):
            if open_:
                open_.pop()
            expected = Expected.COMMA
        elif last == ",":
            expected = Expected.KEY if open_[-1:] == ["}"] else Expected.VALUE
        elif last == ":":
            expected = Expected.VALUE
        else:
            expected = Expected.COLON if expected is Expected.KEY else Expected.COMMA
    return open_, expected, last, last == ","


def _end_of(token: str) -> str:
    """The end of a token that may have been cut."""
    if token.startswith('"'):
        return "" if _STRING.fullmatch(token) else f'{_cut_escape(token)}"'
    if token in ("{", "}", "[", "]", ",", ":") or not token or _NUMBER.fullmatch(token):
        return ""
    return next((word[len(token) :] for word in _WORDS if word.startswith(token)), "0")


def _cut_escape(text: str) -> str:
    """The rest of an escape that was cut."""
    match = _CUT_ESCAPE.search(text)
    if match is None:
        return ""
    digits = match["rest"]
    return "\\" if digits is None else "0" * (5 - len(digits))
