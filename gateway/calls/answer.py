"""The sink at the client's end: events in, one answer out, as a stream or whole.

A streamed answer is *held* (an error can still be an HTTP status), then either *waiting* (head and keepalives are out,
the model has not begun) or at once *streaming*, then *ended*. Rules: `feed` only translates and collects; `drained`
writes everything that waits in one write, so the frames of one upstream read leave together and no event is split; one
timer per answer sends the head and the keepalives, and no delta re-arms it; after the client has gone nothing is
written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from enum import Enum

from aiohttp import web

from dragoman.gateway.config import Timeouts
from dragoman.gateway.telemetry.metrics import Gaps
from dragoman.translators.constraints.parallel import FirstCallOnly
from dragoman.translators.errors import GatewayError
from dragoman.translators.ir import Event, Finished, Note
from dragoman.translators.protocol import Json, Stream

SSE_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",
}


class AnswerState(Enum):
    HELD = "held"
    WAITING = "waiting"
    STREAMING = "streaming"
    ENDED = "ended"


class ClientGone(Exception):
    """The client's connection broke during a write."""


class Answer:
    """A whole answer, and what streamed answers share with it: the stage, the facts for the log, the sink."""

    def __init__(self, stream: Stream, stage: FirstCallOnly | None) -> None:
        self.stream = stream
        self.state = AnswerState.HELD
        self.finished: Finished | None = None
        self.first_event_at: float | None = None
        self.gone_at: float | None = None  # when a write found the client gone
        self.gaps = Gaps()
        self.last_at = 0.0
        self.notes: list[Note] = []
        self._stage = stage
        self._loop = asyncio.get_running_loop()

    @property
    def touched(self) -> bool:
        return self.first_event_at is not None

    @property
    def full(self) -> bool:
        return False

    def feed(self, events: Sequence[Event]) -> bool:
        stage = self._stage
        if stage is not None:
            events = stage.feed(events)
        if events:
            now = self._loop.time()
            if self.first_event_at is None:
                self.first_event_at = now
            else:
                self.gaps.add(now - self.last_at)
            self.last_at = now
            self._take(self.stream.feed(events))
            if type(last := events[-1]) is Finished:
                self.finished = last
        return stage is None or not stage.enough

    async def drained(self) -> None:
        """Nothing to wait for: a whole answer grows only in memory, and the model's limit bounds it."""

    def note(self, note: Note) -> None:
        self.notes.append(note)

    def stage_notes(self) -> list[Note]:
        """The drops of the stage, which only counts them."""
        return [Note("drop", "parallel_tool_call")] * (self._stage.dropped if self._stage else 0)

    def body(self) -> Json:
        return self.stream.body()

    def close(self) -> None:
        self.state = AnswerState.ENDED

    def _take(self, frames: list[bytes]) -> None:
        """The frames of a whole answer are dropped: `body` gives the result."""


class StreamedAnswer(Answer):
    def __init__(
        self,
        request: web.Request,
        stream: Stream,
        stage: FirstCallOnly | None,
        timeouts: Timeouts,
        accepted: float,
        headers: Callable[[], Mapping[str, str]],
    ) -> None:
        super().__init__(stream, stage)
        self.response = web.StreamResponse(status=200, headers=SSE_HEADERS)
        self._request = request
        self._headers = headers
        self._keepalive = timeouts.keepalive
        self._patience = timeouts.client
        self._pending: list[bytes] = []
        self._writing = asyncio.Lock()
        self._written_at = accepted
        self._writer: asyncio.Task[None] | None = None
        self._head_due = accepted + timeouts.head_after
        self._timer = self._loop.call_at(min(self._head_due, accepted + timeouts.keepalive), self._tick)

    @property
    def full(self) -> bool:
        return bool(self._pending)

    async def drained(self) -> None:
        async with self._writing:
            if not self._pending or self.state is AnswerState.ENDED:
                return
            data = self._pending[0] if len(self._pending) == 1 else b"".join(self._pending)
            self._pending.clear()
            self._written_at = self._loop.time()
            try:
                if not self.response.prepared:
                    await self._prepare()
                await self.response.write(data)
            except ConnectionError:
                self.gone_at = self._loop.time()
                raise ClientGone from None

    async def finish(self) -> None:
        """After `Finished` was fed: writes what still waits and ends the body at once."""
        await self._last()

    async def fail(self, error: GatewayError) -> None:
        """Writes the protocol's own failure event and ends the body: the connection can serve its next request. A
        stream that cannot even report its failure is aborted, since an orderly end would look like success."""
        try:
            self._pending += self.stream.fail(error)
        except Exception:
            self._abort()
            raise
        await self._last()

    async def _last(self) -> None:
        """The last write may be the largest, and the timer no longer watches it: it has the client's time limit too."""
        self._timer.cancel()
        limit = asyncio.timeout(self._patience)
        try:
            async with limit:
                await self.drained()
                await self._end()
        except TimeoutError:
            if not limit.expired():
                raise
            self.gone_at = self._loop.time()
            self._abort()
            raise ClientGone from None

    def close(self) -> None:
        """After this there is no timer, no writer and no write, whatever happened before."""
        super().close()
        self._timer.cancel()
        self._pending.clear()
        if self._writer is not None:
            self._writer.cancel()

    def _take(self, frames: list[bytes]) -> None:
        self.state = AnswerState.STREAMING
        self._pending += frames

    async def _prepare(self) -> None:
        self.response.headers.update(self._headers())
        await self.response.prepare(self._request)

    async def _end(self) -> None:
        async with self._writing:
            self.state = AnswerState.ENDED
            try:
                if not self.response.prepared:
                    await self._prepare()
                await self.response.write_eof()
            except ConnectionError:
                raise ClientGone from None

    def _tick(self) -> None:
        """Sends the head when the answer was held long enough, then a keepalive after each silence."""
        now = self._loop.time()
        due = self._written_at + self._keepalive
        if self.state is AnswerState.ENDED:
            return
        if self.state is AnswerState.HELD and now < self._head_due:
            due = min(self._head_due, now + self._keepalive)
        elif self.state is AnswerState.HELD:
            self.state = AnswerState.WAITING
            self._send(self.stream.start() or self.stream.keepalive())
            due = now + self._keepalive
        elif now >= due:
            due = now + self._keepalive
            if not self._writing.locked():
                self._send(self.stream.keepalive())
            elif now >= self._written_at + self._patience:
                self._abort()
                return
            else:  # the client itself is slow, and more bytes would not help
                due = min(due, self._written_at + self._patience)
        self._timer = self._loop.call_at(due, self._tick)

    def _abort(self) -> None:
        """Losing the connection cancels the handler, as if the client had left by itself."""
        if (transport := self._request.transport) is not None:
            transport.abort()

    def _send(self, frames: list[bytes]) -> None:
        if frames:
            self._pending += frames
            self._writer = self._loop.create_task(self._write_quietly(), name="keepalive")

    async def _write_quietly(self) -> None:
        try:
            await self.drained()
        except ClientGone:
            return  # losing the connection ends the handler
