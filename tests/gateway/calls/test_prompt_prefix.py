"""Where a turn's prompt leaves the one before it, and what that costs."""

from __future__ import annotations

from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.gateway.calls.prompt_prefix import (
    MOST_CONVERSATIONS,
    MOST_DECLARED,
    MOST_DECLARED_BYTES,
    MOST_KEPT,
    MOST_MESSAGES,
    Prefix,
    Prefixes,
)
from dragoman.translators.ir import Message, Request, Role, Text, Tool, ToolReference, ToolResult
from tests.scripted import Script, text_stream
from tests.serving_gateway import PATHS, asking, served


def said(role: Role, text: str) -> Message:
    return Message(role, (Text(text),))


SYSTEM, USER, ANSWER, MORE = said("system", "s"), said("user", "u" * 100), said("assistant", "a"), said("user", "more")


def tool(description: str) -> Tool:
    return Tool("f", description, {"type": "object"})


def asked(*messages: Message, tools: tuple[Tool, ...] = ()) -> Request:
    return Request("id", "m", messages, tools, affinity="session")


def test_a_prompt_that_goes_on_from_the_last_one_loses_nothing() -> None:
    it = Prefixes()
    assert it.follow("ann", asked(SYSTEM, USER)) is None
    assert it.follow("ann", asked(SYSTEM, USER, ANSWER, MORE)) == Prefix()
    assert it.follow("ann", asked(SYSTEM, USER, ANSWER, MORE)) == Prefix()


@pytest.mark.parametrize(
    ("changed", "place"),
    [
        (asked(said("system", "another"), USER, ANSWER, MORE), "messages[0]"),
        (asked(SYSTEM, USER, said("assistant", "b"), MORE), "messages[2]"),
        (asked(SYSTEM, USER, ANSWER), "messages[3]"),
        (asked(SYSTEM, USER, ANSWER, MORE, tools=(tool("x"),)), "tools"),
    ],
)
def test_the_first_place_that_differs_is_named_with_what_follows_it(changed: Request, place: str) -> None:
    it = Prefixes()
    it.follow("ann", asked(SYSTEM, USER, ANSWER, MORE))
    found = it.follow("ann", changed)
    assert found is not None
    assert found.left_at == place
    assert found.lost > 0
    assert (found.lost > 100) == (place in ("messages[0]", "tools"))
    assert it.follow("ann", changed) == Prefix()


def test_equal_tools_are_the_same_whatever_objects_they_are() -> None:
    it = Prefixes()
    for _ in range(3):
        found = it.follow("ann", asked(USER, tools=(tool("x"),)))
    assert found == Prefix()
    changed = it.follow("ann", asked(USER, tools=(tool("y"),)))
    assert changed is not None
    assert changed.left_at == "tools"


@pytest.mark.parametrize(
    ("owner", "other"),
    [
        ("bob", asked(SYSTEM, USER)),
        ("ann", replace(asked(SYSTEM, USER), affinity="another")),
        ("ann", replace(asked(SYSTEM, USER), model="another")),
        ("ann", asked(SYSTEM, MORE)),  # a side call of the session
        ("ann", asked(SYSTEM)),
    ],
)
def test_another_conversation_is_not_compared(owner: str, other: Request) -> None:
    it = Prefixes()
    it.follow("ann", asked(SYSTEM, USER))
    assert it.follow(owner, other) is None
    assert it.follow("ann", asked(SYSTEM, USER)) == Prefix()


def test_messages_that_make_tools_known_are_followed_too() -> None:
    it = Prefixes()
    known = [Message("tool", (ToolResult("c", (ToolReference("now", tool(text)),)),)) for text in "xxy"]
    found = [it.follow("ann", asked(USER, message)) for message in known]
    assert [each and each.left_at for each in found] == [None, None, "messages[1]"]


def test_so_many_conversations_are_followed_and_no_more() -> None:
    it = Prefixes()
    for number in range(MOST_CONVERSATIONS + 1):
        it.follow("ann", replace(asked(USER), affinity=str(number)))
    assert it.follow("ann", replace(asked(USER), affinity="0")) is None
    assert it.follow("ann", replace(asked(USER), affinity=str(MOST_CONVERSATIONS))) == Prefix()
    assert len(it._last) == MOST_CONVERSATIONS


def test_so_many_messages_are_kept_and_no_more() -> None:
    it, long = Prefixes(), (USER, *[MORE] * (MOST_MESSAGES - 1))
    for number in range(MOST_KEPT // MOST_MESSAGES + 2):
        it.follow("ann", replace(asked(*long), affinity=str(number)))
        assert it._kept == sum(len(each.messages) for each in it._last.values()) <= MOST_KEPT
    assert it.follow("ann", asked(*long, MORE)) is None  # too long to be followed


@pytest.mark.parametrize("size", [10, MOST_DECLARED_BYTES // 10, MOST_DECLARED_BYTES])
def test_so_many_tools_are_kept_and_no_more(size: int) -> None:
    it = Prefixes()
    for number in range(MOST_DECLARED + 2):
        tools = (tool(f"{number:0{size}}"),)
        it.follow("ann", request := replace(asked(USER, tools=tools), affinity=str(number)))
        assert it.follow("ann", request) == Prefix()
        kept = [size for _, (_, size) in it._declared.values()]
        assert len(kept) <= MOST_DECLARED
        assert sum(kept) == it._declared_bytes <= MOST_DECLARED_BYTES
    assert bool(it._declared) == (size < MOST_DECLARED_BYTES)


def test_the_name_of_a_conversation_takes_no_memory_whatever_its_length() -> None:
    it = Prefixes()
    it.follow("ann", replace(asked(USER), model="m" * 1_000_000))
    assert all(type(key) is int for key in it._last)


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=6), min_size=2, max_size=5))
def test_what_is_lost_is_the_rest_of_the_last_prompt(turns: list[list[str]]) -> None:
    it, last = Prefixes(), None
    for turn in turns:
        found = it.follow("ann", asked(USER, *(said("assistant", text) for text in turn)))
        if last is not None:
            common = sum(last[:end] == turn[:end] for end in range(1, min(len(last), len(turn)) + 1))
            assert found is not None
            assert found.left_at == (None if common == len(last) else f"messages[{common + 1}]")
            assert found.lost == 17 * (len(last) - common)  # a letter, and what a template puts around it
        last = turn


@pytest.mark.parametrize("protocol", PATHS)
async def test_the_metrics_and_the_log_say_where_a_prompt_left_the_last_one(
    protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    key = "input" if protocol == "responses" else "messages"
    user, other = ({"role": "user", "content": text} for text in ("hi", "and then"))
    turns = [[user, {"role": "assistant", "content": text}, other] for text in ("a", "a", "b")]
    async with served(*(Script(text_stream("a")) for _ in turns)) as it:
        for turn in turns:
            body = orjson.dumps({**asking(protocol, "hi"), key: turn})
            async with it.session.post(it.url + PATHS[protocol], data=body) as answer:
                assert answer.status == 200
                await answer.read()
        assert it.metric("dragoman_prompt_prefixes_total", kept="yes") == 1
        assert it.metric("dragoman_prompt_prefixes_total", kept="no") == 1
        lost = it.metric("dragoman_prompt_prefix_lost_bytes_total")
    lines = [getattr(record, "fields", {}) for record in caplog.records if record.getMessage() == "request"]
    assert [line.get("prefix_left_at") for line in lines] == [None, None, "messages[1]"]
    assert lines[-1]["prefix_lost"] == lost
