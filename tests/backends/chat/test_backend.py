"""The chat backend against a scripted server over real sockets: what it sends, how it ends, what it retries."""

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest

from dragoman.backends.base import Health
from dragoman.backends.chat import backend as backend_module
from dragoman.backends.chat.backend import ChatCompletions
from dragoman.backends.reader import Timeouts
from dragoman.backends.registry import Options, open_backend
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Image, Message, StopReason, Text, ToolCall, Usage
from tests.backends.chat.serving_backend import HELLO, TOOL, failure, serving
from tests.backends.http1.pools import deaf
from tests.recording import Recorder, answered, ask, counted
from tests.scripted import Script, ScriptedServer, call_stream, chunk, sse, text_stream, usage
from tests.waiting import LIMIT

pytestmark = pytest.mark.usefixtures("each_http_client")


# ---------------------------------------------------------------------------------------------------------- the answer


async def test_an_answer_arrives_with_its_usage_and_the_connection_is_used_again() -> None:
    async with serving(Script(HELLO), Script(HELLO), Script(HELLO)) as (server, backend):
        for _ in range(3):
            sink = Recorder()
            await answered(backend, ask(), sink)
            assert sink.text == "Hello"
            assert sink.finished.reason is StopReason.STOP
            assert sink.finished.usage == Usage(11, 7)
        assert server.connections == 1


async def test_one_feed_for_each_read() -> None:
    async with serving(Script(HELLO, split="frames", gap=0.02)) as (_, backend):
        sink = Recorder()
        await answered(backend, ask(), sink)
        assert ["".join(getattr(event, "text", "") for event in feed) for feed in sink.feeds[:2]] == ["Hel", "lo"]


async def test_what_is_asked_of_the_server() -> None:
    async with serving(Script(HELLO), api_key="secret", model="served") as (server, backend):
        await answered(backend, ask("hi"), Recorder())
        (seen,) = server.chats
        assert seen.headers["Accept-Encoding"] == "identity"
        assert seen.headers["Authorization"] == "Bearer secret"
        assert seen.headers["Content-Type"] == "application/json"
        assert "Cookie" not in seen.headers
        assert seen.body is not None
        assert seen.body["model"] == "served"


async def test_a_body_of_several_megabytes() -> None:
    async with serving(Script(HELLO)) as (server, backend):
        await answered(backend, ask("x" * 3_000_000), Recorder())
        assert len(server.chats[0].raw) > 3_000_000


async def test_a_server_that_ignores_stream() -> None:
    message = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}],
    }
    whole = {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}], "usage": usage()}
    async with serving(Script.json(whole)) as (_, backend):
        sink = Recorder()
        await answered(backend, ask(tools=(TOOL,)), sink)
        assert sink.parts == [ToolCall("c1", "add", '{"a":1}')]
        assert sink.finished.usage == Usage(11, 7)


async def test_a_stream_that_is_called_json() -> None:
    async with serving(Script(HELLO, headers={"content-type": "application/json"})) as (_, backend):
        sink = Recorder()
        await answered(backend, ask(), sink)
        assert sink.text == "Hello"


async def test_parallel_calls_arrive_whole_however_they_were_cut() -> None:
    script = Script(call_stream(("add", '{"a": 1}'), ("add", '{"a": 2}')), split=7)
    async with serving(script) as (_, backend):
        sink = Recorder()
        await answered(backend, ask(tools=(TOOL,)), sink)
        assert [part.arguments for part in sink.parts if isinstance(part, ToolCall)] == ['{"a": 1}', '{"a": 2}']


async def test_no_redirect_is_followed() -> None:
    async with serving(Script(b"", 307, {"location": "/elsewhere"})) as (server, backend):
        assert (await failure(answered(backend, ask(), Recorder()))).kind is Kind.BACKEND_FAILED
        assert len(server.requests) == 1


# ----------------------------------------------------------------------------------------------------------- the limits


async def test_nobody_listens() -> None:
    async with ScriptedServer() as server:
        url = server.url
    backend = ChatCompletions(url)
    try:
        error = await failure(answered(backend, ask(), Recorder()))
    finally:
        await backend.close()
    assert (error.kind, error.retry_after) == (Kind.BACKEND_DOWN, 1.0)
    assert "127.0.0.1" not in error.message


async def test_connecting_has_its_own_limit() -> None:
    with deaf() as port:
        backend = ChatCompletions(f"http://127.0.0.1:{port}/v1", timeouts=Timeouts(connect=0.2))
        begun = time.monotonic()
        try:
            error = await failure(answered(backend, ask(), Recorder()))
        finally:
            await backend.close()
    assert error.kind is Kind.BACKEND_DOWN
    assert 0.1 < time.monotonic() - begun < 2


@pytest.mark.parametrize(
    "script",
    [
        Script(HELLO, head_delay=30),
        Script(HELLO, first_delay=30),
        Script([sse(chunk({"role": "assistant"}), done=False), HELLO], gap=30),
    ],
    ids=["before the head", "before the body", "after a chunk that is no event"],
)
async def test_the_first_event_has_its_own_limit(script: Script) -> None:
    async with serving(script, timeouts=Timeouts(first=0.3, between=30)) as (server, backend):
        sink = Recorder()
        assert (await failure(answered(backend, ask(), sink))).kind is Kind.TIMEOUT
        assert not sink.touched
        await server.until(lambda: server.chats[0].outcome == "client_gone")


async def test_between_events_there_is_another_limit() -> None:
    script = Script(HELLO, hang_at=len(HELLO) // 2)
    async with serving(script, timeouts=Timeouts(first=30, between=0.3)) as (server, backend):
        sink = Recorder()
        assert (await failure(answered(backend, ask(), sink))).kind is Kind.TIMEOUT
        assert sink.text.startswith("Hel")
        await server.until(lambda: server.chats[0].outcome == "client_gone")


async def test_a_slow_stream_may_last_longer_than_any_limit() -> None:
    script = Script(HELLO, split="frames", gap=0.15)
    async with serving(script, timeouts=Timeouts(first=0.3, between=0.3)) as (_, backend):
        sink = Recorder()
        await answered(backend, ask(), sink)
        assert sink.text == "Hello"


async def test_comments_are_no_progress() -> None:
    pings = [b": ping\n\n"] * 100
    script = Script([sse(chunk({"content": "Hi"}), done=False), *pings], gap=0.05)
    async with serving(script, timeouts=Timeouts(between=0.3)) as (_, backend):
        sink = Recorder()
        assert (await failure(asyncio.wait_for(answered(backend, ask(), sink), LIMIT))).kind is Kind.TIMEOUT
        assert sink.text == "Hi"


async def test_usage_is_awaited_for_a_short_while_only() -> None:
    finished = sse(chunk({"content": "Hi"}), chunk({}, "stop"), done=False)
    script = Script(finished + b" ", hang_at=len(finished))
    async with serving(script, timeouts=Timeouts(usage=0.2)) as (_, backend):
        sink = Recorder()
        await asyncio.wait_for(answered(backend, ask(), sink), LIMIT)
        assert sink.text == "Hi"
        assert sink.finished.usage is None


# ------------------------------------------------------------------------------------------------------------ the ends


@pytest.mark.parametrize("cut", [{"cut_at": 150}, {"cut_at": 250, "reset": True}], ids=["closed", "reset"])
async def test_a_stream_that_breaks_off_is_a_failure_with_what_had_come(cut: dict[str, Any]) -> None:
    body = text_stream("Hello", "World")
    cut = {**cut, "cut_at": body.index(b"World") - 20}
    async with serving(Script(body, split="frames", gap=0.01, **cut)) as (_, backend):
        sink = Recorder()
        assert (await failure(answered(backend, ask(), sink))).kind is Kind.BACKEND_FAILED
        assert sink.text == "Hello"


async def test_a_stream_that_breaks_off_after_the_finish_reason_is_an_answer() -> None:
    body = sse(chunk({"content": "Hi"}), chunk({}, "stop"), done=False)
    async with serving(Script(body, unterminated=True)) as (_, backend):
        sink = Recorder()
        await answered(backend, ask(), sink)
        assert (sink.text, sink.finished.usage) == ("Hi", None)


async def test_an_orderly_end_without_a_finish_reason_is_a_failure() -> None:
    async with serving(Script(sse(chunk({"content": "Hi"})))) as (_, backend):
        sink = Recorder()
        assert (await failure(answered(backend, ask(), sink))).kind is Kind.BACKEND_FAILED
        assert sink.text == "Hi"


async def test_an_error_inside_the_stream() -> None:
    body = sse(chunk({"content": "Hi"}), {"error": {"message": "worker died at /opt/engine/run.py", "code": 500}})
    async with serving(Script(body)) as (_, backend):
        sink = Recorder()
        error = await failure(answered(backend, ask(), sink))
        assert error.kind is Kind.BACKEND_FAILED
        assert "/opt" not in error.message
        assert sink.text == "Hi"


OVERFLOW = "This model's maximum context length is 8192 tokens. However, your request has 9351 input tokens."
IN_STREAMS = {
    "dynamo": f"event: error\n: ValueError: {OVERFLOW}\n\ndata: [DONE]\n\n",
    "lm studio": 'event: error\ndata: {"error":{"message":"' + OVERFLOW + '"}}\n\n',
    "a proxy, after comments": ': loading\n\n{"error":{"code":400,"message":"' + OVERFLOW + '"}}',
    "venice": 'data: {"error_type":"context_length_exceeded","error_message":"' + OVERFLOW + '"}\n\ndata: [DONE]\n\n',
    "tgi": 'data: {"error":"' + OVERFLOW + '","error_type":"validation"}\n\ndata: [DONE]\n\n',
    "sglang": 'data: {"error":{"object":"error","message":"' + OVERFLOW + '","code":400}}\n\ndata: [DONE]\n\n',
}


@pytest.mark.parametrize("server", IN_STREAMS)
async def test_an_overflow_in_the_stream_in_whatever_frame(server: str) -> None:
    async with serving(Script(IN_STREAMS[server].encode())) as (_, backend):
        error = await failure(answered(backend, ask(), Recorder()))
        assert (error.kind, error.tokens, error.limit) == (Kind.OVERFLOW, 9351, 8192)


@pytest.mark.parametrize("body", [b"data: {oops\n\n", b"<html>busy</html>", b""], ids=["json", "html", "empty"])
async def test_nonsense_is_a_failure(body: bytes) -> None:
    async with serving(Script(body)) as (_, backend):
        assert (await failure(answered(backend, ask(), Recorder()))).kind is Kind.BACKEND_FAILED


async def test_a_receiver_that_has_enough_ends_the_work_upstream() -> None:
    counted = [chunk({"content": str(n)}, usage=usage(5, n + 1)) for n in range(100)]
    script = Script(sse(*counted), split="frames", gap=0.01)
    async with serving(script) as (server, backend):
        sink = Recorder(enough=lambda sink: len(sink.text) >= 3)
        await asyncio.wait_for(answered(backend, ask(), sink), LIMIT)
        assert sink.finished.usage is not None
        assert sink.finished.usage.input == 5
        await server.until(lambda: server.chats[0].outcome == "client_gone")
        assert server.chats[0].chunks < 50


PHASES = {
    "before the head": Script(HELLO, head_delay=30),
    "before the first event": Script(HELLO, first_delay=30),
    "in the answer": Script(HELLO, split="frames", hang_at=len(HELLO) // 2),
    "after the finish reason": Script(HELLO, hang_at=len(HELLO) - 30),
    "in a refusal": Script(b"x" * 1000, 400, hang_at=10),
    "in a whole answer": Script(b'{"a": ' + b"1" * 1000, 200, {"content-type": "application/json"}, hang_at=10),
}


@pytest.mark.parametrize("phase", PHASES)
async def test_a_cancelled_stream_closes_the_connection_at_once(phase: str) -> None:
    async with serving(PHASES[phase], timeouts=Timeouts(usage=30)) as (server, backend):
        task = asyncio.create_task(answered(backend, ask(), Recorder()))
        await server.until(lambda: bool(server.chats))
        await asyncio.sleep(0.1)
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.until(lambda: server.chats[0].outcome == "client_gone")
        server.add(Script(HELLO))
        await answered(backend, ask(), Recorder())
        assert not server.chats[1].reused


async def test_cancelled_while_the_receiver_is_slow() -> None:
    async with serving(Script(HELLO, split="frames", hang_at=len(HELLO) // 2)) as (server, backend):
        sink = Recorder()
        sink.held = True
        task = asyncio.create_task(answered(backend, ask(), sink))
        await sink.until(lambda: sink.waits == 1 or sink.touched)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.until(lambda: server.chats[0].outcome == "client_gone")


async def test_a_slow_receiver_holds_the_server_back_and_no_limit_runs_meanwhile() -> None:
    piece = "x" * 64 * 1024
    many = [sse(chunk({"content": piece}), done=False)] * 400
    script = Script([*many, sse(chunk({}, "stop"), chunk(None, usage=usage()))])
    async with serving(script, timeouts=Timeouts(first=0.4, between=0.4), answer_bytes=1 << 30) as (server, backend):
        sink = Recorder()
        sink.held = True
        task = asyncio.create_task(answered(backend, ask(), sink))
        await sink.until(lambda: sink.touched)
        await asyncio.sleep(1.0)
        assert not task.done()
        sent, fed = server.chats[0].sent, len(sink.text)
        assert fed < 2**20
        assert sent < 400 * 64 * 1024, "the server could send everything: nothing held it back"
        sink.release()
        await asyncio.wait_for(task, LIMIT)
        assert len(sink.text) == 400 * 64 * 1024
        assert sink.finished.usage == Usage(11, 7)


# ---------------------------------------------------------------------------------------------- the server around it


async def test_retry_after_of_a_busy_server_is_kept() -> None:
    async with serving(Script.json({"error": "full"}, 429, {"retry-after": "7"})) as (_, backend):
        error = await failure(answered(backend, ask(), Recorder()))
        assert (error.kind, error.retry_after) == (Kind.BUSY, 7.0)


@pytest.mark.parametrize("rest", [{"hang_at": 9}, {"cut_at": 9}, {"cut_at": 9, "reset": True}])
async def test_a_refusal_that_stops_in_the_middle_counts_by_its_status(
    rest: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend_module, "REFUSAL_SECONDS", 0.2)
    body = {"error": {"message": "Too many requests are waiting."}}
    script = replace(Script.json(body, 429, {"retry-after": "7"}), **rest)
    async with serving(script) as (server, backend):
        error = await asyncio.wait_for(failure(answered(backend, ask(), Recorder())), 2)
        assert (error.kind, error.retry_after) == (Kind.BUSY, 7.0)
        await server.until(lambda: server.chats[0].outcome in ("client_gone", "cut"))


async def test_a_sleeping_engine_is_asked_nothing() -> None:
    async with serving(Script(HELLO), preset="lmdeploy") as (server, backend):
        server.on("GET", "/is_sleeping", Script.json({"is_sleeping": True}))
        assert (await failure(answered(backend, ask(), Recorder()))).kind is Kind.ASLEEP
        assert (await failure(counted(backend, ask()))).kind is Kind.ASLEEP
        assert (await backend.health()).state == "asleep"
        assert not server.chats
        assert len(server.requests) == 1, "the answer is kept for a moment"


async def test_a_server_without_the_sleep_endpoint_is_asked_once() -> None:
    async with serving(Script(HELLO), Script(HELLO), preset="vllm") as (server, backend):
        server.on("GET", "/is_sleeping", Script.json({"detail": "Not Found"}, 404))
        await answered(backend, ask(), Recorder())
        await answered(backend, ask(), Recorder())
        assert [seen.path for seen in server.requests].count("/is_sleeping") == 1


@pytest.mark.parametrize(
    ("status", "body", "state"),
    [
        (200, {}, "ready"),
        (404, {"detail": "Not Found"}, "ready"),
        (503, {"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}, "asleep"),
        (500, {"error": "died"}, "down"),
    ],
)
async def test_health(status: int, body: Any, state: str) -> None:
    async with serving(preset="trtllm-serve") as (server, backend):
        server.on("GET", "/health", Script.json(body, status))
        assert (await backend.health()).state == state


async def test_health_of_a_server_that_is_gone_or_has_no_endpoint() -> None:
    async with serving() as (server, backend):
        assert await backend.health() == Health("ready")
        url = server.url
    gone = ChatCompletions(url)
    assert (await gone.health()).state == "down"
    await gone.close()


@pytest.mark.parametrize(
    ("entry", "window"),
    [
        ({"max_model_len": 32768}, 32768),
        ({"context_length": 4096}, 4096),
        ({"meta": {"n_ctx_train": 2048}}, 2048),
        ({"meta": {"n_ctx": 1024, "n_ctx_train": 2048}}, 1024),
        ({"max_model_len": None}, None),
    ],
)
async def test_models_report_their_window(entry: dict[str, Any], window: int | None) -> None:
    async with serving() as (server, backend):
        server.on("GET", "/v1/models", Script.json({"data": [{"id": "a", "created": 5, **entry}]}))
        (model,) = await backend.models()
        assert (model.id, model.created, model.window) == ("a", 5, window)
        await backend.models()
        assert len(server.requests) == 1


async def test_llama_cpp_reports_the_window_of_a_slot() -> None:
    async with serving(preset="llama.cpp") as (server, backend):
        server.on("GET", "/v1/models", Script.json({"data": [{"id": "a", "meta": {"n_ctx_train": 2048}}]}))
        server.on("GET", "/props", Script.json({"default_generation_settings": {"n_ctx": 8192}}))
        assert [model.window for model in await backend.models()] == [8192]


@pytest.mark.parametrize(("status", "body"), [(500, {}), (200, {"nothing": 1}), (200, "text")])
async def test_a_list_of_models_that_cannot_be_read(status: int, body: Any) -> None:
    async with serving() as (server, backend):
        server.on("GET", "/v1/models", Script.json(body, status))
        assert (await failure(backend.models())).kind is Kind.BACKEND_FAILED


async def test_counting_asks_for_the_rendered_prompt_with_its_tools() -> None:
    async with serving(preset="vllm") as (server, backend):
        server.on("POST", "/tokenize", Script.json({"count": 42, "max_model_len": 8192}))
        assert await counted(backend, ask("hi", tools=(TOOL,))) == 42
        body = server.requests[-1].body
        assert body is not None
        assert body["messages"] == [{"role": "user", "content": "hi"}]
        assert body["tools"][0]["function"]["name"] == "add"
        assert body["add_generation_prompt"] is True


async def test_a_prompt_that_the_server_goes_on_with_is_counted_as_it_is_sent() -> None:
    async with serving(preset="vllm") as (server, backend):
        server.on("POST", "/tokenize", Script.json({"count": 42}))
        begun = (Message("user", (Text("hi"),)), Message("assistant", (Text("The"),)))
        await counted(backend, ask(messages=begun, prefill=True))
        body = server.requests[-1].body
        assert body is not None
        assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)


async def test_counting_over_two_endpoints() -> None:
    async with serving(preset="llama.cpp") as (server, backend):
        server.on("POST", "/apply-template", Script.json({"prompt": "<user>hi"}))
        server.on("POST", "/tokenize", lambda body: Script.json({"tokens": list(range(len(body["content"])))}))
        assert await counted(backend, ask("hi")) == 8


@pytest.mark.parametrize("preset", ["generic", "vllm", "trtllm-serve", "llama.cpp"])
async def test_a_server_that_cannot_count_says_nothing(preset: str) -> None:
    async with serving(preset=preset) as (_, backend):
        assert await counted(backend, ask("hi")) is None


async def test_what_cannot_be_served_is_refused_before_anything_is_asked() -> None:
    request = ask(messages=(Message("user", (Text("look"), Image("data:image/png;base64,AA"))),))
    async with serving(preset="triton-openai") as (server, backend):
        with pytest.raises(GatewayError) as caught:
            await backend.prepare(request)
        assert caught.value.kind is Kind.UNSUPPORTED
        assert not server.requests


# --------------------------------------------------------------------------------------------------------- the registry


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("{root}/v1", "/v1/chat/completions"),
        ("{root}/v1/", "/v1/chat/completions"),
        ("{root}", "/v1/chat/completions"),
        ("{root}/v1/chat/completions", "/v1/chat/completions"),
    ],
)
async def test_a_url_opens_a_backend(url: str, asked: str) -> None:
    async with ScriptedServer(Script(HELLO)) as server:
        backend = open_backend(url.format(root=server.root), Options(preset="vllm", model="x"))
        await backend.start()
        await answered(backend, ask(), Recorder())
        await backend.close()
        assert server.requests[-1].path == asked
        assert backend.name == f"127.0.0.1:{server.port}"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://host", "begins with one of http:"),
        ("gpu-host:8000/v1", "begins with one of http:"),
        ("http://", "names no host"),
        ("http://host:99999/v1", "Port out of range"),
        ("http://user:hunter2@host/v1", "keys belong"),
        ("http://host/v1?x=1", "query"),
        ("http://one/v1, http://two/v1", "a blank"),
        ("http://gpu host/v1", "a blank"),
        ("http://host\\v1", "a backslash"),
    ],
)
def test_a_url_that_means_no_backend_is_refused_with_the_reason(url: str, words: str) -> None:
    with pytest.raises(GatewayError, match=words) as caught:
        open_backend(url)
    assert "hunter2" not in caught.value.message
    assert "\n" not in caught.value.message
