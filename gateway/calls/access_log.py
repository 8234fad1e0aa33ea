"""The access log: what is recorded of a call, in metrics, in its trace and in its one line of the log.

Names and figures only, never text: the message of a 4xx may quote the client, so only that of a 5xx is logged. A model
is named once a server has answered for it, since until then its name is only what the client sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from dragoman.backends.trace_headers import OUTGOING
from dragoman.gateway.calls.answer import AnswerRecord, AnswerState
from dragoman.gateway.calls.call import Call
from dragoman.gateway.calls.client_kind import client_kind
from dragoman.gateway.calls.prompt_prefix import Prefixes
from dragoman.gateway.calls.trace_attributes import (
    answer_attributes,
    arrival_attributes,
    request_attributes,
    span_failure,
    span_name,
)
from dragoman.gateway.telemetry.logs import begin_line, begins, log, progress_line, request_line
from dragoman.gateway.telemetry.metrics import Metrics
from dragoman.gateway.telemetry.tracing import Span, Tracing
from dragoman.translators.errors import GatewayError

GONE = 499  # nginx's status for a client that left, in logs and metrics only
PROGRESS_EVERY = 5.0  # seconds between two lines about one prompt
NEWEST = 0.1  # weight of the newest answer in the mean length of a backend's answers


class PromptProgress:
    """Logs how far a server is with a prompt, at most once in `PROGRESS_EVERY` seconds of `clock`."""

    def __init__(self, request_id: str, clock: Callable[[], float]) -> None:
        self._request_id = request_id
        self._clock = clock
        self._logged_at = clock()

    def __call__(self, tokens: int, total: int) -> None:
        now = self._clock()
        if total and now - self._logged_at >= PROGRESS_EVERY:
            self._logged_at = now
            progress_line(
                {
                    "request_id": self._request_id,
                    "tokens_read": tokens,
                    "tokens_in": total,
                    "percent": 100 * tokens // total,
                }
            )


class AccessLog:
    def __init__(self, metrics: Metrics, tracing: Tracing, prompts: Prefixes) -> None:
        self._metrics = metrics
        self._tracing = tracing
        self._lengths: dict[str, float] = {}  # mean seconds of finished answers, by backend
        self._answered: set[tuple[str, str]] = set()
        self._prompts = prompts

    def arrived(self, call: Call) -> None:
        call.kind = client_kind(call.headers)
        if not call.counts:
            call.span = self._tracing.begin(call.headers, arrival_attributes(call))
        self._metrics.child(self._metrics.in_flight, call.route).inc()

    async def asked(self, call: Call, work: Coroutine[Any, Any, None]) -> None:
        """Runs the backend's work, with the trace context in its requests, and records when it was given up."""
        loop = asyncio.get_running_loop()
        call.asked_at = loop.time()
        self._follow(call)
        if not begins.disabled:
            begin_line(_beginning(call))
            if call.answer is not None:
                call.answer.on_prompt_read = PromptProgress(call.request_id, loop.time)
        token = OUTGOING.set(_trace_headers(call))
        try:
            await work
        finally:
            noticed = call.answer.gone_at if call.answer is not None else None
            left = call.ending.at if call.ending is not None else noticed
            if left is not None and not call.finished:
                call.given_up = (left, loop.time())
            with contextlib.suppress(ValueError):  # a collected coroutine is closed in another context
                OUTGOING.reset(token)

    def _follow(self, call: Call) -> None:
        """Compares the prompt with the one before it, once for each call that a model answers."""
        prepared = call.prepared
        if call.prefix is not None or prepared is None or not prepared.request.messages:
            return
        call.prefix = prefix = self._prompts.follow(call.client.owner, prepared.request)
        if prefix is not None:
            self._metrics.prefix(prefix.left_at is None, prefix.lost)

    def left(self, call: Call) -> None:
        """The client disconnected before its answer had ended. Many do so when they have read the terminal event, ahead
        of the end of the body: they have been served, well or with a failure."""
        if call.answer is not None and call.answer.delivered:
            if call.error is None:
                call.succeeded()
            return
        call.outcome, call.status = "disconnected", GONE
        state = call.answer.state if call.answer is not None else AnswerState.HELD
        self._metrics.disconnects.labels(call.route, state.value).inc()
        if call.given_up is None or call.backend is None or call.asked_at is None:
            return
        noticed, ended = call.given_up
        mean = self._lengths.get(call.backend.name)
        short = None if mean is None else mean - (ended - call.asked_at)
        self._metrics.departure(call.backend.name, ended - noticed, short)

    def ended(self, call: Call) -> None:
        now = asyncio.get_running_loop().time()
        metrics, route, answer = self._metrics, call.route, call.answer
        metrics.child(metrics.in_flight, route).dec()
        if answer is not None:
            call.notes.extend(answer.late_notes())
        for note in call.notes:
            metrics.note(note)
            if note.kind == "answer" and call.backend is not None:
                metrics.child(metrics.odd_answers, route, call.backend.name, note.name).inc()
        backend, model = call.backend.name if call.backend is not None else "", self._model(call)
        metrics.request(route, call.kind, call.status or GONE, call.outcome, backend, model)
        metrics.client_request(call.client.name if call.client.named else None, model, call.outcome)
        if not call.counts:
            metrics.child(metrics.duration, route).observe(now - call.accepted)
        if call.read_at is not None and call.ready_at is not None:
            metrics.child(metrics.overhead, route).observe(call.ready_at - call.read_at)
        if answer is not None and answer.touched:
            self._count_answer(call, answer, now)
        elif call.estimated and (call.asked_at is None or call.outcome != "disconnected"):
            # refunded: no answer came. A client that left while a server read its prompt has made it work, and pays
            call.client.settle(call.estimated, 0)
        if call.span is not None:
            _end_span(call.span, call)
        severe = call.error is not None and call.error.kind.status >= 500
        level = logging.WARNING if severe else logging.INFO
        if log.isEnabledFor(level):
            request_line(level, self._facts(call, now))

    def _model(self, call: Call) -> str | None:
        """The model's name, unless it is only what a client has sent; empty before there is any."""
        if call.backend is None:
            return "" if call.request is None else None
        model = call.model or ""
        return model if call.known or (call.backend.name, model) in self._answered else None

    def _count_answer(self, call: Call, answer: AnswerRecord, now: float) -> None:
        if call.backend is None:
            return
        backend, model = call.backend.name, call.model or ""
        if len(self._answered) < 1000:
            self._answered.add((backend, model))
        series = self._metrics.series(call.route, call.kind, backend, model)
        if (begun := call.begun_at) is not None:
            series.first_event.observe(begun - call.accepted)
        series.gaps(answer.gaps, answer.gap_seconds)
        if answer.finished is None:
            return
        series.usage(usage := answer.finished.usage)
        self._metrics.client_usage(call.client.name if call.client.named else None, self._model(call), usage)
        if usage is not None:
            call.client.settle(call.estimated, usage.input + usage.output)
        if call.asked_at is not None:
            length = now - call.asked_at
            mean = self._lengths.get(backend, length)
            self._lengths[backend] = mean + (length - mean) * NEWEST

    def _facts(self, call: Call, now: float) -> dict[str, Any]:
        answer, error, backend = call.answer, call.error, call.backend
        usage = answer.finished.usage if answer is not None and answer.finished is not None else None
        named = backend is not None and (backend.name, call.model or "") in self._answered
        return {
            "request_id": call.request_id,
            "id": call.id,
            "trace_id": call.span.trace_id if call.span is not None else None,
            "route": call.route,
            "status": call.status or GONE,
            "outcome": call.outcome,
            "stream": call.streaming,
            "backend": backend.name if backend is not None else None,
            "fallback_for": call.own_backend.name if call.fallback and call.own_backend is not None else None,
            "client": call.client.name or None,
            "client_kind": call.kind,
            "model": call.model[:100] if named and call.model is not None else None,
            "first_event_ms": _ms(call.begun_at, call.accepted),
            "queue_ms": _ms(call.asked_at, call.ready_at),
            "overhead_ms": _ms(call.ready_at, call.read_at),
            "cancel_ms": _ms(call.given_up[1], call.given_up[0]) if call.given_up is not None else None,
            "tokens_in": usage.input if usage else call.tokens,
            "tokens_out": usage.output if usage else None,
            "tokens_cached": usage.cached if usage else None,
            "prefix_left_at": call.prefix.left_at if call.prefix is not None else None,
            "prefix_lost": (call.prefix.lost or None) if call.prefix is not None else None,
            "searches": dict(call.searches) or None,
            "search_ms": round(call.search_seconds * 1000, 1) if call.searches else None,
            "notes": dict(Counter(note.kind for note in call.notes)) if call.notes else None,
            "error": error.kind.name.lower() if error else None,
            "error_code": error.code if error else None,
            "error_source": error.source if error else None,
            "error_message": _words(error) if error and error.kind.status >= 500 else None,
            "duration_ms": _ms(now, call.accepted),
        }


def _beginning(call: Call) -> dict[str, Any]:
    backend, prepared = call.backend, call.prepared
    return {
        "request_id": call.request_id,
        "route": call.route,
        "backend": backend.name if backend is not None else None,
        "client": call.client.name or None,
        "client_kind": call.kind,
        "tokens_in": prepared.tokens if prepared is not None else None,
    }


def _trace_headers(call: Call) -> Mapping[str, str]:
    if call.span is None:
        return {}
    if call.span.recording and call.prepared is not None:
        call.span.set(request_attributes(call.prepared.request, call))
    return call.span.headers()


def _end_span(span: Span, call: Call) -> None:
    if span.recording:
        span.set(answer_attributes(call))
        span.end(span_name(call), span_failure(call))
    else:
        span.end()


def _words(error: GatewayError) -> str:
    """Only our own words: after a colon there may be the server's."""
    return error.message.partition(": ")[0] if error.source == "backend" else error.message


def _ms(until: float | None, since: float | None) -> float | None:
    return None if until is None or since is None else round((until - since) * 1000, 1)
