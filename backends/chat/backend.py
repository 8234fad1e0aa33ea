"""Any server that speaks chat completions over HTTP.

One read of the upstream is one `decoder.feed` and one `sink.feed`, in the same turn of the event loop. Three limits
are separate: connecting, the first event (which the server's head does not end: trtllm-serve sends that before the
first token), and between reads; after the finish reason two seconds are left for usage. Nothing is retried once an
event was fed; before that, at most once each: a pooled connection that died without a byte, each parameter that the
server refuses by name, a token limit that leaves no room, and a grammar that the server cannot compile. Where a server
does not say how much too large the limit was, it is halved until it fits. Whatever ends the work early, a receiver that
has enough, a time limit or cancellation, aborts the connection before `stream` returns, which is what frees the
server's GPU.

The client's key never goes upstream. Redirects, cookies and proxies from the environment are not followed.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from dragoman.backends.base import Forwarded, Health, ModelInfo, Piece, Prepared, Receiver, Sink, Traits, Unanswered
from dragoman.backends.chat.aiohttp_transport import AiohttpTransport, connector
from dragoman.backends.chat.answer import AnswerReader
from dragoman.backends.chat.decoder import CALL_IN_TEXT, ChatDecoder
from dragoman.backends.chat.driver import drive
from dragoman.backends.chat.encode import CONSTRAINTS, CONTINUATION, Json, final, sent_fields, sent_tools, token_limit
from dragoman.backends.chat.errors import (
    classify,
    images_taken,
    other_rendering,
    refuses_effort,
    refuses_format,
    refuses_grammar,
    refuses_tool_choice,
)
from dragoman.backends.chat.forward import PieceReader, refused
from dragoman.backends.chat.prepared import PreparedChat, prepared
from dragoman.backends.chat.probe import Probe
from dragoman.backends.chat.proving import MOST_MODELS, ProvenMarkup
from dragoman.backends.chat.refused_fields import TTL, RefusedFields, by_fields, by_words
from dragoman.backends.chat.settings import Settings
from dragoman.backends.connect_limit import ConnectLimit
from dragoman.backends.enforce import enforce
from dragoman.backends.http1.client import Http1Transport
from dragoman.backends.max_tokens import room_left
from dragoman.backends.model_folder import PromptCounter
from dragoman.backends.reader import Timeouts
from dragoman.backends.refusal import MAX_BODY, Refusal, for_log, read
from dragoman.backends.schema_checks import SchemaChecks
from dragoman.backends.trace_headers import OUTGOING
from dragoman.backends.transport import NoAnswer, Reply, Transport, Unreachable
from dragoman.translators.constraints.guided import is_forced
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import JsonObject, JsonSchema, Note, Request
from dragoman.translators.parts import ANSWER_BYTES
from dragoman.translators.unreadable import with_latest_images

log = logging.getLogger(__name__)

UNREAD = "a call stands in the text of an answer, unread by the server: `dragoman doctor` says in whose markup"
REFUSAL_SECONDS = 2.0  # for a refusal's body; its head says already that it is one
STALE_SECONDS = 5.0  # a kept connection that had died says so at once; one that dies later has taken the request

LEFT_OUT = Note("item", "image")
IN_TURNS = Note("repair", "turns")  # asked again in an order of roles that every template takes
# Never dropped because a server names them in a refusal: without them it would be another request.
ESSENTIAL = frozenset({"tools", "tool_choice", "max_tokens", "max_completion_tokens"}) | CONSTRAINTS


TRANSPORTS: dict[str, type[Http1Transport] | type[AiohttpTransport]] = {
    "direct": Http1Transport,
    "aiohttp": AiohttpTransport,
}


class ChatCompletions:
    """`url` is the base that ends in `/v1`. `model`, where given, is the name sent upstream for every request,
    `address` the one of the host's addresses that is connected to."""

    def __init__(
        self,
        url: str,
        *,
        settings: Settings | None = None,
        model: str | None = None,
        api_key: str | None = None,
        timeouts: Timeouts | None = None,
        answer_bytes: int = ANSWER_BYTES,
        name: str | None = None,
        tls: ssl.SSLContext | None = None,
        address: str | None = None,
    ) -> None:
        self._base = url.rstrip("/")
        folder = settings.tokenizer if settings is not None else None
        self._counter = PromptCounter(Path(folder), settings or Settings()) if folder else None
        self._settings = settings or Settings()
        self._model = model
        self._timeouts = timeouts or Timeouts()
        self._answer_bytes = answer_bytes
        self._connect = ConnectLimit(self._timeouts.connect)
        self._tls = tls
        self._address = address
        self._name = name or urlsplit(url).netloc.rpartition("@")[2]
        self._headers = {"Accept-Encoding": "identity", "User-Agent": "dragoman"}
        if api_key and api_key.strip():
            self._headers["Authorization"] = f"Bearer {api_key.strip()}"
        self._transport: Transport | None = None
        self._others: dict[str, Transport] = {}  # to the endpoints that are passed through, by their paths
        self._session: aiohttp.ClientSession | None = None  # for questions to the server around the answers
        self._probe: Probe | None = None
        self._refused = RefusedFields()
        self._schemas = SchemaChecks()
        self._proven = (
            ProvenMarkup(self._name, self._asked_models, self._send) if self._settings.probes_markup else None
        )
        self._traits = Traits(
            (ChatCompletions, self._settings),
            wakes=self._settings.wake_call is not None,
            markup={} if self._proven is None else self._proven.families,
        )
        self._unread: set[str] = set()  # models of which it was said that their calls stand in the text
        self.learned: Callable[[str], None] = lambda field: None

    @property
    def name(self) -> str:
        return self._name

    @property
    def traits(self) -> Traits:
        return self._traits

    async def start(self) -> None:
        if self._transport is None:
            self._transport = self._open("chat/completions")
            self._session = aiohttp.ClientSession(
                connector=connector(self._connect, self._tls or True, self._address, keepalive_timeout=15.0),
                headers=self._headers,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
            )
            self._probe = Probe(self._session, self._base, self._settings, self._name)
            if self._proven is not None:
                await self._proven.begin()

    def _open(self, path: str) -> Transport:
        transport, url = TRANSPORTS[self._settings.http_client], f"{self._base}/{path}"
        return transport(url, self._headers, tls=self._tls, connect=self._connect, address=self._address)

    async def close(self) -> None:
        if self._proven is not None:
            await self._proven.close()
        await self._schemas.close()
        for each in (self._transport, self._session, *self._others.values()):
            if each is not None:
                await each.close()
        self._others.clear()
        self._transport = self._session = self._probe = None

    # ----------------------------------------------------------------------------------------------------- the request

    async def prepare(self, request: Request) -> Prepared:
        refused, family = self._refused_by(request), self._family(request.model)
        it = prepared(request, self._settings, refused, family, seconds=self._timeouts.first)
        if it.plan is not None:
            await self._schemas.check(it.plan)
        return it

    async def stream(self, prepared: Prepared, sink: Sink) -> None:
        assert isinstance(prepared, PreparedChat)
        await self._refuse_when_asleep()
        limited = False
        while True:
            try:
                return await self._enforced(prepared, sink)
            except GatewayError as error:
                room = None if limited or sink.touched else self._room_left(prepared.asked, error)
                looser = None if room or sink.touched else self._looser(prepared, error, sink)
                if room is None and looser is None:
                    raise
                limited = room is not None and not error.at_least
            if room is not None:  # refused within the stream, as SGLang does (sglang#19996)
                prepared.limit(room)
                sink.note(Note("repair", "max_tokens"))
            if looser is not None and looser.plan is not None:
                await self._schemas.check(looser.plan)
            prepared = looser or prepared

    def _enforced(self, prepared: PreparedChat, sink: Sink) -> Awaitable[None]:
        if prepared.plan is None:
            return self._generate(prepared, prepared.asked, sink)
        work = partial(self._generate, prepared)
        return enforce(prepared.plan, prepared.request, work, sink, self._schemas.faults)

    def _looser(self, refused: PreparedChat, error: GatewayError, sink: Sink) -> PreparedChat | None:
        """What to ask instead of a request whose grammar the server refuses, its way to force a call or a JSON format,
        or, within the stream, its images; None where that is not the matter. Servers compile grammars of strict tools
        and of forced calls, and no server knows all of JSON schema (vllm#55152)."""
        request = refused.request
        if error.kind is Kind.UNSUPPORTED and error.content == "image" and error.source == "backend":
            if not self._settings.retry_stale or (messages := with_latest_images(request.messages, 0)) is None:
                return None
            sink.note(LEFT_OUT)
            return prepared(replace(request, messages=messages), self._settings, refused.refused, refused.markup)
        if error.kind is not Kind.INVALID:
            return None
        if refused.tagged:
            log.warning("%s: refuses a structural tag: asked without (setting `structural_tags`)", self._name)
            return prepared(request, self._settings, refused.refused, refused.markup, tags=False)
        if isinstance(request.format, JsonObject | JsonSchema) and refused.plan is None and refuses_format(error):
            log.warning("%s: refuses response_format: asked in words (setting `json_schema: prompt`)", self._name)
            settings = self._settings.model_copy(update={"json_schema": "prompt"})
            sink.note(Note("unenforced", "format"))
            return prepared(request, settings, refused.refused, refused.markup)
        strict = any(tool.strict for tool in request.tools)
        forced = is_forced(request) and not refused.by_prompt
        grammar = (strict or forced) and refuses_grammar(error)
        if not grammar and not (forced and refuses_tool_choice(error)):
            return None
        what = "a grammar" if grammar else "tool_choice"
        log.warning("%s: refuses %s: asked without (settings `strict_tools`, `force_tool`)", self._name, what)
        if grammar and strict:
            request = replace(request, tools=tuple(replace(tool, strict=None) for tool in request.tools))
            sink.note(Note("unenforced", "strict"))
        settings = self._settings.model_copy(update={"force_tool": "prompt"}) if forced else self._settings
        looser = prepared(request, settings, refused.refused, refused.markup, tags=False)
        for note in looser.plan.notes if looser.plan is not None else ():
            sink.note(note)
        return looser

    async def _generate(self, prepared: PreparedChat, request: Request, sink: Sink) -> None:
        """One attempt: with what was prepared, or with the second request of a plan, and without what the server has
        refused since then."""
        attempt, refused = prepared, self._refused_by(request)
        if request is not prepared.asked or not refused <= prepared.refused:
            attempt = prepared.rewritten(self._settings, asked=request, refused=refused)
        decoder = ChatDecoder(
            request,
            self._classify,
            markup=prepared.markup,
            markup_prompt=self._settings.markup_prompt,
            trusts_done=self._settings.trust_done,
            completes_cut_calls=self._settings.completes_cut_calls,
            answer_bytes=self._answer_bytes,
        )
        decoder.limit = token_limit(request, self._settings)
        reader = AnswerReader(decoder, sink, self._timeouts, asyncio.get_running_loop().time)
        asking, model = self._ask(attempt, sink, decoder), self._model or request.model
        del attempt, request  # a long stream need not keep them
        await drive(reader, asking)
        if CALL_IN_TEXT in decoder.notes:
            self._warn_unread(model)

    # ---------------------------------------------------------------------------------------------------------- markup

    def _family(self, model: str) -> str | None:
        """The family by whose markup the model's text is read."""
        if self._proven is None:
            return self._settings.markup
        return self._proven.families.get(self._model or model)

    def _warn_unread(self, model: str) -> None:
        if model not in self._unread and len(self._unread) < MOST_MODELS:
            self._unread.add(model)
            log.warning("%s: %s: %s", self._name, model, UNREAD)

    async def _asked_models(self) -> list[str]:
        return [self._model] if self._model is not None else [model.id for model in await self.models()]

    async def _send(self, request: Request, sink: Sink) -> None:
        await self.stream(await self.prepare(request), sink)

    async def forward(self, asked: Forwarded, sink: Receiver[Piece]) -> None:
        await self._refuse_when_asleep()
        reader = PieceReader(sink, self._timeouts, asyncio.get_running_loop().time)
        await drive(reader, self._forwarded(asked, reader))

    async def _forwarded(self, asked: Forwarded, reader: PieceReader) -> Reply:
        if (transport := self._others.get(asked.path)) is None:
            transport = self._others[asked.path] = self._open(asked.path)
        body, affinity = asked.named(self._model or asked.request.model), asked.request.affinity
        reply = await self._post(body, self._settings.fresh_connection, affinity, transport)
        reply = reply or await self._post(body, True, affinity, transport)
        assert reply is not None, "a new connection cannot have died before"
        if not 200 <= reply.status < 300:
            said = await _read_refusal(reply)
            log.warning("%s: %s: status %d: %s", self._name, asked.path, reply.status, for_log(said))
            raise refused(reply.status, said, self._settings, reply.headers)
        reader.opened(reply.status, reply.headers)
        return reply

    def _classify(self, status: int, body: Any) -> GatewayError:
        refusal = read(body)
        log.warning("%s: error in the stream: %s", self._name, for_log(f"{refusal.code} {refusal.words}"))
        return classify(status, refusal, self._settings)

    # ------------------------------------------------------------------------------------------------------ connection

    async def _ask(self, attempt: PreparedChat, sink: Sink, decoder: ChatDecoder) -> Reply:
        """The reply whose body is the answer."""
        fresh, settings = self._settings.fresh_connection, self._settings
        limit, clamped = attempt.asked.max_tokens, False
        while True:
            asked = attempt.asked
            body = final(attempt.body, self._settings, self._model)
            reply = await self._post(body, fresh, asked.affinity)
            if reply is None:
                fresh = True
                continue
            if 200 <= reply.status < 300:
                return reply
            said = await _read_refusal(reply)
            log.warning("%s: status %d: %s", self._name, reply.status, for_log(said))
            if reply.status in (401, 403):
                log.error("%s: the server refuses the gateway's key: check the backend's api key", self._name)
            refusal = read(said)
            if found := self._refused_now(attempt, reply.status, refusal):
                attempt = attempt.rewritten(settings, refused=found)
                for name in sorted(found):
                    sink.note(Note("field", name))
                continue
            if asked.thinking.effort is not None and refuses_effort(refusal):
                # the value is refused: trtllm-serve 1.x knows three, and which ones changes with the version
                silent = replace(asked, thinking=replace(asked.thinking, effort=None))
                attempt = attempt.rewritten(settings, asked=silent)
                sink.note(Note("field", "reasoning_effort"))
                continue
            if (found_other := self._rendered_otherwise(attempt, settings, reply.status, refusal)) is not None:
                attempt, settings, note = found_other
                sink.note(note)
                continue
            if (fewer := self._with_fewer_images(asked, reply.status, refusal)) is not None:
                attempt = attempt.rewritten(settings, asked=fewer)
                sink.note(LEFT_OUT)
                continue
            error = classify(reply.status, refusal, self._settings, reply.headers)
            room = None if clamped else self._room_left(asked, error)
            if room is None:
                raise error
            attempt, clamped = attempt.rewritten(settings, asked=replace(asked, max_tokens=room)), not error.at_least
            decoder.limit = room
            if asked.max_tokens == limit:
                sink.note(Note("repair", "max_tokens"))

    async def _post(
        self, body: bytes, fresh: bool, affinity: str | None, transport: Transport | None = None
    ) -> Reply | None:
        """None: a connection that was kept had died, so it is worth a try on a new one."""
        await self.start()
        transport = transport or self._transport
        assert transport is not None
        headers = dict(OUTGOING.get())
        if (routing := self._settings.affinity_header) and affinity:
            headers[routing] = header_text(affinity)
        clock = asyncio.get_running_loop().time
        asked = clock()
        try:
            return await transport.post(body, headers, fresh=fresh)
        except Unreachable as error:
            log.warning("%s: cannot connect: %s", self._name, error)
            raise GatewayError(
                Kind.BACKEND_DOWN, "The model server cannot be reached.", retry_after=1.0, source="backend"
            ) from None
        except NoAnswer as error:
            if error.stale and self._settings.retry_stale and clock() - asked < STALE_SECONDS:
                return None
            log.warning("%s: no answer: %s", self._name, error)
            raise Unanswered from None

    def _refused_by(self, request: Request) -> frozenset[str]:
        return self._refused.of(self._model or request.model)

    def _refused_now(self, attempt: PreparedChat, status: int, refusal: Refusal) -> frozenset[str]:
        """The fields without which another attempt makes sense, as this refusal names them. What its fields say is
        learned for the model; what only its words say is not, since they may be a client's."""
        if not self._settings.retry_stale or status not in (400, 422):
            return frozenset()
        request = attempt.asked
        sent = sent_fields(request, self._settings, attempt.refused) - ESSENTIAL - set(self._settings.extra_body)
        if named := by_fields(refusal, sent):
            log.warning("%s: does not accept %s: left out for %d s", self._name, ", ".join(sorted(named)), TTL)
            self._refused.learn(self._model or request.model, named)
            for name in sorted(named):
                self.learned(name)
            return named
        if named := by_words(refusal, sent):
            message = "%s: seems not to accept %s: left out of this request; the setting `parameters` can leave it out"
            log.warning(message, self._name, ", ".join(sorted(named)))
        return named

    def _rendered_otherwise(
        self, attempt: PreparedChat, settings: Settings, status: int, refusal: Refusal
    ) -> tuple[PreparedChat, Settings, Note] | None:
        """The attempt as the strictest servers take it, where this refusal is about its order of roles, the ids of its
        calls, its tools' schemas or its images. Nothing is learned, since the words may be a client's. Raises
        `GatewayError` for an image that the answer is about."""
        changes = other_rendering(status, refusal) if self._settings.retry_stale else {}
        other = settings.model_copy(update=changes)
        if not changes or (rewritten := attempt.rewritten(other)).body == attempt.body:
            return None
        first = next(iter(changes))
        shown = {name: "null" if value is None else str(value).lower() for name, value in changes.items()}
        said = ", ".join(f"`{name}: {value}`" for name, value in shown.items())
        log.warning("%s: refuses how the request is written: asked again; what saves that: %s", self._name, said)
        return rewritten, other, LEFT_OUT if first == "images" else Note("repair", first)

    def _with_fewer_images(self, asked: Request, status: int, refusal: Refusal) -> Request | None:
        """Without older images, where the server takes no more than some or cannot read one: they come back with every
        turn, and so would the refusal."""
        most = images_taken(status, refusal) if self._settings.retry_stale else None
        if most is None or (messages := with_latest_images(asked.messages, most)) is None:
            return None
        log.warning("%s: refuses images: asked again without older ones", self._name)
        return replace(asked, messages=messages)

    def _room_left(self, request: Request, error: GatewayError) -> int | None:
        """The token limit with which the request is worth another try."""
        clamps = self._settings.clamp_max_tokens
        return room_left(error.limit, error.tokens, request.max_tokens, at_least=error.at_least) if clamps else None

    # ------------------------------------------------------------------------------------------------------ the server

    async def _probing(self) -> Probe:
        await self.start()
        assert self._probe is not None
        return self._probe

    async def _refuse_when_asleep(self) -> None:
        if self._settings.sleep_path is not None and await (await self._probing()).asleep():
            raise GatewayError(Kind.ASLEEP, "The model is asleep.", retry_after=5.0, source="backend")

    async def health(self) -> Health:
        return await (await self._probing()).health()

    async def wake(self) -> None:
        await (await self._probing()).wake()

    async def models(self) -> list[ModelInfo]:
        return await (await self._probing()).models()

    async def count(self, prepared: Prepared) -> int | None:
        assert isinstance(prepared, PreparedChat)
        await self._refuse_when_asleep()
        if self._counter is not None:
            asked = prepared.asked
            return await self._counter.count(replace(asked, tools=sent_tools(asked, self._settings)))
        sent = prepared.body
        body: Json = {"model": self._model or sent["model"], "messages": sent["messages"]}
        body |= {name: sent[name] for name in ("tools", *CONTINUATION) if name in sent}
        extra = self._settings.extra_body.get("chat_template_kwargs", {})
        if kwargs := {**sent.get("chat_template_kwargs", {}), **extra}:
            body["chat_template_kwargs"] = kwargs
        return await (await self._probing()).count(body)


def header_text(session: str) -> str:
    """A session's name as a header can carry it: itself, or a digest of what is long or unprintable."""
    plain = session.isascii() and session.isprintable() and session == session.strip() and len(session) <= 128
    return session if plain else hashlib.sha256(session.encode("utf-8", "replace")).hexdigest()


async def _read_refusal(reply: Reply) -> bytes:
    """Where it breaks off, or takes longer than a refusal may, the status says enough."""
    try:
        async with asyncio.timeout(REFUSAL_SECONDS):
            return await reply.read(MAX_BODY)
    except (ConnectionError, TimeoutError):
        return b""
    finally:
        await reply.close()
