"""A Triton Inference Server with TensorRT-LLM as a backend.

The prompt is rendered and tokenized here, the answer decoded and parsed here, so that every client protocol has tools,
reasoning and true usage whatever profile the server runs. Limits: connecting, the first response, and between
responses, without which a BLS model whose engine failed would wait for ever. However an answer ends early, the request
is aborted on the wire and, where the model listens to it, stopped by its id before `stream` returns; a BLS model
cannot be stopped by anything (its traits say so). Nothing is tried again but, once and before the first event, a
token limit that leaves no room.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from dragoman.backends.base import Health, ModelInfo, Prepared, Sink, Traits
from dragoman.backends.enforce import enforce
from dragoman.backends.markup import FAMILIES
from dragoman.backends.markup.grammar import ebnf
from dragoman.backends.max_tokens import MIN_ROOM, room_left
from dragoman.backends.prompts.messages import has_unseen_images
from dragoman.backends.prompts.rendering import Rendering
from dragoman.backends.reader import Timeouts
from dragoman.backends.schema_checks import SchemaChecks
from dragoman.backends.triton.address import Address
from dragoman.backends.triton.answer import AnswerDecoder
from dragoman.backends.triton.client import InferRequest
from dragoman.backends.triton.load_metrics import LoadMetrics
from dragoman.backends.triton.model_files import Loader, ModelFiles
from dragoman.backends.triton.prepared import PreparedPrompt
from dragoman.backends.triton.profiles import Profile, PromptRequest, discover, encode, stop_inputs, wanted_outputs
from dragoman.backends.triton.reader import ResponseReader
from dragoman.backends.triton.transport import Client
from dragoman.backends.watch import Watch
from dragoman.translators.constraints import forced
from dragoman.translators.constraints.guided import is_forced, without_idle_format
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Guided, Note, Request
from dragoman.translators.parts import ANSWER_BYTES, Parts

if TYPE_CHECKING:
    from dragoman.backends.prompts.prompt import Rendered

log = logging.getLogger(__name__)

UNREAD = "nothing in the template tells how the model writes calls, so that they come back as text: set `markup`"
DEFAULT_MAX_TOKENS = 4096
STOP_SECONDS = 2.0
# After these the server may have been started anew with another configuration, which is then read again.
_CHANGED = frozenset({Kind.MODEL_NOT_FOUND, Kind.ASLEEP, Kind.BACKEND_DOWN, Kind.BACKEND_FAILED})
STOP_ONCE = (0.0,)
# Before the first response the request may still be on its way to the engine, which then knows no such id yet.
STOP_AGAIN = (0.0, 0.1, 0.3)

_calls = itertools.count(1)


class Triton:
    def __init__(
        self,
        address: Address,
        client: Client,
        load: Loader,
        *,
        settings: Rendering,
        timeouts: Timeouts | None = None,
        answer_bytes: int = ANSWER_BYTES,
        name: str | None = None,
    ) -> None:
        self._address = address
        self._client = client
        self._load_files = load
        self._settings = settings
        self._timeouts = timeouts or Timeouts()
        self._answer_bytes = answer_bytes
        self._name = name or f"{address.host}/{address.model}"
        self._load_metrics = LoadMetrics(address.metrics)
        self._files: ModelFiles | None = None
        self._profile: Profile | None = None
        self._learning = asyncio.Lock()
        self._schemas = SchemaChecks()
        self.learned: Callable[[str], None] = lambda field: None

    @property
    def name(self) -> str:
        return self._name

    async def start(self) -> None:
        """Reads the model's files; a server that is not there yet is no failure."""
        await self._client.start()
        await self._known_files()
        try:
            await self._known()
        except GatewayError as error:
            log.warning("%s: the profile is not known yet: %s", self._name, error.message)

    async def close(self) -> None:
        await self._schemas.close()
        await self._client.close()
        await self._load_metrics.close()

    async def _known_files(self) -> ModelFiles:
        async with self._learning:
            if self._files is None:
                self._files = await asyncio.to_thread(self._load_files)
                if self._files.unread:
                    log.warning("%s: %s", self._name, UNREAD)
            return self._files

    async def _known(self) -> Profile:
        if (profile := self._profile) is not None:
            return profile
        async with self._learning:
            if self._profile is None:
                self._profile = await discover(self._client, self._address.model, via_text=self._address.via_text)
                log.info("%s: served as %s", self._name, self._profile.form)
            return self._profile

    @property
    def traits(self) -> Traits:
        kind = (Triton, self._address.tokenizer, self._address.markup, self._settings)
        return Traits(kind, wakes=True, unstoppable=self._unstoppable(), load=self._load_metrics.load)

    def _unstoppable(self) -> str:
        profile = self._profile
        if profile is None or (profile.stoppable and profile.decoupled):
            return ""
        if profile.form == "tensorrt_llm_bls":
            return "nothing stops a BLS model: serve the ensemble instead"
        if not profile.decoupled:
            return "a model that is not decoupled may run to its end: set decoupled"
        return "no step of this ensemble can be told to stop: update it, or serve its tensorrt_llm step"

    # ----------------------------------------------------------------------------------------------------- the request

    async def prepare(self, request: Request) -> PreparedPrompt:
        """Before the server has been reached, what its profile lacks is not known, and the worst is assumed."""
        files, profile = await self._known_files(), self._profile
        request, notes = without_idle_format(request)
        plan = self._plan(request)
        if plan is not None:
            await self._schemas.check(plan)
        asked = request if plan is None else plan.request
        notes += () if plan is None else plan.notes
        prompt = await self._prompt(files, asked)
        notes += tuple(self._notes(files, asked))
        return PreparedPrompt(request, notes, prompt.count, asked=asked, plan=plan, prompt=prompt, profile=profile)

    def _notes(self, files: ModelFiles, asked: Request) -> Iterator[Note]:
        if self._profile is not None:
            yield from encode(self._profile, PromptRequest("", (), 1, asked.sampling, logprobs=asked.logprobs))[1]
        if asked.thinking.budget is not None:
            yield Note("field", "thinking_budget")
        if asked.thinking.effort is not None and not files.thinks:
            yield Note("field", "reasoning_effort")
        if has_unseen_images(asked.messages, self._settings):
            yield Note("item", "image")
        if asked.tools and files.unread:
            yield Note("tool", "markup:unknown")
        yield from files.prompts.notes(asked)

    async def _prompt(self, files: ModelFiles, asked: Request) -> Rendered:
        guided = asked.format is not None and self._profile is not None and self._profile.guided
        return await files.prompt(asked, guided=guided)

    def _plan(self, request: Request) -> forced.Plan | None:
        if (grammar := self._grammar(request)) is not None:
            return forced.in_markup(request, grammar)
        guided = self._profile is not None and self._profile.guided
        # a constraint holds from the first token on and would forbid the calls that may come as well
        free = guided and not (request.tools and request.tool_choice == "auto")
        return forced.plan(
            request,
            force_tool="schema" if guided else "prompt",
            json_schema="enforced" if free else "prompt",
            guided=free or self._profile is None,
            shows_tools=self._files is None or self._files.shows_tools,
        )

    def _grammar(self, request: Request) -> Guided | None:
        """What holds a forced call to the model's own markup, where the engine reads grammars."""
        files, profile = self._files, self._profile
        if files is None or profile is None or not (profile.grammars and files.shows_tools and is_forced(request)):
            return None
        tools = forced.allowed_tools(request)
        rule = ebnf(FAMILIES[files.family], tools, several=request.parallel_tool_calls)
        return None if rule is None else Guided("grammar", rule)

    async def stream(self, prepared: Prepared, sink: Sink) -> None:
        assert isinstance(prepared, PreparedPrompt)
        profile = await self._known()
        unknown = prepared.profile is None and isinstance(prepared.asked.format, Guided)
        if unknown or profile.guided is not (prepared.profile is not None and prepared.profile.guided):
            # it was prepared for a server that had not been reached, or for another one
            prepared = await self.prepare(prepared.request)
        generate = partial(self._generate, prepared)
        await enforce(prepared.plan, prepared.request, generate, sink, self._schemas.faults)

    async def _generate(self, prepared: PreparedPrompt, request: Request, sink: Sink) -> None:
        """One attempt: with what was prepared, or with the second request of a plan."""
        profile, files = await self._known(), await self._known_files()
        prompt = prepared.prompt if request is prepared.asked else await self._prompt(files, request)
        limit = self._limit(request, prompt.count, profile, sink)
        try:
            await self._run(request, prompt, limit, sink)
        except GatewayError as error:
            room = self._room(error, prompt.count, limit)
            if room is None or sink.touched:
                raise self._measured(error, prompt.count) from None
            sink.note(Note("repair", "max_tokens"))
            await self._run(request, prompt, room, sink)

    def _limit(self, request: Request, tokens: int, profile: Profile, sink: Sink) -> int:
        """The answer's token limit: always sent, because an ensemble without one answers with nothing at all."""
        window = self._address.window or profile.window
        asked = request.max_tokens
        if window is None:
            return asked if asked is not None else DEFAULT_MAX_TOKENS
        room = window - tokens
        if room < min(MIN_ROOM if asked is None else asked, MIN_ROOM):
            message = f"The prompt ({tokens} tokens) and an answer do not fit the model's context window of {window}."
            code = "context_length_exceeded"
            raise GatewayError(Kind.OVERFLOW, message, code=code, source="backend", tokens=tokens, limit=window)
        if asked is not None and asked > room:
            sink.note(Note("repair", "max_tokens"))
        return room if asked is None else min(asked, room)

    def _room(self, error: GatewayError, tokens: int, asked: int) -> int | None:
        return room_left(error.limit, tokens, asked) if error.kind is Kind.OVERFLOW else None

    def _measured(self, error: GatewayError, tokens: int) -> GatewayError:
        if error.kind is Kind.OVERFLOW and error.tokens is None:
            error.tokens = tokens
        if error.kind in _CHANGED and (error.certain or error.kind is Kind.BACKEND_FAILED):
            self._profile = None  # the model may come back as another one, or is another one already
        return error

    # ------------------------------------------------------------------------------------------------------ the answer

    async def _run(self, request: Request, prompt: Rendered, limit: int, sink: Sink) -> None:
        profile, files = await self._known(), await self._known_files()
        text = prompt.text
        if not profile.by_ids and profile.adds_bos:
            text = files.without_second_bos(text)
        ends = list(files.tokenizer.eos_ids)
        ask = PromptRequest(text, prompt.ids, limit, request.sampling, ends, request.format, request.logprobs)
        inputs, _ = encode(profile, ask)
        call = InferRequest(
            profile.asked, f"{request.id}.{next(_calls)}", inputs, profile.decoupled, outputs=wanted_outputs(profile)
        )
        decoder = AnswerDecoder(
            profile, ask, Parts.of(request, self._answer_bytes), files.answer_format(request, prompt)
        )
        reader = ResponseReader(decoder, sink, self._timeouts, asyncio.get_running_loop().time)
        try:
            await self._drive(reader, call)
        finally:
            if not reader.server_ended:
                await self._stop(profile, call, begun=decoder.begun)
        reader.check()

    async def _drive(self, reader: ResponseReader, call: InferRequest) -> None:
        try:
            async with Watch(reader) as watch:
                await self._client.answer(call, reader, watch)
        except TimeoutError:
            if not reader.over:
                reader.late()
        except GatewayError as error:
            reader.lost(error)
        finally:
            reader.close()

    async def _stop(self, profile: Profile, call: InferRequest, *, begun: bool) -> None:
        """Stops the request in the engine by its id. A model that does not stream would read it too late."""
        if profile.stopper is not None and profile.decoupled:
            stop = InferRequest(profile.stopper, call.id, stop_inputs(profile.stopper), quiet=True)
            await _to_its_end(self._send_stop(stop, STOP_ONCE if begun else STOP_AGAIN))

    async def _send_stop(self, stop: InferRequest, pauses: Sequence[float]) -> None:
        try:
            async with asyncio.timeout(STOP_SECONDS):
                for pause in pauses:
                    await asyncio.sleep(pause)
                    # the reply is an error by design, or nothing
                    with contextlib.suppress(GatewayError):
                        await self._client.tell(stop)
        except TimeoutError:
            log.warning("%s: a stop request was not answered", self._name)

    # ------------------------------------------------------------------------------------------------------ the server

    async def health(self) -> Health:
        models = (self._address.model,) if self._profile is None else self._profile.models
        try:
            for model in models:
                if not await self._client.ready(model):
                    self._profile = None
                    return await self._why_not(model)
            profile = await self._known()
        except GatewayError as error:
            if error.kind in _CHANGED:
                self._profile = None
            if error.kind is Kind.MODEL_NOT_FOUND:
                return Health("down", f"the server has no model {self._address.model}")
            return Health.of(error)
        await self._load_metrics.measure((profile.asked.name,))
        return Health("ready")

    async def _why_not(self, model: str) -> Health:
        state = next((found for found in await self._client.index() if found.name == model), None)
        if state is None:
            return Health("down", f"the server has no model {model}")
        if state.state == "UNAVAILABLE" and state.reason not in ("", "unloaded"):
            return Health("down", f"the model {model} could not be loaded")
        return Health("asleep", f"the model {model} is {(state.state or 'not loaded').lower()}", 5.0)

    async def wake(self) -> None:
        """Loads what is not loaded, where the server allows it (`--model-control-mode=explicit`)."""
        self._profile = None
        model = self._address.model
        try:
            await self._client.load(model)
            for step in (await self._known()).models:
                if not await self._client.ready(step):
                    await self._client.load(step)
        except GatewayError as error:
            log.warning("%s: cannot be loaded: %s", self.name, error.message)
            raise GatewayError(
                Kind.ASLEEP, "The model is not loaded and cannot be.", retry_after=5.0, source="backend"
            ) from None

    async def models(self) -> list[ModelInfo]:
        profile = await self._known()
        return [ModelInfo(self._address.model, window=self._address.window or profile.window)]

    async def count(self, prepared: Prepared) -> int | None:
        return prepared.tokens


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Bounded work that a cancellation may not cut short; the cancellation is raised after it."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        task.result()
        return
    if not task.cancelled() and (failure := task.exception()) is not None:
        log.error("work that a cancellation waited for has failed", exc_info=failure)
    raise cancelled
