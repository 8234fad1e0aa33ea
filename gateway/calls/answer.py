"""The sink at the client's end: events in, one answer out, as a stream or whole.

A streamed answer is *held* (an error can still be an HTTP status), then either *waiting* (head and keepalives are out,
the model has not begun) or at once *streaming*, then *ended*. Rules: `feed` translates and writes, so the frames of one
upstream read leave together and no event is split; one timer per answer sends the head and the keepalives, and no
delta re-arms it; a client that has gone has enough; one that leaves once the terminal event was sent has been served.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum
from typing import Final

from dragoman.backends.base import ENOUGH, MORE, WAIT, Flow, nothing
from dragoman.gateway.calls.delivery import Delivery
from dragoman.gateway.config import Timeouts
from dragoman.gateway.telemetry.metrics import GAPS
from dragoman.translators.constraints.parallel import FirstCallOnly
from dragoman.translators.errors import GatewayError
from dragoman.translators.ir import Event, Finished, Note
from dragoman.translators.protocol import Json, Turn


class AnswerState(Enum):
    HELD = "held"
    WAITING = "waiting"
    STREAMING = "streaming"
    ENDED = "ended"


STREAMING: Final = AnswerState.STREAMING  # named for the hot path, as those of `Flow`


class AnswerRecord:
    """What is known of every answer: for the log, the metrics, and the pool. `give_up` ends the backend's work while
    nobody reads an answer yet, who would do it better."""

    def __init__(self, give_up: Callable[[], object]) -> None:
        self.on_writable: Callable[[], object] = nothing
        self.on_left: Callable[[], object] = give_up
        self.on_begun: Callable[[], object] = nothing  # once, after the first event was sent on
        self.on_note: Callable[[Note], object] | None = None  # raises where it must not be
        self.on_prompt_read: Callable[[int, int], object] | None = None
        self.state = AnswerState.HELD
        self.status = 200
        self.finished: Finished | None = None
        self.first_event_at: float | None = None
        self.gone_at: float | None = None  # when a write found the client gone
        self.delivered = False  # the terminal event has left: nothing that the client does afterwards takes it back
        self.last_at = 0.0
        self.gaps = [0] * (len(GAPS) + 1)  # between reads, by bucket
        self.gap_seconds = 0.0
        self.notes: list[Note] = []
        self._loop = asyncio.get_running_loop()

    @property
    def touched(self) -> bool:
        return self.first_event_at is not None

    @property
    def head_sent(self) -> bool:
        """Whether it is too late for an HTTP status."""
        return False

    def read(self, now: float) -> None:
        """A read of the server's answer came."""
        if self.first_event_at is None:
            self.first_event_at = now
            self._loop.call_soon(self.on_begun)
            self.on_begun = nothing
        else:
            gap = now - self.last_at
            self.gaps[bisect_left(GAPS, gap)] += 1
            self.gap_seconds += gap
        self.last_at = now

    def prompt_read(self, tokens: int, total: int) -> None:
        if self.on_prompt_read is not None:
            self.on_prompt_read(tokens, total)

    def at_work(self) -> None:
        """For whoever looks after the server."""

    def note(self, note: Note) -> None:
        if self.on_note is not None:
            self.on_note(note)
        self.notes.append(note)

    def start_over(self) -> None:
        """Another backend answers; the one before has sent nothing."""
        self.notes.clear()

    def late_notes(self) -> list[Note]:
        """What was found while the answer ran."""
        return self.notes

    def end_written(self, delivery: Delivery) -> None:
        """The terminal event was written. Whether it was sent shows in the loop's next turn, which is still ahead of
        whatever the client does about it."""
        self._loop.call_soon(self._see_end, delivery)

    def _see_end(self, delivery: Delivery) -> None:
        self.delivered = delivery.sent

    def close(self) -> None:
        self.state = AnswerState.ENDED


class Answer(AnswerRecord):
    """A whole answer, and what streamed answers share with it: the stage and the sink."""

    def __init__(self, turn: Turn, give_up: Callable[[], object]) -> None:
        super().__init__(give_up)
        self.stream = turn.stream
        self.stream.unseen = not turn.streaming
        self.holds = False  # the end is held until `release`
        self.held: list[bytes] | None = None
        self._counted = self._takes_size = turn.counted
        self._stage = None if turn.request.parallel_tool_calls else FirstCallOnly()

    def feed(self, events: Sequence[Event]) -> Flow:
        stage = self._stage
        if stage is not None:
            events = stage.feed(events)
        flow = MORE
        if events and self.gone_at is None:
            now = self._loop.time()
            self.read(now)
            last = events[-1]
            if type(last) is Finished and self.holds:
                if before := events[:-1]:
                    flow = self._deliver(self.stream.feed(before), now)
                self.held = self.stream.feed([last])
                self.finished = last
            elif type(last) is Finished:
                flow = self._deliver_end(self.stream.feed(events), now)
                self.finished = last
            else:
                flow = self._deliver(self.stream.feed(events), now)
        return ENOUGH if (stage is not None and stage.enough) or self.gone_at is not None else flow

    @property
    def wants_size(self) -> bool:
        """Whether the protocol sends the prompt's size before the answer, and does not know it yet."""
        return self._counted is not None

    def prompt_size(self, tokens: int) -> None:
        counted, self._counted = self._counted, None
        if counted is not None:
            counted(tokens)

    def start_over(self) -> None:
        super().start_over()
        self._counted = self._takes_size

    def release(self, frames: list[bytes] | None = None) -> None:
        """Sends the end that was held, or `frames` in place of it."""
        held, self.held = self.held, None
        if held is not None and self.gone_at is None:
            self._deliver_end(held if frames is None else frames, self._loop.time())

    def late_notes(self) -> list[Note]:
        """With the drops of the stage, which only counts them."""
        dropped = [Note("drop", "parallel_tool_call")] * (self._stage.dropped if self._stage else 0)
        return [*self.notes, *self.stream.notes, *dropped]

    def body(self) -> Json:
        return self.stream.body()

    def _deliver(self, frames: Sequence[bytes], now: float) -> Flow:
        """A whole answer has no frames: `body` gives the result."""
        return MORE

    def _deliver_end(self, frames: Sequence[bytes], now: float) -> Flow:
        """The last of the frames is the terminal event."""
        return self._deliver(frames, now)


class StreamedAnswer(Answer):
    def __init__(
        self, turn: Turn, give_up: Callable[[], object], delivery: Delivery, timeouts: Timeouts, accepted: float
    ) -> None:
        super().__init__(turn, give_up)
        self.on_failed: Callable[[Json], Awaitable[None]] | None = None  # takes the answer before its end is sent
        self._delivery = delivery
        delivery.on_writable = self._writable
        self._keepalive = timeouts.keepalive
        self._written_at = accepted
        self._head_due = accepted + timeouts.head_after
        self._timer = self._loop.call_at(min(self._head_due, accepted + timeouts.keepalive), self._tick)

    @property
    def head_sent(self) -> bool:
        return self.state is not AnswerState.HELD

    async def finish(self) -> None:
        """After `Finished` was fed: ends the body."""
        self._timer.cancel()
        await self._delivery.end()
        if self._delivery.gone:
            self.gone_at = self.gone_at or self._loop.time()
        else:
            self.state = AnswerState.ENDED

    async def fail(self, error: GatewayError) -> None:
        """Writes the protocol's own failure event and ends the body: the connection can serve its next request. A
        stream that cannot even report its failure is aborted, since an orderly end would look like success."""
        self._timer.cancel()  # nothing may come in between
        try:
            frames = self.stream.fail(error)
        except Exception:
            self._delivery.abort()
            raise
        try:
            if self.on_failed is not None and self.finished is None:
                await self.on_failed(self.stream.body())
        finally:
            self._delivery.write(frames)
            self.end_written(self._delivery)
        await self.finish()

    def close(self) -> None:
        """After this there is no timer and no write, whatever happened before."""
        super().close()
        self._timer.cancel()
        self.on_failed = None
        self._delivery.on_writable = nothing

    def _deliver(self, frames: Sequence[bytes], now: float) -> Flow:
        self.state = STREAMING
        if not frames:
            return MORE
        self._written_at = now
        keeps_up = self._delivery.write(frames)
        if self._delivery.gone:
            self.gone_at = now
            return ENOUGH
        return MORE if keeps_up else WAIT

    def _deliver_end(self, frames: Sequence[bytes], now: float) -> Flow:
        flow = self._deliver(frames, now)
        self.end_written(self._delivery)
        return flow

    def _writable(self) -> None:
        self.on_writable()

    def _tick(self) -> None:
        """Sends the head when the answer was held long enough, then a keepalive after each silence."""
        now = self._loop.time()
        due = self._written_at + self._keepalive
        if self.state is AnswerState.ENDED or self.finished is not None:  # nothing comes after the terminal event
            return
        if self.state is AnswerState.HELD and now < self._head_due:
            due = min(self._head_due, now + self._keepalive)
        elif self.state is AnswerState.HELD:
            self.state = AnswerState.WAITING
            self._send(self.stream.start() or self.stream.keepalive(), now)
            due = now + self._keepalive
        elif now >= due:
            due = now + self._keepalive
            if self._delivery.writable:  # more bytes would not help a client that is slow itself
                self._send(self.stream.keepalive(), now)
        self._timer = self._loop.call_at(due, self._tick)

    def _send(self, frames: Sequence[bytes], now: float) -> None:
        if frames:
            self._written_at = now
            self._delivery.write(frames)
