"""A client of chat completions at the gateway, over a scripted chat server: nothing passes through untouched."""

from __future__ import annotations

from typing import Any

import pytest

from tests.grammar.chat_completions import check_error, check_response, check_stream
from tests.scripted import Json, Script, call_stream, text_stream
from tests.serving_gateway import Served, served

PATH = "/v1/chat/completions"
ASK: Json = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
TOOLS: list[Json] = [{"type": "function", "function": {"name": name}} for name in ("ls", "cat")]
CALLS = call_stream(("ls", '{"path": "."}'), ("cat", '{"path": "a"}'))


async def streamed(it: Served, **fields: Any) -> bytes:
    asked = {**ASK, "stream": True, "stream_options": {"include_usage": True}, **fields}
    async with it.session.post(it.url + PATH, json=asked) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        return await answer.read()


async def whole(it: Served, **fields: Any) -> tuple[int, Json, str | None]:
    """Status, body and what was ignored."""
    async with it.session.post(it.url + PATH, json={**ASK, **fields}) as answer:
        return answer.status, await answer.json(), answer.headers.get("x-dragoman-ignored")


@pytest.mark.parametrize("slash", ["", "/"])
async def test_an_answer_streamed_and_whole(slash: str) -> None:
    script = Script(text_stream("hel", "lo", reasoning=["hm"]))
    async with served(script, script) as it:
        completion = check_stream(await streamed(it))
        async with it.session.post(it.url + PATH + slash, json=ASK) as answer:
            body = await answer.json()
    check_response(body)
    assert completion is not None
    for one in (completion, body):
        assert one["choices"][0]["message"]["content"] == "hello"
        assert one["choices"][0]["message"]["reasoning_content"] == "hm"
        assert one["model"] == "m"
    assert completion["usage"] == body["usage"] is not None


async def test_a_silent_server_is_covered_by_comments() -> None:
    script = Script(text_stream("a"), first_delay=0.5)
    async with served(script, timeouts={"head_after": 0.1, "keepalive": 0.1}) as it:
        body = await streamed(it)
    assert body.startswith(b": keepalive\n\n: keepalive\n\n")
    assert check_stream(body) is not None


@pytest.mark.parametrize("calls", [True, False])
async def test_a_stream_that_the_server_cuts_ends_in_an_error_and_without_done(calls: bool) -> None:
    body = CALLS if calls else text_stream("a", "b")
    script = Script(body, cut_at=body.rindex(b"finish_reason") - 80)
    async with served(script) as it:
        assert check_stream(await streamed(it, tools=TOOLS)) is None
    async with served(script) as it:
        status, error, _ = await whole(it, tools=TOOLS)
    assert status == 502
    check_error(status, error)


async def test_one_call_at_a_time_is_kept_where_the_server_does_not() -> None:
    async with served(Script(CALLS), Script(CALLS)) as it:
        both = check_stream(await streamed(it, tools=TOOLS))
        first = check_stream(await streamed(it, tools=TOOLS, parallel_tool_calls=False))
    names = []
    for completion in (both, first):
        assert completion is not None
        assert completion["choices"][0]["finish_reason"] == "tool_calls"
        names.append([call["function"]["name"] for call in completion["choices"][0]["message"]["tool_calls"]])
    assert names == [["ls", "cat"], ["ls"]]


async def test_what_is_left_out_stands_in_a_header() -> None:
    async with served(Script(text_stream("a"))) as it:
        status, _, ignored = await whole(it, user="u", store=True, tools=[{"type": "web_search"}])
    assert status == 200
    assert ignored is not None
    assert {"field:user", "field:store", "tool:web_search"} <= set(ignored.split(", "))


async def test_a_history_is_repaired_before_the_server_sees_it() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "ls", "arguments": "{"}}
    history = [*ASK["messages"], {"role": "assistant", "tool_calls": [call]}, {"role": "user", "content": "Well?"}]
    async with served(Script(text_stream("a"))) as it:
        status, _, ignored = await whole(it, messages=history, tools=TOOLS)
        seen = it.server.chats[0].body
    assert status == 200
    assert seen is not None
    assert [message["role"] for message in seen["messages"]] == ["user", "assistant", "tool", "user"]
    assert ignored is not None
    assert {"repair:missing_output", "repair:bad_arguments"} <= set(ignored.split(", "))


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"n": 2}, "n"), ({"messages": []}, "messages"), ({"functions": [{"name": "f"}]}, "functions")],
)
async def test_what_cannot_be_done_is_refused_before_the_server_is_asked(fields: Json, param: str) -> None:
    async with served() as it:
        for streaming in (True, False):
            status, body, _ = await whole(it, stream=streaming, **fields)
            check_error(status, body)
            assert (status, body["error"]["param"]) == (400, param)
        assert not it.server.chats


async def test_an_overflow_is_said_in_the_words_that_clients_look_for() -> None:
    words = "This model's maximum context length is 100 tokens. However, you requested 120 tokens in the messages."
    refusal = Script.json({"object": "error", "message": words, "type": "BadRequestError", "code": 400}, 400)
    async with served(refusal, refusal, backend={"preset": "vllm"}) as it:
        for streaming in (True, False):
            status, body, _ = await whole(it, stream=streaming)
            check_error(status, body)
            assert (status, body["error"]["code"]) == (400, "context_length_exceeded")
            assert body["error"]["message"].startswith("This model's maximum context length is 100 tokens.")
