"""Blocks that another system wrote into a conversation: shown, left out with a note, or refused."""

from __future__ import annotations

import pytest

from dragoman.translators.ir import Message, Note, Text, ToolResult
from dragoman.translators.protocol import Json
from tests.translators.messages.asked import (
    REJECTING,
    assistant,
    context,
    parse,
    refusal,
    result,
    text,
    use,
    user,
)


def seen(*blocks: Json) -> tuple[list[str], tuple[Note, ...]]:
    """The texts that the model is shown of an assistant turn, and what is noted."""
    turn = parse(user("a"), assistant(*blocks, text("end")), user("c"))
    texts = [part.text for part in turn.request.messages[1].parts if isinstance(part, Text)]
    return texts[:-1], turn.notes


@pytest.mark.parametrize(
    "content", ["Three files.", [text("Three files.")], [text("Three files."), {"type": "new"}, {"text": "x"}, 5]]
)
def test_the_summary_of_a_compaction_is_text(content: object) -> None:
    assert seen({"type": "compaction", "content": content}) == (["Three files."], ())
    turn = parse(user([{"type": "compaction", "content": content}, text("b")]), under=context(policy=REJECTING))
    assert turn.request.messages[0].parts == (Text("Three files."), Text("b"))


@pytest.mark.parametrize("content", [None, "", [], 5])
def test_a_compaction_without_a_summary_is_noted(content: object) -> None:
    assert seen({"type": "compaction", "content": content}) == ([], (Note("item", "compaction"),))


@pytest.mark.parametrize(
    ("more", "label"),
    [
        ({}, "[Result of the MCP tool lookup]"),
        ({"is_error": True}, "[Error of the MCP tool lookup]"),
        ({"tool_use_id": "other"}, "[Result of an MCP tool]"),
    ],
)
def test_the_result_of_an_mcp_tool_is_text_under_its_name(more: Json, label: str) -> None:
    call = {"type": "mcp_tool_use", "id": "m1", "name": "lookup", "server_name": "s", "input": {}}
    came = {"type": "mcp_tool_result", "tool_use_id": "m1", "content": [text("found")], **more}
    assert seen(call, came) == ([label, "found"], (Note("item", "mcp_tool_use"), Note("item", "mcp_tool_result")))


@pytest.mark.parametrize("content", [None, [], [{"type": "image"}]])
def test_an_mcp_result_without_text_is_only_noted(content: object) -> None:
    came = {"type": "mcp_tool_result", "tool_use_id": "m1", "content": content}
    assert seen(came) == ([], (Note("item", "mcp_tool_result"),))


@pytest.mark.parametrize(
    "block",
    [
        {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}},
        {"type": "web_search_tool_result", "tool_use_id": "s1", "content": []},
        {"type": "fallback", "from": {"model": "a"}, "to": {"model": "b"}},
        {"type": "connector_text", "text": "x"},
        {"type": "of_2031", "text": 7},
    ],
)
def test_what_nobody_can_take_up_is_left_out_and_noted_or_refused(block: Json) -> None:
    assert seen(block) == ([], (Note("item", block["type"]),))
    error = refusal(user("a"), assistant(block), under=context(policy=REJECTING))
    assert error.param == "messages.1.content.0.type"


def test_the_model_is_told_of_what_a_user_or_a_tool_said_and_it_cannot_read() -> None:
    odd: Json = {"type": "audio", "data": "x"}
    told = Text("[Content of type audio left out: this gateway cannot read it]")
    turn = parse(user([text("a"), odd]), assistant(use("t1")), user([result("t1", [odd])]))
    assert turn.request.messages[0] == Message("user", (Text("a"), told))
    assert turn.request.messages[2].parts == (ToolResult("t1", (told,)),)
    assert [(note.name, note.count) for note in turn.notes] == [("audio", 2)]
    [message] = parse(user([{"type": "container_upload", "file_id": "f"}, text("a")])).request.messages
    assert message.parts == (Text("a"),)


def test_a_system_message_may_hold_blocks_of_a_later_api() -> None:
    turn = parse(user("a"), {"role": "system", "content": [{"type": "context_hint"}, text("b")]})
    assert turn.request.messages[1] == Message("system", (Text("b"),))
    assert turn.notes == (Note("item", "context_hint"),)


def test_many_kinds_are_few_notes() -> None:
    turn = parse(user("a"), assistant(*({"type": f"kind{number % 50}"} for number in range(1000))), user("b"))
    assert [(note.name, note.count) for note in turn.notes[:2]] == [("kind0", 20), ("kind1", 20)]
    assert (len(turn.notes), turn.notes[-1].name, turn.notes[-1].count) == (33, "+360", 360)
