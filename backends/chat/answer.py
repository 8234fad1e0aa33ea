"""The reading of a chat completion without I/O: one `received` for each read of the body, one `sink.feed` in it.

The body is an event stream, or one object, where that was asked for or `stream` was ignored: that is read to its end
and decoded whole. A stream that its server calls JSON is read to its end too. Comments are no progress: a server that
only keeps its connection alive is as late as a silent one.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from dragoman.backends.base import ENOUGH, MORE, Flow, Sink
from dragoman.backends.chat.decoder import ChatDecoder
from dragoman.backends.reader import CLOSING, OVER, RUNNING, WAITING, Reader, Timeouts
from dragoman.translators.errors import GatewayError, Kind

MAX_WHOLE = 16 * 1024 * 1024  # bytes of an answer in one piece
PAGE = "A web page came in place of an answer; is the model server's address right, with its path?"
_OBJECT = re.compile(rb"\s*\{")
END_OF_BODY = 0.05  # seconds


class AnswerReader(Reader):
    def __init__(self, decoder: ChatDecoder, sink: Sink, timeouts: Timeouts, clock: Callable[[], float]) -> None:
        super().__init__(decoder, sink, timeouts, clock)
        self._decoder = decoder
        self._body: bytearray | None = None  # of an answer that is read whole
        self._begun = False
        self._prompt_read = -1
        self._markup_size = 0

    def head(self, content_type: str) -> None:
        """The head of a successful answer came."""
        if content_type == "application/json":
            self._body = bytearray()

    def received(self, data: bytes) -> Flow:
        if self._state >= CLOSING:
            return ENOUGH if self.over else MORE
        if self._body is not None or not self._begun:
            return self._first(data)
        decoder = self._decoder
        try:
            events = decoder.feed(data)
        except GatewayError as error:
            return self._fail(error)
        if events and self._state is WAITING and (size := decoder.prompt_tokens) is not None:
            self._sink.prompt_size(size)
        if not events and self._state is WAITING:
            self._say_that_it_works()
        flow = self._sink.feed(events) if events else MORE
        ending = decoder.stopping or decoder.done
        if events and flow is MORE and self._state is RUNNING and not ending:
            self.deadline = self._clock() + self._timeouts.between  # in the middle of the answer, as most reads are
            return flow
        begun = self._state is not WAITING
        flow = self._after(flow, events, progress=bool(events) or (begun and not data.startswith(b":")))
        return self._await_end(END_OF_BODY) if decoder.done and flow is not ENOUGH else flow

    def _say_that_it_works(self) -> None:
        """Where it does without an event: it is further with the prompt than it was, or writes what may be a call."""
        read, total = self._decoder.prompt_read or (-1, 0)
        if read > self._prompt_read:
            self._prompt_read = read
            self._sink.prompt_size(total)
            self._sink.prompt_read(read, total)
        if (size := self._decoder.markup_size) > self._markup_size:
            self._markup_size = size
            self._sink.at_work()

    def ended(self) -> None:
        if self._body is not None and self._state < CLOSING:
            body, self._body = bytes(self._body), bytearray()
            self._decode(body)
        else:
            super().ended()

    def _first(self, data: bytes) -> Flow:
        """The first read of a stream, or one of an answer that is read whole."""
        begins = data.lstrip()[:1]
        if self._body is None and begins == b"<":
            return self._fail(GatewayError(Kind.BACKEND_FAILED, PAGE, source="backend"))
        if self._body is None and begins != b"{":
            self._begun = True
            return self.received(data)
        if self._body is None:  # no event: JSON with the wrong content type
            self._body = bytearray()
        self._body += data
        if len(self._body) < MAX_WHOLE:
            return Flow.MORE
        self._body = bytearray()
        return self._fail(
            GatewayError(Kind.BACKEND_FAILED, "The model server's answer is too large.", source="backend")
        )

    def _decode(self, body: bytes) -> None:
        decoder, whole = self._decoder, _OBJECT.match(body) is not None
        try:
            events = decoder.feed_whole(body) if whole else decoder.feed(body)
        except GatewayError as error:
            self._fail(error)
            return
        flow = self._sink.feed(events) if events else Flow.MORE
        if self._after(flow, events, progress=True) is ENOUGH:
            return
        if whole:
            self._state = OVER
        else:
            super().ended()
