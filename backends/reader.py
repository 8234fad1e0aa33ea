"""The reading of one answer without I/O: what came in, what is due, and how it ended.

A reader holds the decoder, the sink and the time limits of one answer. A driver owns the connection and tells the
reader what happens to it: bytes were `received`, it `ended`, it was `lost`, the `deadline` has passed (`late`). The
sink tells it that the receiver `left`, or can take more again (`writable`). Rules:

* `received` answers with the sink's `Flow`; after `ENOUGH`, and whenever `over` is True, the driver drops the
  connection and returns. A receiver that left is fed nothing more, also if it leaves while it is being fed.
* No method raises for what a server did: `error` keeps it, and `check` raises it in the end.
* `deadline` is in the clock's seconds, and infinite while the sink lets the reader wait. It moves with every read,
  which costs an assignment; a driver looks at it when the old one would have passed, and at once when it came nearer.
* After the finish reason only usage and the end of the stream are awaited, and when these do not come the answer is
  whole all the same. After the answer the end of the body is awaited for a moment, so that the connection can be used
  again.

What `received` does with its data is the backend's own (`backends.chat.answer`, `backends.triton.answer`), in one
method, since every token passes through it; `_after` is for all reads but those in the middle of an answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Protocol

from dragoman.backends.base import Flow, Sink, Unanswered, nothing
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Event, Finished, Note


@dataclass(frozen=True, slots=True)
class Timeouts:
    """The limits of one call in seconds: connecting, the first event, between two reads, and for usage after the finish
    reason."""

    connect: float = 3.0
    first: float = 600.0
    between: float = 120.0
    usage: float = 2.0


class Decoder(Protocol):
    """What the decoders of all backends share; how they are fed differs. `stopping`: the server has said why the answer
    ends, and only its usage and the end of its stream are missing."""

    @property
    def stopping(self) -> bool: ...

    @property
    def notes(self) -> Sequence[Note]: ...

    def finish(self) -> list[Event]: ...

    def stop(self) -> list[Event]: ...

    def abort(self) -> list[Event]: ...


class ReaderState(IntEnum):
    WAITING = 0  # for the first event
    RUNNING = 1
    STOPPING = 2  # the finish reason was read
    CLOSING = 3  # the answer is whole; the end of the body is awaited
    OVER = 4


WAITING: Final = ReaderState.WAITING
RUNNING: Final = ReaderState.RUNNING  # named for the hot path, as those of `Flow`
CLOSING: Final = ReaderState.CLOSING
OVER: Final = ReaderState.OVER


class Reader:
    """`on_change` is the driver's: called when `over`, or after `WAIT` when reading may go on."""

    def __init__(self, decoder: Decoder, sink: Sink, timeouts: Timeouts, clock: Callable[[], float]) -> None:
        self.error: GatewayError | None = None
        self.deadline = clock() + timeouts.first
        self.on_change: Callable[[], None] = nothing
        self._ending = decoder
        self._sink = sink
        self._timeouts = timeouts
        self._clock = clock
        self._state = ReaderState.WAITING
        self._when_left = sink.on_left
        sink.on_writable, sink.on_left = self.writable, self.left

    @property
    def over(self) -> bool:
        return self._state is ReaderState.OVER

    # ------------------------------------------------------------------------------------------ what the driver reports

    def ended(self) -> None:
        """The server has ended the body."""
        if self._state < ReaderState.CLOSING:
            self._finish()
        self._state = ReaderState.OVER

    def lost(self) -> None:
        """The connection broke, too late to matter or in the middle."""
        if self._state < ReaderState.CLOSING:
            if self._ending.stopping:
                self._finish()
            else:
                self._abort()
                self.error = _broken_off(self._sink.touched)
        self._state = ReaderState.OVER

    def late(self) -> None:
        """The deadline has passed: after the finish reason that is an answer without usage, otherwise a failure."""
        if self._state < ReaderState.CLOSING:
            if self._ending.stopping:
                self._finish()
            else:
                message = "The model server did not answer in time."
                self._fail(GatewayError(Kind.TIMEOUT, message, source="backend"))
        self._state = ReaderState.OVER

    def close(self) -> None:
        """Nothing more will be read; the sink is handed back, with what was found on the way."""
        self._state = ReaderState.OVER
        self.on_change = nothing
        self._sink.on_writable, self._sink.on_left = nothing, self._when_left
        for note in self._ending.notes:
            self._sink.note(note)

    def check(self) -> None:
        """Raises what is wrong with the answer. Without references left to it here, it is freed with its frames."""
        error, self.error = self.error, None
        if error is not None:
            try:
                raise error
            finally:
                del error

    # -------------------------------------------------------------------------------------------- what the sink reports

    def left(self) -> None:
        """Nobody waits for the answer any more."""
        self._state = ReaderState.OVER
        self.on_change()

    def writable(self) -> None:
        """It can take more. A sink may say so without having let the reader wait; that is no progress of the server."""
        if self._state < ReaderState.CLOSING and self.deadline == math.inf:
            self._move(self._timeouts.usage if self._ending.stopping else self._timeouts.between)
            self.on_change()

    # ---------------------------------------------------------------------------------------------------- its own steps

    def _move(self, seconds: float) -> None:
        self.deadline = self._clock() + seconds

    def _after(self, flow: Flow, events: Sequence[Event], progress: bool) -> Flow:
        """How it goes on after a read, whose events were fed."""
        if self._state is ReaderState.OVER:  # the receiver left while it was fed
            return Flow.ENOUGH
        if flow is Flow.ENOUGH:
            return self._enough(events)
        if self._ending.stopping:
            if self._state is not ReaderState.STOPPING:
                self._state = ReaderState.STOPPING
                self._move(self._timeouts.usage)
        elif progress:
            self._state = ReaderState.RUNNING
            self._move(self._timeouts.between)
        if flow is Flow.WAIT:
            self.deadline = math.inf
        return flow

    def _await_end(self, seconds: float) -> Flow:
        """The answer is whole. The end of the body follows, mostly in the same packet."""
        self._state = ReaderState.CLOSING
        self._move(seconds)
        return Flow.MORE

    def _finish(self) -> None:
        try:
            events = self._ending.finish()
        except GatewayError as error:
            self._fail(error)
            return
        if events:
            self._sink.feed(events)

    def _enough(self, events: Sequence[Event]) -> Flow:
        """The sink wants no more: the last event, with the usage as far as the server has sent it."""
        self._state = ReaderState.OVER
        if not isinstance(events[-1], Finished):
            self._sink.feed(self._ending.stop())
        return Flow.ENOUGH

    def _fail(self, error: GatewayError) -> Flow:
        """The answer is broken."""
        self._state = ReaderState.OVER
        self.error = error
        self._abort()
        return Flow.ENOUGH

    def _abort(self) -> None:
        """What was certain until there is fed before the error goes out."""
        if events := self._ending.abort():
            self._sink.feed(events)


def _broken_off(touched: bool) -> GatewayError:
    message = "The model server broke off in the middle of its answer."
    return GatewayError(Kind.BACKEND_FAILED, message, source="backend") if touched else Unanswered(message)
