"""The reading of a Triton answer without I/O: one `received` for each read, with the responses that came in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dragoman.backends.base import Flow, Sink
from dragoman.backends.reader import Reader, ReaderState, Timeouts
from dragoman.backends.triton.answer import AnswerDecoder
from dragoman.backends.triton.client import Outputs
from dragoman.backends.triton.errors import broken_off
from dragoman.translators.errors import GatewayError, Kind

END_OF_STREAM = 0.25  # seconds: after an end token the stream ends at once, as a rule


class ResponseReader(Reader):
    def __init__(self, decoder: AnswerDecoder, sink: Sink, timeouts: Timeouts, clock: Callable[[], float]) -> None:
        super().__init__(decoder, sink, timeouts, clock)
        self.server_ended = False  # by itself: the request need not be stopped
        self._decoder = decoder

    @property
    def begun(self) -> bool:
        """Whether a response has come."""
        return self._decoder.begun

    def received(self, batch: Sequence[Outputs]) -> Flow:
        if self._state >= ReaderState.CLOSING:
            return Flow.ENOUGH if self.over else Flow.MORE
        try:
            events = self._decoder.feed(batch)
        except GatewayError as error:
            return self._reported(error)
        if not events:  # a part of what may be a call, as a rule
            self._sink.at_work()
        flow = self._sink.feed(events) if events else Flow.MORE
        flow = self._after(flow, events, progress=True)
        if flow is Flow.ENOUGH or not self._decoder.done:
            return flow
        if self._decoder.ended_by_model:
            return self._await_end(END_OF_STREAM)
        self._state = ReaderState.OVER  # by a stop string that only the gateway knows: the model would go on
        return Flow.ENOUGH

    def ended(self) -> None:
        super().ended()
        self._judge()

    def lost(self, error: GatewayError | None = None) -> None:
        """`error` is the server's own refusal, or what the transport made of its end."""
        if self._state < ReaderState.CLOSING:
            self._reported(error or broken_off())
        self._state = ReaderState.OVER

    def _reported(self, error: GatewayError) -> Flow:
        self._fail(error)
        self._judge()
        return Flow.ENOUGH

    def _judge(self) -> None:
        # of a failure it is not known which one of several steps has reported it
        self.server_ended = self.error is None or self.error.kind is not Kind.BACKEND_FAILED


def feed(reader: ResponseReader, messages: Sequence[bytes], read: Callable[[bytes, bool], Outputs]) -> Flow:
    """All messages of one read as one batch, up to an error; what stands before it is not lost with it. `read` gets a
    message, and whether the answer has begun before it."""
    batch: list[Outputs] = []
    error: GatewayError | None = None
    try:
        for message in messages:
            if outputs := read(message, bool(batch) or reader.begun):
                batch.append(outputs)
    except GatewayError as refusal:
        error = refusal
    flow = reader.received(batch) if batch else Flow.MORE
    if error is None or flow is Flow.ENOUGH:
        return flow
    reader.lost(error)
    return Flow.ENOUGH
