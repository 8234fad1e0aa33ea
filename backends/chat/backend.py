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
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson

from dragoman.backends.base import Health, ModelInfo, Sink, Unanswered
from dragoman.backends.chat.decoder import ChatDecoder
from dragoman.backends.chat.encode import encode, optional_fields, sent_fields, sent_tools
from dragoman.backends.chat.errors import classify
from dragoman.backends.chat.probe import Probe
from dragoman.backends.chat.refused_fields import TTL, RefusedFields, by_fields, by_words
from dragoman.backends.chat.settings import Settings
from dragoman.backends.deadline import Deadline, Timeouts
from dragoman.backends.enforce import enforce, planned
from dragoman.backends.json_body import JsonBody, abort, read_bounded
from dragoman.backends.max_tokens import room_left
from dragoman.backends.model_folder import PromptCounter
from dragoman.backends.prompts.messages import render
from dragoman.backends.refusal import MAX_BODY, Refusal, for_log, read
from dragoman.backends.trace_headers import OUTGOING
from dragoman.translators.constraints import forced
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Event, Finished, Note, Request

log = logging.getLogger(__name__)

MAX_WHOLE = 64 * 1024 * 1024  # bytes of an answer from a server that ignored `stream`
READ_BUFFER = 256 * 1024  # bytes; at the default of 64 kB a burst pauses and resumes the transport with every read
END_OF_BODY = 0.05  # seconds
# Never dropped because a server names them in a refusal: without them it would be another request.
ESSENTIAL = frozenset({"tools", "tool_choice", "response_format", "max_tokens", "max_completion_tokens"})


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
        self.learned: Callable[[str], None] = lambda field: None

    @property
    def name(self) -> str:
        return self._name

    @property
    def settings(self) -> Settings:
        return self._settings

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

    def prepare(self, request: Request) -> tuple[Note, ...]:
        plan = self._plan(request)
        asked = planned(plan, request)
        if not self._settings.images:
            render(asked.messages, self._settings)  # raises where an image cannot be left out
        _, notes = optional_fields(asked, self._settings, self._refused_by(asked))
        return notes + (() if plan is None else plan.notes)

    def _plan(self, request: Request) -> forced.Plan | None:
        settings = self._settings
        return forced.plan(
            request,
            force_tool=settings.force_tool,
            json_schema=settings.json_schema,
            shows_tools=settings.tools == "native",
        )

    async def stream(self, request: Request, sink: Sink) -> None:
        await self._refuse_when_asleep()
        await enforce(self._plan(request), request, self._generate, sink)

    async def _generate(self, request: Request, sink: Sink) -> None:
        answer = _AnswerReader(request, self._classify, sink, self._timeouts, self._settings)
        try:
            async with Deadline(self._timeouts.first) as deadline, self._opened(request, sink) as response:
                await answer.read(response, deadline)
        except TimeoutError:
            answer.timed_out()
        finally:
            for note in answer.decoder.notes:
                sink.note(note)

    def _classify(self, status: int, body: Any) -> GatewayError:
        refusal = read(body)
        log.warning("%s: error in the stream: %s", self._name, for_log(f"{refusal.code} {refusal.words}"))
        return classify(status, refusal, self._settings)

    # ------------------------------------------------------------------------------------------------------ connection

    @contextlib.asynccontextmanager
    async def _opened(self, request: Request, sink: Sink) -> AsyncIterator[aiohttp.ClientResponse]:
        """The response whose body is the answer; what is not read to its end is aborted."""
        response = await self._ask(request, sink)
        try:
            yield response
        finally:
            await _settle(response)

    async def _ask(self, request: Request, sink: Sink) -> aiohttp.ClientResponse:
        fresh = self._settings.fresh_connection
        refused = self._refused_by(request)
        clamped = False
        while True:
            body, _ = encode(request, self._settings, model=self._model, refused=refused)
            try:
                response = await self._post(body, fresh, request.affinity)
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
            if found := self._refused_now(request, response.status, refusal, refused):
                refused |= found
                for name in sorted(found):
                    sink.note(Note("field", name))
                continue
            if request.thinking.effort is not None and refusal.mentions("reasoning_effort"):
                # the value is refused: trtllm-serve 1.x knows three, and which ones changes with the version
                request = replace(request, thinking=replace(request.thinking, effort=None))
                sink.note(Note("field", "reasoning_effort"))
                continue
            error = classify(response.status, refusal, self._settings, response.headers)
            smaller = None if clamped else self._with_room_left(request, error)
            if smaller is None:
                raise error
            request, clamped = smaller, True
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

    def _refused_now(self, request: Request, status: int, refusal: Refusal, refused: frozenset[str]) -> frozenset[str]:
        """The fields without which another attempt makes sense, as this refusal names them. What its fields say is
        learned for the model; what only its words say is not, since they may be a client's."""
        if not self._settings.retry_stale or status not in (400, 422):
            return frozenset()
        sent = sent_fields(request, self._settings, refused) - ESSENTIAL - set(self._settings.extra_body)
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

    async def count_tokens(self, request: Request) -> int | None:
        await self._refuse_when_asleep()
        asked = planned(self._plan(request), request)
        if self._counter is not None:
            return await self._counter.count(replace(asked, tools=sent_tools(asked, self._settings)))
        fields, _ = optional_fields(asked, self._settings, self._refused_by(asked))
        body: dict[str, Any] = {
            "model": self._model or asked.model,
            "messages": render(asked.messages, self._settings),
        }
        if sent_tools(asked, self._settings):
            body["tools"] = fields["tools"]
        kwargs = {**fields.get("chat_template_kwargs", {}), **self._settings.extra_body.get("chat_template_kwargs", {})}
        if kwargs:
            body["chat_template_kwargs"] = kwargs
        return await (await self._probing()).count(body)


class _AnswerReader:
    """Reads one answer into a sink."""

    def __init__(
        self,
        request: Request,
        classify_: Callable[[int, Any], GatewayError],
        sink: Sink,
        timeouts: Timeouts,
        settings: Settings,
    ) -> None:
        self.decoder = ChatDecoder(request, classify_, markup=settings.markup, markup_prompt=settings.markup_prompt)
        self._sink = sink
        self._timeouts = timeouts

    async def read(self, response: aiohttp.ClientResponse, deadline: Deadline) -> None:
        try:
            if response.content_type == "application/json":
                await self._read_whole(response)
            else:
                await self._read_stream(response, deadline)
        except GatewayError:
            self._abort()
            raise
        except (aiohttp.ClientError, ConnectionError):
            self._broken_off()

    async def _read_stream(self, response: aiohttp.ClientResponse, deadline: Deadline) -> None:
        decoder, sink, limit, content = self.decoder, self._sink, self._timeouts.between, response.content
        read = begun = closing = False
        while data := await content.readany():
            if not read and data.lstrip().startswith(b"{"):  # no event: JSON with the wrong content type
                await self._read_whole(response, data)
                return
            read = True
            events = decoder.feed(data)
            if events:
                begun = True
                if not sink.feed(events):
                    self._enough(events)
                    return
                if sink.full:
                    deadline.pause()
                    await sink.drained()
                    deadline.move(limit)
            if decoder.done:
                await _to_the_end(content)
                return
            if decoder.stopping:
                if not closing:
                    closing = True
                    deadline.move(self._timeouts.usage)
            elif begun and (events or not data.startswith(b":")):  # comments are no progress
                deadline.move(limit)
        self._finish()

    async def _read_whole(self, response: aiohttp.ClientResponse, begun: bytes = b"") -> None:
        """A server that ignored `stream`, or that calls its stream JSON; `begun` was read already."""
        body = begun + await read_bounded(response, MAX_WHOLE)
        if len(body) >= MAX_WHOLE:
            raise GatewayError(Kind.BACKEND_FAILED, "The model server's answer is too large.", source="backend")
        try:
            answer = orjson.loads(body) if body.lstrip().startswith(b"{") else None
        except orjson.JSONDecodeError:
            answer = None
        events = self.decoder.feed(body) if answer is None else self.decoder.feed_whole(answer)
        if not self._sink.feed(events):
            self._enough(events)
        elif answer is None:
            self._finish()

    def _finish(self) -> None:
        events = self.decoder.finish()
        if events and not self._sink.feed(events):
            self._enough(events)

    def _abort(self) -> None:
        if events := self.decoder.abort():
            self._sink.feed(events)

    def _enough(self, events: list[Event]) -> None:
        if not isinstance(events[-1], Finished):
            self._sink.feed(self.decoder.stop())

    def _broken_off(self) -> None:
        """The connection broke: too late to matter, or in the middle."""
        if self.decoder.stopping:
            self._finish()
            return
        self._abort()
        message = "The model server broke off in the middle of its answer."
        if not self._sink.touched:
            raise Unanswered(message)
        raise GatewayError(Kind.BACKEND_FAILED, message, source="backend")

    def timed_out(self) -> None:
        """Out of time: after the finish reason that is an answer without usage, otherwise a failure."""
        if self.decoder.stopping:
            self._finish()
            return
        self._abort()
        raise GatewayError(Kind.TIMEOUT, "The model server did not answer in time.", source="backend")


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
        await _settle(response)


async def _to_the_end(content: aiohttp.StreamReader) -> None:
    """The end of the body follows [DONE], mostly in the same packet; a connection is pooled only after it."""
    if not content.is_eof():
        with contextlib.suppress(TimeoutError, aiohttp.ClientError, ConnectionError):
            async with asyncio.timeout(END_OF_BODY):
                while await content.readany():
                    pass


async def _settle(response: aiohttp.ClientResponse) -> None:
    """Read to its end: back into the pool. Otherwise the connection is aborted, at once and for good."""
    if response.content.is_eof():
        response.release()
        return
    if abort(response):
        await asyncio.sleep(0)  # the socket is closed in the loop's next turn
