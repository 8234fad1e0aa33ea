"""The phases of a call: each does one thing, takes what it needs from the call, and leaves in it what it derived.

    identify → receive → parse → authorize → route → inline → prepare → fit → place → answer → record
                                 └────────────── a count ──────────┘ count → record
                                             └── the doctor ───────────────┘     answer
                                 authorize → route → check ───────────── place → forward → record

A call walks them in this order (from `prepare` once more for each backend it falls back to, see `served`), and every
kind of call walks the same ones: one that only counts its prompt goes as far as `prepare` and is never refused for its
length; the doctor's probes begin at `route`; one whose body is passed through (the last line) is only checked. What
comes before `authorize` belongs to the connection and the protocol: the key is checked by `gateway.serve.middleware`
before a byte of the body is read, `gateway.calls.body` receives, `protocol.parse` reads. `gateway.calls.access_log`
records. A phase raises `GatewayError` if the call goes no further.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial

from dragoman.backends.base import Backend, Forwarded, Prepared, Sink, nothing
from dragoman.gateway.calls.admission import Admission, cost
from dragoman.gateway.calls.affinity import session
from dragoman.gateway.calls.answer import Answer, AnswerRecord
from dragoman.gateway.calls.body import BodyReader
from dragoman.gateway.calls.call import Call
from dragoman.gateway.calls.context_window import estimate, fit, shortened
from dragoman.gateway.calls.documents import Documents
from dragoman.gateway.calls.forwarding import ForwardedAnswer
from dragoman.gateway.calls.health import Gate
from dragoman.gateway.calls.images import Images
from dragoman.gateway.calls.model_table import Models, Target
from dragoman.gateway.calls.search_stage import SearchStage
from dragoman.gateway.telemetry.logs import log
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Document, Note, Request, ToolResult

TRUNCATED = Note("repair", "truncation")
UNSERVED = frozenset({Kind.BUSY, Kind.BACKEND_DOWN, Kind.BACKEND_FAILED, Kind.ASLEEP, Kind.TIMEOUT})
LONG = 1000  # messages
COUNTS_AT_ONCE = 4  # on one backend: Claude Code sends fifteen at once, and streams share the backend with them


class Phases:
    """`searches`: None where models cannot search the web. `documents`: None where no document is read. `bodies` has
    the memory for images that are fetched, None where nobody is served."""

    def __init__(
        self,
        models: Models,
        gate: Gate,
        images: Images,
        admission: Admission,
        searches: SearchStage | None = None,
        documents: Documents | None = None,
        bodies: BodyReader | None = None,
    ) -> None:
        self._models = models
        self._bodies = bodies
        self._gate = gate
        self._images = images
        self._admission = admission
        self._searches = searches
        self._documents = documents
        self._counts = defaultdict[str, asyncio.Semaphore](lambda: asyncio.Semaphore(COUNTS_AT_ONCE))  # by backend

    def authorize(self, call: Call, *, free: bool = False, tokens: int | None = None) -> None:
        """Whether this client may make this call now. A `free` call, which no model answers, costs no tokens."""
        request = _asked(call)
        call.client.check_model(request.model)
        estimated = 0
        if call.client.counts_tokens and not free:
            estimated = cost(request) if tokens is None else tokens
        call.client.spend(estimated)
        call.estimated = estimated

    async def route(self, call: Call, *, same_model: bool = False) -> None:
        """Where the call goes, once that backend may be asked, and the request with the model's name there. With
        `same_model`, no backend that has another one is taken instead."""
        request = _asked(call)
        await self._gate.some_started()
        target = await self._models.resolve(request.model, call.client)
        call.own_backend = target.backend
        others = [each for each in target.fallbacks if not same_model or each.model == target.model]
        call.others = await self._ready_first([target, *others])
        if not request.affinity:
            call.request = replace(request, affinity=session(request, call.client.name))
        await self._go_on(call)

    async def _ready_first(self, targets: list[Target]) -> list[Target]:
        """How the later ones are is asked only where the first is not ready: one that hangs takes a while to say so."""
        if len(targets) < 2 or await self._gate.ready(targets[0].backend, targets[0].model):
            return targets
        ready = await asyncio.gather(*(self._gate.ready(each.backend, each.model) for each in targets))
        return sorted(targets, key=lambda each: not ready[targets.index(each)])

    async def _go_on(self, call: Call, failed: GatewayError | None = None) -> None:
        """To the next backend that may be asked; raises what has failed before where there is none."""
        if failed is not None:
            call.others = await self._ready_first(call.others)
        while True:
            if not call.others:
                assert failed is not None, "the call was not routed"
                raise failed
            target = call.others.pop(0)
            call.backend, call.model, call.window = target.backend, target.model, target.window
            call.known = target.known
            if (request := _asked(call)).model != target.model:
                call.request = replace(request, model=target.model)
            try:
                await self._gate.admit(target.backend, target.model)
            except GatewayError as error:
                failed = _to_be_told(call, failed, error)
                if not call.others:
                    raise failed from None
            else:
                if target.backend is not call.own_backend:
                    self._gate.fell_back(call.own_backend, target.backend)
                return

    async def served(self, call: Call, work: Callable[[], Awaitable[None]]) -> None:
        """Runs `work`, from `prepare` to the end, on the backend that the call was routed to; where that could not
        serve it and has sent nothing, on the next one, with what that one makes of the request as it came."""
        call.routed, notes = _asked(call), list(call.notes)
        failed: GatewayError | None = None
        while True:
            try:
                await work()
                return
            except GatewayError as error:
                over = call.ending is not None or (call.answer is not None and call.answer.touched)
                if over or (call.fallback is None and not may_fall_back(error)):
                    raise
                failed = _to_be_told(call, failed, error)
                if not call.others:
                    raise failed from None
                log.warning("%s: not served by %s: %s", call.request_id, _backend(call).name, error.kind.name)
            call.request, call.notes[:], call.prepared = call.routed, notes, None
            if call.answer is not None:
                call.answer.start_over()
            await self._go_on(call, failed)

    async def inline(self, call: Call) -> None:
        """The text of documents becomes part of the request, and so do images: a server would fetch them itself."""
        await _others_turn(call)
        if self._documents is not None and _holds_documents(_asked(call)):
            call.request = await self._documents.inlined(_asked(call), call.notes, call.client.name)
        room = None if self._bodies is None else self._bodies.room(call.share)
        call.request = await self._images.inlined(_asked(call), call.notes, call.client.name, room)

    async def prepare(self, call: Call) -> None:
        """Everything that follows from the request and the backend's settings."""
        prepared = call.prepared = await _backend(call).prepare(_asked(call))
        self._images.seen(prepared.request, prepared.notes)

    async def fit(self, call: Call) -> None:
        """The answer's limit, by the context window. A conversation that may be cut is cut until it fits."""
        while True:
            await _others_turn(call)
            try:
                notes = await fit(_backend(call), _prepared(call), call.window)
                break
            except GatewayError as error:
                if (shorter := shortened(_asked(call), error)) is None:
                    raise
            call.request = shorter
            if TRUNCATED not in call.notes:
                call.notes.append(TRUNCATED)
            await self.prepare(call)
        call.notes.extend((*notes, *_prepared(call).notes))
        self._is_ready(call)

    def _is_ready(self, call: Call) -> None:
        if call.ready_at is None:
            call.ready_at = asyncio.get_running_loop().time()

    async def count(self, call: Call) -> None:
        """The prompt's size, by the backend's own tokenizer, else estimated and marked as such."""
        backend, prepared = _backend(call), _prepared(call)
        call.tokens = prepared.tokens
        if call.tokens is None:
            async with self._counts[backend.name]:
                call.tokens = await backend.count(prepared)
        if call.tokens is None:
            call.tokens = estimate(prepared.request)
            call.estimates = True

    def check(self, call: Call, asked: Forwarded) -> None:
        """Whether the backend has endpoints besides that of model calls."""
        backend = _backend(call)
        if not self._gate.groups[backend.name].forwards:
            message = (
                f"The backend '{backend.name}' has no /v1/{asked.path}: only chat-completions servers may have it."
            )
            raise GatewayError(Kind.NOT_FOUND, message, code="not_found")
        asked.request = _asked(call)
        call.prepared = asked
        self._is_ready(call)

    def place(self, call: Call, tokens: int | None = None) -> AbstractAsyncContextManager[None]:
        """A place on the model while the block runs."""
        request = _prepared(call).request
        return self._admission.place(_backend(call).name, call.model or "", call.client.name, request, tokens)

    async def answer(self, call: Call) -> None:
        """The backend's work, from the first request to its server to the last event."""
        answer = call.answer
        assert isinstance(answer, Answer)
        await _others_turn(call)
        answer.on_note = partial(self._noted, call)
        try:
            if (tokens := _prepared(call).tokens) is not None:
                answer.prompt_size(tokens)
            if answer.wants_size:
                async with _sizing(call, answer):
                    await self._turns(call, answer)
            else:
                answer.on_begun = call.let_go
                await self._turns(call, answer)
        except Exception as error:
            if not call.finished:
                raise
            # the answer is complete: what broke afterwards changes nothing for the client
            log.warning("the backend failed after a finished answer", exc_info=error)

    def _noted(self, call: Call, note: Note) -> None:
        """Raises where the backend leaves out what may not be left out."""
        self._images.seen(_asked(call), (note,))

    async def search(self, call: Call, query: str) -> None:
        """The answer is one search, and no model is asked."""
        wanted, answer = _asked(call).search, call.answer
        assert self._searches is not None
        assert wanted is not None
        assert isinstance(answer, Answer)
        await self._searches.alone(call, query, wanted, answer)

    def _turns(self, call: Call, answer: Answer) -> Awaitable[None]:
        """Of the model: one, or several with searches in between."""
        search = _asked(call).search
        if search is None or self._searches is None:
            return self._ask_turn(call, _prepared(call), answer)
        return self._searches.answer(call, _asked(call), search, answer, partial(self._next_turn, call))

    async def _next_turn(self, call: Call, request: Request, sink: Sink) -> None:
        """One turn of several. The first one is prepared; a later one, with what was found, is prepared now."""
        prepared = _prepared(call)
        if request is not _asked(call):
            prepared = await _backend(call).prepare(request)
            call.notes.extend(await fit(_backend(call), prepared, call.window))
        del request  # a long stream need not keep it
        await self._ask_turn(call, prepared, sink)

    def _ask_turn(self, call: Call, prepared: Prepared, sink: Sink) -> Awaitable[None]:
        backend = _backend(call)
        return self._ask(backend, prepared.request.model, partial(backend.stream, prepared, sink), sink)

    async def forward(self, call: Call) -> None:
        """As `answer`, for a body that is passed through."""
        answer, asked = call.answer, call.prepared
        assert isinstance(answer, ForwardedAnswer)
        assert isinstance(asked, Forwarded)
        group = self._gate.groups[_backend(call).name]
        await self._ask(group, asked.request.model, partial(group.forward, asked, answer), answer)

    async def _ask(
        self, backend: Backend, model: str, work: Callable[[], Awaitable[None]], answer: AnswerRecord | Sink
    ) -> None:
        """A backend that fell asleep before it was asked is woken once, if that is allowed."""
        try:
            await work()
        except GatewayError as error:
            if error.kind is not Kind.ASLEEP or answer.touched or not self._gate.wakes(backend):
                raise
            await self._gate.admit(backend, model)
            await work()


def _to_be_told(call: Call, failed: GatewayError | None, error: GatewayError) -> GatewayError:
    """What the client reads where no backend serves its call: why the model's own did not, else the first failure."""
    return error if failed is None or call.fallback is None else failed


def may_fall_back(error: GatewayError) -> bool:
    """Whether it says something about the server and not about the request."""
    return error.kind in UNSERVED and (error.certain or error.kind is not Kind.BACKEND_FAILED)


@contextlib.asynccontextmanager
async def _sizing(call: Call, answer: Answer) -> AsyncIterator[None]:
    """The prompt's size, for protocols that send it first and do not know it: counted while the answer is made, which
    never waits for it."""
    answer.on_begun = nothing
    task = asyncio.create_task(_size(call, answer), name="count")
    try:
        yield
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))


async def _size(call: Call, answer: Answer) -> None:
    """What was asked is kept until it is counted."""
    backend = _backend(call)
    try:
        tokens = await backend.count(_prepared(call))
    except GatewayError:
        return  # the answer itself reports what is wrong with the backend
    except Exception:
        log.exception("a prompt could not be counted on %s", backend.name)
        return
    finally:
        if answer.touched:
            call.let_go()
        else:
            answer.on_begun = call.let_go
    if tokens is not None:
        answer.prompt_size(tokens)


async def _others_turn(call: Call) -> None:
    """Between two phases of a long conversation, each of which may take a tenth of a second."""
    if len(_asked(call).messages) > LONG:
        await asyncio.sleep(0)


def _holds_documents(request: Request) -> bool:
    parts = (part for message in request.messages for part in message.parts)
    return any(
        type(part) is Document or (type(part) is ToolResult and any(type(item) is Document for item in part.content))
        for part in parts
    )


def _asked(call: Call) -> Request:
    assert call.request is not None, "the call was not parsed"
    return call.request


def _backend(call: Call) -> Backend:
    assert call.backend is not None, "the call was not routed"
    return call.backend


def _prepared(call: Call) -> Prepared:
    assert call.prepared is not None, "the call was not prepared"
    return call.prepared
