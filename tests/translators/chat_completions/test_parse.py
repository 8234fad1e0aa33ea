"""Bodies of chat completions into requests: every field translated, refused with its path, or noted."""

from typing import Any

import pytest

from dragoman.translators.chat_completions import PROTOCOL
from dragoman.translators.errors import GatewayError
from dragoman.translators.ir import (
    Guided,
    Image,
    JsonObject,
    JsonSchema,
    Reasoning,
    Refusal,
    Sampling,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from dragoman.translators.protocol import Context, Json, Policy
from tests.translators.chat_completions.asked import (
    PIXEL,
    USER,
    call,
    notes,
    parse,
    refused,
    request,
    result,
    said,
)

# ------------------------------------------------------------------------------------------------------------- messages


@pytest.mark.parametrize("role", ["system", "developer", "user"])
@pytest.mark.parametrize("content", ["one", [{"type": "text", "text": "one"}]])
def test_text_is_a_string_or_parts(role: str, content: Any) -> None:
    assert said({"role": role, "content": content}, USER)[0].parts == (Text("one"),)
    assert said({"role": role, "content": content}, USER)[0].role == role


def test_a_turn_of_the_assistant_keeps_its_order() -> None:
    spoken = {
        "role": "assistant",
        "content": [{"type": "text", "text": "one"}, {"type": "refusal", "refusal": "two"}],
        "refusal": "three",
        "reasoning_content": "hm",
        "tool_calls": [call("c1", "ls")],
    }
    turn = said(USER, spoken, result("c1"))[1]
    assert turn.parts == (Reasoning("hm"), Text("one"), Refusal("two"), Refusal("three"), ToolCall("c1", "ls", "{}"))


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning"])
def test_reasoning_comes_under_either_name(key: str) -> None:
    assert said(USER, {"role": "assistant", "content": "Hi", key: "hm"}, USER)[1].parts[0] == Reasoning("hm")


def test_reasoning_under_both_names_is_taken_once() -> None:
    both = {"role": "assistant", "content": "Hi", "reasoning_content": "", "reasoning": "hm"}
    assert said(USER, both, USER)[1].parts == (Reasoning("hm"), Text("Hi"))


@pytest.mark.parametrize("fields", [{}, {"content": None}, {"content": None, "tool_calls": []}, {"content": ""}])
def test_an_assistant_may_have_said_nothing(fields: Json) -> None:
    assert said(USER, {"role": "assistant", **fields}, {"role": "user", "content": "Again"})[-1].parts == (
        Text("Again"),
    )


def test_what_the_sdk_made_of_an_answer_is_not_noted() -> None:
    """`message.model_dump()` of OpenAI's `chat.completions.parse`, appended as its own documentation does."""
    made = call("c", "ls")
    made["function"]["parsed_arguments"] = {"path": "."}
    spoken = {"role": "assistant", "content": '{"a":1}', "parsed": {"a": 1}, "tool_calls": [made]}
    assert notes(messages=[USER, spoken, result("c")]) == []


def test_results_are_moved_after_their_calls() -> None:
    spoken = {"role": "assistant", "tool_calls": [call("c1", "ls"), call("c2", "cat")]}
    turns = said(USER, spoken, result("c2", [{"type": "text", "text": "two"}]), result("c1", "one"))
    assert [turn.parts[0] for turn in turns[2:]] == [
        ToolResult("c1", (Text("one"),)),
        ToolResult("c2", (Text("two"),)),
    ]
    assert "repair:reordered_output" in notes(messages=[USER, spoken, result("c2"), result("c1")])


@pytest.mark.parametrize("content", [None, "", []])
def test_a_tool_may_have_returned_nothing(content: Any) -> None:
    *_, last = said(USER, {"role": "assistant", "tool_calls": [call("c", "f")]}, result("c", content))
    assert last.parts == (ToolResult("c", (Text(""),)),)


def test_strict_history_refuses_what_would_be_repaired() -> None:
    context = Context(id="0" * 24, clock=lambda: 0, policy=Policy(strict_history=True))
    assert refused(context, messages=[USER, {"role": "assistant", "tool_calls": [call("c1", "ls")]}, USER])


def test_an_image_remembers_where_it_stood() -> None:
    parts = [{"type": "text", "text": "See"}, {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}}]
    (turn,) = said({"role": "user", "content": parts})
    image = turn.parts[1]
    assert image == Image(PIXEL, "low")
    assert isinstance(image, Image)
    assert image.path == "messages[0].content[1].image_url.url"


def test_the_type_beside_an_image_is_not_noted() -> None:
    image = {"type": "image_url", "image_url": {"url": PIXEL, "detail": "auto", "format": "image/png"}}  # LiteLLM
    assert notes(messages=[{"role": "user", "content": [image]}]) == []


def test_a_bare_url_is_an_image_too() -> None:
    assert said({"role": "user", "content": [{"type": "image_url", "image_url": PIXEL}]})[0].parts == (Image(PIXEL),)


def test_a_file_is_read_where_its_text_came_with_it() -> None:
    file = {"type": "file", "file": {"filename": "a.txt", "file_data": "data:text/plain,Hello"}}
    assert said({"role": "user", "content": [file]})[0].parts == (Text("[File: a.txt]\nHello"),)


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("Hello", "messages[1]"),
        ({}, "messages[1].role"),
        ({"role": "critic", "content": "x"}, "messages[1].role"),
        ({"role": "function", "name": "f", "content": "x"}, "messages[1].role"),
        ({"role": "user"}, "messages[1].content"),
        ({"role": "user", "content": None}, "messages[1].content"),
        ({"role": "user", "content": 1}, "messages[1].content"),
        ({"role": "user", "content": ["x"]}, "messages[1].content[0]"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[1].content[0].text"),
        ({"role": "user", "content": [{"type": "refusal", "refusal": "x"}]}, "messages[1].content[0].type"),
        ({"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}, "messages[1].content[0].type"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "messages[1].content[0].image_url"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, "messages[1].content[0].image_url.url"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": 5}}]},
            "messages[1].content[0].image_url.url",
        ),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": PIXEL, "detail": 5}}]},
            "messages[1].content[0].image_url.detail",
        ),
        (
            {"role": "user", "content": [{"type": "file", "file": {}}]},
            "messages[1].content[0].file.file_data",
        ),
        ({"role": "system", "content": [{"type": "image_url", "image_url": PIXEL}]}, "messages[1].content[0].type"),
        ({"role": "assistant", "content": [{"type": "image_url", "image_url": PIXEL}]}, "messages[1].content[0].type"),
        ({"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}}, "messages[1].function_call"),
        ({"role": "assistant", "audio": {"id": "a"}}, "messages[1].audio"),
        ({"role": "assistant", "content": "x", "reasoning_content": 1}, "messages[1].reasoning_content"),
        ({"role": "assistant", "tool_calls": {}}, "messages[1].tool_calls"),
        ({"role": "assistant", "tool_calls": [1]}, "messages[1].tool_calls[0]"),
        ({"role": "assistant", "tool_calls": [{"id": "", "function": {}}]}, "messages[1].tool_calls[0].id"),
        ({"role": "assistant", "tool_calls": [{"id": "c", "type": "mcp"}]}, "messages[1].tool_calls[0].type"),
        ({"role": "assistant", "tool_calls": [{"id": "c"}]}, "messages[1].tool_calls[0].function"),
        (
            {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f"}}]},
            "messages[1].tool_calls[0].function.arguments",
        ),
        (
            {"role": "assistant", "tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "f"}}]},
            "messages[1].tool_calls[0].custom.input",
        ),
        ({"role": "tool", "content": "x"}, "messages[1].tool_call_id"),
        ({"role": "tool", "tool_call_id": "c"}, "messages[1].content"),
    ],
)
def test_a_wrong_message_is_refused_with_its_path(message: Any, param: str) -> None:
    assert refused(messages=[USER, message]).param == param


@pytest.mark.parametrize(
    ("messages", "code"), [(None, "missing_required_parameter"), ([], "empty_array"), ("Hello", "invalid_type")]
)
def test_a_conversation_is_needed(messages: Any, code: str) -> None:
    error = refused(messages=messages)
    assert (error.param, error.code) == ("messages", code)


def test_what_came_before_tools_is_refused_by_the_name_of_what_came_after() -> None:
    assert "'tools'" in refused(functions=[{"name": "f"}]).message
    assert "'tool_choice'" in refused(function_call="auto").message
    assert "'tool'" in refused(messages=[{"role": "function", "name": "f", "content": "x"}]).message
    assert "'tool_calls'" in refused(messages=[{"role": "assistant", "function_call": {"name": "f"}}]).message


# --------------------------------------------------------------------------------------------------------------- fields


def test_sampling_and_engine_extensions() -> None:
    fields: Json = {
        "temperature": 0.5,
        "top_p": 0.9,
        "presence_penalty": 1,
        "frequency_penalty": -1,
        "seed": 3,
        "stop": "END",
        "logit_bias": {"5": -100},
        "top_k": 0,
        "min_p": 0.1,
        "repetition_penalty": 1.1,
        "min_tokens": 1,
        "ignore_eos": True,
        "skip_special_tokens": False,
        "include_stop_str_in_output": True,
    }
    translated = fields | {"stop": ("END",), "top_k": None}
    assert request(**fields).sampling == Sampling(**translated)
    assert notes(**fields) == []


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_either_name_limits_the_answer(name: str) -> None:
    for given, limit in ((1, 1), (64.0, 64), (None, None), (-1, None)):
        assert request(**{name: given}).max_tokens == limit
    wrong: Any
    for wrong, code in (
        (0, "integer_below_min_value"),
        (-2, "integer_below_min_value"),
        (2**31, "integer_above_max_value"),
        ("9", "invalid_type"),
        (0.5, "invalid_type"),
        (True, "invalid_type"),
    ):
        error = refused(None, **{name: wrong})
        assert (error.param, error.code) == (name, code)


def test_two_limits_must_agree() -> None:
    assert request(max_tokens=5, max_completion_tokens=5).max_tokens == 5
    assert refused(max_tokens=5, max_completion_tokens=6).param == "max_tokens"


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        (None, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, JsonObject()),
        (
            {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True}},
            JsonSchema("n", {"type": "object"}, True),
        ),
        ({"type": "json_schema", "json_schema": {"schema": {"const": 1}}}, JsonSchema("output", {"const": 1})),
    ],
)
def test_every_form_of_an_answer(asked: Json | None, meant: Any) -> None:
    assert request(response_format=asked).format == meant


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ("json", "response_format"),
        ({}, "response_format.type"),
        ({"type": "grammar"}, "response_format.type"),
        ({"type": "json_schema"}, "response_format.json_schema"),
        ({"type": "json_schema", "json_schema": {"name": 1, "schema": {}}}, "response_format.json_schema.name"),
        ({"type": "json_schema", "json_schema": {"name": "n"}}, "response_format.json_schema.schema"),
        (
            {"type": "json_schema", "json_schema": {"name": "n", "schema": {}, "strict": 1}},
            "response_format.json_schema.strict",
        ),
    ],
)
def test_a_wrong_form_is_refused_with_its_path(asked: Any, param: str) -> None:
    assert refused(response_format=asked).param == param


def test_log_probabilities() -> None:
    assert request().logprobs is None
    assert request(logprobs=False, top_logprobs=0).logprobs is None
    assert request(logprobs=True).logprobs == 0
    assert request(logprobs=True, top_logprobs=5).logprobs == 5
    assert refused(top_logprobs=5).param == "top_logprobs"
    assert refused(logprobs=True, top_logprobs=21).param == "top_logprobs"


@pytest.mark.parametrize(
    ("fields", "meant"),
    [
        ({}, Thinking()),
        ({"reasoning_effort": "high"}, Thinking("high")),
        ({"chat_template_kwargs": {"enable_thinking": False}}, Thinking("none")),
        ({"chat_template_kwargs": {"enable_thinking": False}, "reasoning_effort": "low"}, Thinking("low")),
        ({"chat_template_kwargs": {"enable_thinking": True}}, Thinking()),
        ({"chat_template_kwargs": {"thinking": False}}, Thinking("none")),
        ({"enable_thinking": False}, Thinking("none")),
        ({"thinking": {"type": "disabled"}}, Thinking("none")),
        ({"thinking": False}, Thinking("none")),
        ({"thinking": {"type": "enabled", "budget_tokens": 9}}, Thinking(budget=9)),
        ({"reasoning": {"effort": "low"}}, Thinking("low")),
        ({"reasoning": {"enabled": False}}, Thinking("none")),
        ({"reasoning": {"max_tokens": 7}, "reasoning_effort": "high"}, Thinking("high", 7)),
        ({"thinking_token_budget": 100}, Thinking(budget=100)),
    ],
)
def test_thinking(fields: Json, meant: Thinking) -> None:
    assert request(**fields).thinking == meant


def test_words_that_nobody_knows_yet_are_noted() -> None:
    assert request(reasoning_effort="utmost").thinking == Thinking("max")
    assert notes(reasoning_effort="utmost", verbosity="loud") == ["field:verbosity", "field:reasoning_effort"]
    image = {"type": "image_url", "image_url": {"url": PIXEL, "detail": "huge"}}
    seen = parse(messages=[{"role": "user", "content": [image, image]}])
    assert seen.request.messages[0].parts == (Image(PIXEL, "auto"),) * 2
    assert [f"{note.kind}:{note.name}" for note in seen.notes] == ["field:detail"]


@pytest.mark.parametrize(
    "fields",
    [
        {"chat_template_kwargs": {"enable_thinking": True}},
        {"chat_template_kwargs": {"thinking": True}},
        {"enable_thinking": True},
        {"thinking": {"type": "enabled"}},
        {"thinking": {"type": "adaptive"}},
        {"thinking": True},
        {"reasoning": {"enabled": True}},
    ],
)
def test_switching_on_reaches_either_switch_of_a_template(fields: Json) -> None:
    assert request(**fields).template_kwargs == {"enable_thinking": True, "thinking": True}
    assert notes(**fields) == []


def test_words_of_a_switch_that_say_nothing_are_noted() -> None:
    assert notes(thinking={"type": "sideways"}) == ["field:thinking"]
    assert notes(thinking={"type": "enabled", "budget_tokens": "many", "mood": 1}) == [
        "field:thinking.budget_tokens",
        "field:thinking.mood",
    ]
    assert notes(reasoning={"exclude": True, "enabled": True}) == ["field:reasoning.exclude"]


# --------------------------------------------------------------------------------------------------------- constraints


@pytest.mark.parametrize(
    ("fields", "format"),
    [
        ({"guided_json": {"type": "object"}}, JsonSchema("output", {"type": "object"})),
        ({"guided_json": '{"type": "object"}'}, JsonSchema("output", {"type": "object"})),
        ({"guided_choice": ["a", "b"]}, Guided("choice", ("a", "b"))),
        ({"guided_regex": "a+"}, Guided("regex", "a+")),
        ({"guided_grammar": "root ::= 1"}, Guided("grammar", "root ::= 1")),
        ({"structured_outputs": {"json": {}}}, JsonSchema("output", {})),
        ({"structured_outputs": {"json_object": True}}, JsonObject()),
        ({"structured_outputs": {"json_object": False, "choice": ["a"]}}, Guided("choice", ("a",))),
        ({"structured_outputs": {"regex": "a"}}, Guided("regex", "a")),
        ({"response_format": {"type": "json_object", "schema": {"a": 1}}}, JsonSchema("output", {"a": 1})),
        ({"response_format": {"type": "json_schema", "schema": {"a": 1}}}, JsonSchema("output", {"a": 1})),
    ],
)
def test_a_constraint_in_the_words_of_an_engine(fields: Json, format: Any) -> None:
    assert request(**fields).format == format
    assert notes(**fields) == []


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"guided_json": "{"}, "guided_json"),
        ({"guided_json": [1]}, "guided_json"),
        ({"guided_choice": "a"}, "guided_choice"),
        ({"guided_choice": []}, "guided_choice"),
        ({"guided_regex": 1}, "guided_regex"),
        ({"structured_outputs": []}, "structured_outputs"),
        ({"structured_outputs": {"structural_tag": "x"}}, "structured_outputs.structural_tag"),
        ({"guided_json": {}, "structured_outputs": {"regex": "a"}}, "structured_outputs.regex"),
        ({"response_format": {"type": "json_object"}, "guided_regex": "a"}, "guided_regex"),
    ],
)
def test_a_constraint_that_cannot_be_kept_is_refused(fields: Json, param: str) -> None:
    assert refused(**fields).param == param


# ----------------------------------------------------------------------------------- answers that are begun, and fields


@pytest.mark.parametrize(
    ("last", "fields", "prefill", "noted"),
    [
        ({"role": "assistant", "content": "a"}, {}, False, []),
        ({"role": "assistant", "content": "a", "prefix": True}, {}, True, []),
        ({"role": "assistant", "content": "a", "partial": True}, {"add_generation_prompt": False}, True, []),
        ({"role": "assistant", "content": "a"}, {"continue_final_message": True}, True, []),
        (USER, {"continue_final_message": True}, False, ["field:continue_final_message"]),
        (USER, {"add_generation_prompt": False}, False, ["field:add_generation_prompt"]),
        (USER, {"continue_final_message": False, "add_generation_prompt": True}, False, []),
        ({**USER, "prefix": True}, {}, False, ["field:messages.prefix"]),
    ],
)
def test_an_answer_that_is_begun(last: Json, fields: Json, prefill: bool, noted: list[str]) -> None:
    turn = parse(messages=[USER, last], **fields)
    assert turn.request.prefill is prefill
    assert [f"{note.kind}:{note.name}" for note in turn.notes] == noted


def test_a_mark_on_an_earlier_message_is_noted() -> None:
    assert notes(messages=[USER, {"role": "assistant", "content": "a", "prefix": True}, USER]) == [
        "field:messages.prefix"
    ]


def test_reasoning_that_cannot_be_read_is_noted() -> None:
    sealed = {"role": "assistant", "content": "x", "reasoning_details": [{"type": "reasoning.encrypted", "data": "s"}]}
    assert notes(messages=[USER, sealed, USER]) == ["field:messages.reasoning_details"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"n": 0}, "n"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"moderation": {"model": "x"}}, "moderation"),
        ({"model": ""}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"temperature": 2.5}, "temperature"),
        ({"stop": [""]}, "stop[0]"),
        ({"logit_bias": {"1": 101}}, "logit_bias.1"),
        ({"reasoning_effort": 3}, "reasoning_effort"),
        ({"verbosity": 3}, "verbosity"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
    ],
)
def test_a_wrong_field_is_refused_with_its_path(fields: Json, param: str) -> None:
    assert refused(**fields).param == param


def test_a_model_is_needed() -> None:
    with pytest.raises(GatewayError) as caught:
        PROTOCOL.parse({"messages": [USER]}, Context(id="0" * 24, clock=lambda: 0))
    assert (caught.value.param, caught.value.code) == ("model", "missing_required_parameter")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("user", "u"),
        ("metadata", {"a": "b"}),
        ("store", True),
        ("service_tier", "flex"),
        ("verbosity", "low"),
        ("prediction", {"type": "content", "content": "x"}),
        ("safety_identifier", "s"),
        ("audio", {"voice": "alloy", "format": "wav"}),
        ("stream_options", {"include_usage": True}),
        ("best_of", 2),
    ],
)
def test_what_changes_nothing_is_noted(field: str, value: Any) -> None:
    assert notes(**{field: value}) == [f"field:{field}"]


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 1},
        {"store": False},
        {"service_tier": "auto"},
        {"modalities": ["text"]},
        {"functions": []},
        {"logprobs": False},
        {"unknown": None},
        {"prompt_cache_key": "k"},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"messages": [{**USER, "name": None}]},
    ],
)
def test_what_asks_for_nothing_is_not_noted(fields: Json) -> None:
    assert notes(**fields) == []


def test_the_names_of_participants_are_noted_once() -> None:
    assert notes(messages=[{**USER, "name": "ann"}, {**USER, "name": "bob"}]) == ["field:name"]


def test_sessions_stay_together() -> None:
    headers = Context(id="0" * 24, clock=lambda: 0, headers={"session_id": "s"})
    assert parse(headers, prompt_cache_key="k", user="u").request.affinity == "k"
    assert parse(headers, user="u").request.affinity == "s"
    assert request(user="u").affinity == "u"
    assert request(user="").affinity is None


@pytest.mark.parametrize(("value", "streaming"), [(None, False), (False, False), (True, True)])
def test_streaming_is_asked_for(value: bool | None, streaming: bool) -> None:
    assert parse(stream=value).streaming is streaming
