"""A conversation that goes on is found, is the same as if it had been parsed, and tells nobody else anything."""

from __future__ import annotations

import gc
import json
import tracemalloc
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.gateway.calls.body import _parse_known
from dragoman.gateway.calls.client_memory import MOST_OF_CLIENT, ClientMemory
from dragoman.gateway.calls.conversation_memo import ConversationMemo, KnownConversation, Memos
from dragoman.gateway.calls.request_memo import LEAST
from dragoman.gateway.config import Limits
from dragoman.translators.errors import GatewayError
from dragoman.translators.seen import Conversation
from dragoman.translators.steps import at_once
from tests.gateway.calls.test_request_memo import escaped, read_without, tools
from tests.scripted import Script, text_stream
from tests.serving_gateway import PATHS, asking, served

LIMITS = Limits(json_values=1024)


def said(*texts: str, size: int = LEAST) -> list[dict[str, Any]]:
    return [
        {"role": "user" if place % 2 == 0 else "assistant", "content": each + "d" * size}
        for place, each in enumerate(texts)
    ]


def body(elements: object, member: str = "messages", **more: Any) -> bytes:
    return orjson.dumps({"model": "m", member: elements, **more})


def kept(elements: list[dict[str, Any]]) -> int:
    """How much of the memory they take."""
    known = KnownConversation("", "")
    for each in elements:
        text = orjson.dumps(each)
        known.extend(text + b"]", 0, [each])
    return known.size


class Looked:
    """Memos, and what they have counted of conversations."""

    def __init__(self, most: int = 10**6) -> None:
        self.counts: list[tuple[bool, int]] = []
        self.memory = ClientMemory(most)
        self.memo = ConversationMemo(self.memory, lambda found, size: self.counts.append((found, size)))
        self.both = Memos(0)
        self.both.conversations = self.memo

    def read(self, raw: bytes, owner: str = "ann", limits: Limits = LIMITS) -> Any:
        try:
            return at_once(_parse_known(raw, limits, self.both, owner))
        except GatewayError as error:
            return error.kind, error.message, error.code


@pytest.mark.parametrize("member", ["input", "messages"])
def test_the_beginning_that_was_sent_before_is_found(member: str) -> None:
    it, talk = Looked(), said("a", "b", "c", "d")
    first, _ = it.read(body(talk[:2], member))
    second, _ = it.read(body(talk, member, stream=True))
    assert second == {"model": "m", member: talk, "stream": True}
    assert isinstance(second[member], Conversation)
    assert [one is two for one, two in zip(first[member], second[member], strict=False)] == [True, True]
    assert [one is two for one, two in zip(first[member].made, second[member].made, strict=False)] == [True, True]
    size = sum(len(orjson.dumps(each)) for each in talk[:2])
    assert it.counts == [(False, size), (True, size)]


@pytest.mark.parametrize("member", ["input", "messages"])
def test_it_is_found_in_the_words_of_pythons_json(member: str) -> None:
    it, talk = Looked(), said("a", "é", '"c"', "d", "e")
    for count in (2, 4, 5):
        value, _ = it.read(json.dumps({"model": "m", member: talk[:count], "stream": True}).encode())
        assert value == {"model": "m", member: talk[:count], "stream": True}
    assert [found for found, _ in it.counts] == [False, True, True]
    assert it.counts[-1][1] == len(json.dumps(talk[:4])[1:-1].replace("}, {", "} {"))


@pytest.mark.parametrize("encoder", ["go", "php", "ascii"])
@pytest.mark.parametrize("member", ["input", "messages"])
def test_it_is_found_in_the_words_of_other_encoders(member: str, encoder: str) -> None:
    it, talk = Looked(), said("a", "<é>", "b/c", "&", "e")
    for count in (2, 4, 5):
        raw = escaped(body(talk[:count], member))[encoder]
        value, _ = it.read(raw)
        assert value == {"model": "m", member: talk[:count]}
    assert [found for found, _ in it.counts] == [False, True, True]
    assert it.counts[-1][1] == len(escaped(orjson.dumps(talk[:4]))[encoder]) - len("[,,,]")


def test_one_that_changes_at_its_end_is_found_up_to_there() -> None:
    it, talk = Looked(), said("a", "b", "c", "d")
    first, _ = it.read(body(talk))
    second, _ = it.read(body([*talk[:3], *said("other")]))
    assert second["messages"] == [*talk[:3], *said("other")]
    assert [one is two for one, two in zip(first["messages"], second["messages"], strict=True)] == [True] * 3 + [False]
    assert it.memory.size == kept(second["messages"])  # it took the place


def test_a_short_common_beginning_leaves_the_longer_one_known() -> None:
    it, talk = Looked(), said("a", "b", "c", "d", "e")
    it.read(body(talk))
    it.read(body([*talk[:1], *said("agent")]))
    third, _ = it.read(body([*talk, *said("f")]))
    assert it.counts[-1] == (True, sum(len(orjson.dumps(each)) for each in talk))
    assert third["messages"] == [*talk, *said("f")]


def test_what_one_client_sends_is_not_found_for_another() -> None:
    it = Looked()
    for owner in ("ann", "bob", "ann"):
        it.read(body(said("a", "b")), owner)
    assert [found for found, _ in it.counts] == [False, False, True]


@pytest.mark.parametrize("elements", [[], said("a", size=1), "no array", {"an": "object"}, None, [1], ["a" * 2000]])
def test_what_is_no_long_conversation_is_what_it_is(elements: object) -> None:
    it = Looked()
    for _ in range(3):
        assert it.read(body(elements)) == read_without(body(elements))


def test_nothing_is_kept_of_a_body_that_is_refused_or_written_in_another_way() -> None:
    it = Looked()
    it.read(body(said("a", "b"))[:-1])
    it.read(body(said("a", "b")).replace(b"[{", b"[\n{"))
    assert it.memory.size == 0


def test_the_memory_is_bounded_and_what_was_not_sent_for_the_longest_goes_first() -> None:
    size = kept(said("a"))
    it = Looked(3 * size)
    for name in "abcadabc":
        it.read(body(said(name)))
        assert it.memory.size <= 3 * size
    assert [found for found, _ in it.counts] == [False, False, False, True, False, True, False, False]


@pytest.mark.parametrize(
    "elements",
    [
        said(*(str(number) for number in range(4000)), size=0),
        said(*(str(number) for number in range(40)), size=5000),
        [{"role": "user", "content": "é" * 20_000}] * 20,
        [{"role": "user", "content": [{"type": "text", "text": str(number)} for number in range(5000)]}],
        [{"role": "user", "content": "a", "values": [number + 0.5 for number in range(5000)]}],
    ],
    ids=["many", "text", "letters", "parts", "values"],
)
def test_no_more_is_taken_than_counted(elements: list[dict[str, Any]]) -> None:
    it, raw = Looked(10**8), body(elements)
    it.read(body(said("warm", "up")), limits=Limits())
    before = it.memory.size
    tracemalloc.start()
    try:
        it.read(raw, limits=Limits())
        gc.collect()
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert LEAST < taken < it.memory.size - before


def test_one_client_keeps_so_many_conversations_at_most() -> None:
    it = Looked(10**9)
    for number in range(2 * MOST_OF_CLIENT):
        it.read(body(said(f"{number:04}")))
    assert it.memory.size == MOST_OF_CLIENT * kept(said("0000"))


def test_values_that_were_found_count_for_the_limit() -> None:
    it, talk = Looked(), said("a", "b")
    it.read(body(talk))
    accepted = []
    for count in range(1024 - 20, 1024):
        raw = body([*talk, [0] * count], pad="x" * 2000)
        wanted = read_without(raw, LIMITS)
        got = it.read(raw)
        accepted.append(isinstance(wanted[0], dict))
        assert got == wanted
    assert set(accepted) == {True, False}


# Bodies with known elements where they belong, elsewhere, twice, cut, and in other words.
VALUES = (*said("a", "b", "<c/é>"), {"role": "user", "content": []}, [1], "x", 1, 12, None)
PIECES = [orjson.dumps(each) for each in VALUES]
SPACED = [json.dumps(each).encode() for each in VALUES]
ESCAPED = [each for piece in PIECES for each in escaped(piece).values()]
ODD = [b'{"role": "user"}', b'"\\ud800"', b"[" * 70 + b"]" * 70]
WRITTEN = st.sampled_from([PIECES, SPACED, ESCAPED])
ARRAY = WRITTEN.flatmap(lambda each: st.lists(st.sampled_from([*each, *ODD]), max_size=5))
ELEMENTS = st.tuples(ARRAY, st.sampled_from([b",", b", "])).map(lambda each: b"[" + each[1].join(each[0]) + b"]")
NAMES = st.sampled_from(
    [b'"input":', b'"messages":', b'"messages": ', b'"input": ', b'"tools":', b'"other":{"input":', b'"x\\"input":']
)
MEMBERS = st.one_of(
    st.tuples(NAMES, ELEMENTS).map(lambda pair: pair[0] + pair[1] + (b"}" if b"{" in pair[0] else b"")),
    st.tuples(NAMES, ELEMENTS).map(lambda pair: pair[0] + pair[1][:-1]),
    st.just(b'"tools":' + orjson.dumps(tools("t"))),
    st.sampled_from([b'"input":[', b'"messages":null', b'"n":1e999', b'"model":"m"', b'"', b"}"]),
)
BODIES = st.lists(MEMBERS, min_size=1, max_size=4).map(lambda each: b"{" + b",".join(each) + b"}")


@given(
    st.lists(st.tuples(st.sampled_from(["ann", "bob"]), BODIES), min_size=2, max_size=8), st.sampled_from([30, 10**6])
)
def test_a_body_is_what_it_is_without_a_memo(bodies: list[tuple[str, bytes]], most: int) -> None:
    memos = Memos(most * 1000)
    for member in ("input", "messages"):
        first = {"model": "m", member: said("a", "b", "c"), "tools": tools("t")}
        for raw in (orjson.dumps(first), json.dumps(first).encode()):
            at_once(_parse_known(raw, LIMITS, memos, "ann"))
    for owner, raw in bodies:
        try:
            got: Any = at_once(_parse_known(raw, LIMITS, memos, owner))
        except GatewayError as error:
            got = error.kind, error.message, error.code
        assert got == read_without(raw)
    for known in memos.conversations._known.of("ann"):
        assert [*map(orjson.loads, known.texts)] == known.elements, "what is shared was changed"


@pytest.mark.parametrize("protocol", PATHS)
async def test_a_gateway_finds_the_conversation_of_the_turn_before(protocol: str) -> None:
    member = "input" if protocol == "responses" else "messages"
    talk = said("a", "b", "c")
    async with served(*(Script(text_stream("a")) for _ in range(2))) as it:
        for count in (1, 3):
            raw = orjson.dumps({**asking(protocol, "hi"), member: talk[:count]})
            async with it.session.post(it.url + PATHS[protocol], data=raw) as answer:
                assert answer.status == 200
                await answer.read()
        assert it.metric("dragoman_memo_lookups_total", found="yes") == 1
        sent = [asked.body["messages"] for asked in it.server.chats if asked.body is not None]
        assert [[each["content"] for each in turn] for turn in sent] == [
            [each["content"] for each in talk[:n]] for n in (1, 3)
        ]
