"""Tools of the Messages API and the choice among them."""

from typing import Any

import pytest

from dragoman.translators.errors import GatewayError
from dragoman.translators.ir import Named, Note, ToolCall
from dragoman.translators.protocol import Json
from tests.translators.messages.asked import LS, REJECTING, assistant, context, parse, refusal, result, use, user

PWD: Json = {"name": "pwd", "input_schema": {"type": "object"}}


def test_custom_tools_pass() -> None:
    strict = {**LS, "name": "strict", "type": "custom", "strict": True, "cache_control": {"type": "ephemeral"}}
    tools = parse(tools=[LS, strict, {**PWD, "eager_input_streaming": True}]).request.tools
    assert [(tool.name, tool.strict) for tool in tools] == [("ls", None), ("strict", True), ("pwd", None)]
    assert tools[0].parameters == LS["input_schema"]


@pytest.mark.parametrize("more", [{}, {"additionalProperties": False}, {"properties": None}, {"properties": []}])
def test_a_tool_without_arguments_has_an_empty_object_of_them(more: Json) -> None:
    [shown] = parse(tools=[{"name": "pwd", "input_schema": {"type": "object", **more}}]).request.tools
    assert shown.parameters == {"type": "object", **more, "properties": {}}


@pytest.mark.parametrize("key", ["strict", "defer_loading"])
def test_a_switch_of_a_tool_is_a_boolean(key: str) -> None:
    with pytest.raises(GatewayError, match="valid boolean") as caught:
        parse(tools=[{**LS, key: 1}])
    assert caught.value.param == f"tools.0.{key}"


def test_examples_are_shown_below_the_description() -> None:
    examples = [{"a": 10**30}, {"a": "half \ud83d"}]
    [shown] = parse(tools=[{**LS, "input_examples": examples}]).request.tools
    assert shown.description.startswith("Lists.\n\nExamples of its input:\n{")
    assert str(10**30) in shown.description


@pytest.mark.parametrize(
    ("kind", "name", "properties", "commands"),
    [
        ("bash_20250124", "bash", {"command", "restart"}, None),
        ("text_editor_20250124", "str_replace_editor", {"new_str", "view_range"}, {"undo_edit", "view"}),
        ("text_editor_20250728", "str_replace_based_edit_tool", {"insert_text", "view_range"}, {"create", "insert"}),
        ("memory_20250818", "memory", {"old_path", "new_path", "insert_text"}, {"rename", "delete"}),
    ],
)
def test_client_side_tools_get_their_schema(
    kind: str, name: str, properties: set[str], commands: set[str] | None
) -> None:
    turn = parse(tools=[{"type": kind, "name": name}])
    [tool] = turn.request.tools
    assert (tool.name, turn.notes) == (name, ())
    assert tool.description
    assert properties <= tool.parameters["properties"].keys()
    if commands is not None:
        assert commands <= set(tool.parameters["properties"]["command"]["enum"])


@pytest.mark.parametrize(
    "kind",
    [
        "web_search_20250305",
        "web_fetch_20260318",
        "code_execution_20260521",
        "computer_20251124",
        "mcp_toolset",
        "new_1",
    ],
)
def test_tools_that_cannot_be_run_are_noted_or_refused(kind: str) -> None:
    turn = parse(tools=[{"type": kind, "name": "x"}, LS])
    assert [tool.name for tool in turn.request.tools] == ["ls"]
    assert turn.notes == (Note("tool", kind),)
    assert refusal(tools=[LS, {"type": kind, "name": "x"}], under=context(policy=REJECTING)).param == "tools.1.type"


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("parameters", [{"type": "object", "properties": {"a": {}}}, None])
def test_a_function_of_another_protocol_is_a_custom_tool(nested: bool, parameters: Json | None) -> None:
    function = {"name": "x" * 100, "description": "Does x.", "parameters": parameters, "strict": True}
    tool = {"type": "function", **({"function": function} if nested else function)}
    turn = parse(tools=[tool, LS], tool_choice={"type": "tool", "name": "x" * 100})
    first = turn.request.tools[0]
    assert (first.description, first.strict) == ("Does x.", True)
    assert first.parameters == (parameters or {"type": "object", "properties": {}})
    assert turn.request.tool_choice == Named(first.name)
    assert turn.notes == ()


@pytest.mark.parametrize(
    ("choice", "expected", "parallel"),
    [
        (None, "auto", True),
        ({"type": "auto"}, "auto", True),
        ({"type": "auto", "disable_parallel_tool_use": True}, "auto", False),
        ({"type": "any", "disable_parallel_tool_use": False}, "required", True),
        ({"type": "any", "disable_parallel_tool_use": True}, "required", False),
        ({"type": "tool", "name": "pwd"}, Named("pwd"), True),
        ({"type": "tool", "name": "pwd", "disable_parallel_tool_use": True}, Named("pwd"), False),
        ({"type": "none"}, "none", True),
    ],
)
def test_tool_choice(choice: Json | None, expected: Any, parallel: bool) -> None:
    request = parse(tools=[LS, PWD], tool_choice=choice).request
    assert (request.tool_choice, request.parallel_tool_calls) == (expected, parallel)


def test_long_and_odd_names_fit_every_server_and_agree_with_the_history() -> None:
    name = "mcp__" + "x" * 100
    turn = parse(user("a"), assistant(use("t1", name)), user([result("t1")]), tools=[{**LS, "name": name}])
    call = turn.request.messages[1].parts[0]
    assert isinstance(call, ToolCall)
    assert call.name == turn.request.tools[0].name != name
    assert len(call.name) <= 64
