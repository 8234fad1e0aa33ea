"""One request on one server, as the sink that stands between the backend and the receiver.

It passes everything through. Beside that it notices the first event, and after each `listen` the next one: then it
calls `on_heard` and is out of the way again, so that a token costs no more than without it. It gives one verdict on
the server. A request that is abandoned ends as if its receiver had left, and is `Lost`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from dragoman.backends.base import Flow, Receiver, nothing
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Note

T = TypeVar("T")


class Lost(GatewayError):
    """The probe found the server down while a request waited for its first event, and another server can take it."""

    def __init__(self) -> None:
        super().__init__(Kind.BACKEND_DOWN, "The model server stopped answering.", retry_after=1.0, source="backend")


class Attempt(Generic[T]):
    """`on_verdict` is called with True when the server is in good health, with False when it failed. `spare` says
    whether another server could take the request now. `since` is when its present wait for a first event began."""

    def __init__(
        self,
        sink: Receiver[T],
        on_verdict: Callable[[bool], None],
        on_heard: Callable[[], None],
        spare: Callable[[], bool],
        trial: bool,
    ) -> None:
        self.verdict: bool | None = None
        self.abandoned = False
        self.left = False
        self.progressed = False  # the server is further with the prompt, or with an answer that is withheld
        self.since = 0.0
        self.note: Callable[[Note], None] = sink.note
        self.prompt_size = sink.prompt_size
        self.feed: Callable[[Sequence[T]], Flow] = sink.feed
        self._sink = sink
        self._on_verdict = on_verdict
        self._on_heard = on_heard
        self._spare = spare
        self._trial = trial
        self._timer: asyncio.TimerHandle | None = None
        self._reading: Callable[[], object] = nothing
        self._outer = sink.on_left
        sink.on_left = self._leave

    @property
    def touched(self) -> bool:
        return self._sink.touched

    @property
    def on_writable(self) -> Callable[[], object]:
        return self._sink.on_writable

    @on_writable.setter
    def on_writable(self, callback: Callable[[], object]) -> None:
        self._sink.on_writable = callback

    @property
    def on_left(self) -> Callable[[], object]:
        return self._reading

    @on_left.setter
    def on_left(self, callback: Callable[[], object]) -> None:
        self._reading = callback
        if self.abandoned:  # before there was anything to end
            callback()

    def wait(self, since: float, timer: asyncio.TimerHandle) -> None:
        """`timer` looks whether the wait has become too long; it is cancelled in the end."""
        self.since = since
        self._timer = timer

    def listen(self) -> None:
        self.feed = self._hear

    def prompt_read(self, tokens: int, total: int) -> None:
        """A server that reads works."""
        self.at_work()
        self._sink.prompt_read(tokens, total)

    def at_work(self) -> None:
        self.progressed = True
        self._on_heard()

    def _hear(self, events: Sequence[T]) -> Flow:
        if events:
            self.feed = self._sink.feed
            self._stop_waiting()
            if self._trial:
                self.decide(True)
            self._on_heard()
        return self._sink.feed(events)

    def _leave(self) -> None:
        self.left = True
        end = self._outer if self._reading is nothing else self._reading
        end()

    def decide(self, good: bool, *, again: bool = False) -> None:
        """One verdict for each request; a failure after a trial's first event is one more."""
        if self.verdict is None or (again and self.verdict is not good):
            self.verdict = good
            self._on_verdict(good)

    def abandon(self) -> None:
        """Only while nothing has come, and only where the request is not lost by it."""
        if not self._sink.touched and not self.abandoned and self._spare():
            self.abandoned = True
            self._reading()

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        self._stop_waiting()
        self.feed = self._sink.feed  # without a cycle it is freed at once, with all that it refers to
        self._sink.on_left = self._outer
