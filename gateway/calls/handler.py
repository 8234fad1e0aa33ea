"""The handler: HTTP requests as calls, and what became of a call as an HTTP answer, the same for every protocol.

A call walks its phases (`gateway.calls.phases`) into an `Answer`. Before the head goes out, every error is an HTTP
answer in the protocol's own words; afterwards it is the protocol's own failure event and the end of the body. A call
is ended from outside in one way, `Call.end`: when the connection is lost, or at the end of a drain. The backend's work
is then given up before the handler returns. Any exception other than a `GatewayError` is a bug: it is logged, and the
client receives a plain 500.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

from aiohttp import web

from dragoman.backends.base import Forwarded, PassedRefusal, nothing
from dragoman.gateway.calls.access_log import AccessLog
from dragoman.gateway.calls.admission import Admission
from dragoman.gateway.calls.answer import Answer, StreamedAnswer
from dragoman.gateway.calls.body import BodyReader
from dragoman.gateway.calls.call import Call, Ending
from dragoman.gateway.calls.conversation_memo import Memos
from dragoman.gateway.calls.documents import Documents, can_read
from dragoman.gateway.calls.exchange import Exchange, HttpExchange
from dragoman.gateway.calls.forwarding import ForwardedAnswer, cost, forwarded
from dragoman.gateway.calls.health import Gate
from dragoman.gateway.calls.images import Images
from dragoman.gateway.calls.memory import Memory, Recollection
from dragoman.gateway.calls.model_table import Models
from dragoman.gateway.calls.phases import Phases
from dragoman.gateway.calls.replies import common_headers, error_reply, id_headers, note_headers, note_list
from dragoman.gateway.calls.search_client import SearchClient
from dragoman.gateway.calls.search_stage import SearchStage
from dragoman.gateway.config import Config
from dragoman.gateway.keys.auth import Client
from dragoman.gateway.keys.reasoning_seal import Opener, Sealer
from dragoman.gateway.store.lazy import LazyStore
from dragoman.gateway.telemetry.logs import Redactor, log
from dragoman.gateway.telemetry.metrics import Metrics
from dragoman.gateway.telemetry.tracing import Tracing
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.protocol import Context, Count, Json, Policy, Protocol, Turn

SECRET_HEADERS = frozenset({"authorization", "x-api-key", "cookie", "proxy-authorization"})
REQUEST_ID = web.RequestKey("request_id", str)
CLIENT = web.RequestKey("client", Client)


Walk = Callable[[Exchange], Awaitable[None]]
Reply = Callable[[Exchange], Awaitable[None]]


class Handler:
    def __init__(
        self,
        config: Config,
        models: Models,
        gate: Gate,
        metrics: Metrics,
        sealer: Sealer,
        tracing: Tracing,
        redact: Redactor,
        admission: Admission | None = None,
        store: LazyStore | None = None,
        search_key: str | None = None,
        memos: Memos | None = None,
    ) -> None:
        self._config = config
        self._sealer = sealer
        self._redact = redact
        self.memos = memos or Memos(config.limits.memo_bytes, metrics.memo)
        self.bodies = BodyReader(config.limits, config.timeouts.body, self.memos)
        self._gate = gate
        self._access_log = AccessLog(metrics, tracing, self.memos.prompts)
        reject = config.policy.unreadable == "reject"
        self.images = Images(config.images, total=config.limits.body_bytes, reject=reject)
        self.documents = Documents(config.documents, reject) if can_read(config.documents) else None
        self.admission = admission or Admission(config.admission, metrics, config.workers)
        self._memory = Memory(store, self.bodies)
        self.search = SearchClient(config.search, search_key) if config.search.runs else None
        searches = SearchStage(self.search, metrics) if self.search is not None else None
        self._phases = Phases(models, gate, self.images, self.admission, searches, self.documents, self.bodies)
        self._policy = _policy(config, documents=self.documents is not None)
        self.calls: set[Call] = set()
        self.leaving = False  # no longer ready, but still serving new requests
        self.draining = False
        self.idle = asyncio.Event()  # set while no call runs
        self.idle.set()

    async def handle(self, protocol: Protocol, request: web.Request) -> web.StreamResponse:
        it = HttpExchange(new_call(protocol, request), protocol, request)
        await self.serve(it)
        assert it.response is not None
        return it.response

    def serve(self, it: Exchange) -> Coroutine[Any, Any, None]:
        """Answers the call. Cancelled once its client has gone."""
        return self._served(it, self._generate, self._succeed)

    async def count(self, protocol: Protocol, count: Count, request: web.Request) -> web.StreamResponse:
        """How long a prompt would be: counted by the backend's own tokenizer, else estimated and marked as such."""
        it = HttpExchange(new_call(protocol, request, counts=True), protocol, request)
        await self._served(it, partial(self._count, count), partial(self._counted, count))
        assert it.response is not None
        return it.response

    async def forward(self, endpoint: Protocol, request: web.Request) -> web.StreamResponse:
        """A body and its answer, passed through."""
        it = HttpExchange(new_call(endpoint, request), endpoint, request)
        await self._served(it, lambda _: self._forward(it), self._forwarded)
        assert it.response is not None
        return it.response

    async def _served(self, it: Exchange, walk: Walk, reply: Reply) -> None:
        call = it.call
        self.calls.add(call)
        self.idle.clear()
        self._access_log.arrived(call)
        it.when_lost(partial(self._lost, call))
        try:
            await self._answered(it, walk, reply)
        except asyncio.CancelledError:
            self._access_log.left(call)
            raise
        except Exception:
            log.exception("an answer of %s could not be ended", call.route)
            raise
        finally:
            it.when_lost(nothing)
            if call.answer is not None:
                call.answer.close()
            call.share.free()
            self.calls.discard(call)
            if not self.calls:
                self.idle.set()
            self._access_log.ended(call)
            # Both refer to the call, the error through its frames; without a cycle a large request is freed at once.
            call.answer = call.error = call.ending = None

    def _lost(self, call: Call) -> None:
        call.end(asyncio.get_running_loop().time())

    # ------------------------------------------------------------------------------------------------------- the walks

    async def _generate(self, it: Exchange) -> None:
        """Up to the end of the backend's work; raises whatever went wrong."""
        call, phases = it.call, self._phases
        body = await self._receive(it)
        recalled = await self._recalled(it, body)
        turn = it.protocol.parse(body if recalled is None else recalled.body, self._context(it, recalled))
        answer, events, searched = self._answer(it, turn), turn.events, turn.searched
        del body, turn  # a long stream need not keep them
        if recalled is not None and not (recalled.stores or it.remembers):
            recalled = None  # a long stream need not keep it
        if recalled is not None:
            recalled.body = {}
            if not it.remembers:
                recalled.earlier = []
            answer.holds = recalled.stores
            if recalled.stores and isinstance(answer, StreamedAnswer):
                answer.on_failed = partial(self._memory.keep_failed, call, recalled)
        phases.authorize(call, free=bool(events) or searched is not None)
        if events:
            answer.feed(events)
        elif searched is not None:
            await phases.search(call, searched)
        else:
            await phases.route(call)
            await phases.inline(call)
            await phases.served(call, partial(self._answer_from, call))
        if recalled is not None and call.finished:
            stored = await self._memory.keep(call, recalled, answer)
            if it.remembers:
                it.remember(recalled.remembered(answer.body(), stored))

    async def _answer_from(self, call: Call) -> None:
        """On one backend."""
        await self._phases.prepare(call)
        await self._phases.fit(call)
        async with self._phases.place(call):
            await self._access_log.asked(call, self._phases.answer(call))

    async def _forward(self, it: HttpExchange) -> None:
        call, phases, path = it.call, self._phases, it.protocol.path
        self._refuse_while_draining()
        body = await it.raw(self.bodies)
        call.read_at = asyncio.get_running_loop().time()
        await self._gate.admit_any()
        asked, tokens = forwarded(body, call.id, path), cost(body, path)
        call.request, call.streaming = asked.request, asked.streaming
        delivery = it.delivery(partial(self._head, call))
        call.answer = answer = ForwardedAnswer(delivery, call.give_up)
        answer.on_begun = call.let_go
        del body
        phases.authorize(call, tokens=tokens)
        await phases.route(call, same_model=path == "embeddings")  # those of two models cannot be compared
        await phases.served(call, partial(self._forward_to, call, asked, tokens))
        if call.ending is None and answer.gone_at is None:
            answer.complete()

    async def _forward_to(self, call: Call, asked: Forwarded, tokens: int) -> None:
        self._phases.check(call, asked)
        async with self._phases.place(call, tokens):
            await self._access_log.asked(call, self._phases.forward(call))

    async def _recalled(self, it: Exchange, body: Json) -> Recollection | None:
        """With what the call continues, for protocols whose clients keep conversations here."""
        if it.protocol.state is None:
            return None
        return await self._memory.recall(it.call, it.protocol.state, body, it.last, it.remembers)

    async def _count(self, count: Count, it: Exchange) -> None:
        """As `_generate`, up to the length of the prompt, which is not judged by the context window."""
        call, phases = it.call, self._phases
        body = await self._receive(it)
        recalled = await self._recalled(it, body)
        call.request = count.parse(body if recalled is None else recalled.body, self._context(it, recalled))
        del body, recalled
        phases.authorize(call, free=True)
        await phases.route(call)
        await phases.inline(call)
        await phases.served(call, partial(self._count_by, call))

    async def _count_by(self, call: Call) -> None:
        await self._phases.prepare(call)
        await self._phases.count(call)

    async def _receive(self, it: Exchange) -> Json:
        self._refuse_while_draining()
        body, mended = await it.body(self.bodies)
        it.call.notes.extend(mended)
        it.call.read_at = asyncio.get_running_loop().time()
        await self._gate.admit_any()
        return body

    def _refuse_while_draining(self) -> None:
        if self.draining:
            raise GatewayError(Kind.DRAINING, "The gateway is shutting down; try again.", retry_after=1)

    def _context(self, it: Exchange, recalled: Recollection | None) -> Context:
        given = it.call.headers.items()
        headers = {low: value for name, value in given if (low := name.lower()) not in SECRET_HEADERS}
        headers["x-request-id"] = it.call.request_id
        return Context(
            id=it.call.id,
            clock=lambda: int(time.time()),
            headers=headers,
            policy=self._policy,
            seal=self._sealer.seal,
            open=Opener(self._sealer, self._config.limits.body_bytes).open,
            framing=it.framing,
            continues=recalled is not None and recalled.previous is not None,
            earlier=0 if recalled is None else len(recalled.earlier),
            stored=recalled is not None and recalled.stores,
        )

    def _answer(self, it: Exchange, turn: Turn) -> Answer:
        call = it.call
        call.request, call.streaming = turn.request, turn.streaming
        call.notes.extend(turn.notes)
        if turn.streaming:
            delivery = it.delivery(partial(self._head, call))
            call.answer = StreamedAnswer(turn, call.give_up, delivery, self._config.timeouts, call.accepted)
        else:
            call.answer = Answer(turn, call.give_up)
        return call.answer

    # ------------------------------------------------------------------------------------------------------ the replies

    async def _answered(self, it: Exchange, walk: Walk, reply: Reply) -> None:
        try:
            await self._walked(it.call, walk(it))
            await reply(it)
        except Exception as error:
            expected = None if _has_gone(it.call) else self._expected(it.call, error)
            _leave_frames(error)
            if expected is None:
                raise asyncio.CancelledError from None
            await self._fail(it, expected)
        if _has_gone(it.call):
            raise asyncio.CancelledError

    async def _walked(self, call: Call, walk: Awaitable[None]) -> None:
        """Raises why the call has no answer: what went wrong, or what has ended it from outside."""
        try:
            await walk
        except asyncio.CancelledError:
            if call.ending is None or call.ending.error is None:
                raise
            _go_on()
        if _has_gone(call):
            raise asyncio.CancelledError
        if call.finished or (call.tokens is not None and call.ending is None):
            return
        if call.ending is not None and call.ending.error is not None:
            raise call.ending.error
        raise GatewayError(
            Kind.BACKEND_FAILED, "The model server ended its answer without saying why.", source="backend"
        )

    async def _succeed(self, it: Exchange) -> None:
        call, answer = it.call, it.call.answer
        assert isinstance(answer, Answer)
        call.succeeded()
        if isinstance(answer, StreamedAnswer):
            await answer.finish()
            await it.streamed()
        else:
            await it.whole(200, answer.body(), self._head(call))

    async def _forwarded(self, it: Exchange) -> None:
        call, answer = it.call, it.call.answer
        assert isinstance(answer, ForwardedAnswer)
        call.succeeded()
        await answer.finish()
        await it.streamed()

    async def _counted(self, count: Count, it: Exchange) -> None:
        call = it.call
        assert call.tokens is not None
        call.outcome, call.status = "counted", 200
        estimated = {"x-dragoman-estimated": "input_tokens"} if call.estimates else {}
        await it.whole(200, count.body(call.tokens), self._head(call) | estimated)

    async def _fail(self, it: Exchange, error: GatewayError) -> None:
        call, answer = it.call, it.call.answer
        call.error = error
        call.outcome = "failed" if error.kind.status >= 500 else "refused"
        if isinstance(answer, StreamedAnswer) and answer.head_sent:
            call.status = 200
            await answer.fail(error)
            await it.streamed()
            return
        if isinstance(answer, ForwardedAnswer) and answer.head_sent:
            call.status = answer.status
            answer.break_off()
            await it.streamed()
            return
        if isinstance(error, PassedRefusal) and isinstance(it, HttpExchange):
            call.status = error.status
            await it.passed(error.status, error.body, {**self._head(call), **common_headers(error)})
            return
        reply = error_reply(it.protocol, error, call.request_id)
        call.status = reply.status
        await it.whole(reply.status, reply.body, {**self._head(call), **reply.headers})

    def _expected(self, call: Call, error: Exception) -> GatewayError:
        if isinstance(error, GatewayError):
            error.message = self._redact(error.message)  # a server may echo the key that it was sent
            if isinstance(error, PassedRefusal):
                error.body = self._redact(error.body.decode("utf-8", "replace")).encode()
            return error
        log.error("bug in %s", call.route, exc_info=error, extra={"fields": {"request_id": call.request_id}})
        return GatewayError(Kind.INTERNAL, f"Internal error; the request id is {call.request_id}.")

    def _head(self, call: Call) -> dict[str, str]:
        notes = call.notes if call.answer is None else call.notes + call.answer.late_notes()
        answered = call.error is None and (call.answer is None or call.answer.touched)
        fallback = {"x-dragoman-fallback": note_list([call.fallback])} if call.fallback and answered else {}
        return id_headers(call.request_id) | note_headers(notes) | fallback


def _policy(config: Config, *, documents: bool) -> Policy:
    return Policy(
        hosted_tools=config.policy.hosted_tools,
        strict_history=config.policy.strict_history,
        reasoning_events=config.policy.reasoning_events,
        unreadable=config.policy.unreadable,
        echo_tools=config.policy.echo_tools,
        max_tools=config.limits.tools,
        max_items=config.limits.items,
        web_search=config.search.runs,
        documents=documents,
    )


def new_call(protocol: Protocol, request: web.Request, *, counts: bool = False) -> Call:
    """A call that this task answers; its client and its headers are those of the request."""
    task = asyncio.current_task()
    assert task is not None
    return Call(
        protocol.name,
        protocol.path,
        id=secrets.token_hex(16),
        request_id=request[REQUEST_ID],
        accepted=asyncio.get_running_loop().time(),
        client=request[CLIENT],
        headers=request.headers,
        give_up=task.cancel,
        counts=counts,
    )


def _has_gone(call: Call) -> bool:
    """Whether the client has: its connection was lost, or broke under a write."""
    if call.ending is None and call.answer is not None and call.answer.gone_at is not None:
        call.ending = Ending(call.answer.gone_at)
    return call.ending is not None and call.ending.error is None


def _leave_frames(error: BaseException | None) -> None:
    """Many of the frames that an error has passed hold the error, and all of them the call. Without these cycles what
    the call took is freed at once: the collector of garbage runs seldom."""
    while error is not None:
        error.__traceback__ = None
        error = error.__context__


def _go_on() -> None:
    """The cancellation of this task has served its purpose: something is left to be said to the client."""
    task = asyncio.current_task()
    assert task is not None
    task.uncancel()
