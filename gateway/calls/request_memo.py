"""Arrays of requests, found again by their bytes: an agent sends the same tools with every turn, most of its values.

`cut` takes a known array out of a body before that is parsed, and the array itself takes its place afterwards, with all
that was made of it before (`translators.seen`). The array's text is whole JSON, and the string that stands in for it is
known to no client. So where the rest parses and holds that string as the member's value, the array stood there; where
it does not (the member comes twice, the text stands inside another array), the body is parsed whole. What was found is
within the limits on depth; its values are counted.

What a client sends is found only for the same client, by its key.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from dragoman.gateway.calls.client_memory import ClientMemory, Shelf
from dragoman.translators.seen import Seen

MEMBER = "tools"
_NAME = b'"tools":'
_TRIES = 64  # places that look like the member's: Codex sends one for each MCP server, in the array itself
LEAST = 1024  # bytes; what is shorter is parsed as fast as it is found
COPIES = 7  # bytes of memory for each byte of text: the text, the values, and what is made of them
MOST_SPACED = 2 * 1024 * 1024  # bytes of a body: to write them as Python does takes ten times as long
MOST_SCANNED = 1024 * 1024  # bytes of a body: to find where a value ends takes as long as that
_ESCAPED = 6  # bytes that a byte may take: `\u003c`
_scan = json.JSONDecoder(strict=False).raw_decode
_MARK = secrets.token_hex(16)


@dataclass(eq=False, slots=True)
class Known:
    """An array and its text."""

    owner: str
    text: bytes
    array: Seen
    _values: int = -1

    @property
    def size(self) -> int:
        return COPIES * len(self.text)

    @property
    def values(self) -> int:
        """How many values it holds at most."""
        if self._values < 0:
            self._values = len(self.text) - len(self.text.translate(None, b",[{"))
        return self._values


@dataclass(frozen=True, slots=True)
class Cut:
    """A body's text with a string in place of a known array."""

    rest: bytes
    known: Known

    @property
    def values(self) -> int:
        return self.known.values

    def restored(self, value: Any) -> bool:
        """Puts the array back into what the rest was parsed to; False where it did not stand there."""
        if not isinstance(value, dict) or value.get(MEMBER) != _MARK:
            return False
        value[MEMBER] = self.known.array
        return True


class RequestMemo:
    """`counted` is called for each body with such an array: whether it was found, and how many bytes it has."""

    def __init__(self, memory: ClientMemory, counted: Callable[[bool, int], object] = lambda found, size: None) -> None:
        self._known = Shelf[Known](memory)
        self._counted = counted

    def cut(self, owner: str, raw: bytes) -> Cut | None:
        """The body without an array that this client has sent before."""
        kept = self._known.of(owner)
        for at in _arrays_in(raw) if kept else ():
            for known in kept:
                if raw.startswith(known.text, at):
                    end = at + len(known.text)
                    return Cut(b"".join((raw[:at], b'"', _MARK.encode(), b'"', raw[end:])), known)
        return None

    def found(self, known: Known) -> None:
        """It stood in a body again."""
        self._counted(True, len(known.text))
        self._known.used(known)

    def keep(self, owner: str, raw: bytes, value: dict[str, Any]) -> None:
        """Keeps the array of a body that was parsed whole and found good, where it is written in a known way."""
        array = value.get(MEMBER)
        if not isinstance(array, list) or len(raw) < LEAST or not self._known.most:
            return
        text = text_in(raw, _arrays_in(raw), array)
        if text is None or len(text) < LEAST:
            return
        self._counted(False, len(text))
        if COPIES * len(text) > self._known.most or any(known.text == text for known in self._known.of(owner)):
            return
        known = Known(owner, text, Seen(array))
        value[MEMBER] = known.array
        self._known.add(known)


def _arrays_in(raw: bytes) -> Iterator[int]:
    """Where the member's array may begin, the last place first. In a string the quotes would be escaped."""
    at = len(raw)
    for _ in range(_TRIES):
        at = raw.rfind(_NAME, 0, at)
        if at < 0:
            return
        begin = at + len(_NAME)
        begin += raw.startswith(b" ", begin)
        if raw.startswith(b"[", begin):
            yield begin


def text_in(raw: bytes, places: Iterable[int], value: Any) -> bytes | None:
    """The text of a value that stands in `raw` at one of these places, as this process would write it, or as Python's
    `json` does by default (LiteLLM, requests, aiohttp), and at the last of them in any other way."""
    try:
        text = json.dumps(value).encode() if _is_spaced(raw) else orjson.dumps(value)
    except (TypeError, RecursionError):  # nested deeper than the encoder goes
        return None
    at = -1
    for at in places:
        if raw.startswith(text, at):
            return raw[at : at + len(text)]  # what the encoder returns may hold ten times the memory of its length
    return None if at < 0 or len(raw) > MOST_SCANNED else _otherwise_written(raw, at, value)


def _otherwise_written(raw: bytes, at: int, value: Any) -> bytes | None:
    """As encoders do that escape what need not be: `\\u003c` (Go, .NET, Rails), `\\/` (PHP)."""
    try:
        plain = orjson.dumps(value)
        # what is not ASCII stands in strings only, and any byte is a letter there
        _, length = _scan(raw[at : at + _ESCAPED * len(plain)].decode("latin-1"))
        text = raw[at : at + length]
        return text if orjson.dumps(orjson.loads(text)) == plain else None
    except (ValueError, TypeError, RecursionError):
        return None


def _is_spaced(raw: bytes) -> bool:
    """Whether a space follows the first colon, in a body that is not too long for it."""
    return len(raw) <= MOST_SPACED and raw.startswith(b": ", raw.find(b":"))
