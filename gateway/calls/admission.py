"""Admission: how many calls a model serves at once, and in which order the others wait.

Each model has its own `Line`: limits on the calls and the estimated tokens in flight, and a bounded queue for the rest.
The queue takes turns between the clients' keys, and is in order within one key, so that a client with a hundred agents
does not block one with a single question. A full queue refuses the newcomer, unless another client holds more places:
then that client's last call has to go. A call at the front is never overtaken by a smaller one. A call that gives up or
is cancelled frees its place at once.

Keepalives while waiting are the answer's job; this module only lets calls through.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from dragoman.gateway.calls.context_window import estimate
from dragoman.gateway.config import AdmissionConfig
from dragoman.gateway.telemetry.metrics import Metrics
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Request

ANSWER_TOKENS = 2048  # of an answer's limit at most: agents ask for 32,000 and use a few hundred
LONGEST_HINT = 60.0  # seconds: the longest `Retry-After` of a refused call
FIRST_GUESS = 2.0  # seconds that a call holds its place, until some have been measured
_UNLIMITED = contextlib.nullcontext()  # a place where there are no limits


@dataclass(eq=False, slots=True)
class Waiter:
    client: str
    tokens: int
    place: asyncio.Future[None]


@dataclass(slots=True)
class Line:
    """The calls that run on one model and those that wait. `queues` holds the clients in the order of their turns."""

    running: int = 0
    tokens: int = 0
    waiting: int = 0
    queues: dict[str, deque[Waiter]] = field(default_factory=dict)
    held: float = FIRST_GUESS  # seconds that a call holds its place, as a moving average

    @property
    def idle(self) -> bool:
        return not self.running and not self.waiting


class Admission:
    """The limits of one of several `workers`, of which this is the one with that number, from 0 on."""

    def __init__(self, config: AdmissionConfig, metrics: Metrics, workers: int = 1, number: int = 0) -> None:
        self._requests = None if config.requests is None else max(1, share(config.requests, workers, number))
        self._tokens = None if config.tokens is None else max(1, share(config.tokens, workers, number))
        self._queue = share(config.queue, workers, number)
        self._patience = config.wait
        self._metrics = metrics
        self._lines: dict[tuple[str, str], Line] = {}

    @property
    def limited(self) -> bool:
        return self._requests is not None or self._tokens is not None

    def place(
        self, backend: str, model: str, client: str, request: Request, tokens: int | None = None
    ) -> AbstractAsyncContextManager[None]:
        """Holds a place while the body runs; raises BUSY, with a time to wait, when none is to be had. `tokens`: what
        the call costs, where that does not follow from the request."""
        if not self.limited:
            return _UNLIMITED
        if self._tokens is None:
            tokens = 0
        return self._place((backend, model), client, cost(request) if tokens is None else tokens)

    @contextlib.asynccontextmanager
    async def _place(self, key: tuple[str, str], client: str, tokens: int) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        backend, _ = key
        line = self._lines.setdefault(key, Line())
        asked = loop.time()
        try:
            await self._enter(line, backend, client, tokens)
        finally:
            self._forget_idle(key, line)
        begun = loop.time()
        self._metrics.child(self._metrics.queue_wait, backend).observe(begun - asked)
        try:
            yield
        finally:
            line.held += (loop.time() - begun - line.held) / 8
            line.running -= 1
            line.tokens -= tokens
            self._serve(line)
            self._forget_idle(key, line)

    def _forget_idle(self, key: tuple[str, str], line: Line) -> None:
        """A waiter that has left may notice it when its line has been forgotten and another one has begun."""
        if line.idle and self._lines.get(key) is line:
            del self._lines[key]

    async def _enter(self, line: Line, backend: str, client: str, tokens: int) -> None:
        if not line.waiting and self._fits(line, tokens):
            line.running += 1
            line.tokens += tokens
            return
        if line.waiting >= self._queue:
            self._make_room(line, backend, client)
        waiter = Waiter(client, tokens, asyncio.get_running_loop().create_future())
        line.queues.setdefault(client, deque()).append(waiter)
        line.waiting += 1
        depth = self._metrics.queue_depth.labels(backend)
        depth.inc()
        try:
            async with asyncio.timeout(self._patience):
                await waiter.place
        except TimeoutError:
            self._leave(line, waiter)
            raise self._refused(line, backend, "waited") from None
        except asyncio.CancelledError:
            self._leave(line, waiter)
            raise
        finally:
            depth.dec()

    def _fits(self, line: Line, tokens: int) -> bool:
        if self._requests is not None and line.running >= self._requests:
            return False
        # a call that is larger than the whole limit runs alone
        return self._tokens is None or not line.running or line.tokens + tokens <= self._tokens

    def _serve(self, line: Line) -> None:
        """Gives free places to the clients whose turn it is; a client that received one goes to the end."""
        while line.queues:
            client, queue = next(iter(line.queues.items()))
            waiter = queue[0]
            if waiter.place.done():  # cancelled; its task has not noticed yet
                self._remove(line, waiter)
                continue
            if not self._fits(line, waiter.tokens):
                return
            queue.popleft()
            del line.queues[client]
            if queue:
                line.queues[client] = queue
            line.waiting -= 1
            line.running += 1
            line.tokens += waiter.tokens
            waiter.place.set_result(None)

    def _leave(self, line: Line, waiter: Waiter) -> None:
        if waiter.place.done() and not waiter.place.cancelled() and waiter.place.exception() is None:
            line.running -= 1  # the place was given at this very moment
            line.tokens -= waiter.tokens
        else:
            self._remove(line, waiter)
        self._serve(line)

    def _remove(self, line: Line, waiter: Waiter) -> None:
        queue = line.queues.get(waiter.client)
        if queue is not None and waiter in queue:
            queue.remove(waiter)
            line.waiting -= 1
            if not queue:
                del line.queues[waiter.client]

    def _make_room(self, line: Line, backend: str, client: str) -> None:
        """Raises, or refuses the last call of the client that holds the most places."""
        longest = max(line.queues.values(), key=len, default=None)
        if longest is None or len(longest) <= len(line.queues.get(client, ())) + 1:
            raise self._refused(line, backend, "full")
        last = longest[-1]
        self._remove(line, last)
        if not last.place.done():
            last.place.set_exception(self._refused(line, backend, "full"))

    def _refused(self, line: Line, backend: str, reason: str) -> GatewayError:
        self._metrics.queue_refused.labels(backend, reason).inc()
        wait = line.held * (line.waiting + 1) / max(line.running, 1)
        return GatewayError(
            Kind.BUSY,
            "The model is busy and the queue for it is full."
            if reason == "full"
            else "The model is busy: no room came free.",
            retry_after=min(max(1.0, wait), LONGEST_HINT),
        )


def cost(request: Request) -> int:
    """Tokens that a call usually holds in the server's cache."""
    return estimate(request) + min(request.max_tokens or ANSWER_TOKENS, ANSWER_TOKENS)


def share(limit: int, workers: int, number: int) -> int:
    """Of a limit: those of all workers add up to it."""
    each, rest = divmod(limit, workers)
    return each + (number < rest)
