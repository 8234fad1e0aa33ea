"""Web search where the gateway runs it: the declaration, Claude Code's request for one search, and the history."""

from __future__ import annotations

from typing import Any

import pytest

from dragoman.translators.errors import GatewayError
from dragoman.translators.ir import Message, Named, Note, Text, ToolCall, ToolResult, WebSearch
from dragoman.translators.messages import PROTOCOL
from dragoman.translators.protocol import Context, Json, Policy, Turn

SEARCH: Json = {"type": "web_search_20250305", "name": "web_search"}
LS: Json = {"name": "ls", "input_schema": {"type": "object"}}
ON = Policy(web_search=True)


def parse(messages: list[Json] | str = "Hello", policy: Policy = ON, **fields: Any) -> Turn:
    said = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
    body = {"model": "m", "max_tokens": 64, "messages": said, "tools": [SEARCH, LS], **fields}
    return PROTOCOL.parse(body, Context(id="0" * 32, clock=lambda: 0, policy=policy))


def refused(**tool: Any) -> str:
    with pytest.raises(GatewayError) as error:
        parse(tools=[{**SEARCH, **tool}])
    return str(error.value.param)


@pytest.mark.parametrize("kind", ["web_search_20250305", "web_search_20260209", "web_search_20991231"])
def test_every_version_of_the_tool_becomes_a_function(kind: str) -> None:
    turn = parse(tools=[{**SEARCH, "type": kind, "max_uses": 3, "allowed_domains": ["a.b"]}, LS])
    assert [tool.name for tool in turn.request.tools] == ["web_search", "ls"]
    assert turn.request.search == WebSearch("web_search", most=3, allowed=("a.b",))
    assert turn.notes == ()


def test_what_is_not_kept_to_is_noted() -> None:
    turn = parse(
        tools=[{**SEARCH, "user_location": {"type": "approximate", "city": "Rome"}, "cache_control": {"a": 1}}]
    )
    assert turn.notes == (Note("field", "tools.user_location"),)


def test_what_is_wrong_is_refused_with_its_place() -> None:
    assert refused(max_uses=0) == refused(max_uses="3") == refused(max_uses=True) == "tools.0.max_uses"
    assert refused(allowed_domains="a.b") == refused(allowed_domains=[1]) == "tools.0.allowed_domains"
    assert refused(blocked_domains=["a.b"] * 101) == refused(blocked_domains=["a" * 254]) == "tools.0.blocked_domains"
    assert refused(allowed_domains=["a"], blocked_domains=["b"]) == "tools.0.blocked_domains"
    with pytest.raises(GatewayError, match="unique"):
        parse(tools=[SEARCH, {"name": "web_search", "input_schema": {"type": "object"}}])


def test_it_can_be_chosen() -> None:
    assert parse(tool_choice={"type": "tool", "name": "web_search"}).request.tool_choice == Named("web_search")
    assert parse(tools=[SEARCH], tool_choice={"type": "any"}).request.tool_choice == "required"


def test_other_tools_that_anthropic_runs_are_left_out_as_before() -> None:
    turn = parse(tools=[SEARCH, {"type": "web_fetch_20260318", "name": "web_fetch"}])
    assert [tool.name for tool in turn.request.tools] == ["web_search"]
    assert turn.notes == (Note("tool", "web_fetch_20260318"),)
    assert turn.events == ()


def test_a_cache_warm_up_searches_nothing() -> None:
    assert parse(max_tokens=0).request.search is None


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("Perform a web search for the query: old maps", "old maps"),
        ("  Perform a web search for the query: old maps\n", "old maps"),
        ("Perform a web search for the query:", ""),
        ("Perform a web search for the query: a\ud800b", "a?b"),
        ("Please perform a web search for the query: old maps", None),
        ("Old maps?", None),
    ],
)
def test_a_request_for_one_search_is_in_claude_codes_words(text: str, query: str | None) -> None:
    assert parse(text, tools=[SEARCH]).searched == query
    assert parse(text).searched is None  # there is another tool
    assert parse(text, tools=[SEARCH], tool_choice={"type": "none"}).searched is None


def test_only_the_last_message_asks_for_it() -> None:
    asked = {"role": "user", "content": "Perform a web search for the query: x"}
    rest = [{"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "Never mind."}]
    assert parse([asked, *rest], tools=[SEARCH]).searched is None


# ------------------------------------------------------------------------------------------------------------- history

CALL: Json = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}}


def result(content: Any, id: str = "srvtoolu_1") -> Json:
    return {"type": "web_search_tool_result", "tool_use_id": id, "content": content}


def history(*blocks: Json, policy: Policy = ON) -> tuple[tuple[Message, ...], tuple[Note, ...]]:
    said: list[Json] = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": list(blocks)},
        {"role": "user", "content": "b"},
    ]
    turn = parse(said, policy)
    return turn.request.messages[1:-1], turn.notes


def page(sealed: Any) -> Json:
    return {
        "type": "web_search_result",
        "url": "https://a.b/",
        "title": "A",
        "encrypted_content": sealed,
        "page_age": None,
    }


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        ([page("dragoman:Words.")], "A\nhttps://a.b/\nWords."),
        ([page("EqgfCioIARgBIiQ3YTAwMjY1Mi1mZjM5LTQ1NGUtODgxNC1k")], "A\nhttps://a.b/"),  # what Anthropic sealed
        ([page(None), "odd", {"type": "web_search_result"}], "A\nhttps://a.b/"),
        ([], "Nothing was found."),
        (
            {"type": "web_search_tool_result_error", "error_code": "query_too_long"},
            "The search failed: the query is lon",
        ),
        ("odd", "The search failed: web search is not"),
    ],
)
def test_an_earlier_search_is_a_call_with_its_result(content: Any, shown: str) -> None:
    messages, notes = history({"type": "text", "text": "Wait."}, CALL, result(content), {"type": "text", "text": "So."})
    call, answer, text = messages
    assert call.parts == (Text("Wait."), ToolCall("search001", "web_search", '{"query":"x"}'))
    assert isinstance(told := answer.parts[0], ToolResult)
    assert (told.call_id, told.is_error) == ("search001", False)
    assert "".join(part.text for part in told.content if isinstance(part, Text)).startswith(shown)
    assert text == Message("assistant", (Text("So."),))
    assert notes == ()


def test_searches_beside_each_other_are_turns_of_their_own() -> None:
    second = {**CALL, "id": "srvtoolu_2", "input": {"query": "y"}}
    messages, _ = history(CALL, result([]), second, result([], "srvtoolu_2"))
    assert [message.role for message in messages] == ["assistant", "tool", "assistant", "tool"]
    together, _ = history(CALL, second, result([]), result([], "srvtoolu_2"))
    assert together == messages


def test_results_are_counted_as_everything_else_is() -> None:
    with pytest.raises(GatewayError, match="too many items"):
        history(CALL, result([{}] * 100), policy=Policy(web_search=True, max_items=50))
    assert history(CALL, result([{**page("x"), "rank": 1}]))[1] == (Note("field", "messages.content.content.rank"),)


def test_a_result_without_its_call_is_shown_and_other_server_tools_are_left_out() -> None:
    messages, notes = history(
        result([page("dragoman:W")]), {**CALL, "name": "web_fetch"}, {"type": "text", "text": "So."}
    )
    assert messages[0].parts == (ToolCall("search001", "web_search", '{"query":""}'),)
    assert notes == (Note("item", "server_tool_use"),)


def test_a_call_whose_result_never_came_is_left_out() -> None:
    assert history(CALL, {**CALL, "id": "b"})[1] == (Note("item", "server_tool_use", 2),)


def test_without_a_search_service_all_of_it_is_left_out_as_before() -> None:
    messages, notes = history(CALL, result([page("x")]), {"type": "text", "text": "So."}, policy=Policy())
    assert messages == (Message("assistant", (Text("So."),)),)
    assert {note.name for note in notes} == {"web_search_20250305", "server_tool_use", "web_search_tool_result"}
