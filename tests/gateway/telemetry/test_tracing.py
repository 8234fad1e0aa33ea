"""Traces: the conventions' attributes, the context of others, nothing of the text, and nothing at all when off."""

from __future__ import annotations

import builtins
import logging
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from dragoman.gateway.telemetry.tracing import ContextPropagation, OpenTelemetry, context_headers, open_tracing, wanted
from tests.scripted import Script, call_stream, model_list, text_stream
from tests.scripted_search import searching
from tests.serving_gateway import PATHS, Served, asking, served

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
CONTEXT = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=value,other=1"}


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr("dragoman.gateway.serve.app.open_tracing", lambda _: OpenTelemetry(provider))
    return exporter


def the_span(spans: InMemorySpanExporter) -> tuple[ReadableSpan, dict[str, Any]]:
    (span,) = spans.get_finished_spans()
    return span, dict(span.attributes or {})


async def ask(it: Served, protocol: str, headers: dict[str, str] | None = None, **more: Any) -> int:
    body = asking(protocol, "a secret prompt", **more)
    async with it.session.post(it.url + PATHS[protocol], json=body, headers=headers) as answer:
        await answer.read()
        return answer.status


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("protocol", PATHS)
async def test_a_call_is_a_span_with_the_conventions_attributes(
    spans: InMemorySpanExporter, protocol: str, stream: bool
) -> None:
    async with served(Script(text_stream("hel", "lo"))) as it:
        it.server.on("GET", "/v1/models", model_list("qwen"))
        assert await ask(it, protocol, CONTEXT, stream=stream) == 200
        sent = it.server.chats[0].headers
    span, told = the_span(spans)
    assert span.name == "chat qwen"
    assert span.kind is SpanKind.SERVER
    assert span.parent is not None
    assert f"{span.parent.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == PARENT
    assert told["gen_ai.operation.name"] == "chat"
    assert told["gen_ai.request.model"] == told["gen_ai.response.model"] == "qwen"
    assert told["gen_ai.response.finish_reasons"] == ("stop",)
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (11, 7)
    assert told["gen_ai.response.time_to_first_chunk"] > 0
    assert told["http.route"] == PATHS[protocol]
    assert told["http.response.status_code"] == 200
    assert told["gen_ai.request.stream"] is stream
    assert "secret prompt" not in span.to_json()
    assert span.context is not None
    assert sent["traceparent"] == f"00-{TRACE}-{span.context.span_id:016x}-01"
    assert sent["tracestate"] == CONTEXT["tracestate"]


async def test_a_span_has_the_tokens_that_went_through_the_prefix_cache(spans: InMemorySpanExporter) -> None:
    details = {"cached_tokens": 4, "created_cache_tokens": 6}
    usage = {"prompt_tokens": 11, "completion_tokens": 1, "prompt_tokens_details": details}
    whole = {"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}], "usage": usage}
    async with served(Script.json(whole)) as it:
        assert await ask(it, "messages") == 200
    _, told = the_span(spans)
    cached = [told[f"gen_ai.usage.cache_{what}.input_tokens"] for what in ("read", "creation")]
    assert cached == [4, 6]


async def test_a_search_is_a_span_below_its_call_and_tells_the_service_nothing(spans: InMemorySpanExporter) -> None:
    turns = Script(call_stream(("web_search", '{"query": "a secret query"}'))), Script(text_stream("a"))
    async with searching() as service, served(*turns, search={"url": service.url}) as it:
        assert await ask(it, "responses", CONTEXT, tools=[{"type": "web_search"}]) == 200
        assert "traceparent" not in service.asked[0]["headers"]
    search, call = spans.get_finished_spans()
    assert (search.name, search.kind, call.name) == ("web_search", SpanKind.CLIENT, "chat m")
    assert search.parent is not None
    assert call.context is not None
    assert search.parent.span_id == call.context.span_id
    assert dict(search.attributes or {}) == {"dragoman.outcome": "found"}
    assert (call.attributes or {})["dragoman.web_searches"] == 1
    assert "secret" not in search.to_json() + call.to_json()


async def test_a_failure_of_the_server_marks_the_span_and_quotes_nothing(spans: InMemorySpanExporter) -> None:
    async with served(Script(b"canary words", status=500)) as it:
        assert await ask(it, "responses") >= 500
    span, told = the_span(spans)
    assert span.status.status_code is StatusCode.ERROR
    assert told["error.type"] == "backend_failed"
    assert "canary" not in span.to_json()


async def test_a_refusal_is_no_error_of_ours(spans: InMemorySpanExporter) -> None:
    async with served() as it, it.session.post(it.url + PATHS["responses"], json={"model": "m"}) as answer:
        assert answer.status == 400
    span, told = the_span(spans)
    assert span.status.status_code is StatusCode.UNSET
    assert told["http.response.status_code"] == 400
    assert "gen_ai.response.model" not in told


async def test_without_traces_the_clients_context_goes_on_unchanged() -> None:
    async with served(Script(text_stream("a")), Script(text_stream("a")), Script(text_stream("a"))) as it:
        assert isinstance(it.gateway.tracing, ContextPropagation)
        await ask(it, "responses", CONTEXT)
        await ask(it, "responses")
        await ask(it, "responses", {"traceparent": "nonsense", "tracestate": "a=b"})
        first, second, third = [seen.headers for seen in it.server.chats]
    assert {name: first[name] for name in CONTEXT} == CONTEXT
    for headers in (second, third):
        assert "traceparent" not in headers
        assert "tracestate" not in headers


@pytest.mark.parametrize(
    ("parent", "good"),
    [
        (CONTEXT["traceparent"], True),
        (f"cc-{TRACE}-{PARENT}-01-more", True),
        (f"ff-{TRACE}-{PARENT}-01", False),
        (f"00-{'0' * 32}-{PARENT}-01", False),
        (f"00-{TRACE}-{'0' * 16}-01", False),
        (f"00-{TRACE.upper()}-{PARENT}-01", False),
        (f"00-{TRACE}-{PARENT}-01\r\nx: y", False),
    ],
)
def test_only_a_sound_context_goes_on(parent: str, good: bool) -> None:
    assert bool(context_headers({"traceparent": parent, "tracestate": "a=b"})) is good


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, False),
    ],
)
def test_traces_are_on_by_the_usual_variables(environ: dict[str, str], expected: bool) -> None:
    assert wanted(environ) is expected


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("opentelemetry"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with caplog.at_level(logging.WARNING):
        tracing = open_tracing({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"})
    assert isinstance(tracing, ContextPropagation)
    assert "dragoman[otel]" in caplog.text


async def test_the_exporter_of_the_environment_is_opened_and_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SERVICE_NAME": "edge"}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    tracing = open_tracing(environ)
    assert isinstance(tracing, OpenTelemetry)
    assert tracing._provider.resource.attributes["service.name"] == "edge"
    await tracing.close()


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, False),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, True),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"}, False),
    ],
)
async def test_a_protocol_that_is_not_spoken_is_said(
    environ: dict[str, str], told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    tracing = open_tracing({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", **environ})
    assert isinstance(tracing, OpenTelemetry)
    await tracing.close()
    assert ("not as grpc" in caplog.text) is told
