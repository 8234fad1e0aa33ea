"""Traces of model calls, after OpenTelemetry's conventions for generative AI, and the W3C context of everybody else's.

A call is one span, named for the operation and the model, a child of the client's span where the client sent one; its
context goes to the model server. Which exporter, where to and how much is sampled is said by the usual `OTEL_*`
variables; without them nothing is loaded, and the client's own context goes on to the server unchanged. No span holds
text of a prompt or of an answer.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from dragoman.gateway.telemetry.logs import log
from dragoman.translators.ir import Request

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from dragoman.gateway.calls.call import Call

TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-[\x21-\x7e]{1,64})?"
)
TRACESTATE = re.compile(r"[\x20-\x7e]{1,512}")
ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
FLUSH_MS = 2000


class Span(Protocol):
    """One call's part of a trace."""

    @property
    def trace_id(self) -> str | None: ...

    def ask(self, request: Request, call: Call) -> Mapping[str, str]:
        """The backend is asked now; gives the headers that go with it."""
        ...

    def end(self, call: Call) -> None: ...


class Tracing(Protocol):
    def begin(self, call: Call) -> Span: ...

    async def close(self) -> None: ...


def context_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """`traceparent` and `tracestate` as the client sent them, where they are what they should be."""
    parent = headers.get("traceparent", "")
    if not TRACEPARENT.fullmatch(parent):
        return {}
    state = headers.get("tracestate", "")
    return {"traceparent": parent, **({"tracestate": state} if TRACESTATE.fullmatch(state) else {})}


def open_tracing(environ: Mapping[str, str]) -> Tracing:
    """Never fails: what is missing for a trace is logged, and the gateway serves without."""
    if not wanted(environ):
        return PassedOn()
    try:
        return OpenTelemetry(_provider(environ))
    except ImportError:
        log.warning("traces are configured but not sent: install the extra `otel` (pip install 'dragoman[otel]')")
    except Exception as error:  # an exporter that refuses its settings must not stop the gateway
        log.error("traces are configured but cannot be sent: %s", type(error).__name__)
    return PassedOn()


def wanted(environ: Mapping[str, str]) -> bool:
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    return exporter != "none" and bool(exporter or any(environ.get(name) for name in ENDPOINTS))


# ------------------------------------------------------------------------------------------------------ without traces


class PassedOn:
    """No traces of our own: the client's context goes on to the server."""

    def begin(self, call: Call) -> Span:
        return _Context(call)

    async def close(self) -> None:
        return None


class _Context:
    __slots__ = ("_headers",)

    def __init__(self, call: Call) -> None:
        headers = call.request.headers
        self._headers = context_headers(headers) if "traceparent" in headers else {}

    @property
    def trace_id(self) -> str | None:
        parent = self._headers.get("traceparent")
        return None if parent is None else parent[3:35]

    def ask(self, request: Request, call: Call) -> Mapping[str, str]:
        return self._headers

    def end(self, call: Call) -> None:
        return None


# --------------------------------------------------------------------------------------------------------- with traces


class OpenTelemetry:
    """Spans from a provider of our own; an embedding program's global one is left alone."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        from dragoman import gateway

        self._provider = provider
        self._tracer = provider.get_tracer("dragoman", gateway.__version__)
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, call: Call) -> Span:
        from opentelemetry.trace import SpanKind

        parent = self._propagator.extract(context_headers(call.request.headers))
        span = self._tracer.start_span(
            "chat",
            context=parent,
            kind=SpanKind.SERVER,
            attributes={
                "gen_ai.operation.name": "chat",
                "gen_ai.provider.name": "dragoman",
                "http.request.method": "POST",
                "http.route": f"/v1/{call.protocol.path}",
                "dragoman.request_id": call.request_id,
                "dragoman.client_kind": call.kind,
            },
        )
        return _Traced(span, self._propagator)

    async def close(self) -> None:
        """What waits is sent, bounded, beside the loop."""
        await asyncio.to_thread(self._provider.force_flush, FLUSH_MS)
        await asyncio.to_thread(self._provider.shutdown)


class _Traced:
    __slots__ = ("_propagator", "_span")

    def __init__(self, span: Any, propagator: Any) -> None:
        self._span = span
        self._propagator = propagator

    @property
    def trace_id(self) -> str | None:
        return f"{self._span.get_span_context().trace_id:032x}"

    def ask(self, request: Request, call: Call) -> Mapping[str, str]:
        from opentelemetry.trace import set_span_in_context

        if self._span.is_recording():
            self._span.set_attributes(_request_attributes(request, call))
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, set_span_in_context(self._span))
        return carrier

    def end(self, call: Call) -> None:
        from opentelemetry.trace import StatusCode

        span = self._span
        if span.is_recording():
            if call.model is not None and call.answer is not None and call.answer.touched:
                span.update_name(f"chat {call.model[:100]}")
            span.set_attributes(_answer_attributes(call))
            if call.error is not None and call.error.kind.status >= 500:
                span.set_status(StatusCode.ERROR, call.error.kind.name.lower())
        span.end()


def _request_attributes(request: Request, call: Call) -> dict[str, Any]:
    told = {
        "gen_ai.request.model": request.model[:100],
        "gen_ai.request.stream": call.streaming,
        "gen_ai.request.max_tokens": request.max_tokens,
        "gen_ai.request.temperature": request.sampling.temperature,
        "gen_ai.request.top_p": request.sampling.top_p,
        "dragoman.backend": call.backend.name if call.backend is not None else None,
    }
    return {name: value for name, value in told.items() if value is not None}


def _answer_attributes(call: Call) -> dict[str, Any]:
    answer = call.answer
    finished = answer.finished if answer is not None else None
    first = answer.first_event_at if answer is not None else None
    usage = finished.usage if finished is not None else None
    told = {
        "http.response.status_code": call.status or 499,
        "gen_ai.response.id": call.id,
        "gen_ai.response.model": call.model[:100] if call.model is not None and first is not None else None,
        "gen_ai.response.finish_reasons": [finished.reason.value] if finished is not None else None,
        "gen_ai.response.time_to_first_chunk": first - call.accepted if first is not None else None,
        "gen_ai.usage.input_tokens": usage.input if usage else None,
        "gen_ai.usage.output_tokens": usage.output if usage else None,
        "gen_ai.usage.cache_read.input_tokens": usage.cached if usage else None,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning if usage else None,
        "dragoman.outcome": call.outcome,
        "error.type": call.error.kind.name.lower() if call.error is not None else None,
    }
    return {name: value for name, value in told.items() if value is not None}


def _provider(environ: Mapping[str, str]) -> TracerProvider:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter

    exporter: SpanExporter
    if environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "console":
        exporter = ConsoleSpanExporter()
    else:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        exporter = OTLPSpanExporter()
    named = {} if "service.name" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "") else {"service.name": "dragoman"}
    if name := environ.get("OTEL_SERVICE_NAME"):
        named = {"service.name": name}
    provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider
