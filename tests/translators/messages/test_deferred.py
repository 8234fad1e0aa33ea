"""Tools that a conversation makes known, and the rule that the tools of a turn begin those of the next."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.backends.prompts.messages import render
from dragoman.backends.prompts.rendering import Rendering
from dragoman.backends.prompts.tools import shown_tools
from dragoman.translators.ir import Named, Note, Request, Text, Tool, ToolReference, ToolResult
from dragoman.translators.protocol import Json, Policy
from tests.translators.messages.asked import (
    REJECTING,
    SEARCH,
    assistant,
    context,
    parse,
    refusal,
    result,
    text,
    use,
    user,
)


def tool(name: str, **more: Any) -> Json:
    return {"name": name, "description": f"Does {name}.", "input_schema": {"type": "object"}, **more}


def deferred(name: str) -> Json:
    return tool(name, defer_loading=True)


def reference(name: str) -> Json:
    return {"type": "tool_reference", "tool_name": name}


def found(call: str, *names: str) -> list[Json]:
    """A search and what it found."""
    return [assistant(use(call, "seek")), user([result(call, [reference(name) for name in names])])]


def addition(name: str) -> Json:
    return {"type": "tool_addition", "tool": {"type": "tool_reference", "name": name}}


def definition(given: Json) -> Json:
    return {"type": "tool_addition", "tool": {"type": "tool_definition", "definition": given}}


def removal(name: str) -> Json:
    return {"type": "tool_removal", "tool": {"type": "tool_reference", "name": name}}


def of_server(change: str, kind: str, **more: str) -> Json:
    return {"type": change, "tool": {"type": kind, "server_name": "docs", **more}}


def system(*blocks: Json) -> Json:
    return {"role": "system", "content": [*blocks]}


def names(request: Request) -> list[str]:
    return [each.name for each in request.tools]


TOOLS = [tool("ls"), deferred("fetch"), tool("seek"), deferred("never"), deferred("mail"), tool("write")]
SHOWN = ["ls", "seek", "write"]


def test_what_nothing_has_named_is_not_shown() -> None:
    turn = parse(user("a"), tools=TOOLS)
    assert (names(turn.request), turn.notes) == (SHOWN, ())


def test_what_was_found_comes_last_in_the_order_of_the_first_mentions() -> None:
    history = [user("a"), *found("t1", "mail"), *found("t2", "fetch", "mail")]
    turn = parse(*history, tools=sorted(TOOLS, key=lambda each: str(each["name"])))
    assert (names(turn.request), turn.notes) == ([*SHOWN, "mail", "fetch"], ())
    assert [each.deferred for each in turn.request.tools] == [False] * 3 + [True] * 2


def test_the_first_reference_carries_the_definition() -> None:
    request = parse(user("a"), *found("t1", "mail"), *found("t2", "mail"), tools=TOOLS).request
    results = [part for message in request.messages for part in message.parts if isinstance(part, ToolResult)]
    first, second = (each.content[0] for each in results)
    assert isinstance(first, ToolReference)
    assert first.text == "Tool that can be called now: mail"
    assert first.tool == request.tools[-1]
    assert second == ToolReference(first.text)


def test_a_reference_to_nothing_is_only_text() -> None:
    request = parse(user("a"), *found("t1", "gone", "ls"), tools=TOOLS).request
    assert names(request) == SHOWN


def test_a_tool_that_was_called_is_known_even_if_its_reference_is_gone() -> None:
    """A compaction drops the search and may keep the calls."""
    request = parse(user("a"), assistant(use("t1", "fetch")), user([result("t1")]), tools=TOOLS).request
    assert names(request) == [*SHOWN, "fetch"]
    assert not request.tools[-1].deferred


def compaction(*changes: Any, content: str | None = "So far.") -> Json:
    return {"type": "compaction", "content": content, "encrypted_content": None, "tool_changes": list(changes)}


def test_the_tools_that_a_compaction_names_are_known() -> None:
    changes = [addition("fetch"), definition(tool("late")), removal("ls")]
    turn = parse(user("a"), assistant(compaction(*changes)), user("b"), tools=TOOLS)
    assert names(turn.request) == [*SHOWN, "fetch", "late"]
    assert turn.notes == ()
    said = [part.text for part in turn.request.messages[1].parts if isinstance(part, Text)]
    assert said == [
        "So far.",
        "Tool that can be called now: fetch",
        "Tool that can be called now: late",
        "Tool that can no longer be called: ls",
    ]
    described = render(turn.request.messages, Rendering(deferred_tools="in_place"))
    assert "Does fetch." in described[1]["content"]


@pytest.mark.parametrize(
    "changes", [[addition("fetch"), None], [{"type": "tool_swap"}], [{"type": "tool_removal", "tool": {}}]]
)
def test_odd_changes_in_a_compaction_are_noted_and_not_refused(changes: list[Any]) -> None:
    turn = parse(user("a"), assistant(compaction(*changes)), user("b"), tools=TOOLS)
    assert names(turn.request) == SHOWN
    assert turn.notes == (Note("field", "messages.content.tool_changes"),)


def test_a_compaction_that_failed_changes_nothing() -> None:
    turn = parse(user("a"), assistant(compaction(addition("fetch"), content=None)), user("b"), tools=TOOLS)
    assert names(turn.request) == SHOWN


def test_a_tool_that_must_be_called_is_shown() -> None:
    request = parse(tools=TOOLS, tool_choice={"type": "tool", "name": "mail"}).request
    assert (names(request), request.tool_choice) == ([*SHOWN, "mail"], Named("mail"))


@pytest.mark.parametrize("search", ["tool_search_tool_regex_20251119", "tool_search_tool_bm25_20251119"])
def test_where_anthropic_would_search_all_are_shown(search: str) -> None:
    turn = parse(tools=[{"type": search, "name": "search"}, *TOOLS])
    assert names(turn.request) == [each["name"] for each in TOOLS]
    assert turn.notes == (Note("tool", search), Note("field", "defer_loading"))
    assert refusal(tools=[{"type": search, "name": "search"}], under=context(policy=REJECTING)).param == "tools.0.type"


@pytest.mark.parametrize("beside", [[], [SEARCH]])
def test_where_nothing_else_is_shown_nobody_could_search(beside: list[Json]) -> None:
    hidden = [deferred("fetch"), deferred("mail")]
    first = parse(user("a"), tools=hidden + beside).request
    later = parse(user("a"), system(addition("mail")), user("b"), tools=hidden + beside).request
    assert names(first) == names(later) == ["fetch", "mail"]


def test_long_names_are_referred_to_as_the_server_knows_them() -> None:
    long = "x" * 100
    request = parse(user("a"), *found("t1", long), tools=[tool("seek"), deferred(long)]).request
    [content] = [part.content for part in request.messages[2].parts if isinstance(part, ToolResult)]
    assert content[0] == ToolReference(f"Tool that can be called now: {names(request)[-1]}", request.tools[-1])
    assert len(names(request)[-1]) <= 64


# ------------------------------------------------------------------------------------------------------ system messages


def test_additions_join_the_list_and_are_said_in_their_place() -> None:
    turn = parse(
        user("a"),
        system(text("New:"), text("tools."), addition("mail"), definition(tool("made"))),
        user("b"),
        tools=TOOLS,
    )
    assert (names(turn.request), turn.notes) == ([*SHOWN, "mail", "made"], ())
    made = Tool("made", "Does made.", {"type": "object", "properties": {}}, deferred=True)
    assert turn.request.tools[-1] == made
    assert turn.request.messages[1].parts == (
        Text("New:\n\ntools."),
        ToolReference("Tool that can be called now: mail", turn.request.tools[-2]),
        ToolReference("Tool that can be called now: made", made),
    )


def test_a_removal_is_said_and_the_list_stays() -> None:
    history = [user("a"), system(addition("mail")), user("b")]
    before = parse(*history, tools=TOOLS).request
    after = parse(*history, system(removal("mail"), removal("ls")), user("c"), tools=TOOLS).request
    assert after.tools == before.tools
    assert after.messages[3].parts == (
        Text("Tool that can no longer be called: mail\n\nTool that can no longer be called: ls"),
    )


@pytest.mark.parametrize(
    ("given", "notes"),
    [(tool("ls"), ()), (tool("mail"), ()), ({**tool("ls"), "description": "Another."}, (Note("tool", "ls"),))],
)
def test_a_definition_whose_name_is_taken_changes_nothing(given: Json, notes: tuple[Note, ...]) -> None:
    turn = parse(user("a"), system(definition(given)), user("b"), tools=TOOLS)
    assert turn.request.tools[:3] == parse(user("a"), tools=TOOLS).request.tools
    assert turn.notes == notes


@pytest.mark.parametrize(
    ("added", "note"),
    [
        (definition(SEARCH), Note("tool", "web_search_20250305")),
        ({"type": "tool_addition", "tool": {"type": "toolset", "name": "x"}}, Note("item", "tool_addition")),
        (of_server("tool_addition", "mcp_toolset_reference"), Note("item", "tool_addition")),
        (of_server("tool_removal", "mcp_toolset_reference"), Note("item", "tool_removal")),
        (of_server("tool_removal", "mcp_tool_reference", name="x"), Note("item", "tool_removal")),
    ],
)
def test_what_cannot_be_called_here_is_noted(added: Json, note: Note) -> None:
    turn = parse(user("a"), system(added), user("b"), tools=TOOLS)
    assert (names(turn.request), turn.notes) == (SHOWN, (note,))
    assert turn.request.messages == parse(user("a"), user("b"), tools=TOOLS).request.messages


def test_what_changes_the_tools_outlives_the_text_beside_it() -> None:
    changes = {**system(text("New:"), addition("mail"), removal("ls")), "clear_at": "next_user_message"}
    request = parse(user("a"), changes, user("b"), tools=TOOLS).request
    assert names(request) == [*SHOWN, "mail"]
    assert request.messages[1].parts == (
        ToolReference("Tool that can be called now: mail", request.tools[-1]),
        Text("Tool that can no longer be called: ls"),
    )


def test_faults_in_definitions_have_their_path() -> None:
    path = "messages.0.content.0.tool.definition"
    assert refusal(system(definition({"name": "x"}))).param == f"{path}.input_schema"
    assert refusal(system(definition({"type": "function", "function": {}}))).param == f"{path}.function.name"
    added = [definition(tool(f"t{number}")) for number in range(3)]
    assert refusal(system(*added), under=context(policy=Policy(max_tools=2))).param == "tools"


# ---------------------------------------------------------------------------------------------------------- the prefix


HIDDEN = [deferred(f"d{number}") for number in range(6)]


@st.composite
def conversations(draw: st.DrawFn) -> list[list[Json]]:
    """Turns of a conversation, each a list of messages that begins with a user's or a system's."""
    some = st.lists(st.integers(0, 5), min_size=1, max_size=3).map(lambda found: [f"d{number}" for number in found])
    turns: list[list[Json]] = []
    for number in range(draw(st.integers(1, 6))):
        picked = draw(some)
        turns.append(
            draw(
                st.sampled_from(
                    [
                        [user("go on"), *found(f"t{number}", *picked), assistant(text("found"))],
                        [
                            user("a"),
                            assistant(use(f"t{number}", picked[0])),
                            user([result(f"t{number}")]),
                            assistant(text("b")),
                        ],
                        [user("a"), system(*map(addition, picked)), user("b"), assistant(text("c"))],
                        [user("a"), system(definition(tool(f"made{len(picked)}"))), assistant(text("c"))],
                        [user("a"), system(removal(picked[0])), assistant(text("c"))],
                        [user([result(f"lost{number}", [reference(picked[0])])]), assistant(text("b"))],
                        [user("a"), assistant(text("b"))],
                    ]
                )
            )
        )
    return turns


@given(conversations(), st.randoms(use_true_random=False))
def test_the_prompt_of_a_turn_begins_that_of_the_next(turns: list[list[Json]], random: Any) -> None:
    """Whatever was found, added, removed or called, and however the client sorts what it defers."""
    history: list[Json] = []
    requests: list[Request] = []
    for turn in turns:
        sorted_anew = random.sample(HIDDEN, len(HIDDEN))
        requests.append(parse(*history, turn[0], tools=[tool("seek"), *sorted_anew]).request)
        history += turn
    for before, after in pairwise(requests):
        assert after.messages[: len(before.messages)] == before.messages
        assert after.tools[: len(before.tools)] == before.tools
        for shown in ("listed", "in_place", "native"):
            settings = Rendering.model_validate({"deferred_tools": shown})
            earlier, later = render(before.messages, settings), render(after.messages, settings)
            assert later[: len(earlier)] == earlier


@given(conversations())
def test_what_is_described_in_its_place_leaves_the_list_as_it_was(turns: list[list[Json]]) -> None:
    """Unless a tool was called that nothing had made known: that one cannot be described anywhere else."""
    history = [message for turn in turns for message in turn]
    request = parse(*history, user("end"), tools=[tool("seek"), *HIDDEN]).request
    settings = Rendering(deferred_tools="in_place")
    said = str(render(request.messages, settings))
    for each in request.tools:
        listed, described = each in shown_tools(request, settings), f'{{"name":"{each.name}"' in said
        assert listed != described
        assert listed == (not each.deferred)
