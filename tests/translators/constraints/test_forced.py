"""What is asked for in place of a tool that the server cannot force, and what of the answer is the call."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import Any

import jsonschema
import pytest

from dragoman.translators.constraints import forced
from dragoman.translators.constraints.forced import call_schema, instructed, instructed_first, unwrapped
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.fold import Fold
from dragoman.translators.ir import JsonSchema, Message, Named, Note, Text, Tool, ToolResult
from tests.backends.test_enforce import ADD, PERSON, TOOLS
from tests.recording import ask


def test_an_instruction_stands_at_the_end_whatever_came_last() -> None:
    user = Message("user", (Text("hi"),))
    result = Message("tool", (ToolResult("c", (Text("42"),)),))
    assert instructed((user,), "do") == (Message("user", (Text("hi"), Text("do"))),)
    assert instructed((user, result), "do") == (user, result, Message("user", (Text("do"),)))


def test_one_that_holds_for_all_steps_stands_where_the_prompt_goes_on_from() -> None:
    first, rules, user = (Message(role, (Text(role),)) for role in ("system", "developer", "user"))
    late = Message("system", (Text("late"),))
    said = Message("system", (Text("do"),))
    assert instructed_first((first, rules, user, late), "do") == (first, rules, said, user, late)
    assert instructed_first((user,), "do") == (said, user)


def test_references_move_with_the_parameters() -> None:
    tree = {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}, "$defs": {"node": {"type": "integer"}}}
    schema = call_schema((ADD, Tool("walk", "", tree)))
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid({"name": "walk", "arguments": {"next": 1}})
    assert not validator.is_valid({"name": "walk", "arguments": {"next": "x"}})
    assert not validator.is_valid({"name": "add", "arguments": {}})
    alone = jsonschema.Draft202012Validator(call_schema((Tool("walk", "", tree),)))
    assert not alone.is_valid({"name": "walk", "arguments": {"next": "x"}})


def test_a_call_has_its_name_and_its_arguments_and_nothing_else() -> None:
    validator = jsonschema.Draft202012Validator(call_schema((Tool("bare", "", {}),)))
    assert validator.is_valid({"name": "bare", "arguments": {"any": 1}})
    for wrong in (
        '{"name": "bare"}',
        '{"arguments": {}}',
        '{"name": "x", "arguments": {}}',
        '{"name": "bare", "arguments": 3}',
        '{"name": "bare", "arguments": {}, "more": 1}',
    ):
        assert not validator.is_valid(json.loads(wrong))


def test_parameters_may_refer_to_themselves_in_lists_too_and_name_their_dialect() -> None:
    parameters: dict[str, Any] = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": {"inner": {"anyOf": ({"$ref": "#"}, {"type": "null"})}},
        "additionalProperties": False,
    }
    for tools in ((Tool("t", "", parameters),), (ADD, Tool("t", "", parameters))):
        schema = call_schema(tools)
        assert "$schema" not in str(schema)
        validator = jsonschema.Draft202012Validator(json.loads(json.dumps(schema)))
        assert validator.is_valid({"name": "t", "arguments": {"inner": {"inner": None}}})
        assert not validator.is_valid({"name": "t", "arguments": {"inner": {"other": 1}}})


def test_a_forced_call_is_asked_for_strictly_and_without_the_format_of_the_answer() -> None:
    request = ask(tools=TOOLS, tool_choice="required", format=PERSON)
    by_schema = forced.plan(request, force_tool="schema", json_schema="enforced")
    assert by_schema is not None
    assert isinstance(by_schema.request.format, JsonSchema)
    assert by_schema.request.format.strict
    by_prompt = forced.plan(request, force_tool="prompt", json_schema="enforced")
    assert by_prompt is not None
    assert (by_prompt.request.format, by_prompt.request.tools) == (None, TOOLS)


def test_where_the_template_shows_no_tools_the_prompt_does() -> None:
    request = ask(tools=(Tool("add", "Adds.", MappingProxyType({"type": "object"})),), tool_choice="required")
    plan = forced.plan(request, force_tool="prompt", json_schema="prompt", shows_tools=False)
    assert plan is not None
    (message,) = plan.request.messages
    said = message.parts[-1]
    assert isinstance(said, Text)
    assert '{"name":"add","description":"Adds.","parameters":{"type":"object"}}' in said.text
    assert plan.request.tools == ()


def test_a_property_called_ref_is_not_a_reference() -> None:
    tool = Tool("t", "", {"type": "object", "properties": {"$ref": {"type": "string"}}})
    assert call_schema((tool,))["properties"]["arguments"]["properties"] == {"$ref": {"type": "string"}}


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("{}", "{}"),
        ("  {} \n", "{}"),
        ("```json\n{}\n```", "{}"),
        ("```\n{}\n```\n", "{}"),
        ("```{}", "```{}"),
        ("a fence:\n{}\n```", "a fence:\n{}\n```"),
    ],
)
def test_unwrapping(text: str, bare: str) -> None:
    assert unwrapped(text) == bare


def test_a_tool_that_is_not_there_cannot_be_forced() -> None:
    with pytest.raises(GatewayError) as caught:
        forced.plan(ask(tools=TOOLS, tool_choice=Named("rm")), force_tool="schema", json_schema="enforced")
    assert (caught.value.kind, caught.value.param) == (Kind.INVALID, "tool_choice")


@pytest.mark.parametrize("by", ["schema", "prompt"])
def test_without_tools_there_is_nothing_to_force(by: Any) -> None:
    assert forced.plan(ask(tool_choice="required"), force_tool=by, json_schema="enforced") is None


def test_a_schema_that_the_server_enforces_is_left_to_it() -> None:
    assert forced.plan(ask(format=PERSON), force_tool="prompt", json_schema="enforced") is None


def test_without_a_working_schema_forcing_falls_back_to_the_prompt() -> None:
    plan = forced.plan(ask(tools=TOOLS, tool_choice="required"), force_tool="schema", json_schema="prompt")
    assert plan is not None
    assert plan.request.format is None
    assert plan.notes == (Note("unenforced", "tool_choice"),)


def test_the_call_keeps_numbers_that_do_not_fit_in_64_bits() -> None:
    big = json.dumps({"name": "add", "arguments": {"a": 10**30}})
    plan = forced.plan(ask(tools=TOOLS, tool_choice="required"), force_tool="schema", json_schema="enforced")
    assert plan is not None
    fold = Fold()
    fold.parts.append(Text(big))
    verdict = plan.judge(fold)
    assert isinstance(verdict, forced.Accepted)
    assert verdict.call == ("add", f'{{"a":{10**30}}}')
