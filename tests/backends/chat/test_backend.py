"""The chat backend against a scripted server over real sockets: what it sends, how it ends, what it retries."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from dragoman.backends.base import Health
from dragoman.backends.chat import backend as backend_module
from dragoman.backends.chat.backend import ChatCompletions
from dragoman.backends.chat.settings import resolve
from dragoman.backends.reader import Timeouts
from dragoman.backends.registry import Options, open_backend
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import (
    Image,
    Message,
    Note,
    PartEnded,
    Sampling,
    StopReason,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
    Usage,
)
from tests.backends.http1.test_pool import deaf
from tests.recording import Recorder, answered, ask, counted
from tests.scripted import Script, ScriptedServer, call_stream, chunk, sse, text_stream, usage
from tests.waiting import LIMIT

pytestmark = pytest.mark.usefixtures("each_http_client")

TOOL = Tool("add", "Adds.", {"type": "object"})
HELLO = text_stream("Hel", "lo")


@asynccontextmanager
async def serving(
    *scripts: Any,
    preset: str = "generic",
    timeouts: Timeouts | None = None,
    overrides: dict[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[tuple[ScriptedServer, ChatCompletions]]:
    async with ScriptedServer(*scripts) as server:
        backend = ChatCompletions(
            server.url, settings=resolve(preset, overrides), timeouts=timeouts or Timeouts(), **options
        )
        await backend.start()
        try:
            yield server, backend
        finally:
            await backend.close()


async def failure(doing: Awaitable[Any]) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        await doing
    assert caught.value.source == "backend"
    return caught.value


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


# ------------------------------------------------------------------------------------------------------------- retries


async def test_a_pooled_connection_that_had_died_is_asked_again_on_a_fresh_one() -> None:
    async with serving(Script(HELLO), Script(HELLO, drop_reused=True)) as (server, backend):
        await answered(backend, ask(), Recorder())
        sink = Recorder()
        await answered(backend, ask(), sink)
        assert sink.text == "Hello"
        assert [seen.reused for seen in server.chats] == [False, True, False]


async def test_a_fresh_connection_that_dies_is_not_asked_again() -> None:
    async with serving(Script(b"", unterminated=True, cut_at=0), preset="llama.cpp") as (server, backend):
        assert (await failure(answered(backend, ask(), Recorder()))).kind is Kind.BACKEND_FAILED
        assert len(server.chats) == 1


async def test_no_second_attempt_where_the_setting_says_so() -> None:
    scripts = Script(HELLO), Script(HELLO, drop_reused=True)
    async with serving(*scripts, overrides={"retry_stale": False}) as (server, backend):
        await answered(backend, ask(), Recorder())
        await failure(answered(backend, ask(), Recorder()))
        assert len(server.chats) == 2


async def test_llama_cpp_gets_a_new_connection_for_every_stream() -> None:
    async with serving(Script(HELLO), Script(HELLO), preset="llama.cpp") as (server, backend):
        await answered(backend, ask(), Recorder())
        await answered(backend, ask(), Recorder())
        assert not any(seen.reused for seen in server.chats)


BAD_EFFORT = {
    "words": {"error": "reasoning_effort: Input should be 'low', 'medium' or 'high'"},
    "loc": {"detail": [{"type": "literal_error", "loc": ["body", "reasoning_effort"], "msg": "Input should be 'low'"}]},
    "param": {"error": {"message": "Invalid value.", "param": "reasoning_effort", "code": "invalid_value"}},
}


@pytest.mark.parametrize("said", BAD_EFFORT.values(), ids=BAD_EFFORT)
async def test_an_effort_whose_value_is_refused_is_left_out_of_this_request_only(said: Any) -> None:
    request = ask(thinking=Thinking("none"))
    async with serving(Script.json(said, 400), Script(HELLO), Script(HELLO), preset="trtllm-serve") as (
        server,
        backend,
    ):
        sink = Recorder()
        await answered(backend, request, sink)
        assert sink.notes == [Note("field", "reasoning_effort")]
        await answered(backend, request, Recorder())
        assert ["reasoning_effort" in (seen.body or {}) for seen in server.chats] == [True, False, True]


ORDERS = [
    (400, "After the optional system message, conversation roles must alternate user and assistant roles"),
    (400, "Conversation roles must alternate user/assistant/user/assistant/..."),
    (400, "Unexpected role 'user' after role 'tool'"),
    (500, "Jinja Exception: System message must be at the beginning."),
]
INTERRUPTED = (
    Message("user", (Text("go"),)),
    Message("assistant", (ToolCall("c", "add", "{}"),)),
    Message("tool", (ToolResult("c", (Text("3"),)),)),
    Message("system", (Text("Be brief."),)),
    Message("user", (Text("And?"),)),
)


@pytest.mark.parametrize(("status", "words"), ORDERS)
async def test_a_refused_order_of_roles_becomes_one_that_every_template_takes(status: int, words: str) -> None:
    refusal = Script.json({"error": {"message": words}}, status)
    async with serving(refusal, Script(HELLO), refusal, Script(HELLO), preset="vllm") as (server, backend):
        for _ in range(2):  # the words may be a client's, so nothing is learned from them
            sink = Recorder()
            await answered(backend, ask(messages=INTERRUPTED, tools=(TOOL,)), sink)
            assert sink.notes == [Note("repair", "turns")]
        orders = [[message["role"] for message in (seen.body or {})["messages"]] for seen in server.chats]
    assert orders[:2] == [
        ["user", "assistant", "tool", "system", "user"],
        ["user", "assistant", "tool", "assistant", "user"],
    ]
    assert orders[2:] == orders[:2]


@pytest.mark.parametrize(
    "words",
    [
        "Expected last role User or Tool (or Assistant with prefix True) for serving but got assistant",
        "Assistant response prefill is incompatible with enable_thinking.",
    ],
)
async def test_a_last_message_of_the_assistants_that_is_refused_is_followed_by_one_of_the_users(words: str) -> None:
    messages = (*INTERRUPTED[:1], Message("assistant", (Text("No steps are left."),)))
    async with serving(Script.json({"error": {"message": words}}, 400), Script(HELLO)) as (server, backend):
        sink = Recorder()
        await answered(backend, ask(messages=messages), sink)
        assert sink.notes == [Note("repair", "turns")]
        roles = [message["role"] for message in (server.chats[1].body or {})["messages"]]
    assert roles == ["user", "assistant", "user"]


async def test_schemas_of_tools_that_a_grammar_cannot_hold_are_plain_the_second_time() -> None:
    words = "Failed to initialize samplers: failed to parse grammar"
    tool = Tool("find", "", {"type": "object", "properties": {"day": {"type": "string", "pattern": r"^\d+$"}}})
    refusal = Script.json({"error": {"message": words}}, 400)
    async with serving(refusal, Script(HELLO), refusal) as (server, backend):
        sink = Recorder()
        await answered(backend, ask(tools=(tool,)), sink)
        assert sink.notes == [Note("repair", "tool_schemas")]
        sent = [str((seen.body or {})["tools"][0]["function"]["parameters"]) for seen in server.chats]
        assert ["'pattern'" in each for each in sent] == [True, False]
        assert (await failure(answered(backend, ask(tools=(TOOL,)), Recorder()))).kind is Kind.INVALID
        assert len(server.chats) == 3


@pytest.mark.parametrize("overrides", [{}, {"turns": "alternate", "system_messages": "user"}, {"retry_stale": False}])
async def test_an_order_that_is_strict_already_or_is_to_stay_is_asked_once(overrides: dict[str, Any]) -> None:
    messages = INTERRUPTED if overrides else INTERRUPTED[:1]
    refusal = Script.json({"error": {"message": ORDERS[2][1]}}, 400)
    async with serving(refusal, Script(HELLO), overrides=overrides) as (server, backend):
        assert (await failure(answered(backend, ask(messages=messages), Recorder()))).kind is Kind.INVALID
        assert len(server.chats) == 1


async def test_a_refused_value_or_an_essential_field_is_not_left_out() -> None:
    value = Script.json({"error": {"message": "temperature must be below 1", "param": "temperature"}}, 400)
    refusal = {"message": "Unknown parameter: 'tools'", "param": "tools", "code": "unknown_parameter"}
    tools = Script.json({"error": refusal}, 400)
    async with serving(value, tools) as (server, backend):
        request = ask(sampling=Sampling(temperature=2), tools=(TOOL,))
        assert (await failure(answered(backend, request, Recorder()))).kind is Kind.INVALID
        assert (await failure(answered(backend, request, Recorder()))).kind is Kind.INVALID
        assert len(server.chats) == 2


async def test_too_large_a_limit_is_asked_again_with_the_room_that_is_left() -> None:
    said = (
        "'max_tokens' or 'max_completion_tokens' is too large: 32000. This model's maximum context length is 32768 "
        "tokens and your request has 17459 input tokens (32000 > 32768 - 17459)."
    )
    async with serving(Script.json({"error": {"message": said}}, 400), Script(HELLO)) as (server, backend):
        sink = Recorder()
        await answered(backend, ask(max_tokens=32000), sink)
        assert [(seen.body or {})["max_tokens"] for seen in server.chats] == [32000, 32768 - 17459]
        assert sink.notes == [Note("repair", "max_tokens")]


async def test_too_large_a_limit_that_is_refused_within_the_stream() -> None:
    said = (
        "Requested token count exceeds the model's maximum context length of 32768 tokens. You requested a total of "
        "49459 tokens: 17459 tokens from the input messages and 32000 tokens for the completion."
    )
    refusal = {"object": "error", "message": said, "type": "BadRequestError", "param": None, "code": 400}
    scripts = [Script(sse({"error": refusal})), Script(HELLO)]
    async with serving(*scripts, preset="sglang") as (server, backend):
        sink = Recorder()
        await answered(backend, ask(max_tokens=32000), sink)
        assert [(seen.body or {})["max_tokens"] for seen in server.chats] == [32000, 32768 - 17459]
        assert sink.notes == [Note("repair", "max_tokens")]
    async with serving(*[Script(sse({"error": refusal}))] * 2, preset="sglang") as (server, backend):
        assert (await failure(answered(backend, ask(max_tokens=32000), Recorder()))).kind is Kind.OVERFLOW
        assert len(server.chats) == 2


SMALLER = "This model's maximum context length is 1000 tokens and your request has 700 input tokens."


@pytest.mark.parametrize(
    ("scripts", "asked", "limit"),
    [
        ([], 16, None),
        ([], None, 16),
        ([Script.json({"error": {"message": SMALLER}}, 400)], 900, None),
    ],
    ids=["the client's", "the default", "the room that was left"],
)
async def test_a_server_that_hides_a_used_up_limit_behind_a_call(
    scripts: list[Script], asked: int | None, limit: int | None
) -> None:
    cut = call_stream(("add", '{"a": 1'), counts=usage(700, 300 if scripts else 16))
    async with serving(*scripts, Script(cut), overrides={"max_tokens_default": limit}) as (_, backend):
        sink = Recorder()
        await answered(backend, ask(max_tokens=asked, tools=(TOOL,)), sink)
        assert sink.finished.reason is StopReason.LENGTH
        assert PartEnded(complete=False) in sink.events


@pytest.mark.parametrize(("preset", "whole"), [("sglang", False), ("generic", True)])
async def test_a_server_that_completes_the_call_that_the_limit_cut(preset: str, whole: bool) -> None:
    completed = Script(call_stream(("add", '{"a": 1}'), finish="length"))
    async with serving(completed, preset=preset) as (_, backend):
        sink = Recorder()
        await answered(backend, ask(tools=(TOOL,)), sink)
        assert sink.finished.reason is StopReason.LENGTH
        assert PartEnded(complete=whole) in sink.events


@pytest.mark.parametrize("asked", [None, 32000], ids=["no limit asked", "no room left"])
async def test_a_prompt_that_fills_the_window_is_an_overflow(asked: int | None) -> None:
    said = "This model's maximum context length is 8192 tokens. However, your messages resulted in 8100 tokens."
    async with serving(Script.json({"error": {"message": said}}, 400)) as (server, backend):
        error = await failure(answered(backend, ask(max_tokens=asked), Recorder()))
        assert (error.kind, error.tokens, error.limit) == (Kind.OVERFLOW, 8100, 8192)
        assert len(server.chats) == 1


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
