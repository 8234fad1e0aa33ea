"""How the events of an answer are written for the client: as server-sent events, or one JSON text for each message.

A frame is one whole event, and the only thing that a stream ever returns. Its JSON is the same in every framing; the
framing says what stands around it. Lines end in LF only, and an event is one `data:` line: some clients know no more of
server-sent events than that. `translators.sse` reads them, which is another matter: servers may write what they like.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Framing:
    """A frame is `head(event)`, the JSON and `tail`; `event` is "" in a protocol whose events have no names. A stream
    may keep the head of an event that it sends often.

    `done` are the frames with which OpenAI's streams end after their last event, `comment` those that keep a silent
    connection open in a protocol that has no event for it. Both are empty where every message must be an event.
    `shared`: other answers follow on the connection, so that clients know the end of each by one event."""

    head: Callable[[str], bytes]
    tail: bytes
    done: tuple[bytes, ...] = ()
    comment: tuple[bytes, ...] = ()
    shared: bool = False

    def frame(self, event: str, data: bytes) -> bytes:
        return self.head(event) + data + self.tail


def _lines_before_json(event: str) -> bytes:
    return f"event: {event}\ndata: ".encode() if event else b"data: "


def _nothing(event: str) -> bytes:
    return b""


SSE = Framing(_lines_before_json, b"\n\n", done=(b"data: [DONE]\n\n",), comment=(b": keepalive\n\n",))
BARE = Framing(_nothing, b"", shared=True)  # for a WebSocket, whose messages have an end of their own


def padding(seed: str, length: int) -> bytes:
    """Pads a delta to a multiple of 32 characters, so that an observer of the sizes learns less about the text."""
    return (seed * 2)[: -length % 32].encode()
