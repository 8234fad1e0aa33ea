"""Constraints that the server cannot enforce: what is asked instead, what is accepted, what the second attempt is."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from dragoman.backends.base import Sink
from dragoman.backends.chat.backend import ChatCompletions
from dragoman.backends.chat.settings import resolve
from dragoman.backends.child_process import Children, NoReply
from dragoman.backends.enforce import enforce
from dragoman.translators.constraints import forced
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import (
    Delta,
    Finished,
    Format,
    JsonObject,
    JsonSchema,
    Named,
    Note,
    PartEnded,
    PartStarted,
    Reasoning,
    Request,
    Started,
    StopReason,
    Text,
    Tool,
    ToolCall,
    Usage,
)
from tests.event_grammar import check
from tests.recording import Recorder, answered, ask
from tests.scripted import Script, ScriptedServer, call_stream, text_stream, usage

ADD = Tool("add", "Adds.", {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})
SUB = Tool("sub", "Subtracts.", {"type": "object"})
TOOLS = (ADD, SUB)
PERSON: Format = JsonSchema(
    "person", {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
)


async def run(request: Request, *scripts: Any, preset: str = "trtllm-serve", **overrides: Any) -> tuple[Recorder, Any]:
    async with ScriptedServer(*scripts) as server:
        backend = ChatCompletions(server.url, settings=resolve(preset, overrides))
        sink = Recorder()
        try:
            prepared = await backend.prepare(request)
            sink.notes += prepared.notes
            await backend.stream(prepared, sink)
        finally:
            await backend.close()
        return sink, [seen.body for seen in server.chats]


def answer(*pieces: str, **options: Any) -> Script:
    return Script(text_stream(*pieces, **options))


# ---------------------------------------------------------------------------------------------- a tool forced by schema


async def test_a_forced_tool_is_asked_for_as_constrained_json_and_comes_back_as_a_call() -> None:
    said = answer('{"name": "add", ', '"arguments": {"a": 1}}', reasoning=["let me ", "add"])
    sink, (body,) = await run(ask("add 1", tools=TOOLS, tool_choice="required"), said)
    thought, call = sink.parts
    assert thought == Reasoning("let me add")
    assert isinstance(call, ToolCall)
    assert (call.name, call.arguments) == ("add", '{"a":1}')
    assert call.id
    assert sink.finished.usage == Usage(11, 7)
    assert sink.notes == []
    assert "tools" not in body
    schema = body["response_format"]["json_schema"]["schema"]
    assert [option["properties"]["name"] for option in schema["anyOf"]] == [{"const": "add"}, {"const": "sub"}]
    assert body["messages"][-1]["content"].startswith("add 1\n")
    assert '"parameters":{"type":"object","properties":{"a"' in body["messages"][-1]["content"]


async def test_a_named_tool_is_the_only_one_in_the_schema() -> None:
    request = ask(tools=TOOLS, tool_choice=Named("sub"))
    sink, (body,) = await run(request, answer('{"name":"sub","arguments":{}}'))
    assert [(part.name, part.arguments) for part in sink.parts if isinstance(part, ToolCall)] == [("sub", "{}")]
    assert body["response_format"]["json_schema"]["schema"]["properties"]["name"] == {"const": "sub"}
    assert "Adds." not in body["messages"][-1]["content"]


async def test_nothing_reaches_the_client_before_the_answer_is_judged() -> None:
    sink, _ = await run(ask(tools=TOOLS, tool_choice="required"), answer(*'{"name":"add","arguments":{"a":1}}'))
    assert len(sink.feeds) == 1


async def test_with_each_event_that_is_withheld_it_is_said_that_the_server_works() -> None:
    whole = text_stream('{"name":"add","arguments":{"a":1}}', reasoning=[*"abc"])
    sink, _ = await run(ask(tools=TOOLS, tool_choice="required"), Script(whole, split="frames", gap=0.01))
    assert len(sink.feeds) == 1
    assert sink.works >= 4


async def test_a_native_call_is_accepted_as_it_is() -> None:
    sink, _ = await run(ask(tools=TOOLS, tool_choice="required"), Script(call_stream(("add", '{"a": 1}'))))
    assert sink.parts == [ToolCall("call_0", "add", '{"a": 1}')]


@pytest.mark.parametrize(
    "text",
    [
        '{"name":"add","arguments":{"a":1}}',
        '[{"name":"add","arguments":{"a":1}}]',
        '{"name":"add","parameters":{"a":1}}',
        '{"name":"add","arguments":{"a":1},"parameters":{"a":2}}',
        '```json\n[{"name":"add","parameters":{"a":1}}]\n```',
    ],
)
async def test_a_call_is_read_in_the_forms_that_models_give_it(text: str) -> None:
    sink, bodies = await run(ask(tools=TOOLS, tool_choice="required"), answer(text))
    assert len(bodies) == 1
    assert [(part.name, part.arguments) for part in sink.parts if isinstance(part, ToolCall)] == [("add", '{"a":1}')]
    assert len(sink.parts) == 1


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('[{"name":"add","arguments":{"a":1}},{"name":"sub","arguments":{}}]', "no tool call"),
        ("[]", "no tool call"),
        ('{"arguments":{"a":1}}', "no tool call"),
        ('{"name":["add"],"arguments":{}}', "no tool call"),
        ('{"name":"rm","arguments":{}}', "`add`, `sub`"),
        ('{"name":"add"}', "not a JSON object"),
        ('{"name":"add","arguments":null,"parameters":{"a":1}}', "not a JSON object"),
        ('{"name":"add","arguments":"{}"}', "not a JSON object"),
        ('{"name":"add","arguments":[1]}', "not a JSON object"),
        ('{"name":"add","arguments":{"a":NaN}}', "no tool call"),
        ('{"name":"add","arguments":{"a":1e999}}', "no tool call"),
    ],
)
async def test_what_is_no_call_of_one_of_the_tools_is_asked_for_again(text: str, fault: str) -> None:
    sink, (_, second) = await run(
        ask(tools=TOOLS, tool_choice="required"), answer(text), answer('{"name":"add","arguments":{"a":1}}')
    )
    assert fault in second["messages"][-1]["content"]
    assert [part.name for part in sink.parts if isinstance(part, ToolCall)] == ["add"]


@pytest.mark.parametrize("bad", [0, 1])
async def test_one_call_without_an_object_among_several_is_enough_to_ask_again(bad: int) -> None:
    arguments = ['{"a": 1}', '{"a": 2}']
    arguments[bad] = "[1]"
    wrong = Script(call_stream(*(("add", each) for each in arguments)))
    sink, bodies = await run(
        ask(tools=TOOLS, tool_choice="required"), wrong, Script(call_stream(("add", '{"a": 3}'))), force_tool="prompt"
    )
    assert len(bodies) == 2
    assert [part.arguments for part in sink.parts if isinstance(part, ToolCall)] == ['{"a": 3}']


async def test_arguments_keep_their_letters() -> None:
    sink, _ = await run(
        ask(tools=TOOLS, tool_choice="required"), answer('{"name":"add","arguments":{"a":"größer 😀"}}')
    )
    assert [part.arguments for part in sink.parts if isinstance(part, ToolCall)] == ['{"a":"größer 😀"}']


@pytest.mark.parametrize(
    ("written", "read"),
    [(r"\ud83d\ude00", "😀"), (r"a\ud83d", "a\ufffd"), (r"\ude00\ud83d", "\ufffd\ufffd")],
)
async def test_half_of_a_pair_of_escapes_ends_no_answer(written: str, read: str) -> None:
    text = f'{{"name":"add","arguments":{{"a":"{written}"}}}}'
    sink, _ = await run(ask(tools=TOOLS, tool_choice="required"), answer(text))
    assert [part.arguments for part in sink.parts if isinstance(part, ToolCall)] == [f'{{"a":"{read}"}}']


async def test_an_empty_answer_is_shown_as_nothing_in_the_second_attempt() -> None:
    sink, (_, second) = await run(
        ask(tools=TOOLS, tool_choice="required"), answer(" \n"), answer('{"name":"add","arguments":{"a":1}}')
    )
    assert second["messages"][-2]["content"] == "(nothing)"
    assert isinstance(sink.parts[0], ToolCall)


MAY_CALL = ask(tools=TOOLS, format=PERSON)
SERVERS = pytest.mark.parametrize("preset", ["generic", "vllm", "sglang", "trtllm-serve", "lmdeploy", "llama.cpp"])


@SERVERS
async def test_a_format_keeps_no_model_from_calling_a_tool(preset: str) -> None:
    sink, (body,) = await run(MAY_CALL, Script(call_stream(("add", '{"a": 1}'))), preset=preset)
    assert "response_format" not in body
    assert [tool["function"]["name"] for tool in body["tools"]] == ["add", "sub"]
    assert [part.name for part in sink.parts if isinstance(part, ToolCall)] == ["add"]
    assert sink.notes == []


@SERVERS
@pytest.mark.parametrize("text", ["Mr. Smith is 41.", '{"age": "41"}'])
async def test_a_text_beside_tools_that_does_not_fit_is_asked_for_again_and_enforced(preset: str, text: str) -> None:
    sink, (first, second) = await run(MAY_CALL, answer(text), answer('{"age": 41}'), preset=preset)
    assert [message["role"] for message in first["messages"]] == ["system", "user"]
    assert first["messages"][0]["content"].startswith("Call tools as you need them. Then answer with one JSON value")
    assert '"age"' in first["messages"][0]["content"]
    assert second["response_format"]["json_schema"]["name"] == "person"
    assert second.get("tool_choice", "none") == "none"
    assert sink.parts == [Text('{"age": 41}')]
    assert sink.notes == []


@pytest.mark.parametrize(
    ("text", "shown", "notes"),
    [
        ("Let me add these.", [], [Note("drop", "text")]),
        ('{"age": 41}', [Text('{"age": 41}')], []),
        (" \n", [], []),
    ],
    ids=["prose", "JSON", "blank"],
)
async def test_prose_beside_a_call_is_no_json_answer(text: str, shown: list[Text], notes: list[Note]) -> None:
    said = Script(call_stream(("add", '{"a": 1}'), ("sub", "{}"), text=text))
    sink, _ = await run(MAY_CALL, said, preset="vllm")
    calls = [ToolCall("call_0", "add", '{"a": 1}'), ToolCall("call_1", "sub", "{}")]
    assert sink.parts == [*shown, *calls]
    check(sink.events)
    assert sink.notes == notes


async def test_a_text_beside_tools_that_fits_is_asked_for_once() -> None:
    sink, bodies = await run(MAY_CALL, answer('```json\n{"age": 41}\n```'), preset="vllm")
    assert len(bodies) == 1
    assert sink.parts == [Text('{"age": 41}')]


@pytest.mark.parametrize(
    "request_",
    [ask(format=PERSON), replace(MAY_CALL, tool_choice="none")],
    ids=["no tools", "none may be called"],
)
async def test_a_format_is_enforced_where_no_tool_can_be_called(request_: Request) -> None:
    sink, (body,) = await run(request_, answer('{"age": 41}'), preset="vllm")
    assert body["response_format"]["json_schema"]["name"] == "person"
    assert sink.parts == [Text('{"age": 41}')]


async def test_a_format_is_enforced_where_tools_are_not_shown() -> None:
    _, (body,) = await run(MAY_CALL, answer('{"age": 41}'), preset="vllm", tools="forced_only")
    assert "response_format" in body


async def test_the_prompts_size_and_the_clients_leaving_pass_the_stage() -> None:
    async def server(request: Request, sink: Sink) -> None:
        sink.on_left = left.set
        sink.prompt_size(41)
        sink.note(Note("repair", "x"))

    left, sink = asyncio.Event(), Recorder()
    plan = forced.plan(ask(tools=TOOLS, tool_choice="required"), force_tool="schema", json_schema="enforced")
    await enforce(plan, ask(tools=TOOLS), server, sink)
    assert sink.size == 41
    assert sink.notes == [Note("repair", "x")]
    sink.on_left()
    assert left.is_set()
    assert not sink.events  # the client left: there is no answer to judge


async def test_a_stop_string_is_in_the_answer_that_was_played_back() -> None:
    async def server(request: Request, sink: Sink) -> None:
        assert not sink.touched
        sink.feed([Started(), PartStarted("text"), Delta('```json\n{"a":1}\n```'), PartEnded()])
        assert sink.touched
        sink.feed([Finished(StopReason.STOP, None, "###")])

    for format in (JsonObject(), None):
        sink = Recorder()
        request = ask(format=format, tools=TOOLS, tool_choice="auto" if format else Named("add"))
        plan = forced.plan(request, force_tool="prompt", json_schema="prompt")
        await enforce(plan, request, server, sink)
        assert sink.finished.stop_sequence == "###"


@pytest.mark.parametrize(
    ("text", "kept", "notes"),
    [('{"a":1}', True, []), ('```json\n{"a":1}\n```', False, [Note("drop", "logprobs")])],
    ids=["as it came", "without its fence"],
)
async def test_log_probabilities_stay_with_a_text_that_stays(text: str, kept: bool, notes: list[Note]) -> None:
    async def server(request: Request, sink: Sink) -> None:
        sink.feed([Started(), PartStarted("text"), Delta(text, tokens), PartEnded(), Finished(StopReason.STOP)])

    tokens: list[dict[str, Any]] = [{"token": "x", "logprob": -1.0, "bytes": None, "top_logprobs": []}]
    sink, request = Recorder(), ask(format=JsonObject(), logprobs=0)
    await enforce(forced.plan(request, force_tool="native", json_schema="prompt"), request, server, sink)
    assert Delta('{"a":1}', tokens if kept else None) in sink.events
    assert sink.notes == notes


async def test_the_second_attempt_shows_the_first_and_usage_is_the_sum() -> None:
    wrong = answer("I would rather talk.", counts=usage(10, 5, cached=3))
    right = answer('{"name":"add","arguments":{"a":1}}', counts=usage(20, 6, cached=9))
    sink, (first, second) = await run(ask(tools=TOOLS, tool_choice="required"), wrong, right)
    assert [part.name for part in sink.parts if isinstance(part, ToolCall)] == ["add"]
    assert sink.finished.usage == Usage(30, 11, cached=12)
    assert second["messages"][: len(first["messages"])] == first["messages"]
    assert second["messages"][-2] == {
        "role": "assistant",
        "content": "I would rather talk.",
        "reasoning_content": "",
    }
    assert "no tool call" in second["messages"][-1]["content"]


@pytest.mark.parametrize(
    "text",
    ["talk", '{"name":"rm","arguments":{}}', '{"name":"add","arguments":"a"}', '["add"]', "3", "[" * 100_000],
)
async def test_constrained_decoding_that_does_not_constrain_is_a_failure_and_not_a_quiet_text(text: str) -> None:
    sink = Recorder()
    async with ScriptedServer(answer(text), answer(text)) as server:
        backend = ChatCompletions(server.url, settings=resolve("trtllm-serve"))
        with pytest.raises(GatewayError) as caught:
            await answered(backend, ask(tools=TOOLS, tool_choice="required"), sink)
        await backend.close()
        assert len(server.chats) == 2
    assert caught.value.kind is Kind.BACKEND_FAILED
    assert not sink.touched


@pytest.mark.parametrize(
    ("finish", "reason"), [("length", StopReason.LENGTH), ("content_filter", StopReason.CONTENT_FILTER)]
)
async def test_a_cut_answer_is_passed_on_as_cut(finish: str, reason: StopReason) -> None:
    cut = answer('{"name":"add","argu', finish=finish)
    sink, bodies = await run(ask(tools=TOOLS, tool_choice="required"), cut)
    assert len(bodies) == 1
    assert sink.finished.reason is reason
    assert sink.parts == [Text('{"name":"add","argu')]


async def test_usage_of_two_attempts_is_unknown_where_one_is() -> None:
    unknown = Script(text_stream("talk", counts={"prompt_tokens": 0, "completion_tokens": 0}))
    sink, _ = await run(ask(tools=TOOLS, tool_choice="required"), unknown, answer('{"name":"add","arguments":{}}'))
    assert sink.finished.usage is None


async def test_a_failure_of_the_server_in_the_second_attempt_is_a_failure() -> None:
    with pytest.raises(GatewayError) as caught:
        await run(ask(tools=TOOLS, tool_choice="required"), answer("talk"), Script.json({"error": "full"}, 429))
    assert caught.value.kind is Kind.BUSY


async def test_a_server_that_forces_tools_itself_is_left_alone() -> None:
    sink, (body,) = await run(
        ask(tools=TOOLS, tool_choice="required"), Script(call_stream(("add", '{"a": 1}'))), force_tool="native"
    )
    assert body["tool_choice"] == "required"
    assert "response_format" not in body
    assert len(sink.feeds) >= 1


async def test_a_model_without_tools_in_its_template_still_makes_forced_calls() -> None:
    request = ask(tools=TOOLS, tool_choice=Named("add"))
    said = answer('{"name":"add","arguments":{"a":40}}')
    sink, (body,) = await run(request, said, preset="llama.cpp", tools="forced_only", force_tool="schema")
    assert [part.arguments for part in sink.parts if isinstance(part, ToolCall)] == ['{"a":40}']
    assert "tools" not in body
    assert sink.notes == []


# ---------------------------------------------------------------------------------------------- a tool forced by prompt


async def test_a_tool_forced_by_prompt_keeps_the_tools_and_is_announced_as_unenforced() -> None:
    request = ask("go", tools=TOOLS, tool_choice=Named("add"))
    sink, (body,) = await run(request, Script(call_stream(("add", '{"a": 1}'))), preset="triton-openai")
    assert [tool["function"]["name"] for tool in body["tools"]] == ["add", "sub"]
    assert body["tool_choice"] == "auto"
    assert "`add`" in body["messages"][-1]["content"]
    assert sink.notes == [Note("unenforced", "tool_choice")]


async def test_the_wrong_tool_is_tried_again_once_and_then_passed_on_visibly() -> None:
    wrong = Script(call_stream(("sub", "{}")))
    sink, bodies = await run(ask(tools=TOOLS, tool_choice=Named("add")), wrong, wrong, preset="triton-openai")
    assert len(bodies) == 2
    assert "sub({})" in bodies[1]["messages"][-2]["content"]
    assert sink.parts == [ToolCall("call_0", "sub", "{}")]
    assert sink.notes == [Note("unenforced", "tool_choice"), Note("unenforced", "tool_choice_failed")]


async def test_auto_is_not_touched() -> None:
    sink, (body,) = await run(ask(tools=TOOLS), answer("Hi"), preset="triton-openai")
    assert (sink.text, body["tool_choice"], sink.notes) == ("Hi", "auto", [])


# ------------------------------------------------------------------------------------------------------ json by prompt


async def test_json_by_prompt_is_freed_of_its_fence() -> None:
    sink, (body,) = await run(ask(format=PERSON), answer('```json\n{"age": 3}\n```'), preset="triton-openai")
    assert sink.parts == [Text('{"age": 3}')]
    assert "response_format" not in body
    assert '"required":["age"]' in body["messages"][-1]["content"]
    assert sink.notes == [Note("unenforced", "format")]


@pytest.mark.parametrize("text", ["[1]", "3", '"x"', "```json\n{}", "```json\n{}xyz", "{} ```", '{"a": NaN}'])
async def test_what_is_no_json_object_is_asked_for_again(text: str) -> None:
    sink, bodies = await run(ask(format=JsonObject()), answer(text), answer('{"a": 1}'), preset="triton-openai")
    assert len(bodies) == 2
    assert sink.parts == [Text('{"a": 1}')]


async def test_thoughts_stay_before_the_json_that_was_freed_of_its_fence() -> None:
    said = answer("```json\n{}\n```", reasoning=["hm"])
    sink, _ = await run(ask(format=JsonObject()), said, preset="triton-openai")
    assert sink.parts == [Reasoning("hm"), Text("{}")]


async def test_what_a_schema_is_for_is_said_in_the_prompt() -> None:
    schema = JsonSchema("s", {"type": "object"}, description="A person of the register.")
    _, (body,) = await run(ask(format=schema), answer("{}"), preset="triton-openai")
    assert "(A person of the register.)" in body["messages"][-1]["content"]


async def test_json_that_does_not_fit_is_asked_for_again_with_the_fault() -> None:
    sink, (_, second) = await run(
        ask(format=PERSON), answer('{"age": "three"}'), answer('{"age": 3}'), preset="triton-openai"
    )
    assert sink.parts == [Text('{"age": 3}')]
    assert "$.age: 'three' is not of type 'integer'" in second["messages"][-1]["content"]


async def test_json_that_never_fits_is_passed_on_visibly() -> None:
    sink, _ = await run(ask(format=JsonObject()), answer("no"), answer("never"), preset="triton-openai")
    assert sink.parts == [Text("never")]
    assert sink.notes == [Note("unenforced", "format"), Note("unenforced", "format_failed")]


async def test_a_call_is_no_answer_to_be_judged() -> None:
    sink, bodies = await run(
        ask(format=PERSON, tools=TOOLS), Script(call_stream(("add", '{"a": 1}'))), preset="triton-openai"
    )
    assert len(bodies) == 1
    assert isinstance(sink.parts[0], ToolCall)


@pytest.mark.parametrize("schema", [{"type": "nonsense"}, {"required": 5}, {"x": "y" * 300_000}])
async def test_a_schema_that_cannot_be_checked_is_refused_at_once(schema: dict[str, Any]) -> None:
    backend = ChatCompletions("http://127.0.0.1:1/v1", settings=resolve("triton-openai"))
    with pytest.raises(GatewayError) as caught:
        await backend.prepare(ask(format=JsonSchema("s", schema)))
    await backend.close()
    assert caught.value.kind is Kind.INVALID


async def test_an_answer_that_cannot_be_checked_in_time_is_delivered_and_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    async def late(self: Children, question: bytes, within: float) -> bytes:
        raise NoReply("too slow", late=True)

    monkeypatch.setattr(Children, "ask", late)
    sink, bodies = await run(ask(format=PERSON), answer('{"age": "old"}'), json_schema="prompt")
    assert sink.parts == [Text('{"age": "old"}')]
    assert [note.name for note in sink.notes if note.kind == "unenforced"] == ["format", "format_unchecked"]
    assert len(bodies) == 1
