"""What a client sends again is found, is the same as if it had been parsed, and tells nobody else anything."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.gateway.calls.body import _parse_known, parse_object
from dragoman.gateway.calls.client_memory import MOST_OF_CLIENT, ClientMemory
from dragoman.gateway.calls.conversation_memo import Memos
from dragoman.gateway.calls.request_memo import COPIES, LEAST, RequestMemo
from dragoman.gateway.config import Limits
from dragoman.translators.errors import GatewayError
from dragoman.translators.seen import Seen
from dragoman.translators.steps import at_once
from tests.scripted import Script, text_stream
from tests.serving_gateway import PATHS, asking, served

LIMITS = Limits(json_values=1024)


def tools(name: str, size: int = LEAST) -> list[dict[str, Any]]:
    function = {"name": name, "description": "d" * size, "parameters": {"type": "object", "properties": {}}}
    return [{"type": "function", "function": function}]


def body(array: object, **more: Any) -> bytes:
    return orjson.dumps({"model": "m", "tools": array, **more})


def only(memo: RequestMemo) -> Memos:
    memos = Memos(0)
    memos.tools = memo
    return memos


def read(memo: RequestMemo, raw: bytes, owner: str = "ann", limits: Limits = LIMITS) -> Any:
    """The value and the notes, or what is refused with which words."""
    try:
        return at_once(_parse_known(raw, limits, only(memo), owner))
    except GatewayError as error:
        return error.kind, error.message, error.code


def read_without(raw: bytes, limits: Limits = LIMITS) -> Any:
    try:
        return at_once(parse_object(raw, limits))
    except GatewayError as error:
        return error.kind, error.message, error.code


class Looked:
    """A memo, and what it has counted."""

    def __init__(self, most: int = 10**6) -> None:
        self.counts: list[tuple[bool, int]] = []
        self.memory = ClientMemory(most)
        self.memo = RequestMemo(self.memory, lambda found, size: self.counts.append((found, size)))

    @property
    def found(self) -> list[bool]:
        return [found for found, _ in self.counts]


def test_tools_that_were_sent_before_are_found_wherever_they_stand() -> None:
    it, known = Looked(), tools("a")
    size = len(orjson.dumps(known))
    first, _ = read(it.memo, body(known, input="one"))
    second, _ = read(it.memo, orjson.dumps({"input": "two", "stream": True, "tools": known, "model": "m"}))
    assert it.counts == [(False, size), (True, size)]
    assert second == {"input": "two", "stream": True, "tools": known, "model": "m"}
    assert list(second) == ["input", "stream", "tools", "model"]
    assert second["tools"] is first["tools"]
    assert isinstance(second["tools"], Seen)


def test_tools_are_found_in_the_words_of_pythons_json() -> None:
    it, known = Looked(), tools("é", 2 * LEAST)
    for text in ("one", "two"):
        value, _ = read(it.memo, json.dumps({"input": text, "tools": known, "model": "m"}).encode())
        assert value == {"input": text, "tools": known, "model": "m"}
    assert it.counts == [(False, len(json.dumps(known))), (True, len(json.dumps(known)))]


def escaped(raw: bytes) -> dict[str, bytes]:
    """The same JSON as other encoders write it."""
    text = raw.decode()
    shown = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    unicode = json.dumps(orjson.loads(raw), separators=(",", ":"))
    return {"go": shown.encode(), "php": unicode.replace("/", "\\/").encode(), "ascii": unicode.encode()}


@pytest.mark.parametrize("encoder", ["go", "php", "ascii"])
def test_tools_are_found_in_the_words_of_other_encoders(encoder: str) -> None:
    it, known = Looked(), tools("<a/é> & b", 2 * LEAST)
    for text in ("one", "two"):
        raw = escaped(body(known, input=text))[encoder]
        assert raw != body(known, input=text)
        value, _ = read(it.memo, raw)
        assert value == {"input": text, "tools": known, "model": "m"}
    assert it.found == [False, True]


def test_numbers_are_found_as_they_were_written() -> None:
    """1 and 1.0 are equal, and a model is shown them as they are."""
    it, text = Looked(), b'[{"maximum":1.0,"name":"%b"}]' % (b"a" * LEAST)
    for other in (b"1", b"true", b"1.0e0", b"1.0"):
        value, _ = read(it.memo, b'{"x":{"tools":%b},"tools":%b}' % (text.replace(b"1.0", other), text))
        assert orjson.dumps(value["tools"]) == text


@pytest.mark.parametrize("count", [1, 5, 30])
def test_tools_in_namespaces_are_found(count: int) -> None:
    """Codex sends one for each MCP server."""
    it, known = Looked(), [{"type": "namespace", "name": f"mcp{at}", "tools": tools("a")} for at in range(count)]
    for text in ("one", "two"):
        assert read(it.memo, body(known, input=text))[0]["tools"] == known
    assert it.found == [False, True]


def test_what_one_client_sends_is_not_found_for_another() -> None:
    it = Looked()
    for owner in ("ann", "bob", "ann"):
        read(it.memo, body(tools("a")), owner)
    assert it.found == [False, False, True]


@pytest.mark.parametrize("array", [[], tools("a", 0), "no array", {"an": "object"}, None])
def test_little_is_not_kept(array: object) -> None:
    it = Looked()
    for _ in range(2):
        assert read(it.memo, body(array)) == read_without(body(array))
    assert it.counts == []
    assert it.memory.size == 0


def test_nothing_is_kept_of_a_body_that_is_refused() -> None:
    it = Looked()
    read(it.memo, body(tools("a"))[:-1])
    assert it.memory.size == 0


def test_the_memory_is_bounded_and_what_was_not_sent_for_the_longest_goes_first() -> None:
    size = COPIES * len(orjson.dumps(tools("a")))
    it = Looked(3 * size)
    for name in "abcadabc":  # d takes the place of b, then b that of c, and c that of d
        read(it.memo, body(tools(name)))
        assert it.memory.size <= 3 * size
    assert it.found == [False, False, False, True, False, True, False, False]


def test_one_client_keeps_so_many_arrays_at_most() -> None:
    it = Looked(10**9)
    for number in range(2 * MOST_OF_CLIENT):
        read(it.memo, body(tools(f"{number:04}")))
    assert it.memory.size == MOST_OF_CLIENT * COPIES * len(orjson.dumps(tools("0000")))


def test_values_that_were_found_count_for_the_limit() -> None:
    memo, known = RequestMemo(ClientMemory(10**6)), tools("a")
    read(memo, body(known))
    accepted = []
    for count in range(1024 - 20, 1024):
        raw = body(known, input=[0] * count, pad="x" * 2000)
        wanted = read_without(raw)
        accepted.append(isinstance(wanted[0], dict))
        assert read(memo, raw) == wanted
    assert accepted == sorted(accepted, reverse=True)
    assert set(accepted) == {True, False}


# A body's members, in any order and number: known arrays, their bytes where they are something else, and broken JSON.
KNOWN = [orjson.dumps(tools("a")), orjson.dumps(tools("<b/é>")), orjson.dumps([*tools("a"), *tools("b")])]
SPACED = [json.dumps(orjson.loads(text)).encode() for text in KNOWN]
QUOTED = [orjson.dumps('"tools":' + text.decode()) for text in KNOWN]
ESCAPED = [each for text in KNOWN for each in escaped(text).values()]
ARRAYS = st.sampled_from([*KNOWN, *SPACED, *ESCAPED])
ELEMENTS = st.one_of(
    ARRAYS.map(lambda text: b'{"type":"additional_tools","tools":' + text + b"}"),
    st.sampled_from([*QUOTED, b'"tools"', b"1", b'"\\ud800"', b'"\\\\"', b"[" * 70 + b"]" * 70]),
)
INPUT = st.lists(ELEMENTS, max_size=3).map(lambda each: b'"input":[' + b",".join(each) + b"]")
MEMBERS = st.one_of(
    ARRAYS.map(lambda text: b'"tools":' + text),
    ARRAYS.map(lambda text: b'"tools": ' + text),
    ARRAYS.map(lambda text: b'"tools":' + text[:-1] + b',{"more":1}]'),
    ARRAYS.map(lambda text: b'"other":{"tools":' + text + b"}"),
    ARRAYS.map(lambda text: b'"cut\\"tools":' + text),
    ARRAYS.map(lambda text: b'"tools":' + text + b"x"),
    st.sampled_from([b'"tools":null', b'"tools":[]', b'"tools":["', b'"n":1e999', b'"model":"m"', b'"', b"}"]),
    INPUT,
)
BODIES = st.tuples(st.sampled_from([b"{", b'{"s": 1,']), st.lists(MEMBERS, min_size=1, max_size=4)).map(
    lambda each: each[0] + b",".join(each[1]) + b"}"
)


@given(
    st.lists(st.tuples(st.sampled_from(["ann", "bob"]), BODIES), min_size=2, max_size=6), st.sampled_from([15, 10**6])
)
def test_a_body_is_what_it_is_without_a_memo(bodies: list[tuple[str, bytes]], most: int) -> None:
    memo = RequestMemo(ClientMemory(most * 1000))
    for text in (*KNOWN[:2], *SPACED[:2], *ESCAPED[:2]):
        read(memo, b'{"tools":' + text + b"}")
        read(memo, b'{"tools": ' + text + b"}")
    for owner, raw in bodies:
        assert read(memo, raw, owner) == read_without(raw)
    for known in memo._known.of("ann"):
        assert known.array == orjson.loads(known.text), "what is shared was changed"


@pytest.mark.parametrize("protocol", PATHS)
async def test_a_gateway_finds_the_tools_of_the_turn_before(protocol: str) -> None:
    function = {"name": "look", "description": "d" * LEAST, "parameters": {"type": "object", "properties": {}}}
    shapes = {
        "messages": {"name": "look", "description": "d" * LEAST, "input_schema": {"type": "object"}},
        "responses": {"type": "function", **function},
    }
    array = [shapes.get(protocol, {"type": "function", "function": function})]
    async with served(*(Script(text_stream("a")) for _ in range(2))) as it:
        for text in ("hi", "hi again"):
            raw = orjson.dumps({**asking(protocol, text), "tools": array})
            async with it.session.post(it.url + PATHS[protocol], data=raw) as answer:
                assert answer.status == 200
                await answer.read()
        assert it.metric("dragoman_memo_lookups_total", found="no") == 1
        assert it.metric("dragoman_memo_lookups_total", found="yes") == 1
        assert it.metric("dragoman_memo_lookup_bytes_total", found="yes") == len(orjson.dumps(array))
        first, second = (asked.body for asked in it.server.chats)
        assert first is not None
        assert second is not None
        assert first["tools"] == second["tools"]
