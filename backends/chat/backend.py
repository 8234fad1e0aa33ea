"""Any server that speaks chat completions over HTTP.

One read of the upstream is one `decoder.feed` and one `sink.feed`, in the same turn of the event loop. Three limits
are separate: connecting, the first event (which the server's head does not end: trtllm-serve sends that before the
first token), and between reads; after the finish reason two seconds are left for usage. Nothing is retried once an
event was fed; before that, at most once each: a pooled connection that died without a byte, each parameter that the
server refuses by name, and a token limit that leaves no room. Whatever ends the work early, a receiver that has
enough, a time limit or cancellation, aborts the connection before `stream` returns, which is what frees the server's
GPU.

The client's key never goes upstream. Redirects, cookies and proxies from the environment are not followed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from dragoman.backends.base import Health, ModelInfo, Prepared, Sink, Traits, Unanswered
from dragoman.backends.chat.answer import AnswerReader
from dragoman.backends.chat.decoder import ChatDecoder
from dragoman.backends.chat.driver import drive, settle
from dragoman.backends.chat.encode import CONSTRAINTS, CONTINUATION, Json, final, sent_fields, sent_tools
from dragoman.backends.chat.errors import classify
from dragoman.backends.chat.prepared import PreparedChat, prepared
from dragoman.backends.chat.probe import Probe
from dragoman.backends.chat.refused_fields import TTL, RefusedFields, by_fields, by_words
from dragoman.backends.chat.settings import Settings
from dragoman.backends.enforce import enforce
from dragoman.backends.json_body import JsonBody, read_bounded
from dragoman.backends.max_tokens import room_left
from dragoman.backends.model_folder import PromptCounter
from dragoman.backends.reader import Timeouts
from dragoman.backends.refusal import MAX_BODY, Refusal, for_log, read
from dragoman.backends.trace_headers import OUTGOING
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Note, Request

log = logging.getLogger(__name__)

READ_BUFFER = 256 * 1024  # bytes; at the default of 64 kB a burst pauses and resumes the transport with every read
# Never dropped because a server names them in a refusal: without them it would be another request.
ESSENTIAL = frozenset({"tools", "tool_choice", "max_tokens", "max_completion_tokens"}) | CONSTRAINTS


class _Stale(Exception):
    """A pooled connection had died; nothing was received on it."""


class ChatCompletions:
    """`url` is the base that ends in `/v1`. `model`, where given, is the name sent upstream for every request."""

    def __init__(
        self,
        url: str,
        *,
        settings: Settings | None = None,
        model: str | None = None,
        api_key: str | None = None,
        timeouts: Timeouts | None = None,
        name: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._base = url.rstrip("/")
        folder = settings.tokenizer if settings is not None else None
        self._counter = PromptCounter(Path(folder), settings or Settings()) if folder else None
        self._settings = settings or Settings()
        self._model = model
        self._timeouts = timeouts or Timeouts()
        self._tls: ssl.SSLContext | bool = tls or True
        self._name = name or urlsplit(url).netloc.rpartition("@")[2]
        self._headers = {"Accept-Encoding": "identity", "User-Agent": "dragoman"}
        if api_key and api_key.strip():
            self._headers["Authorization"] = f"Bearer {api_key.strip()}"
        self._pooled: aiohttp.ClientSession | None = None
        self._fresh: aiohttp.ClientSession | None = None
        self._probe: Probe | None = None
        self._refused = RefusedFields()
        self._traits = Traits((ChatCompletions, self._settings), wakes=self._settings.wake_call is not None)
        self.learned: Callable[[str], None] = lambda field: None

    @property
    def name(self) -> str:
        return self._name

    @property
    def traits(self) -> Traits:
        return self._traits

    async def start(self) -> None:
        if self._pooled is None:
            self._pooled, self._fresh = self._session(fresh=False), self._session(fresh=True)
            self._probe = Probe(self._pooled, self._base, self._settings, self._name)

    async def close(self) -> None:
        for session in (self._pooled, self._fresh):
            if session is not None:
                await session.close()
        self._pooled = self._fresh = self._probe = None

    def _session(self, *, fresh: bool) -> aiohttp.ClientSession:
        # No limit on connections: admission limits the requests, and could not see a queue in here.
        connector = (
            aiohttp.TCPConnector(limit=0, force_close=True, ssl=self._tls)
            if fresh
            else aiohttp.TCPConnector(limit=0, keepalive_timeout=15.0, ssl=self._tls)
        )
        return aiohttp.ClientSession(
            connector=connector,
            headers=self._headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, connect=self._timeouts.connect),
            trace_configs=[_reuse_trace()],
            read_bufsize=READ_BUFFER,
        )

    # ----------------------------------------------------------------------------------------------------- the request

    async def prepare(self, request: Request) -> Prepared:
        return prepared(request, self._settings, self._refused_by(request))

    async def stream(self, prepared: Prepared, sink: Sink) -> None:
        assert isinstance(prepared, PreparedChat)
        await self._refuse_when_asleep()
        await enforce(prepared.plan, prepared.request, partial(self._generate, prepared), sink)

    async def _generate(self, prepared: PreparedChat, request: Request, sink: Sink) -> None:
        """One attempt: with what was prepared, or with the second request of a plan, and without what the server has
        refused since then."""
        attempt, refused = prepared, self._refused_by(request)
        if request is not prepared.asked or not refused <= prepared.refused:
            attempt = prepared.rewritten(self._settings, asked=request, refused=refused)
        decoder = ChatDecoder(
            request,
            self._classify,
            markup=self._settings.markup,
            markup_prompt=self._settings.markup_prompt,
            trusts_done=self._settings.trust_done,
        )
        reader = AnswerReader(decoder, sink, self._timeouts, asyncio.get_running_loop().time)
        await drive(reader, self._opened(attempt, sink))

    def _classify(self, status: int, body: Any) -> GatewayError:
        refusal = read(body)
        log.warning("%s: error in the stream: %s", self._name, for_log(f"{refusal.code} {refusal.words}"))
        return classify(status, refusal, self._settings)

    # ------------------------------------------------------------------------------------------------------ connection

    @contextlib.asynccontextmanager
    async def _opened(self, attempt: PreparedChat, sink: Sink) -> AsyncIterator[aiohttp.ClientResponse]:
        """The response whose body is the answer; what is not read to its end is aborted."""
        response = await self._ask(attempt, sink)
        try:
            yield response
        finally:
            await settle(response)

    async def _ask(self, attempt: PreparedChat, sink: Sink) -> aiohttp.ClientResponse:
        fresh = self._settings.fresh_connection
        clamped = False
        while True:
            asked = attempt.asked
            try:
                response = await self._post(final(attempt.body, self._settings, self._model), fresh, asked.affinity)
            except _Stale:
                fresh = True
                continue
            if 200 <= response.status < 300:
                return response
            said = await _read_refusal(response)
            log.warning("%s: status %d: %s", self._name, response.status, for_log(said))
            if response.status in (401, 403):
                log.error("%s: the server refuses the gateway's key: check the backend's api key", self._name)
            refusal = read(said)
            if found := self._refused_now(attempt, response.status, refusal):
                attempt = attempt.rewritten(self._settings, refused=found)
                for name in sorted(found):
                    sink.note(Note("field", name))
                continue
            if asked.thinking.effort is not None and refusal.mentions("reasoning_effort"):
                # the value is refused: trtllm-serve 1.x knows three, and which ones changes with the version
                silent = replace(asked, thinking=replace(asked.thinking, effort=None))
                attempt = attempt.rewritten(self._settings, asked=silent)
                sink.note(Note("field", "reasoning_effort"))
                continue
            error = classify(response.status, refusal, self._settings, response.headers)
            smaller = None if clamped else self._with_room_left(asked, error)
            if smaller is None:
                raise error
            attempt, clamped = attempt.rewritten(self._settings, asked=smaller), True
            sink.note(Note("repair", "max_tokens"))

    async def _post(self, body: bytes, fresh: bool, affinity: str | None) -> aiohttp.ClientResponse:
        await self.start()
        session = self._fresh if fresh else self._pooled
        assert session is not None
        headers = dict(OUTGOING.get())
        if (routing := self._settings.affinity_header) and affinity:
            headers[routing] = header_text(affinity)
        connection = {"reused": False}
        try:
            return await session.post(
                f"{self._base}/chat/completions",
                data=JsonBody(body),
                headers=headers,
                allow_redirects=False,
                trace_request_ctx=connection,
            )
        except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError) as error:
            log.warning("%s: cannot connect: %s", self._name, error)
            raise GatewayError(
                Kind.BACKEND_DOWN, "The model server cannot be reached.", retry_after=1.0, source="backend"
            ) from None
        except (aiohttp.ClientError, ConnectionError) as error:
            if connection["reused"] and not fresh and self._settings.retry_stale:
                raise _Stale from None
            log.warning("%s: no answer: %r", self._name, error)
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

    def _with_room_left(self, request: Request, error: GatewayError) -> Request | None:
        if not self._settings.clamp_max_tokens:
            return None
        room = room_left(error.limit, error.tokens, request.max_tokens)
        return None if room is None else replace(request, max_tokens=room)

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


def _reuse_trace() -> aiohttp.TraceConfig:
    """Marks a request that went out on a pooled connection."""

    async def reused(
        _session: aiohttp.ClientSession, context: Any, _params: aiohttp.TraceConnectionReuseconnParams
    ) -> None:
        if context.trace_request_ctx is not None:
            context.trace_request_ctx["reused"] = True

    trace = aiohttp.TraceConfig()
    trace.on_connection_reuseconn.append(reused)
    return trace


async def _read_refusal(response: aiohttp.ClientResponse) -> bytes:
    try:
        return await read_bounded(response, MAX_BODY)
    except (aiohttp.ClientError, ConnectionError):
        return b""
    finally:
        await settle(response)
