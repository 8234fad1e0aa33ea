"""The reading of an answer that is passed through, and what a refusal of one means; no I/O.

The bytes are not looked at, but for two things: a comment of an event stream is no progress, as with model calls, and
after `data: [DONE]` the answer is whole, however the connection ends.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import cast

from dragoman.backends.base import Flow, Head, PassedRefusal, Piece, Receiver, Sink
from dragoman.backends.chat.errors import classify
from dragoman.backends.chat.settings import Wording
from dragoman.backends.reader import CLOSING, Reader, ReaderState, Timeouts
from dragoman.backends.refusal import read, redacted_json
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Event, Note

DONE = b"data: [DONE]"
TAIL = 32  # bytes that are kept to find it
NO_ENDPOINT = (404, 405, 501)
MEDIA_TYPE = re.compile(r"[\w.+-]{1,64}/[\w.+-]{1,64}(?:; ?[\w.+-]{1,32}=[\w.+-]{1,64}){0,4}", re.ASCII)


class _Ending:
    """In place of a decoder: nothing is held back, so nothing is left to be fed. `tail` is the end of what came."""

    def __init__(self) -> None:
        self.notes: list[Note] = []
        self.tail = b""

    @property
    def stopping(self) -> bool:
        return self.tail.rstrip().endswith(DONE)

    def finish(self) -> list[Event]:
        return []

    stop = abort = finish


class PieceReader(Reader):
    def __init__(self, sink: Receiver[Piece], timeouts: Timeouts, clock: Callable[[], float]) -> None:
        self._end = _Ending()
        super().__init__(self._end, cast(Sink, sink), timeouts, clock)  # events are never fed: none are held
        self._pieces = sink
        self._head: Head | None = None

    def opened(self, status: int, headers: Mapping[str, str]) -> None:
        """The head of a good answer came. It is fed with the first bytes: until then another server may be tried."""
        given = headers.get("content-type", "").strip()
        self._head = Head(status, given if MEDIA_TYPE.fullmatch(given) else "application/octet-stream")

    def head(self, content_type: str) -> None:
        """It is the same for every type."""

    def received(self, data: bytes) -> Flow:
        if self._state >= CLOSING:
            return Flow.ENOUGH if self.over else Flow.MORE
        end = self._end
        end.tail = (end.tail + data)[-TAIL:] if len(data) < TAIL else data[-TAIL:]
        return self._after(self._pieces.feed(self._with_head(data)), (), progress=not data.startswith(b":"))

    def ended(self) -> None:
        if self._head is not None and self._state < CLOSING:
            self._pieces.feed(self._with_head())  # a body of no bytes
        super().ended()

    def _with_head(self, *data: bytes) -> list[Piece]:
        head, self._head = self._head, None
        return [*data] if head is None else [head, *data]

    def _enough(self, events: object) -> Flow:
        self._state = ReaderState.OVER
        return Flow.ENOUGH


def refused(status: int, said: bytes, settings: Wording, headers: Mapping[str, str]) -> GatewayError:
    """What a status beside 2xx means. The server's JSON goes to the client, unless it is about the gateway's own key or
    a redirect. An endpoint that is missing or broken says nothing about the server's model calls."""
    error = classify(status, read(said), settings, headers)
    if status in NO_ENDPOINT and error.kind is Kind.BACKEND_FAILED:
        message = "The model server has no such endpoint for this model."
        error = GatewayError(Kind.NOT_FOUND, message, source="backend", code="not_found")
    elif error.kind is Kind.BACKEND_FAILED and status not in (401, 403):
        error.certain = False
    if status < 400 or status in (401, 403) or (body := redacted_json(said)) is None:
        return error
    return PassedRefusal(error, status, body)
