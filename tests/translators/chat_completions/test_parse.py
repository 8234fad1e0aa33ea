"""Bodies of chat completions into requests: every field translated, refused with its path, or noted."""

from typing import Any

import pytest

from dragoman.translators.chat_completions import PROTOCOL
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import (
    Guided,
    Image,
    JsonObject,
    JsonSchema,
    Message,
    Named,
    Reasoning,
    Refusal,
    Request,
    Sampling,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from dragoman.translators.protocol import Context, Json, Policy, Turn

USER: Json = {"role": "user", "content": "Hello"}
PIXEL = "data:image/png;base64,iVBORw0KGgo="


def parse(context: Context | None = None, **fields: Any) -> Turn:
    body = {"model": "m", "messages": [USER]} | fields
    return PROTOCOL.parse(body, context or Context(id="0" * 24, clock=lambda: 0))


def request(**fields: Any) -> Request:
    return parse(**fields).request


def notes(**fields: Any) -> list[str]:
    return [f"{note.kind}:{note.name}" for note in parse(**fields).notes]


def refused(context: Context | None = None, **fields: Any) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        parse(context, **fields)
    assert caught.value.kind in (Kind.INVALID, Kind.UNSUPPORTED)
    return caught.value


def function(name: str, **fields: Any) -> Json:
    return {"type": "function", "function": {"name": name, **fields}}


def custom(name: str, **fields: Any) -> Json:
    return {"type": "custom", "custom": {"name": name, **fields}}


def call(id: str, name: str, arguments: str = "{}") -> Json:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def result(id: str, content: Any = "done") -> Json:
    return {"role": "tool", "tool_call_id": id, "content": content}


def said(*messages: Json) -> tuple[Message, ...]:
    return request(messages=list(messages)).messages


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


def test_results_are_moved_after_their_calls() -> None:
    spoken = {"role": "assistant", "tool_calls": [call("c1", "ls"), call("c2", "cat")]}
    turns = said(USER, spoken, result("c2", [{"type": "text", "text": "two"}]), result("c1", "one"))
    assert [turn.parts[0] for turn in turns[2:]] == [
        ToolResult("c1", (Text("one"),)),
        ToolResult("c2", (Text("two"),)),
    ]
    assert "repair:reordered_output" in notes(messages=[USER, spoken, result("c2"), result("c1")])


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


# ---------------------------------------------------------------------------------------------------------------- tools


def test_functions_pass_in_order() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    tools = request(tools=[function("b", description="B.", parameters=schema, strict=True), function("a")]).tools
    assert [(tool.name, tool.description, tool.strict) for tool in tools] == [("b", "B.", True), ("a", "", None)]
    assert tools[0].parameters == schema
    assert tools[1].parameters == {"type": "object", "properties": {}}


def test_a_free_form_tool_becomes_a_function_with_its_grammar_in_the_description() -> None:
    grammar = {"type": "grammar", "grammar": {"syntax": "regex", "definition": "[ab]+"}}
    (tool,) = request(tools=[custom("patch", description="Patches.", format=grammar)]).tools
    assert tool.name == "patch"
    assert tool.parameters["required"] == ["input"]
    assert tool.description.startswith("Patches.")
    assert "regex" in tool.description
    assert "[ab]+" in tool.description


def test_a_function_and_a_free_form_tool_of_one_name_are_told_apart() -> None:
    spoken: Json = {
        "role": "assistant",
        "tool_calls": [call("c1", "ls"), {"id": "c2", "type": "custom", "custom": {"name": "ls", "input": "a"}}],
    }
    asked = request(tools=[function("ls"), custom("ls")], messages=[USER, spoken, result("c1"), result("c2")])
    names = [tool.name for tool in asked.tools]
    assert len(set(names)) == 2
    assert [part.name for part in asked.messages[1].parts if isinstance(part, ToolCall)] == names
    assert asked.messages[1].parts[1] == ToolCall("c2", names[1], '{"input":"a"}')


def test_a_call_whose_kind_changed_is_still_a_call_of_its_tool() -> None:
    spoken: Json = {
        "role": "assistant",
        "tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "ls", "input": ""}}],
    }
    asked = request(tools=[function("ls")], messages=[USER, spoken, result("c")])
    assert asked.messages[1].parts == (ToolCall("c", "ls", '{"input":""}'),)


def test_names_that_servers_refuse_are_replaced_the_same_way_everywhere() -> None:
    long = "x" * 80
    spoken = {"role": "assistant", "tool_calls": [call("c", "fs.read"), call("d", long)]}
    tools = [function("fs.read"), function(long)]
    asked = request(tools=tools, messages=[USER, spoken, result("c"), result("d")], tool_choice=function("fs.read"))
    names = [tool.name for tool in asked.tools]
    assert names[0] == "fs_read"
    assert len(names[1]) == 64
    assert [part.name for part in asked.messages[1].parts if isinstance(part, ToolCall)] == names
    assert asked.tool_choice == Named("fs_read")


def test_the_same_tool_twice_is_one_tool() -> None:
    assert len(request(tools=[function("a"), function("a")]).tools) == 1
    assert notes(tools=[function("a"), function("a")]) == []
    assert notes(tools=[function("a"), function("a", description="Other.")]) == ["tool:a"]


def test_tools_that_cannot_be_run_are_left_out_or_refused() -> None:
    fields = {"tools": [{"type": "web_search"}, function("a")]}
    assert [tool.name for tool in request(**fields).tools] == ["a"]
    assert notes(**fields) == ["tool:web_search"]
    assert notes(web_search_options={}) == ["tool:web_search"]
    strict = Context(id="0" * 24, clock=lambda: 0, policy=Policy(hosted_tools="reject"))
    assert refused(strict, **fields).param == "tools[0].type"
    assert refused(strict, web_search_options={}).param == "web_search_options"


def test_there_is_a_limit_on_tools() -> None:
    few = Context(id="0" * 24, clock=lambda: 0, policy=Policy(max_tools=1))
    error = refused(few, tools=[function("a"), function("b")])
    assert (error.param, error.code) == ("tools[1].function", "array_above_max_length")


@pytest.mark.parametrize(
    ("tools", "param"),
    [
        ({}, "tools"),
        ([1], "tools[0]"),
        ([{}], "tools[0].type"),
        ([{"type": "function"}], "tools[0].function"),
        ([{"type": "function", "name": "flat", "parameters": []}], "tools[0].parameters"),
        ([{"name": "", "input_schema": {}}], "tools[0].name"),
        ([function("")], "tools[0].function.name"),
        ([{"type": "function", "function": {}}], "tools[0].function.name"),
        ([function("a", parameters=[])], "tools[0].function.parameters"),
        ([function("a", parameters={"type": "array"})], "tools[0].function.parameters"),
        ([function("a", strict="yes")], "tools[0].function.strict"),
        ([{"type": "custom"}], "tools[0].custom"),
        ([custom("a", format={"type": "grammar"})], "tools[0].custom.format.grammar"),
        (
            [custom("a", format={"type": "grammar", "grammar": {"syntax": "lark"}})],
            "tools[0].custom.format.grammar.definition",
        ),
        ([custom("a", format={"type": "xml"})], "tools[0].custom.format.type"),
    ],
)
def test_a_wrong_tool_is_refused_with_its_path(tools: Any, param: str) -> None:
    assert refused(tools=tools).param == param


def allowed(mode: Any, *tools: Json) -> Json:
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": list(tools)}}


@pytest.mark.parametrize(
    ("choice", "meant", "offered"),
    [
        (None, "auto", ["a", "b", "p"]),
        ("auto", "auto", ["a", "b", "p"]),
        ("none", "none", ["a", "b", "p"]),
        ("required", "required", ["a", "b", "p"]),
        (function("b"), Named("b"), ["a", "b", "p"]),
        (custom("p"), Named("p"), ["a", "b", "p"]),
        (allowed("auto", function("b")), "auto", ["b"]),
        (allowed("required", custom("p"), function("a")), "required", ["a", "p"]),
    ],
)
def test_every_form_of_a_choice(choice: Any, meant: Any, offered: list[str]) -> None:
    asked = request(tools=[function("a"), function("b"), custom("p")], tool_choice=choice)
    assert asked.tool_choice == meant
    assert [tool.name for tool in asked.tools] == offered


@pytest.mark.parametrize(
    "choice",
    [
        "any",
        1,
        {"type": 1},
        {"type": []},
        {"type": "mcp"},
        {"type": "file_search"},
        function("missing"),
        custom("a"),
        function("p"),
        allowed("auto"),
        allowed("none", function("a")),
        allowed("auto", function("missing")),
        allowed("auto", function("a")) | {"allowed_tools": {"tools": ["a"]}},
    ],
)
def test_a_choice_that_cannot_be_kept_is_refused(choice: Any) -> None:
    tools = [function("a"), custom("p"), {"type": "web_search"}]
    assert refused(tools=tools, tool_choice=choice).param == "tool_choice"


def test_a_tool_of_the_past_cannot_be_chosen() -> None:
    messages = [USER, {"role": "assistant", "tool_calls": [call("c", "gone")]}, result("c")]
    assert refused(tools=[function("a")], messages=messages, tool_choice=function("gone")).param == "tool_choice"


def test_required_needs_a_tool_that_can_be_called() -> None:
    assert refused(tool_choice="required").param == "tool_choice"


@pytest.mark.parametrize(
    ("tools", "choice", "offered"),
    [
        ([], "required", []),
        ([function("a")], {"type": "web_search"}, ["a"]),
        ([function("a")], function("web_search"), ["a"]),
        ([function("a")], allowed("required", {"type": "web_search"}), []),
    ],
)
def test_a_choice_of_a_tool_that_was_left_out_is_dropped_with_it(tools: list[Json], choice: Any, offered: Any) -> None:
    fields = {"tools": [*tools, {"type": "web_search"}], "tool_choice": choice}
    asked = request(**fields)
    assert (asked.tool_choice, [tool.name for tool in asked.tools]) == ("auto", offered)
    assert notes(**fields) == ["tool:web_search", "field:tool_choice"]


@pytest.mark.parametrize(("value", "parallel"), [(None, True), (True, True), (False, False)])
def test_parallel_calls_are_the_default(value: bool | None, parallel: bool) -> None:
    assert request(parallel_tool_calls=value).parallel_tool_calls is parallel


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
    right, too_small, text = ({name: value} for value in (1, 0, "9"))
    assert request(**right).max_tokens == 1
    assert refused(None, **too_small).param == name
    assert refused(None, **text).code == "invalid_type"


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
        ({"type": "json_schema", "json_schema": {"schema": {}}}, "response_format.json_schema.name"),
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


# ------------------------------------------------------------------------------------------- shapes of other protocols


def test_tools_in_the_shapes_of_other_protocols() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    asked = request(
        tools=[
            {"type": "function", "name": "flat", "parameters": schema, "strict": True},
            {"name": "block", "description": "d", "input_schema": schema},
            {"type": "custom", "name": "typed", "input_schema": schema},
        ],
        tool_choice={"type": "tool", "name": "block"},
    )
    assert [(tool.name, tool.parameters, tool.strict) for tool in asked.tools] == [
        ("flat", schema, True),
        ("block", schema, None),
        ("typed", schema, None),
    ]
    assert asked.tool_choice == Named("block")
    assert request(tools=[function("a")], tool_choice={"type": "any"}).tool_choice == "required"
    assert request(tools=[function("a")], tool_choice={"type": "function", "name": "a"}).tool_choice == Named("a")


def test_blocks_of_the_messages_api() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
    url = {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}
    assert said(
        {"role": "user", "content": [image]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}},
                {"type": "tool_use", "id": "u", "name": "f", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "and?"},
                {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "one"}, url]},
                {"type": "tool_result", "tool_use_id": "u", "is_error": True},
            ],
        },
    ) == (
        Message("user", (Image(PIXEL),)),
        Message("assistant", (Reasoning("hm"), ToolCall("t", "f", '{"a":1}'), ToolCall("u", "f", "{}"))),
        Message("tool", (ToolResult("t", (Text("one"), Image("https://x/y.png"))),)),
        Message("tool", (ToolResult("u", (Text(""),), True),)),
        Message("user", (Text("and?"),)),
    )


def test_input_in_place_of_messages() -> None:
    call = {"type": "function_call", "id": "fc", "call_id": "c", "name": "f", "arguments": "{}", "status": "completed"}
    asked = parse(
        messages=None,
        instructions="Be brief.",
        input=[
            {"type": "message", "role": "user", "id": "m", "content": [{"type": "input_text", "text": "hi"}]},
            call,
            {"type": "function_call_output", "call_id": "c", "output": "done"},
            {"role": "user", "content": [{"type": "input_image", "image_url": PIXEL, "detail": "low"}]},
        ],
    )
    assert asked.request.messages == (
        Message("system", (Text("Be brief."),)),
        Message("user", (Text("hi"),)),
        Message("assistant", (ToolCall("c", "f", "{}"),)),
        Message("tool", (ToolResult("c", (Text("done"),)),)),
        Message("user", (Image(PIXEL, "low"),)),
    )
    assert asked.notes == ()
    assert request(messages=None, input="hi").messages == (Message("user", (Text("hi"),)),)
    assert notes(input="hi", instructions="x") == ["field:input", "field:instructions"]
    assert refused(messages=None, input=7).param == "messages"
    assert refused(messages=None, input=[{"type": "reasoning"}]).param == "messages[0].role"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"reasoning_details": [{"type": "reasoning.summary", "summary": "a"}, {"text": "b"}]}, "ab"),
        ({"thinking_blocks": [{"type": "thinking", "thinking": "a", "signature": "s"}]}, "a"),
        ({"reasoning_details": [{"text": "a"}], "thinking_blocks": [{"thinking": "a"}], "reasoning": "c"}, "c"),
    ],
)
def test_reasoning_is_also_read_from_lists(fields: Json, text: str) -> None:
    turn = parse(messages=[USER, {"role": "assistant", "content": "x", **fields}, USER])
    assert turn.request.messages[1].parts == (Reasoning(text), Text("x"))
    assert turn.notes == ()


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
