"""How a streamed answer ended, by the terminal event of its protocol: there is exactly one, and nothing follows it.

Responses: `response.completed`, `response.incomplete` or `response.failed`, then at most `[DONE]`. Messages:
`message_stop` or `error`. Chat Completions: `[DONE]`, or a chunk with an error and no `[DONE]`.
"""

from __future__ import annotations

import re
from enum import Enum

import orjson

_FRAME = re.compile(rb"(?:^event: ?([^\r\n]*)\r?\n)?^data: ?([^\r\n]*)", re.MULTILINE)
_DONE = b"[DONE]"


class End(Enum):
    """What a client makes of a whole answer, streamed or not."""

    ANSWERED = "answered"
    FAILED = "failed"


class NotEnded(Exception):
    """The stream has no terminal event, several, or something after it."""


TERMINAL = {
    "responses": {
        b"response.completed": End.ANSWERED,
        b"response.incomplete": End.ANSWERED,
        b"response.failed": End.FAILED,
    },
    "messages": {b"message_stop": End.ANSWERED, b"error": End.FAILED},
    "chat_completions": {_DONE: End.ANSWERED, b"error": End.FAILED},
}


def ending(protocol: str, body: bytes) -> End:
    """Of a whole body, without its chunk framing. Raises `NotEnded`."""
    names = [name or _name(data) for name, data in _FRAME.findall(body)]
    if protocol == "responses" and names[-1:] == [_DONE]:
        names.pop()
    terminal = [name for name in names if name in TERMINAL[protocol]]
    if not terminal:
        raise NotEnded("no terminal event")
    if len(terminal) > 1:
        raise NotEnded(f"{len(terminal)} terminal events: {', '.join(name.decode() for name in terminal)}")
    if names[-1] != terminal[0]:
        raise NotEnded(f"something after {terminal[0].decode()}")
    return TERMINAL[protocol][terminal[0]]


def _name(data: bytes) -> bytes:
    """Of an event that has none: `[DONE]`, an error, or a chunk."""
    return _DONE if data == _DONE else b"error" if b'"error"' in data and "error" in orjson.loads(data) else b"chunk"
