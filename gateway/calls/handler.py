"""The handler: one call, the same for every protocol, streamed or whole, on every backend.

Body → `protocol.parse` → model → `backend.prepare` → stages → `backend.stream` into an `Answer`. Before the head goes
out, every error is an HTTP answer in the protocol's own words; afterwards it is the protocol's own failure event and
the end of the body. The backend runs in the handler's task: when the client leaves, that task is cancelled, and the
server's work has ended before the cancellation leaves the backend. Any exception other than a `GatewayError` is a bug:
it is logged, and the client receives a plain 500. A call that only counts its prompt goes through the same phases, up
to the point where a model would be asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial

from aiohttp import web

from dragoman.backends.base import Backend
from dragoman.gateway.calls.access_log import AccessLog
from dragoman.gateway.calls.admission import Admission, cost
from dragoman.gateway.calls.affinity import session
from dragoman.gateway.calls.answer import Answer, AnswerState, ClientGone, StreamedAnswer
from dragoman.gateway.calls.body import BodyReader
from dragoman.gateway.calls.call import Call
from dragoman.gateway.calls.context_window import estimate, fit
from dragoman.gateway.calls.health import Gate
from dragoman.gateway.calls.images import Images
from dragoman.gateway.calls.model_table import Models, Target
from dragoman.gateway.calls.replies import error_reply, id_headers, json_response, note_headers
from dragoman.gateway.config import Config
from dragoman.gateway.keys.auth import Client
from dragoman.gateway.keys.reasoning_seal import Sealer
from dragoman.gateway.telemetry.logs import Redactor, log
from dragoman.gateway.telemetry.metrics import Metrics
from dragoman.gateway.telemetry.tracing import Tracing
from dragoman.translators.constraints.parallel import FirstCallOnly
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Note, Request, StopReason
from dragoman.translators.protocol import Context, Count, Json, Policy, Protocol, Turn

SECRET_HEADERS = frozenset({"authorization", "x-api-key", "cookie", "proxy-authorization"})
COUNTS_AT_ONCE = 4  # on one backend: Claude Code sends fifteen at once, and streams share the backend with them
REQUEST_ID = web.RequestKey("request_id", str)
CLIENT = web.RequestKey("client", Client)

Run = Callable[[Call], Awaitable[None]]
Reply = Callable[[Call], Awaitable[web.StreamResponse]]


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
    ) -> None:
        self._config = config
        self._sealer = sealer
        self._redact = redact
        self._bodies = BodyReader(config.limits, config.timeouts.body)
        self._counts = defaultdict[str, asyncio.Semaphore](lambda: asyncio.Semaphore(COUNTS_AT_ONCE))  # by backend
        self._models = models
        self._gate = gate
        self._access_log = AccessLog(metrics, tracing)
        reject = config.policy.unreadable == "reject"
        self.images = Images(config.images, total=config.limits.body_bytes, reject=reject)
        self.admission = admission or Admission(config.admission, metrics, config.workers)
        self._policy = Policy(
            hosted_tools=config.policy.hosted_tools,
            strict_history=config.policy.strict_history,
            reasoning_events=config.policy.reasoning_events,
            unreadable=config.policy.unreadable,
            max_tools=config.limits.tools,
        )
        self.calls: set[Call] = set()
        self.leaving = False  # no longer ready, but still serving new requests
        self.draining = False
        self.idle = asyncio.Event()  # set while no call runs
        self.idle.set()

    async def handle(self, protocol: Protocol, request: web.Request) -> web.StreamResponse:
        return await self._served(_call(protocol, request), self._generate, self._succeed)

    async def count(self, protocol: Protocol, count: Count, request: web.Request) -> web.StreamResponse:
        """How long a prompt would be: counted by the backend's own tokenizer, else estimated and marked as such."""
        run, reply = partial(self._count, count), partial(self._counted, count)
        return await self._served(_call(protocol, request, counts=True), run, reply)

    async def _served(self, call: Call, run: Run, reply: Reply) -> web.StreamResponse:
        self.calls.add(call)
        self.idle.clear()
        self._access_log.arrived(call)
        try:
            return await self._answered(call, run, reply)
        except asyncio.CancelledError:
            self._access_log.left(call)
            raise
        except Exception:
            log.exception("an answer of %s could not be ended", call.protocol.name)
            raise
        finally:
            if call.answer is not None:
                call.answer.close()
            self.calls.discard(call)
            if not self.calls:
                self.idle.set()
            self._access_log.ended(call)
            # Both refer to the call, the error through its frames; without a cycle a large request is freed at once.
            call.answer = call.error = None

    def outlier_reason(self, backend: str) -> str | None:
        """Why a backend that says it is ready does not count as such, judged by the calls it was sent."""
        now = asyncio.get_running_loop().time()
        return self._access_log.outliers.reason(backend, self.calls, self._config.pool.slow, now)

    # ------------------------------------------------------------------------------------------------------ the steps

    async def _answered(self, call: Call, run: Run, reply: Reply) -> web.StreamResponse:
        try:
            try:
                await run(call)
            except asyncio.CancelledError:
                # an interruption is our own cancellation; if the client has left too, a second one is pending
                if call.interruption is None or call.task.uncancel() > 0:
                    raise
                if not call.finished:
                    raise call.interruption from None
            return await reply(call)
        except ClientGone:
            raise asyncio.CancelledError from None
        except Exception as error:
            return await self._fail(call, self._expected(call, error))

    async def _generate(self, call: Call) -> None:
        """Up to the end of the backend's work; raises whatever went wrong."""
        body = await self._receive(call)
        turn, answer = self._parse(call, body)
        del body  # a long stream need not keep it
        self._authorize(call, turn.request, free=bool(turn.events))
        if turn.events:
            answer.feed(turn.events)
            return
        target, request = await self._route(call, turn.request)
        sizes: list[int] = []
        request = await self._fit(call, target, request, sizes)
        try:
            async with (
                self.admission.place(target.backend.name, target.model, call.client.name, request),
                self._counting(turn, target.backend, request, sizes),
            ):
                await self._access_log.asked(call, request, self._ask(target.backend, request, answer))
        except Exception as error:
            if not call.finished or isinstance(error, ClientGone):
                raise
            # the answer is complete: what broke afterwards changes nothing for the client
            log.warning("the backend failed after a finished answer", exc_info=error)
        if not call.finished:
            raise GatewayError(
                Kind.BACKEND_FAILED, "The model server ended its answer without saying why.", source="backend"
            )

    async def _count(self, count: Count, call: Call) -> None:
        """As `_generate`, up to the length of the prompt, which is not judged by the context window."""
        body = await self._receive(call)
        request = count.parse(body, self._context(call.request, call.id))
        del body
        self._authorize(call, request, free=True)
        target, request = await self._route(call, request)
        request = await self.images.inlined(request, call.notes)  # a server that counts would fetch them too
        self._prepared(target.backend, request)  # a request that would be refused as a call is refused as a count
        async with self._counts[target.backend.name]:
            call.tokens = await target.backend.count_tokens(request)
        if call.tokens is None:
            call.tokens = estimate(request)
            call.estimates = True

    async def _receive(self, call: Call) -> Json:
        if self.draining:
            raise GatewayError(Kind.DRAINING, "The gateway is shutting down; try again.", retry_after=1)
        body, mended = await self._bodies.read(call.request)
        call.notes.extend(mended)
        call.read_at = asyncio.get_running_loop().time()
        await self._gate.admit_any()
        return body

    def _authorize(self, call: Call, request: Request, *, free: bool) -> None:
        """Raises if this client may not make this call now. A `free` call, which no model answers, costs no tokens."""
        call.client.check_model(request.model)
        estimated = cost(request) if call.client.counts_tokens and not free else 0
        call.client.spend(estimated)
        call.estimated = estimated

    async def _route(self, call: Call, request: Request) -> tuple[Target, Request]:
        """Where the call goes, once that backend may be asked, and the request with the model's name there."""
        request = replace(request, affinity=session(request, call.client.name))
        await self._gate.some_started()
        target = await self._models.resolve(request.model, call.client)
        call.backend, call.model = target.backend, target.model
        if target.model != request.model:
            request = replace(request, model=target.model)
        await self._gate.admit(target.backend)
        return target, request

    async def _fit(self, call: Call, target: Target, request: Request, sizes: list[int]) -> Request:
        """The request as the backend takes it: with its images, and within the context window. `sizes` receives the
        prompt's size if it had to be counted."""
        request = await self.images.inlined(request, call.notes)
        request, notes = await fit(target.backend, request, target.window, sizes.append)
        call.notes.extend((*notes, *self._prepared(target.backend, request)))
        call.ready_at = asyncio.get_running_loop().time()
        return request

    def _prepared(self, backend: Backend, request: Request) -> tuple[Note, ...]:
        """What the backend leaves out; raises if it cannot serve the request."""
        notes = backend.prepare(request)
        self.images.seen(request, notes)
        return notes

    async def _ask(self, backend: Backend, request: Request, answer: Answer) -> None:
        """The backend's work. A backend that fell asleep before it was asked is woken once, if that is allowed."""
        try:
            await backend.stream(request, answer)
        except GatewayError as error:
            if error.kind is not Kind.ASLEEP or answer.touched or not self._gate.wakes(backend):
                raise
            self._gate.learn(backend, error)
            await self._gate.admit(backend)
            await backend.stream(request, answer)

    def _context(self, request: web.Request, id: str) -> Context:
        headers = {name.lower(): value for name, value in request.headers.items()}
        headers["x-request-id"] = request[REQUEST_ID]
        return Context(
            id=id,
            clock=lambda: int(time.time()),
            headers={name: value for name, value in headers.items() if name not in SECRET_HEADERS},
            policy=self._policy,
            seal=self._sealer.seal,
            open=self._sealer.open,
        )

    @contextlib.asynccontextmanager
    async def _counting(
        self, turn: Turn, backend: Backend, request: Request, sizes: Sequence[int]
    ) -> AsyncIterator[None]:
        """The prompt's size, for protocols that send it first. Unless it is known already, it is counted while the
        answer is made, which never waits for it."""
        if turn.counted is None or sizes:
            if turn.counted is not None:
                turn.counted(sizes[-1])
            yield
            return
        task = asyncio.create_task(self._count_prompt(turn.counted, backend, request), name="count")
        try:
            yield
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait((task,))

    async def _count_prompt(self, counted: Callable[[int], None], backend: Backend, request: Request) -> None:
        try:
            tokens = await backend.count_tokens(request)
        except GatewayError:
            return  # the answer itself reports what is wrong with the backend
        if tokens is not None:
            counted(tokens)

    def _parse(self, call: Call, body: Json) -> tuple[Turn, Answer]:
        turn = call.protocol.parse(body, self._context(call.request, call.id))
        call.streaming = turn.streaming
        call.notes.extend(turn.notes)
        stage = None if turn.request.parallel_tool_calls else FirstCallOnly()
        if turn.streaming:
            call.answer = StreamedAnswer(
                call.request, turn.stream, stage, self._config.timeouts, call.accepted, lambda: self._head(call)
            )
        else:
            call.answer = Answer(turn.stream, stage)
        return turn, call.answer

    async def _succeed(self, call: Call) -> web.StreamResponse:
        assert call.answer is not None
        assert call.answer.finished is not None
        reason = call.answer.finished.reason
        call.outcome = "completed" if reason is StopReason.STOP else f"incomplete_{reason.value}"
        call.status = 200
        if isinstance(call.answer, StreamedAnswer):
            await call.answer.finish()
            return call.answer.response
        return json_response(200, call.answer.body(), self._head(call))

    async def _counted(self, count: Count, call: Call) -> web.StreamResponse:
        assert call.tokens is not None
        call.outcome, call.status = "counted", 200
        estimated = {"x-dragoman-estimated": "input_tokens"} if call.estimates else {}
        return json_response(200, count.body(call.tokens), self._head(call) | estimated)

    async def _fail(self, call: Call, error: GatewayError) -> web.StreamResponse:
        call.error = error
        call.outcome = "failed" if error.kind.status >= 500 else "refused"
        if call.backend is not None:
            self._gate.learn(call.backend, error)
        answer = call.answer
        if isinstance(answer, StreamedAnswer) and answer.state is not AnswerState.HELD:
            call.status = 200
            try:
                await answer.fail(error)
            except ClientGone:
                raise asyncio.CancelledError from None
            return answer.response
        reply = error_reply(call.protocol, error, call.request_id)
        call.status = reply.status
        return json_response(reply.status, reply.body, {**self._head(call), **reply.headers})

    def _expected(self, call: Call, error: Exception) -> GatewayError:
        if isinstance(error, GatewayError):
            error.message = self._redact(error.message)  # a server may echo the key that it was sent
            return error
        log.error("bug in %s", call.protocol.name, exc_info=error, extra={"fields": {"request_id": call.request_id}})
        return GatewayError(Kind.INTERNAL, f"Internal error; the request id is {call.request_id}.")

    def _head(self, call: Call) -> dict[str, str]:
        notes = call.notes
        if call.answer is not None:
            notes = notes + call.answer.notes + call.answer.stage_notes()
        return id_headers(call.request_id) | note_headers(notes)


def _call(protocol: Protocol, request: web.Request, *, counts: bool = False) -> Call:
    task = asyncio.current_task()
    assert task is not None
    return Call(
        protocol,
        request,
        id=secrets.token_hex(16),
        request_id=request[REQUEST_ID],
        client=request[CLIENT],
        accepted=asyncio.get_running_loop().time(),
        task=task,
        counts=counts,
    )
