"""Tools of a Responses request: what the model is offered, and how its calls find their way back to a declaration."""

from __future__ import annotations

import itertools
import re
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.translators.errors import Kind
from dragoman.translators.fields import Unread
from dragoman.translators.ir import Finished, Named, Note, Started, StopReason, Tool, ToolCall
from dragoman.translators.openai.catalogue import Catalogue, DeclaredTool
from dragoman.translators.openai.tools import canonical_schema, object_schema
from dragoman.translators.protocol import Json, Policy, Turn
from dragoman.translators.responses.tools import ResponsesCatalogue, echo
from dragoman.translators.seen import Seen
from tests.responses_requests import parse, refused

EMPTY = {"type": "object", "properties": {}}
NAMES = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def declare(*tools: Json, policy: Policy | None = None) -> tuple[Catalogue, list[Note]]:
    notes: list[Note] = []
    catalogue = ResponsesCatalogue(policy or Policy(), notes, Unread())
    catalogue.declare_all(list(tools), "tools")
    return catalogue, notes


def function(name: str = "f", **more: Any) -> Json:
    return {"type": "function", "name": name, "description": f"Does {name}.", "parameters": EMPTY, **more}


def namespace(name: str, *tools: Json, description: str = "") -> Json:
    return {"type": "namespace", "name": name, "description": description, "tools": list(tools)}


def names(tools: Catalogue | Turn) -> list[str]:
    return [tool.name for tool in (tools.request.tools if isinstance(tools, Turn) else tools.tools)]


# ------------------------------------------------------------------------------------------------------- functions


def test_a_function_keeps_everything() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    tools, _ = declare(function("f", parameters=schema, strict=True))
    assert tools.tools == (Tool("f", "Does f.", schema, True),)
    assert tools.restore("f") == DeclaredTool("function", "f", None)


@pytest.mark.parametrize("parameters", [None, {}, {"type": "object"}, {"properties": {}}, {"type": None}])
def test_description_and_parameters_are_always_there(parameters: Json | None) -> None:
    tools, _ = declare({"type": "function", "name": "f", "parameters": parameters, "description": None})
    assert tools.tools == (Tool("f", "", EMPTY, None),)


def test_a_name_that_nobody_declared_is_a_function() -> None:
    tools, _ = declare(function("f"))
    assert tools.restore("invented__name") == DeclaredTool("function", "invented__name", None)


@pytest.mark.parametrize(
    ("tool", "param", "code"),
    [
        ("f", "tools[0]", "invalid_type"),
        ({}, "tools[0].type", "missing_required_parameter"),
        ({"type": 1}, "tools[0].type", "invalid_type"),
        ({"type": "function"}, "tools[0].name", "missing_required_parameter"),
        ({"type": "function", "function": {"name": "f"}}, "tools[0].name", "missing_required_parameter"),
        (function(""), "tools[0].name", "empty_string"),
        (function(strict="yes"), "tools[0].strict", "invalid_type"),
        (function(parameters=[]), "tools[0].parameters", "invalid_type"),
        (function(parameters={"type": "string"}), "tools[0].parameters", "invalid_function_parameters"),
        (function(description=1), "tools[0].description", "invalid_type"),
        ({"type": "custom", "name": "c", "format": {"type": "x"}}, "tools[0].format.type", "invalid_value"),
        ({"type": "custom", "name": "c", "format": {"type": "grammar"}}, "tools[0].format.definition", None),
        (namespace("n", {"type": "function"}), "tools[0].tools[0].name", "missing_required_parameter"),
        ({"type": "namespace", "name": "n"}, "tools[0].tools", "missing_required_parameter"),
    ],
)
def test_faults_are_named(tool: Any, param: str, code: str | None) -> None:
    error = refused(tools=[tool])
    assert error.param == param
    assert code is None or error.code == code


def test_tools_must_be_a_list() -> None:
    assert refused(tools={}).param == "tools"


def test_the_number_of_tools_is_limited() -> None:
    error = refused(Policy(max_tools=2), tools=[function(str(i)) for i in range(3)])
    assert (error.param, error.code) == ("tools[2]", "array_above_max_length")


# --------------------------------------------------------------------------------------------------------- schemas


def test_schemas_are_canonical_but_enums_and_keys_keep_their_order() -> None:
    schema = {
        "type": "object",
        "required": ["b", "a"],
        "properties": {
            "b": {"type": "string", "enum": ["z", "a"], "encrypted": True},
            "a": {"anyOf": [{"type": "object", "required": ["y", "x"], "properties": {}}, {"type": "null"}]},
        },
    }
    out = canonical_schema(schema)
    assert list(out) == ["type", "required", "properties"]
    assert out["required"] == ["a", "b"]
    assert list(out["properties"]) == ["b", "a"]
    assert out["properties"]["b"] == {"type": "string", "enum": ["z", "a"]}
    assert out["properties"]["a"]["anyOf"][0]["required"] == ["x", "y"]
    assert schema["required"] == ["b", "a"], "the client's body is not changed"


def test_a_property_may_be_called_like_a_keyword() -> None:
    properties = {"encrypted": {"type": "boolean"}, "required": {"type": "array"}, "enum": {"type": "string"}}
    assert canonical_schema({"properties": properties})["properties"] == properties
    verbatim = {"const": {"encrypted": True}, "default": {"required": ["b", "a"]}, "enum": [{"encrypted": True}]}
    assert canonical_schema(verbatim) == verbatim


def test_a_type_list_with_object_becomes_object() -> None:
    assert object_schema({"type": ["object", "null"], "properties": {}})["type"] == "object"


# --------------------------------------------------------------------------------------------------------- proxies


def test_a_custom_tool_is_a_function_with_one_string() -> None:
    tools, _ = declare({"type": "custom", "name": "exec", "description": "Runs code.", "format": {"type": "text"}})
    (tool,) = tools.tools
    assert tool.description == "Runs code."
    assert tool.parameters["required"] == ["input"]
    assert tool.parameters["properties"]["input"]["type"] == "string"
    assert tools.restore("exec") == DeclaredTool("custom", "exec", None)


def test_a_grammar_is_shown_to_the_model() -> None:
    grammar = {"type": "grammar", "syntax": "lark", "definition": 'start: "x"'}
    tools, _ = declare({"type": "custom", "name": "c", "description": "Edits.", "format": grammar})
    description = tools.tools[0].description
    assert description.startswith("Edits.")
    assert "lark" in description
    assert description.endswith('start: "x"')


@pytest.mark.parametrize(
    ("tool", "required"),
    [
        ({"type": "local_shell"}, "command"),
        ({"type": "shell"}, "commands"),
        ({"type": "shell", "environment": {"type": "local"}}, "commands"),
        ({"type": "apply_patch"}, "path"),
        ({"type": "tool_search", "execution": "client"}, "query"),
    ],
)
def test_tools_of_the_client_become_functions(tool: Json, required: str) -> None:
    tools, notes = declare(tool)
    (shown,) = tools.tools
    assert shown.description
    assert required in shown.parameters["required"]
    assert tools.restore(shown.name) == DeclaredTool(tool["type"], tool["type"], None)
    assert notes == []


def test_tool_search_shows_the_parameters_of_the_client() -> None:
    schema = {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}
    tools, _ = declare({"type": "tool_search", "execution": "client", "description": "Finds.", "parameters": schema})
    assert tools.tools == (Tool("tool_search", "Finds.", schema),)


def test_skills_of_a_local_shell_are_described() -> None:
    skill = {"name": "pdf", "description": "Reads PDFs", "path": "/skills/pdf"}
    tools, _ = declare({"type": "shell", "environment": {"type": "local", "skills": [skill]}})
    assert "pdf: Reads PDFs (/skills/pdf)" in tools.tools[0].description


# ---------------------------------------------------------------------------------------------------- hosted tools

HOSTED = [
    {"type": "web_search", "external_web_access": False},
    {"type": "image_generation"},
    {"type": "mcp", "server_label": "x"},
    {"type": "tool_search"},
    {"type": "tool_search", "execution": "server"},
    {"type": "shell", "environment": {"type": "container_auto"}},
    {"type": "invented_next_year"},
]


@pytest.mark.parametrize("tool", HOSTED)
def test_hosted_tools_are_left_out_visibly(tool: Json) -> None:
    turn = parse(tools=[function("f"), tool])
    assert names(turn) == ["f"]
    assert turn.notes == (Note("tool", tool["type"]),)


@pytest.mark.parametrize("tool", HOSTED)
def test_hosted_tools_are_refused_where_the_operator_says_so(tool: Json) -> None:
    error = refused(Policy(hosted_tools="reject"), tools=[function("f"), tool])
    assert (error.kind, error.param, error.code) == (Kind.UNSUPPORTED, "tools[1].type", "unsupported_value")


def test_a_note_cannot_carry_what_a_header_must_not() -> None:
    assert parse(tools=[{"type": "a\r\nb: c,d"}]).notes == (Note("tool", "a__b__c_d"),)


# ------------------------------------------------------------------------------------------------------ namespaces


def test_namespace_members_are_flat_and_restored_by_lookup() -> None:
    tools, _ = declare(namespace("mcp__demo", function("add"), {"type": "custom", "name": "note"}), function("add"))
    assert names(tools) == ["mcp__demo__add", "mcp__demo__note", "add"]
    assert tools.restore("mcp__demo__add") == DeclaredTool("function", "add", "mcp__demo")
    assert tools.restore("mcp__demo__note") == DeclaredTool("custom", "note", "mcp__demo")
    assert tools.restore("add") == DeclaredTool("function", "add", None)


def test_the_description_of_a_namespace_is_shown_once() -> None:
    tools, notes = declare(
        namespace("n", function("a"), function("b"), description="For numbers."),
        namespace("n", function("a"), description="For numbers."),
    )
    assert [tool.description for tool in tools.tools] == ["[n: For numbers.]\nDoes a.", "Does b."]
    assert notes == []


def test_other_members_of_a_namespace_are_left_out_visibly() -> None:
    tools, notes = declare(namespace("n", {"type": "web_search"}, function("a")))
    assert names(tools) == ["n__a"]
    assert notes == [Note("tool", "web_search")]


COLLIDING = [
    function("a__b"),
    namespace("a", function("b")),
    namespace("a__", function("b")),
    function("a.b"),
    function("a_b"),
    {"type": "custom", "name": "a_b"},
]


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_collisions_are_resolved_whatever_the_order(order: tuple[int, ...]) -> None:
    tools, notes = declare(*(COLLIDING[index] for index in order))
    assert len(set(names(tools))) == 4
    assert all(NAMES.fullmatch(name) for name in names(tools))
    restored = {tools.restore(name) for name in names(tools)}
    assert restored == {
        DeclaredTool("function", "a__b", None),
        DeclaredTool("function", "b", "a"),
        DeclaredTool("function", "b", "a__"),
        DeclaredTool("function", "a.b", None),
    }
    assert notes == []


def test_the_first_of_colliding_names_stays_plain() -> None:
    tools, _ = declare(*COLLIDING)
    shown = names(tools)
    assert shown[0] == "a__b"
    assert shown[3] == "a_b"
    assert shown == names(declare(*COLLIDING)[0]), "the same in every process and turn"


def test_long_names_are_shortened_and_restored() -> None:
    long, longer = "n" * 100, "n" * 101
    tools, _ = declare(function(long), function(longer), namespace("s" * 60, function("member")))
    assert all(NAMES.fullmatch(name) for name in names(tools))
    assert [tools.restore(name).name for name in names(tools)] == [long, longer, "member"]


def test_a_function_and_a_custom_tool_of_one_name_are_told_apart() -> None:
    tools, _ = declare(function("exec"), {"type": "custom", "name": "exec"})
    assert [tools.restore(name).kind for name in names(tools)] == ["function", "custom"]


IDENTIFIERS = st.text(alphabet="ab_.- ", min_size=1, max_size=3) | st.text(min_size=1, max_size=90)


@given(st.lists(st.tuples(st.none() | IDENTIFIERS, IDENTIFIERS, st.booleans()), max_size=12))
def test_any_names_are_valid_unique_and_restored(identities: list[tuple[str | None, str, bool]]) -> None:
    tools: list[Json] = []
    for space, name, custom in identities:
        tool = {"type": "custom", "name": name} if custom else function(name)
        tools.append(tool if space is None else namespace(space, tool))
    offered, _ = declare(*tools)
    assert all(NAMES.fullmatch(name) for name in names(offered))
    assert len(set(names(offered))) == len(names(offered))
    restored = {(owner.namespace, owner.name, owner.kind) for owner in map(offered.restore, names(offered))}
    assert restored == {(space, name, "custom" if custom else "function") for space, name, custom in identities}
    before = names(declare(*tools[:-1])[0])
    assert names(offered)[: len(before)] == before, "a tool that is appended renames none of the earlier ones"


def test_identical_declarations_collapse_and_different_ones_are_noted() -> None:
    tools, notes = declare(function("f"), function("f"))
    assert (names(tools), notes) == (["f"], [])
    tools, notes = declare(function("f"), function("f", description="Other."))
    assert tools.tools[0].description == "Does f."
    assert notes == [Note("tool", "f")]


def test_an_encrypted_parameter_is_remembered_but_not_shown() -> None:
    schema = {"type": "object", "properties": {"message": {"type": "string", "encrypted": True}}}
    tools, _ = declare(namespace("collaboration", function("spawn", parameters=schema)))
    assert tools.tools[0].parameters["properties"]["message"] == {"type": "string"}
    assert tools.restore("collaboration__spawn").encrypted


# --------------------------------------------------------------------------------------------- tools in the history


def call(name: str, **more: Any) -> Json:
    return {"type": "function_call", "call_id": f"c_{name}", "name": name, "arguments": "{}", **more}


def called(turn: Turn) -> list[str]:
    return [part.name for message in turn.request.messages for part in message.parts if isinstance(part, ToolCall)]


def test_calls_in_the_history_have_the_name_of_their_tool() -> None:
    turn = parse(
        tools=[function("n__a"), namespace("n", function("a"))],
        input=[call("a", namespace="n"), call("n__a"), call("gone", namespace="n")],
    )
    flat, in_namespace = names(turn)
    assert called(turn) == [in_namespace, flat, "n__gone"]


def test_calls_are_flattened_where_no_tools_are_declared() -> None:
    """As in Codex's compaction request: the history must render as it did while the tools were there."""
    turn = parse(
        tools=[], tool_choice="auto", input=[call("add", namespace="mcp__demo"), {"role": "user", "content": "x"}]
    )
    assert called(turn) == ["mcp__demo__add"]
    assert (turn.request.tools, turn.request.tool_choice) == ((), "auto")


def test_additional_tools_join_in_order() -> None:
    item = {"type": "additional_tools", "role": "developer", "tools": [namespace("n", function("a")), function("g")]}
    turn = parse(tools=[function("f")], input=[item, {"role": "user", "content": "x"}])
    assert names(turn) == ["f", "n__a", "g"]
    assert [message.role for message in turn.request.messages] == ["user"]
    error = refused(input=[{"type": "additional_tools", "tools": [{"type": "function"}]}])
    assert error.param == "input[0].tools[0].name"


def test_found_tools_join_although_their_loading_is_deferred() -> None:
    search = {"type": "tool_search_call", "call_id": "s", "execution": "client", "arguments": {"query": "add"}}
    found: Json = {"type": "tool_search_output", "call_id": "s", "execution": "client", "status": "completed"}
    found["tools"] = [namespace("n", function("add", defer_loading=True))]
    turn = parse(tools=[{"type": "tool_search", "execution": "client"}], input=[search, found])
    assert names(turn) == ["tool_search", "n__add"]
    result = turn.request.messages[-1].parts[0]
    assert "n__add" in str(result)


def test_a_tool_that_the_history_named_first_keeps_that_name_when_declared() -> None:
    items = [call("a", namespace="n"), {"type": "function_call_output", "call_id": "c_a", "output": ""}]
    before = parse(input=items)
    late = {"type": "additional_tools", "role": "developer", "tools": [function("n__a"), namespace("n", function("a"))]}
    after = parse(input=[*items, late])
    assert called(before) == called(after) == ["n__a"]
    assert names(after)[1] == "n__a"
    assert names(after)[0] != "n__a"


# ----------------------------------------------------------------------------------------------------- tool_choice

TOOLS = [function("f"), {"type": "custom", "name": "c"}, namespace("n", function("a")), {"type": "shell"}]


@pytest.mark.parametrize("choice", ["auto", "none", "required"])
def test_words(choice: str) -> None:
    turn = parse(tools=TOOLS, tool_choice=choice)
    assert turn.request.tool_choice == choice
    assert len(turn.request.tools) == 4


@pytest.mark.parametrize(
    ("choice", "upstream"),
    [
        ({"type": "function", "name": "f"}, "f"),
        ({"type": "custom", "name": "c"}, "c"),
        ({"type": "function", "name": "a", "namespace": "n"}, "n__a"),
        ({"type": "function", "name": "a"}, "n__a"),
        ({"type": "shell"}, "shell"),
    ],
)
def test_one_named_tool(choice: Json, upstream: str) -> None:
    turn = parse(tools=TOOLS, tool_choice=choice)
    assert turn.request.tool_choice == Named(upstream)
    assert len(turn.request.tools) == 4


@pytest.mark.parametrize("choice", [None, "auto", "none"])
def test_without_tools_there_is_nothing_to_choose(choice: str | None) -> None:
    assert parse(tools=[], tool_choice=choice).request.tool_choice == (choice or "auto")


@pytest.mark.parametrize(
    ("tools", "choice"),
    [
        ([], "required"),
        (TOOLS, "sometimes"),
        (TOOLS, 1),
        (TOOLS, []),
        (TOOLS, {}),
        (TOOLS, {"type": "function"}),
        (TOOLS, {"type": "function", "name": "unknown"}),
        (TOOLS, {"type": "function", "name": "c"}),
        (TOOLS, {"type": "custom", "name": "f"}),
        (TOOLS, {"type": "function", "name": "f", "namespace": "n"}),
        ([*TOOLS, namespace("m", function("a"))], {"type": "function", "name": "a"}),
        (TOOLS, {"type": "apply_patch"}),
        (TOOLS, {"type": "namespace", "name": "n"}),
        (TOOLS, {"type": "web_search"}),
        ([*TOOLS, {"type": "web_search"}], {"type": "function", "name": "web"}),
        ([*TOOLS, {"type": "web_search"}], {"type": "file_search"}),
        (TOOLS, {"type": "mcp", "server_label": "x"}),
        (TOOLS, {"type": "invented"}),
        (TOOLS, {"type": "allowed_tools"}),
        (TOOLS, {"type": "allowed_tools", "tools": []}),
        (TOOLS, {"type": "allowed_tools", "mode": "sometimes", "tools": [{"type": "function", "name": "f"}]}),
        (TOOLS, {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "g"}]}),
        (TOOLS, {"type": "allowed_tools", "mode": "auto", "tools": ["f"]}),
    ],
)
def test_choices_that_cannot_be_kept(tools: list[Json], choice: Any) -> None:
    assert refused(tools=tools, tool_choice=choice).param == "tool_choice"


@pytest.mark.parametrize(
    ("hosted", "choice", "offered"),
    [
        ({"type": "web_search"}, {"type": "web_search"}, True),
        ({"type": "web_search"}, {"type": "web_search_preview_2025_03_11"}, True),
        ({"type": "web_search_preview"}, {"type": "web_search"}, True),
        ({"type": "web_search"}, {"type": "function", "name": "web_search"}, True),
        ({"type": "mcp", "server_label": "x"}, {"type": "mcp", "server_label": "x", "name": "find"}, True),
        ({"type": "tool_search"}, {"type": "tool_search"}, True),
        ({"type": "code_interpreter", "container": {"type": "auto"}}, {"type": "code_interpreter"}, True),
        (
            {"type": "web_search"},
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "web_search"}]},
            False,
        ),
    ],
)
def test_a_choice_of_a_tool_that_was_left_out_is_dropped_with_it(hosted: Json, choice: Json, offered: bool) -> None:
    turn = parse(tools=[*TOOLS, hosted], tool_choice=choice)
    assert turn.request.tool_choice == "auto"
    assert len(turn.request.tools) == (4 if offered else 0)
    assert turn.notes == (Note("tool", hosted["type"]), Note("field", "tool_choice"))


def test_what_was_left_out_narrows_no_choice_of_what_is_there() -> None:
    listed = [{"type": "web_search"}, {"type": "function", "name": "f"}, {"type": "web_search"}]
    turn = parse(
        tools=[*TOOLS, {"type": "web_search"}],
        tool_choice={"type": "allowed_tools", "mode": "required", "tools": listed},
    )
    assert (turn.request.tool_choice, names(turn)) == ("required", ["f"])
    assert turn.notes == (Note("tool", "web_search"), Note("field", "tool_choice"))


def test_required_is_dropped_where_nothing_but_hosted_tools_was_offered() -> None:
    turn = parse(tools=[{"type": "web_search"}], tool_choice="required")
    assert (turn.request.tool_choice, turn.request.tools) == ("auto", ())
    assert turn.notes == (Note("tool", "web_search"), Note("field", "tool_choice"))


def test_the_answer_repeats_the_choice_that_was_kept() -> None:
    turn = parse(tools=[*TOOLS, {"type": "web_search"}], tool_choice={"type": "web_search"})
    turn.stream.feed([Started(), Finished(StopReason.STOP)])
    assert turn.stream.body()["tool_choice"] == "auto"


def test_an_unknown_name_is_not_found() -> None:
    assert "not found" in refused(tools=TOOLS, tool_choice={"type": "function", "name": "unknown"}).message


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_allowed_tools_narrow_the_offer_in_the_order_of_declaration(mode: str) -> None:
    allowed = [{"type": "namespace", "name": "n"}, {"type": "custom", "name": "c"}]
    turn = parse(tools=TOOLS, tool_choice={"type": "allowed_tools", "mode": mode, "tools": allowed})
    assert names(turn) == ["c", "n__a"]
    assert turn.request.tool_choice == mode


def test_a_choice_may_name_a_tool_that_came_in_the_input() -> None:
    item = {"type": "additional_tools", "role": "developer", "tools": [function("late")]}
    turn = parse(input=[item, {"role": "user", "content": "x"}], tool_choice={"type": "function", "name": "late"})
    assert turn.request.tool_choice == Named("late")


def test_what_answers_repeat_of_the_same_tools_is_encoded_and_kept_once() -> None:
    """An agent's tools are a hundred thousand bytes, and each open stream would keep them."""
    array = Seen([function("a"), {"type": "custom", "name": "c"}])
    assert echo(array).fragment is echo(array).fragment
    assert orjson.dumps(echo(array).fragment) == orjson.dumps(echo(array))
