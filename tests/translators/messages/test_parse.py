"""Requests of the Messages API into the representation.

What a chat server is sent in the end is frozen in tests/golden/requests/messages; here stand the rules.
"""

import copy
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragoman.translators.errors import GatewayError
from dragoman.translators.ir import Image, JsonSchema, Message, Note, Reasoning, Text, Thinking, ToolCall, ToolResult
from dragoman.translators.messages import PROTOCOL, parse_count
from dragoman.translators.protocol import Context, Json
from tests.golden_files import request, requests
from tests.grammar.messages import check_error
from tests.translators.messages.asked import (
    LS,
    PNG,
    assistant,
    body,
    context,
    image,
    parse,
    refusal,
    result,
    text,
    use,
    user,
)

GOOD = requests("messages")

# ------------------------------------------------------------------------------------------------------------- messages


def test_strings_and_blocks_say_the_same() -> None:
    assert parse(user("Hello")).request == parse(user([text("Hello")])).request


@pytest.mark.parametrize("content", ["", [], [text("")]])
def test_an_empty_turn_is_still_a_turn(content: Any) -> None:
    assert parse(user(content)).request.messages == (Message("user", (Text(""),)),)


def test_system_is_the_first_message_without_attribution_and_cache_marks() -> None:
    blocks = [
        text("x-anthropic-billing-header: cc_version=2.1.197.1c0; cc_entrypoint=sdk-cli;"),
        text("One.", cache_control={"type": "ephemeral"}),
        text("Two."),
    ]
    turn = parse(system=blocks)
    assert turn.request.messages[0] == Message("system", (Text("One.\n\nTwo."),))
    assert turn.notes == ()
    assert parse(system=[blocks[0]]).request.messages[0].role == "user"
    assert parse(system="x-anthropic-billing-header: a;\n").request.messages[0].role == "user"


@pytest.mark.parametrize(
    "blocks",
    [
        [text("x-anthropic-billing-header: a;\nOne.")],
        [text("One."), text("x-anthropic-billing-header: a;")],
        [text("On x-anthropic-billing-header: a;")],
    ],
)
def test_only_a_first_block_that_is_nothing_else_is_the_attribution(blocks: list[Json]) -> None:
    whole = "\n\n".join(block["text"] for block in blocks)
    assert parse(system=blocks).request.messages[0] == Message("system", (Text(whole),))
    assert parse({"role": "system", "content": blocks}).request.messages[0] == Message("system", (Text(whole),))


def test_the_attribution_changes_nothing_in_the_prompt() -> None:
    first, second = (
        parse(system=[text(f"x-anthropic-billing-header: cc_version={version};"), text("One.")]).request
        for version in ("1", "2")
    )
    assert first == second


def test_system_messages_stay_where_they_stand() -> None:
    turn = parse(user("a"), {"role": "system", "content": [text("b")]}, assistant(text("c")), user("d"), system="s")
    assert [message.role for message in turn.request.messages] == ["system", "user", "system", "assistant", "user"]


def test_consecutive_messages_of_one_role_are_one() -> None:
    turn = parse(user("a"), user([text("b")]), assistant(text("c")), assistant(use("t1")), user([result("t1")]))
    assert turn.request.messages == (
        Message("user", (Text("a"), Text("b"))),
        Message("assistant", (Text("c"), ToolCall("t1", "ls", "{}"))),
        Message("tool", (ToolResult("t1", (Text("ok"),)),)),
    )


def test_results_come_in_call_order_before_the_rest_of_the_message() -> None:
    turn = parse(
        user("a"),
        assistant(use("t1"), use("t2", a=1)),
        user([text("first"), result("t2", "two"), result("t1", "one", is_error=True), text("last")]),
    )
    assert turn.request.messages[2:] == (
        Message("tool", (ToolResult("t1", (Text("one"),), True),)),
        Message("tool", (ToolResult("t2", (Text("two"),)),)),
        Message("user", (Text("first"), Text("last"))),
    )
    assert turn.notes == (Note("repair", "reordered_output"),)


def test_contents_of_results() -> None:
    content = [
        text("a"),
        image(**PNG),
        {"type": "tool_reference", "tool_name": "ls"},
        {"type": "search_result", "title": "T", "source": "s", "content": [text("b")]},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "c"}},
    ]
    turn = parse(user("a"), assistant(use("t1"), use("t2")), user([result("t1", content), result("t2", None)]))
    parts = turn.request.messages[2].parts[0]
    assert isinstance(parts, ToolResult)
    assert parts.content[1] == Image("data:image/png;base64,iVBORw0KGgo=")
    words = "\n".join(part.text for part in parts.content if isinstance(part, Text))
    assert all(word in words for word in ("a", "ls", "T", "b", "c"))
    assert turn.request.messages[3].parts == (ToolResult("t2", (Text(""),)),)


def test_the_prompt_of_a_turn_is_a_prefix_of_the_next() -> None:
    history = [
        user([text("a", cache_control={"type": "ephemeral"})]),
        {"role": "system", "content": "s"},
        assistant({"type": "thinking", "thinking": "hm", "signature": "x"}, text("b"), use("t1"), use("t2")),
        user([result("t2"), result("t1"), text("c")]),
        assistant(text("d")),
        user("e"),
    ]
    whole = parse(*history).request.messages
    for end in (2, 4, 6):
        part = parse(*history[:end]).request.messages
        assert whole[: len(part)] == part


def test_a_last_assistant_message_is_the_beginning_of_the_answer() -> None:
    request = parse(user("a"), assistant(text("The answer is ("))).request
    assert request.messages[-1] == Message("assistant", (Text("The answer is ("),))
    assert request.prefill
    assert not parse(user("a"), assistant(text("b")), user("c")).request.prefill
    assert not parse(user("a"), assistant(use("t1"))).request.prefill  # its missing result comes last


@pytest.mark.parametrize(
    ("later", "effort"),
    [([{"effort": "low"}], "low"), ([{"effort": "low"}, {"effort": "max"}], "max"), ([{}], "high"), ([None], "high")],
)
def test_the_effort_of_a_system_message_counts_from_there_on(later: list[Json | None], effort: str) -> None:
    said = [{"role": "system", "content": "a", "output_config": config} for config in later]
    assert parse(user("a"), *said, user("b"), output_config={"effort": "high"}).request.thinking == Thinking(effort)


@pytest.mark.parametrize("content", [{}, {"content": []}])
def test_a_system_message_may_say_nothing_but_an_effort(content: Json) -> None:
    """Claude Code 2.1.332 sends it with an empty content, the API also takes none."""
    said: Json = {"role": "system", "output_config": {"effort": "low"}, **content}
    turn = parse(user("a"), assistant(text("b")), said, user("c"))
    assert turn.request.thinking == Thinking("low")
    assert turn.request.messages == parse(user("a"), assistant(text("b")), user("c")).request.messages
    assert turn.notes == ()


def test_a_system_message_that_says_nothing_at_all_is_refused() -> None:
    assert refusal(user("a"), {"role": "system"}).param == "messages.1.content"


@pytest.mark.parametrize("content", ["Be quick.", [text("Be"), text("quick.")]])
def test_a_system_message_may_be_meant_for_one_turn_alone(content: Any) -> None:
    reminder: Json = {"role": "system", "content": content, "clear_at": "next_user_message"}
    first = [user("a"), reminder]
    later = [*first, assistant(use("t1")), user([result("t1")])]
    turns = [parse(*first), parse(*later), parse(*later, reminder)]
    systems = [[each for each in turn.request.messages if each.role == "system"] for turn in turns]
    assert [len(each) for each in systems] == [1, 0, 1]
    assert turns[2].request.messages[-1].role == "system"
    assert all(turn.notes == () for turn in turns)


@pytest.mark.parametrize(("when", "notes"), [("never", ()), ("tomorrow", (Note("field", "messages.clear_at"),))])
def test_any_other_system_message_stays(when: str, notes: tuple[Note, ...]) -> None:
    turn = parse(user("a"), {"role": "system", "content": "b", "clear_at": when}, user("c"))
    assert [each.role for each in turn.request.messages] == ["user", "system", "user"]
    assert turn.notes == notes


@pytest.mark.parametrize("fields", [{"max_tokens": 64.0}, {"top_k": 64.0}, {"seed": 64.0}])
def test_a_whole_number_may_be_written_as_a_float(fields: Json) -> None:
    request = parse(**fields).request
    assert 64 in (request.max_tokens, request.sampling.top_k, request.sampling.seed)
    thinking = parse(thinking={"type": "enabled", "budget_tokens": 2048.0}).request.thinking
    assert type(thinking.budget) is int


def test_a_warm_up_asks_for_one_token_under_the_same_prompt() -> None:
    asked: Json = {"tools": [LS], "system": "s"}
    request = parse(max_tokens=0, **asked).request
    assert request == replace(parse(**asked).request, max_tokens=1)
    schema = {"type": "json_schema", "schema": {"type": "object"}}
    forced = parse(max_tokens=0, tool_choice={"type": "any"}, output_config={"format": schema}, **asked).request
    assert forced == request
    assert parse(max_tokens=0, tool_choice={"type": "none"}, **asked).request.tool_choice == "none"


def test_images_and_documents() -> None:
    blocks = [
        image(**PNG),
        image(type="url", url="https://example.com/a.png"),
        {"type": "document", "title": "T", "source": {"type": "text", "media_type": "text/plain", "data": "words"}},
        {
            "type": "document",
            "source": {"type": "content", "content": [text("inner"), image(**PNG)]},
        },
    ]
    [message] = parse(user(blocks)).request.messages
    images = [part.url for part in message.parts if isinstance(part, Image)]
    assert images == [f"data:image/png;base64,{PNG['data']}", "https://example.com/a.png", images[0]]
    assert Text("[Document: T]\nwords") in message.parts


# ------------------------------------------------------------------------------------------------------------- thinking


def thought(under: Context, *blocks: Json) -> tuple[tuple[Any, ...], tuple[Note, ...]]:
    turn = parse(user("a"), assistant(*blocks, text("b")), user("c"), under=under)
    return turn.request.messages[1].parts[:-1], turn.notes


def test_thinking_goes_back_by_its_text_or_by_our_seal() -> None:
    under = context(open=lambda sealed: "opened" if sealed == "ours" else None)
    assert thought(under, {"type": "thinking", "thinking": "hm", "signature": "ours"}) == ((Reasoning("hm"),), ())
    assert thought(under, {"type": "thinking", "thinking": "", "signature": "ours"}) == ((Reasoning("opened"),), ())
    assert thought(under, {"type": "redacted_thinking", "data": "ours"}) == ((Reasoning("opened"),), ())


@pytest.mark.parametrize("opener", [None, lambda sealed: None])
def test_foreign_signatures_never_fail(opener: Any) -> None:
    under = context(open=opener)
    assert thought(under, {"type": "thinking", "thinking": "hm"}) == ((Reasoning("hm"),), ())
    foreign = {"type": "thinking", "thinking": "", "signature": "EqQB"}
    assert thought(under, foreign) == ((), (Note("item", "thinking"),))
    redacted = {"type": "redacted_thinking", "data": "EmwK"}
    assert thought(under, redacted) == ((), (Note("item", "redacted_thinking"),))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, Thinking()),
        ({"thinking": None}, Thinking()),
        ({"output_config": {"effort": "low"}}, Thinking("low")),
        ({"thinking": {"type": "disabled"}}, Thinking("none")),
        ({"thinking": {"type": "disabled"}, "output_config": {"effort": "max"}}, Thinking("none")),
        ({"thinking": {"type": "adaptive"}}, Thinking("high")),
        (
            {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": "xhigh"}},
            Thinking("xhigh"),
        ),
        ({"thinking": {"type": "between_tools"}}, Thinking("high")),
        ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, Thinking("low", 2048)),
        ({"thinking": {"type": "enabled", "budget_tokens": 31999}}, Thinking("high", 31999)),
        ({"thinking": {"type": "enabled", "budget_tokens": 9}, "output_config": {"effort": "max"}}, Thinking("max", 9)),
    ],
)
def test_thinking_in_all_its_forms(fields: Json, expected: Thinking) -> None:
    assert parse(**fields).request.thinking == expected


@pytest.mark.parametrize(
    ("fields", "expected", "notes"),
    [
        ({"thinking": {"type": "adaptive", "display": "updates"}}, Thinking("high"), ["thinking.display"]),
        ({"thinking": {"type": "adaptive", "display": ""}}, Thinking("high"), []),
        ({"thinking": {"type": "sometimes"}}, Thinking("high"), ["thinking.type"]),
        (
            {"thinking": {"type": "sometimes", "budget_tokens": 9}},
            Thinking("high"),
            ["thinking.type", "thinking.budget_tokens"],
        ),
        ({"thinking": {"type": "off"}}, Thinking("none"), ["thinking.type"]),
        ({"output_config": {"effort": "ultra"}}, Thinking("max"), ["output_config.effort"]),
        (
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "auto"}},
            Thinking("high"),
            ["output_config.effort"],
        ),
    ],
)
def test_words_that_nobody_knows_yet_are_taken_and_noted(fields: Json, expected: Thinking, notes: list[str]) -> None:
    turn = parse(**fields)
    assert turn.request.thinking == expected
    assert turn.notes == tuple(Note("field", name) for name in notes)


# --------------------------------------------------------------------------------------------------------- other fields


def test_formats() -> None:
    schema = {"type": "object", "properties": {}}
    wanted = JsonSchema("output", schema, strict=True)
    asked = {"type": "json_schema", "schema": schema}
    assert parse(output_config={"format": asked}).request.format == wanted
    assert parse(output_format=asked).request.format == wanted
    both = parse(output_config={"format": asked}, output_format={**asked, "schema": {}})
    assert (both.request.format, both.notes) == (wanted, (Note("field", "output_format"),))
    assert parse(output_config={"effort": "low"}).request.format is None


@pytest.mark.parametrize("version", ["2023-06-01", "2026-10-21"])
def test_sampling_in_both_versions(version: str) -> None:
    fields: Json = {"temperature": 0, "top_p": 1, "top_k": 40, "stop_sequences": ["END"], "max_tokens": 7}
    request = parse(under=context(headers={"anthropic-version": version}), **fields).request
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.stop) == (0, 1, 40, ("END",))
    assert request.max_tokens == 7
    assert parse(top_k=0).request.sampling.top_k is None


def test_minus_one_is_not_set() -> None:
    """As LangChain for JavaScript sends it for what nobody has set; Anthropic's API took it of older models."""
    sampling = parse(top_p=-1, top_k=-1).request.sampling
    assert (sampling.top_p, sampling.top_k) == (None, None)
    assert refusal(top_p=-0.5).param == "top_p"


def test_streaming_is_asked_for() -> None:
    assert parse(stream=True).streaming
    assert not parse(stream=False).streaming
    assert not parse().streaming


@pytest.mark.parametrize(
    ("headers", "user_id", "affinity"),
    [
        ({"x-claude-code-session-id": "s1"}, '{"session_id":"s2"}', "s1"),
        ({}, '{"device_id":"d","session_id":"s2"}', "s2"),
        ({}, "user_1_account__session_s3", "s3"),
        ({}, "someone", None),
        ({}, '{"session_id":7}', None),
        ({}, "[1]", None),
        ({}, None, None),
    ],
)
def test_affinity_is_the_session(headers: dict[str, str], user_id: str | None, affinity: str | None) -> None:
    turn = parse(under=context(headers=headers), metadata={"user_id": user_id})
    assert (turn.request.affinity, turn.notes) == (affinity, ())


def test_what_changes_nothing_is_noted_or_ordinary() -> None:
    quiet = parse(
        service_tier="auto",
        speed="standard",
        cache_control={"type": "ephemeral"},
        betas=["a"],
        context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    )
    assert quiet.notes == ()
    odd: Json = {"not known,yet": 1}
    loud = parse(
        speed="fast",
        inference_geo="eu",
        context_management={"edits": [{"type": "clear_tool_uses_20250919"}]},
        mcp_servers=[{"type": "url"}],
        container="c1",
        **odd,
    )
    more = parse(context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all", "new": 1}]})
    assert more.notes == (Note("field", "context_management"),)
    assert set(loud.notes) == {
        Note("field", "speed"),
        Note("field", "inference_geo"),
        Note("field", "context_management"),
        Note("field", "container"),
        Note("field", "not_known_yet"),
        Note("tool", "mcp_servers"),
    }


def test_counting_needs_no_answer() -> None:
    asked = {key: value for key, value in body(tools=[LS], system="s").items() if key != "max_tokens"}
    request = parse_count(asked, context())
    assert request.max_tokens is None
    assert request.messages == parse(tools=[LS], system="s").request.messages
    assert request.tools[0].name == "ls"


# ---------------------------------------------------------------------------------------------------------- any request


ODD: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, 0, -1, 1.5, "", "x", [], {}, [None], [[]], {"type": "x"}, {"type": []}, [{"type": 3}]]
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, child in inner for place in places(child, (*path, key)))]


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_whatever_stands_anywhere_is_read_or_refused(data: st.DataObject) -> None:
    """Any value in any place of a real request: a `Turn` or a 400, never another exception."""
    asked = copy.deepcopy(request(data.draw(st.sampled_from(GOOD))))
    place = data.draw(st.sampled_from(places(asked)[1:]))
    owner = asked
    for step in place[:-1]:
        owner = owner[step]
    owner[place[-1]] = data.draw(ODD)
    error = None
    try:
        turn = PROTOCOL.parse(asked, context(open=lambda sealed: sealed or None))
    except GatewayError as refused:
        error = refused
    if error is None:
        assert turn.request.messages
    else:
        reply = PROTOCOL.error(error, "req_1")
        assert reply.status == 400
        check_error(reply.status, reply.body)


def test_consecutive_user_messages_become_one_and_each_part_of_them_is_touched_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    replaced = 0

    def counted(*arguments: Any, **changes: Any) -> Any:
        nonlocal replaced
        replaced += 1
        return replace(*arguments, **changes)

    monkeypatch.setattr("dragoman.translators.messages.content.replace", counted)
    (message,) = parse(*[user([image(**PNG)])] * 50).request.messages
    images = [part for part in message.parts if isinstance(part, Image)]
    assert [part.past for part in images] == [True] * 49 + [False]
    assert replaced == 49


def test_the_texts_of_a_system_message_are_paragraphs_of_one() -> None:
    said = {"role": "system", "content": [text("a"), text(""), text("b"), text("c")]}
    assert parse(user("hi"), said).request.messages[-1] == Message("system", (Text("a\n\nb\n\nc"),))


@pytest.mark.parametrize(("line", "left"), [("h \t \n \n", None), (" " * 300_000 + "\nx", "all")])
def test_an_attribution_line_is_recognized_in_one_pass(line: str, left: str | None) -> None:
    system = "x-anthropic-billing-header:" + line
    messages = parse(user("hi"), system=system).request.messages
    assert [each.role for each in messages] == (["user"] if left is None else ["system", "user"])


def test_stop_sequences_are_bounded() -> None:
    assert refusal(user("hi"), stop_sequences=["x"] * 1025).param == "stop_sequences"
