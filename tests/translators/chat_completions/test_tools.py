"""Tools of chat completions and the choice among them."""

from typing import Any

import pytest

from dragoman.translators.ir import Named, ToolCall
from dragoman.translators.protocol import Context, Json, Policy
from tests.translators.chat_completions.asked import USER, call, custom, function, notes, refused, request, result


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
