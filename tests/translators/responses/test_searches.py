"""Web search where the gateway runs it: the declaration, the choice, earlier searches, and what is cited."""

from __future__ import annotations

from typing import Any

import pytest

from dragoman.translators.errors import GatewayError
from dragoman.translators.ir import (
    Event,
    Finished,
    Message,
    Named,
    Note,
    SearchEnded,
    SearchResult,
    SearchStarted,
    Started,
    StopReason,
    Text,
    ToolCall,
    WebSearch,
)
from dragoman.translators.protocol import Context, Json, Policy, Turn
from dragoman.translators.responses import PROTOCOL
from dragoman.translators.responses.searches import citations
from dragoman.translators.web_search import FORGOTTEN, result_of
from tests.grammar.responses import check_stream

LS: Json = {"type": "function", "name": "ls", "parameters": {"type": "object"}}
ON = Policy(web_search=True)
SEALED = ["reasoning.encrypted_content"]


def parse(policy: Policy = ON, **fields: Any) -> Turn:
    body = {"model": "m", "input": "Hello", "tools": [{"type": "web_search"}, LS], **fields}
    context = Context("0" * 32, lambda: 0, policy=policy, seal=lambda text: f"sealed:{text}", open=opened)
    return PROTOCOL.parse(body, context)


def opened(sealed: str) -> str | None:
    return sealed.removeprefix("sealed:") if sealed.startswith("sealed:") else None


def declared(**tool: Any) -> Turn:
    return parse(tools=[{"type": "web_search", **tool}, LS])


@pytest.mark.parametrize(
    "kind", ["web_search", "web_search_2025_08_26", "web_search_preview", "web_search_preview_2025_03_11"]
)
def test_every_version_of_the_tool_becomes_a_function(kind: str) -> None:
    turn = declared(type=kind)
    assert [tool.name for tool in turn.request.tools] == ["web_search", "ls"]
    assert (turn.request.search, turn.notes) == (WebSearch("web_search"), ())


def test_what_the_client_says_of_it_is_kept_to_or_noted() -> None:
    turn = declared(
        external_web_access=True,
        indexed_web_access=True,
        filters={"allowed_domains": ["a.b"], "blocked_domains": None, "others": [1]},
        search_context_size="low",
        user_location={"type": "approximate"},
    )
    assert turn.request.search == WebSearch("web_search", results=3, allowed=("a.b",))
    assert {note.name for note in turn.notes} == {"tools.user_location", "tools.filters.others"}


@pytest.mark.parametrize(
    ("tool", "place"),
    [
        ({"filters": []}, "tools[0].filters"),
        ({"filters": {"allowed_domains": "a"}}, "tools[0].filters.allowed_domains"),
        ({"search_context_size": "huge"}, "tools[0].search_context_size"),
    ],
)
def test_what_is_wrong_is_refused_with_its_place(tool: Json, place: str) -> None:
    with pytest.raises(GatewayError) as refused:
        declared(**tool)
    assert refused.value.param == place


def test_a_function_of_the_same_name_keeps_its_name() -> None:
    own = {"type": "function", "name": "web_search", "parameters": {"type": "object"}}
    turn = parse(tools=[own, {"type": "web_search"}])
    first, second = turn.request.tools
    assert first.name == "web_search" != second.name
    assert turn.request.search is not None
    assert turn.request.search.tool == second.name


@pytest.mark.parametrize("kind", ["web_search", "web_search_preview", "web_search_2025_08_26"])
def test_it_can_be_chosen_under_any_of_its_names(kind: str) -> None:
    assert parse(tool_choice={"type": kind}).request.tool_choice == Named("web_search")
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"type": kind}]}
    request = parse(tool_choice=allowed).request
    assert [tool.name for tool in request.tools] == ["web_search"]
    assert request.search is not None


def test_where_other_tools_alone_are_allowed_there_is_no_search() -> None:
    allowed = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "ls"}]}
    assert parse(tool_choice=allowed).request.search is None


def test_a_limit_of_calls_is_one_of_searches() -> None:
    turn = parse(max_tool_calls=2)
    assert (turn.request.search, turn.notes) == (WebSearch("web_search", most=2), ())
    assert parse(max_tool_calls=2, tools=[LS]).notes == (Note("field", "max_tool_calls"),)


# ------------------------------------------------------------------------------------------------------------- history


def item(**more: Any) -> Json:
    action = {"type": "search", "query": "x"}
    return {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": action, **more}


def history(*items: Json, policy: Policy = ON) -> tuple[tuple[Message, ...], tuple[Note, ...]]:
    turn = parse(policy, input=[{"role": "user", "content": "a"}, *items, {"role": "user", "content": "b"}])
    return turn.request.messages[1:-1], turn.notes


PAGE = {"url": "https://a.b/", "title": "A", "text": "Words.", "page_age": "1 day ago"}


@pytest.mark.parametrize(
    ("more", "shown"),
    [
        ({"results": [PAGE]}, "A (1 day ago)\nhttps://a.b/\nWords."),
        ({"results": [{"url": "https://a.b/", "title": "A"}, "odd"]}, "A\nhttps://a.b/"),
        ({"results": []}, "Nothing was found."),
        (
            {"status": "failed", "error": {"code": "query_too_long"}},
            "The search failed: the query is longer than 400 characters.",
        ),
        ({"status": "failed"}, "The search failed: web search is not available at the moment."),
        ({"id": None}, FORGOTTEN),  # as Codex sends it, and as OpenAI's own are
    ],
)
def test_an_earlier_search_is_a_call_with_its_result(more: Json, shown: str) -> None:
    messages, notes = history(item(**more))
    call = Message("assistant", (ToolCall("search001", "web_search", '{"query":"x"}'),))
    assert messages == (call, result_of("search001", shown))
    assert notes == ()


def carried(text: str = "Words.") -> Json:
    return {"type": "reasoning", "summary": [], "encrypted_content": f"sealed:\0dragoman:web_search\0{text}"}


def test_a_client_that_leaves_out_results_sends_them_back_sealed() -> None:
    messages, notes = history(item(), carried())
    assert messages[1:] == (result_of("search001", "Words."),)
    assert notes == ()
    assert history(item(results=[]), carried())[0][1:] == (result_of("search001", "Nothing was found."),)
    assert history(item(error={"code": "unavailable"}), carried())[0] == history(item(error={"code": "unavailable"}))[0]


def test_what_was_sealed_belongs_to_the_search_before_it_alone() -> None:
    said = {"type": "message", "role": "assistant", "content": "So."}
    first, second = history(item(), item(), carried())[0][1:4:2]
    assert (first, second) == (result_of("search001", FORGOTTEN), result_of("search002", "Words."))
    assert history(item(), said, carried())[0] == history(item(), said)[0]
    assert history(carried())[0] == ()
    assert history(carried(), policy=Policy()) == ((), (Note("tool", "web_search"), Note("item", "web_search_call")))


def test_it_is_sealed_where_the_client_carries_reasoning() -> None:
    ended = SearchEnded((SearchResult("https://a.b/", "A", "Words."),))
    events: list[Event] = [Started(), SearchStarted("x"), ended, Finished(StopReason.STOP)]
    for include, kinds in (([], ["web_search_call"]), (SEALED, ["web_search_call", "reasoning"])):
        turn = parse(include=include)
        sent = check_stream(b"".join(turn.stream.feed(events)))
        assert [each["type"] for each in sent["output"]] == kinds
        assert sent == turn.stream.body()
    bare = {key: value for key, value in sent["output"][0].items() if key != "results"}
    again, _ = history(bare, sent["output"][1])
    assert again == history(sent["output"][0])[0]


def test_results_are_counted_as_everything_else_is() -> None:
    with pytest.raises(GatewayError, match="too many items"):
        history(item(results=[{}] * 100), policy=Policy(web_search=True, max_items=50))
    assert history(item(results=[{**PAGE, "rank": 1}]))[1] == (Note("field", "input.results.rank"),)


def test_the_query_may_be_one_of_several() -> None:
    messages, _ = history(item(action={"type": "search", "queries": ["y", "z"]}))
    assert messages[0].parts == (ToolCall("search001", "web_search", '{"query":"y"}'),)


def test_a_page_that_openai_opened_is_left_out() -> None:
    messages, notes = history(item(action={"type": "open_page", "url": "https://a.b/"}))
    assert (messages, notes) == ((), (Note("item", "web_search_call"),))


def test_what_an_answer_cites_is_no_news() -> None:
    cited = {"type": "url_citation", "start_index": 0, "end_index": 1, "url": "https://a.b/", "title": "A"}
    part = {"type": "output_text", "text": "So.", "annotations": [cited]}
    message = {"type": "message", "role": "assistant", "content": [part]}
    assert history(message) == ((Message("assistant", (Text("So."),)),), ())
    assert history(message, policy=Policy())[1][1:] == (Note("field", "input.content.annotations"),)


def test_without_a_search_service_it_is_left_out_as_before() -> None:
    messages, notes = history(item(results=[PAGE]), policy=Policy())
    assert (messages, {note.name for note in notes}) == ((), {"web_search", "web_search_call"})


# ----------------------------------------------------------------------------------------------------------- citations

TITLES = {"https://a.b/": "A", "https://a.b/c": "C"}


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("See https://a.b/c.", ["https://a.b/c"]),
        ("See (https://a.b/), [C](https://a.b/c), and https://a.b/", ["https://a.b/", "https://a.b/c", "https://a.b/"]),
        ("See https://a.b/cd, https://a.b/c/d, https://a.b/c?d, https://a.b/c.html and http://a.b/", []),
        ("Sí: «https://a.b/c» 漢", ["https://a.b/c"]),
        ("See a.b", []),
    ],
)
def test_an_address_that_the_text_names_is_cited(text: str, urls: list[str]) -> None:
    found = citations(text, TITLES)
    assert [each["url"] for each in found] == urls
    assert all(text[each["start_index"] : each["end_index"]] == each["url"] for each in found)
    assert all(each["title"] == TITLES[each["url"]] for each in found)


def test_only_so_many_addresses_are_looked_at() -> None:
    assert len(citations("https://a.b/ " * 1000, TITLES)) == 200
