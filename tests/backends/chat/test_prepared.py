"""What a chat server is asked is made once, a limit changes all of it, and another attempt is encoded anew."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest

from dragoman.backends.chat import encode
from dragoman.backends.chat.backend import ChatCompletions
from dragoman.backends.chat.prepared import PreparedChat, prepared
from dragoman.backends.chat.settings import PRESETS, Settings, resolve
from dragoman.translators.constraints import forced
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import JsonSchema, Message, Named, Note, Request, Sampling, Text, Tool, WebSearch
from tests.recording import Recorder, ask
from tests.scripted import Script, ScriptedServer, call_stream, sse, text_stream

TOOL = Tool("add", "Adds.", {"type": "object", "properties": {"a": {"type": "integer"}}})
PERSON = JsonSchema("person", {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]})
NOTHING = frozenset[str]()
# Requests with and without a plan, and servers that name the token limit in their own way.
REQUESTS = {
    "plain": ask(),
    "tools": ask(tools=(TOOL,)),
    "a forced tool": ask(tools=(TOOL,), tool_choice="required"),
    "a format": ask(format=PERSON),
    "a limit": ask(max_tokens=9000),
}
SETTINGS = {
    "enforced": resolve("generic"),
    "prompted": resolve("generic", {"json_schema": "prompt", "force_tool": "prompt"}),
    "other field": resolve("generic", {"max_tokens_field": "max_completion_tokens", "max_tokens_default": 5000}),
    "other name": resolve("generic", {"parameter_names": {"max_tokens": "n_predict"}, "json_schema": "prompt"}),
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
def test_a_limit_changes_body_request_and_plan_alike(request_: Request, settings: Settings) -> None:
    """It is as if the client had asked for so many tokens."""
    limited, asked = (
        prepared(request_, settings, NOTHING),
        prepared(replace(request_, max_tokens=70), settings, NOTHING),
    )
    for limit in (900, 70):
        limited.limit(limit)
    assert limited == asked
    assert limited.asked is (limited.request if limited.plan is None else limited.plan.request)


def test_another_attempt_is_encoded_anew_and_leaves_the_first_as_it_was() -> None:
    settings = SETTINGS["prompted"]
    first = prepared(ask(format=PERSON, sampling=Sampling(top_p=0.5, seed=3)), settings, frozenset({"seed"}))
    first.limit(70)
    body = orjson.dumps(first.body)
    more = replace(first.asked, messages=(*first.asked.messages, Message("user", (Text("Try again."),))))
    second = first.rewritten(settings, asked=more, refused={"top_p"})
    assert orjson.dumps(first.body) == body
    assert [message["content"] for message in second.body["messages"]][-1] == "Try again."
    assert second.body["max_tokens"] == 70
    assert {"top_p", "seed"} == second.refused
    assert {"top_p", "seed"}.isdisjoint(second.body)
    assert "top_p" in first.body
    assert second.plan is first.plan


# ------------------------------------------------------------------------------------------------- answers in one piece

WHOLE = resolve("generic", {"whole_answers": "text", "prompt_progress": True})
ALWAYS = resolve("generic", {"whole_answers": "always"})
LIMITED = ask(whole=True, max_tokens=100)


def test_an_answer_is_asked_for_in_one_piece() -> None:
    it = prepared(LIMITED, WHOLE, NOTHING)
    assert it.whole
    assert it.body["stream"] is False
    assert {"stream_options", "return_progress"}.isdisjoint(it.body)
    again = it.rewritten(WHOLE, asked=replace(it.asked, max_tokens=9), refused={"seed"})
    assert again.whole
    assert again.body == it.body | {"max_tokens": 9}


@pytest.mark.parametrize(
    ("request_", "settings", "markup"),
    [
        (replace(LIMITED, whole=False), WHOLE, None),
        (LIMITED, resolve("generic"), None),
        (replace(LIMITED, tools=(TOOL,)), WHOLE, None),
        (replace(LIMITED, tools=(TOOL,), tool_choice="none"), WHOLE, None),
        (replace(LIMITED, tools=(TOOL,), parallel_tool_calls=False), ALWAYS, None),
        (replace(LIMITED, search=WebSearch("add")), ALWAYS, None),
        (replace(LIMITED, logprobs=0), ALWAYS, None),
        (LIMITED, ALWAYS, "hermes"),
        (replace(LIMITED, format=PERSON), resolve("generic", {"whole_answers": "text", "json_schema": "prompt"}), None),
    ],
    ids=["streamed", "not set", "tools", "hidden tools", "one call", "search", "logprobs", "markup", "a plan"],
)
def test_what_needs_the_stream_is_asked_for_it(request_: Request, settings: Settings, markup: str | None) -> None:
    it = prepared(request_, settings, NOTHING, markup)
    assert not it.whole
    assert it.body["stream"] is True
    assert it.body["stream_options"] == {"include_usage": True}


def test_with_tools_the_setting_must_say_so() -> None:
    assert prepared(replace(LIMITED, tools=(TOOL,)), ALWAYS, NOTHING).whole


@pytest.mark.parametrize(
    ("limit", "default", "seconds", "whole"),
    [
        (None, None, 600, False),
        (100, None, 600, True),
        (6000, None, 600, True),
        (6001, None, 600, False),
        (100, None, 9, False),
        (None, 100, 600, True),
        (None, 6001, 600, False),
        (100, 6001, 600, True),
    ],
)
def test_an_answer_that_may_take_too_long_is_asked_for_as_a_stream(
    limit: int | None, default: int | None, seconds: float, whole: bool
) -> None:
    settings = resolve("generic", {"whole_answers": "text", "max_tokens_default": default})
    assert prepared(replace(LIMITED, max_tokens=limit), settings, NOTHING, seconds=seconds).whole is whole


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_of_servers_whose_whole_answers_are_as_good_as_their_streams(preset: str) -> None:
    assert prepared(LIMITED, resolve(preset), NOTHING).whole is (preset in ("trtllm-serve", "sglang"))


async def test_what_cannot_be_asked_is_refused_before_the_server_is() -> None:
    unusable = JsonSchema("person", {"type": "nonsense"})
    backend = ChatCompletions("http://127.0.0.1:9/v1", settings=SETTINGS["prompted"])
    with pytest.raises(GatewayError) as caught:
        await backend.prepare(ask(format=unusable))
    assert caught.value.kind is Kind.INVALID
    await backend.close()


# --------------------------------------------------------------------------------------------------------- a whole call


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a body is made, and what it is made of."""
    counter: Counter[str] = Counter()

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            counter[name] += 1
            return function(*args, **options)

        return call

    monkeypatch.setattr(forced, "plan", counted("plan", forced.plan))
    for name in ("render", "optional_fields"):
        monkeypatch.setattr(encode, name, counted(name, getattr(encode, name)))
    return counter


async def asked(
    request: Request, *scripts: Any, limit: int | None = None, count: bool = False, **overrides: Any
) -> tuple[Recorder, list[Any]]:
    """One call, through all that a backend is asked to do in it, and the bodies that the server got."""
    async with ScriptedServer(*scripts) as server:
        server.on("POST", "/tokenize", Script.json({"count": 5}))
        backend, sink = ChatCompletions(server.url, settings=resolve("vllm", overrides)), Recorder()
        try:
            it = await backend.prepare(request)
            assert isinstance(it, PreparedChat)
            if count:
                assert await backend.count(it) == 5
            if limit is not None:
                it.limit(limit)
            await backend.stream(it, sink)
        finally:
            await backend.close()
        return sink, [seen.body for seen in server.chats]


ANSWERED = Script(text_stream("Hello"))
CALLED = Script(call_stream(("add", '{"a": 1}')))


@pytest.mark.parametrize("limit", [None, 70])
@pytest.mark.parametrize(
    ("request_", "script", "overrides"),
    [
        (ask(), ANSWERED, {}),
        (ask(tools=(TOOL,), max_tokens=9000), CALLED, {}),
        (ask(tools=(TOOL,), tool_choice="required"), CALLED, {"force_tool": "prompt"}),
        (ask(format=PERSON), Script(text_stream('{"age": 3}')), {"json_schema": "prompt"}),
    ],
    ids=["plain", "tools", "a forced tool", "a format"],
)
async def test_a_body_is_made_once(
    request_: Request, script: Script, overrides: dict[str, Any], limit: int | None, calls: Counter[str]
) -> None:
    sink, bodies = await asked(request_, script, limit=limit, count=True, **overrides)
    assert sink.finished
    assert [body.get("max_tokens") for body in bodies] == [limit or request_.max_tokens]
    assert calls == {"plan": 1, "render": 1, "optional_fields": 1}


async def test_a_second_attempt_makes_a_body_of_its_own_and_no_other_plan(calls: Counter[str]) -> None:
    scripts = [Script(text_stream(text)) for text in ("old", '{"age": 3}')]
    sink, bodies = await asked(ask(format=PERSON), *scripts, limit=70, json_schema="prompt")
    assert sink.text == '{"age": 3}'
    assert [body["max_tokens"] for body in bodies] == [70, 70]
    assert [len(body["messages"]) for body in bodies] == [1, 3]
    assert calls == {"plan": 1, "render": 2, "optional_fields": 2}


async def test_a_second_attempt_leaves_out_what_was_refused_in_the_first() -> None:
    refusal = Script.json({"error": {"message": "No.", "param": "top_k", "code": "unknown_parameter"}}, 400)
    scripts = [refusal, *(Script(text_stream(text)) for text in ("old", '{"age": 3}'))]
    request = ask(format=PERSON, sampling=Sampling(top_k=5))
    sink, bodies = await asked(request, *scripts, json_schema="prompt")
    assert ["top_k" in body for body in bodies] == [True, False, False]
    assert sink.notes == [Note("field", "top_k")]


async def test_what_was_refused_since_it_was_prepared_is_left_out() -> None:
    refusal = Script.json({"error": {"message": "No.", "param": "top_k", "code": "unknown_parameter"}}, 400)
    request = ask(sampling=Sampling(top_k=5))
    async with ScriptedServer(refusal, ANSWERED, ANSWERED) as server:
        backend = ChatCompletions(server.url, settings=resolve("vllm"))
        try:
            both = [await backend.prepare(request), await backend.prepare(request)]
            for each in both:
                await backend.stream(each, Recorder())
        finally:
            await backend.close()
        assert ["top_k" in (seen.body or {}) for seen in server.chats] == [True, False, False]


# ------------------------------------------------------------------------------------------------------ structural tags

FORCED = ask(tools=(TOOL, Tool("now", "", {"type": "object"})), tool_choice=Named("add"))
WRITTEN = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'


def wire(preset: str, request_: Request, markup: str | None = "hermes", **settings: Any) -> dict[str, Any]:
    return prepared(request_, resolve(preset, settings), NOTHING, markup).body


def test_a_forced_call_is_held_to_the_familys_markup() -> None:
    body = wire("vllm", FORCED)
    tag = orjson.loads(body["structured_outputs"]["structural_tag"])
    assert tag == wire("trtllm-serve", FORCED)["response_format"]
    assert tag == {
        "type": "structural_tag",
        "format": {
            "type": "tags_with_separator",
            "tags": [
                {
                    "type": "tag",
                    "begin": '<tool_call>\n{"name": "add", "arguments": ',
                    "content": {"type": "json_schema", "json_schema": TOOL.parameters},
                    "end": "}\n</tool_call>",
                }
            ],
            "separator": "\n",
            "at_least_one": True,
            "stop_after_first": False,
        },
    }


def test_the_conversation_and_the_tools_stay_as_they_are() -> None:
    for preset, choice in (("vllm", "none"), ("trtllm-serve", "auto")):
        body = wire(preset, FORCED)
        free = wire(preset, replace(FORCED, tool_choice="auto"))
        assert body["tool_choice"] == choice
        assert (body["messages"], body["tools"]) == (free["messages"], free["tools"])


def test_strict_tools_keep_their_schema_where_calls_are_free() -> None:
    strict = replace(FORCED, tool_choice="auto", tools=(replace(TOOL, strict=True),))
    tag = orjson.loads(wire("vllm", strict)["structured_outputs"]["structural_tag"])
    assert tag["format"]["type"] == "triggered_tags"
    assert "structured_outputs" not in wire("vllm", replace(strict, tools=(TOOL,)))
    assert not {"structured_outputs", "response_format"} & wire("vllm", replace(strict, format=PERSON)).keys()


@pytest.mark.parametrize(
    ("preset", "markup", "settings"),
    [
        ("vllm", None, {}),  # the server's own parser reads calls
        ("vllm", "hermes", {"structural_tags": "none"}),
        ("generic", "hermes", {}),
        ("vllm", "gemma4", {}),  # of which no grammar is known
        ("vllm", "hermes", {"tools": "forced_only"}),
    ],
)
def test_elsewhere_a_call_is_forced_as_ever(preset: str, markup: str | None, settings: dict[str, Any]) -> None:
    resolved = resolve(preset, settings)
    made = prepared(FORCED, resolved, NOTHING, markup)
    assert made.body == prepared(FORCED, resolved, NOTHING).body
    assert not made.tagged


async def test_a_server_that_refuses_the_tag_is_asked_without() -> None:
    refusal = Script.json({"error": {"message": "Invalid structured_outputs structural_tag"}}, 400)
    async with ScriptedServer(refusal, Script(call_stream(("add", '{"a": 1}')))) as server:
        backend = ChatCompletions(server.url, settings=resolve("vllm", {"markup": "hermes"}))
        sink = Recorder()
        made = await backend.prepare(FORCED)
        made.limit(70)
        await backend.stream(made, sink)
        await backend.close()
        tagged, plain = (seen.body or {} for seen in server.chats)
        assert "structured_outputs" in tagged
        assert "structured_outputs" not in plain
        assert plain["tool_choice"] == {"type": "function", "function": {"name": "add"}}
        assert (tagged["max_tokens"], plain["max_tokens"]) == (70, 70)
        assert sink.text == '{"a": 1}'


NO_GRAMMAR = {"error": {"message": "Invalid grammar specification: 'triggers'", "type": "BadRequestError", "code": 400}}


@pytest.mark.parametrize(
    "play", [Script.json(NO_GRAMMAR, 400), Script(sse(NO_GRAMMAR))], ids=["refused", "in the stream"]
)
async def test_a_server_that_knows_no_grammar_for_strict_tools_is_asked_without(play: Script) -> None:
    strict = replace(FORCED, tool_choice="auto", tools=(replace(TOOL, strict=True),))
    async with ScriptedServer(play, Script(call_stream(("add", '{"a": 1}')))) as server:
        backend = ChatCompletions(server.url, settings=resolve("vllm"))
        sink = Recorder()
        await backend.stream(await backend.prepare(strict), sink)
        await backend.close()
        first, second = (seen.body or {} for seen in server.chats)
        assert first["tools"][0]["function"].pop("strict") is True
        assert second == first
        assert sink.text == '{"a": 1}'
        assert sink.notes == [Note("unenforced", "strict")]


@pytest.mark.parametrize("preset", ["vllm", "trtllm-serve"])
async def test_a_call_that_no_grammar_can_force_is_asked_for_in_words(preset: str) -> None:
    refusal = Script.json({"message": "The provided JSON schema contains features not supported by xgrammar."}, 400)
    async with ScriptedServer(refusal, Script(call_stream(("add", '{"a": 1}')))) as server:
        backend = ChatCompletions(server.url, settings=resolve(preset))
        sink = Recorder()
        await backend.stream(await backend.prepare(FORCED), sink)
        await backend.close()
        _, second = (seen.body or {} for seen in server.chats)
        assert second["tool_choice"] == "auto"
        assert "response_format" not in second
        assert sink.text == '{"a": 1}'
        assert sink.notes == [Note("unenforced", "tool_choice")]


async def test_a_grammar_is_not_what_every_refusal_is_about() -> None:
    strict = replace(FORCED, tools=(replace(TOOL, strict=True),))
    async with ScriptedServer(Script.json({"message": "Conversation roles must alternate."}, 400)) as server:
        backend = ChatCompletions(server.url, settings=resolve("vllm"))
        with pytest.raises(GatewayError, match="roles must alternate"):
            await backend.stream(await backend.prepare(strict), Recorder())
        await backend.close()
        assert len(server.chats) == 1


@pytest.mark.parametrize("request_", [FORCED, replace(FORCED, tool_choice="auto", tools=(replace(TOOL, strict=True),))])
async def test_what_the_server_decodes_under_a_tag_is_read(request_: Request) -> None:
    async with ScriptedServer(Script(text_stream(WRITTEN[:20], WRITTEN[20:]))) as server:
        backend = ChatCompletions(server.url, settings=resolve("trtllm-serve", {"markup": "hermes"}))
        sink = Recorder()
        made = await backend.prepare(request_)
        made.limit(70)
        await backend.stream(made, sink)
        await backend.close()
        (seen,) = server.chats
        assert (seen.body or {})["response_format"]["type"] == "structural_tag"
        assert sink.text == '{"a": 1}'
        assert sink.notes == []
