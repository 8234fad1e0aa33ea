"""Traces with OpenTelemetry, and the propagation of the W3C trace context.

A model call is one span, a child of the client's span where the client sent one, and the span's context goes to the
model server. The usual `OTEL_*` variables choose the exporter, its address and the sampling. Without them nothing is
loaded, and the client's own context goes to the server unchanged. What a call's attributes are is not known here
(`calls.trace_attributes`).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from dragoman.gateway.telemetry.logs import log

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-[\x21-\x7e]{1,64})?"
)
TRACESTATE = re.compile(r"[\x20-\x7e]{1,512}")
ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")  # the first one that is set counts
PROTOCOL = "http/protobuf"
FLUSH_MS = 2000


Attributes = Mapping[str, Any]


class Span(Protocol):
    """One call's part of a trace."""

    @property
    def trace_id(self) -> str | None: ...

    @property
    def recording(self) -> bool:
        """Whether attributes are kept; otherwise the caller can save itself the work."""
        ...

    def headers(self) -> Mapping[str, str]:
        """The trace context for the request to the model server."""
        ...

    def set(self, attributes: Attributes) -> None: ...

    def child(self, name: str) -> Span:
        """Work within this one that another server does."""
        ...

    def end(self, name: str | None = None, failure: str | None = None) -> None:
        """`name` replaces the name it began with; `failure` marks the span as failed, with that description."""
        ...


class Tracing(Protocol):
    def begin(self, headers: Mapping[str, str], attributes: Attributes) -> Span:
        """`headers` are the client's, which may carry the parent's context."""
        ...

    async def close(self) -> None: ...


def context_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """`traceparent` and `tracestate` as the client sent them, if they are well-formed."""
    parent = headers.get("traceparent", "")
    if not TRACEPARENT.fullmatch(parent):
        return {}
    state = headers.get("tracestate", "")
    return {"traceparent": parent, **({"tracestate": state} if TRACESTATE.fullmatch(state) else {})}


def open_tracing(environ: Mapping[str, str]) -> Tracing:
    """Never fails: if traces cannot be sent, the reason is logged and the gateway serves without them."""
    if not wanted(environ):
        return ContextPropagation()
    try:
        return OpenTelemetry(_provider(environ))
    except ImportError:
        log.warning("traces are configured but not sent: install the extra `otel` (pip install 'dragoman[otel]')")
    except Exception as error:  # an exporter that refuses its settings must not stop the gateway
        log.error("traces are configured but cannot be sent: %s", type(error).__name__)
    return ContextPropagation()


def wanted(environ: Mapping[str, str]) -> bool:
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    return exporter != "none" and bool(exporter or any(environ.get(name) for name in ENDPOINTS))


# ------------------------------------------------------------------------------------------------------ without traces


class ContextPropagation:
    """No spans of our own: the client's context goes on to the server."""

    def begin(self, headers: Mapping[str, str], attributes: Attributes) -> Span:
        return _PropagatedContext(headers)

    async def close(self) -> None:
        return None


class _PropagatedContext:
    __slots__ = ("_headers",)

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = context_headers(headers) if "traceparent" in headers else {}

    @property
    def trace_id(self) -> str | None:
        parent = self._headers.get("traceparent")
        return None if parent is None else parent[3:35]

    @property
    def recording(self) -> bool:
        return False

    def headers(self) -> Mapping[str, str]:
        return self._headers

    def set(self, attributes: Attributes) -> None:
        return None

    def child(self, name: str) -> Span:
        return self

    def end(self, name: str | None = None, failure: str | None = None) -> None:
        return None


# --------------------------------------------------------------------------------------------------------- with traces


class OpenTelemetry:
    """Spans from a provider of our own; the global one of a program that embeds the gateway is left alone."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        from dragoman import gateway

        self._provider = provider
        self._tracer = provider.get_tracer("dragoman", gateway.__version__)
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, headers: Mapping[str, str], attributes: Attributes) -> Span:
        from opentelemetry.trace import SpanKind

        parent = self._propagator.extract(context_headers(headers))
        span = self._tracer.start_span("chat", context=parent, kind=SpanKind.SERVER, attributes=attributes)
        return _RecordedSpan(span, self._propagator, self._tracer)

    async def close(self) -> None:
        """Sends the spans that are still queued, in a thread and within a time limit."""
        await asyncio.to_thread(self._provider.force_flush, FLUSH_MS)
        await asyncio.to_thread(self._provider.shutdown)


class _RecordedSpan:
    __slots__ = ("_propagator", "_span", "_tracer")

    def __init__(self, span: Any, propagator: Any, tracer: Any) -> None:
        self._span = span
        self._propagator = propagator
        self._tracer = tracer

    @property
    def trace_id(self) -> str | None:
        return f"{self._span.get_span_context().trace_id:032x}"

    @property
    def recording(self) -> bool:
        return bool(self._span.is_recording())

    def headers(self) -> Mapping[str, str]:
        from opentelemetry.trace import set_span_in_context

        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, set_span_in_context(self._span))
        return carrier

    def set(self, attributes: Attributes) -> None:
        self._span.set_attributes(attributes)

    def child(self, name: str) -> Span:
        from opentelemetry.trace import SpanKind, set_span_in_context

        span = self._tracer.start_span(name, context=set_span_in_context(self._span), kind=SpanKind.CLIENT)
        return _RecordedSpan(span, self._propagator, self._tracer)

    def end(self, name: str | None = None, failure: str | None = None) -> None:
        from opentelemetry.trace import StatusCode

        if name is not None:
            self._span.update_name(name)
        if failure is not None:
            self._span.set_status(StatusCode.ERROR, failure)
        self._span.end()


def _provider(environ: Mapping[str, str]) -> TracerProvider:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter

    exporter: SpanExporter
    if environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "console":
        exporter = ConsoleSpanExporter()
    else:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        if (asked := next(filter(None, map(environ.get, PROTOCOLS)), PROTOCOL)) != PROTOCOL:
            log.warning("traces are sent as %s, not as %s: name an endpoint that takes that", PROTOCOL, asked)
        exporter = OTLPSpanExporter()
    named = {} if "service.name" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "") else {"service.name": "dragoman"}
    if name := environ.get("OTEL_SERVICE_NAME"):
        named = {"service.name": name}
    provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider
