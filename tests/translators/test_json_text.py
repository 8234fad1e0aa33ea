"""JSON that is still being written: balanced at the right character, un-escaped as it comes, whatever the cuts."""

import json
import re
from collections import deque
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dragoman.translators.json_text import (
    HEAD,
    Balance,
    StringReader,
    blocks,
    bounded_loads,
    is_object,
    values_in,
    without_lone_surrogates,
)
from dragoman.translators.steps import at_once
from tests.counting_work import assert_linear

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 999) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
CONTAINERS = st.dictionaries(st.text(max_size=4), VALUES, max_size=4) | st.lists(VALUES, max_size=4)
TEXTS = st.text(alphabet=st.characters(exclude_categories=["Cs"]) | st.sampled_from('\\"u{}/nd83😀\n'), max_size=40)


def cut(text: str, places: list[int]) -> list[str]:
    ends = sorted({0, *(place for place in places if place < len(text)), len(text)})
    return [text[a:b] for a, b in pairwise(ends)]


places = st.lists(st.integers(0, 120), max_size=12)


# -------------------------------------------------------------------------------------------------------------- Balance


def balanced_at(pieces: list[str]) -> int | None:
    """After how many characters the value was complete; what `feed` returns is checked on the way."""
    balance, taken = Balance(), 0
    for piece in pieces:
        length = balance.feed(piece)
        taken += length
        if balance.complete:
            return taken
        assert length == len(piece)
    return None


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("{}", 2),
        ("[]", 2),
        (' \n{"a": 1} ', 10),
        ('{"a": "}"}', 10),
        ('{"a": "\\"}"}', 12),
        ('{"a": "\\\\"}', 11),
        ('{"a": "\\\\\\"}"}', 14),
        ('{"a": [{"b": {}}]} {"c": 1}', 18),
        ('{"a": 1', None),
        ('{"a": "', None),
        ("", None),
        ("  ", None),
        ("text {}", None),  # begins with no bracket: only the end of the answer ends it
        ('"text" {}', None),
        ("7", None),
    ],
)
def test_balance(text: str, end: int | None) -> None:
    assert balanced_at([text]) == end
    assert balanced_at(list(text)) == end
    assert balanced_at([piece for character in text for piece in (character, "")]) == end


def test_nothing_belongs_to_a_complete_value() -> None:
    balance = Balance()
    assert balance.feed("{}}") == 2
    assert balance.feed("{}") == 0
    assert balance.complete


def test_begun_and_bare() -> None:
    balance = Balance()
    balance.feed(" ")
    assert not balance.begun
    balance.feed(" *")
    assert balance.begun
    assert balance.bare
    assert not balance.complete


def test_in_string() -> None:
    balance = Balance()
    balance.feed('{"a')
    assert balance.in_string
    balance.feed('\\"')
    assert balance.in_string
    balance.feed('"')
    assert not balance.in_string


@given(value=CONTAINERS, ascii=st.booleans(), blank=st.sampled_from(["", " ", "\n\t"]), after=TEXTS, places=places)
def test_balance_ends_with_the_value(value: Any, ascii: bool, blank: str, after: str, places: list[int]) -> None:
    text = blank + json.dumps(value, ensure_ascii=ascii)
    assert balanced_at(cut(text, places)) == len(text)
    assert balanced_at(cut(text + after, places)) == len(text)
    assert balanced_at(cut(text[:-1], places)) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [("{}", True), (' {"a": 1} ', True), ("[]", False), ("1", False), ("", False), ("{", False), ("{'a': 1}", False)],
)
def test_is_object(text: str, expected: bool) -> None:
    assert is_object(text) is expected


# --------------------------------------------------------------------------------------------------------- StringReader


def read(pieces: list[str]) -> str:
    reader = StringReader()
    return "".join([*(reader.feed(piece) for piece in pieces), reader.finish()])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ('{"input": "a b"}', "a b"),
        ('{"input":""}', ""),
        (' {\n "input" :\t"x" } ', "x"),
        ('{"patch": "x"}', "x"),
        ('{"input": "x", "reason": "y"}', "x"),
        ('{"reason": 1, "input": "x"}', "x"),
        ('{"odd": "x"}', "x"),
        ('{"odd": "x", "other": "y"}', '{"odd": "x", "other": "y"}'),
        ('{"odd": 1}', '{"odd": 1}'),
        ('{"input": ["x"]}', '{"input": ["x"]}'),
        ('{"inp\\u0075t": "x"}', "x"),
        ("{}", ""),
        ('"x\\ny"', "x\ny"),
        ('"x" and more', '"x" and more'),
        ("*** Begin Patch\n", "*** Begin Patch\n"),
        ("  indented", "  indented"),
        ("[1]", "[1]"),
        ("7", "7"),
        ("{ not json", "{ not json"),
        ("", ""),
        (" ", " "),
        ('{"input": "a\\n\\t\\r\\b\\f\\"\\\\\\/"}', 'a\n\t\r\b\f"\\/'),
        ('{"input": "\\u00e9\\ud83d\\ude00"}', "é😀"),
        ('{"input": "\\\\ud83d"}', "\\ud83d"),  # an escaped backslash, and no half of a pair
        ('{"input": "\\\\\\ud83d\\ude00"}', "\\😀"),
        ('{"input": "\\ud83d!"}', "\ufffd!"),
        ('{"input": "\\ud83d\\n"}', "\ufffd\n"),
        ('{"input": "\\ud83d"}', "\ufffd"),
        ('{"input": "\\ud83d\\ud83d\\ude00"}', "\ufffd😀"),
        ('{"input": "\\ude00"}', "\ufffd"),
        ('{"input": "\\q\\uZZ\\u12g"}', "\\q\\uZZ\\u12g"),  # no escapes: as they stand
        ('{"input": "a\nb"}', "a\nb"),  # line ends that the model forgot to escape
        ('{"odd": "a\nb"}', "a\nb"),
        ('{"odd": "\\ud83d"}', "\ufffd"),
        ('{"input": "cut off', "cut off"),
        ('{"input": "cut off\\', "cut off"),
        ('{"input": "cut off\\u00', "cut off"),
        ('{"input": "cut off\\ud83d', "cut off"),
        ('{"input": "x"} behind', "x"),
    ],
)
def test_input(arguments: str, text: str) -> None:
    assert read([arguments]) == text
    assert read(list(arguments)) == text
    for at in range(len(arguments)):
        assert read([arguments[:at], arguments[at:]]) == text, at
        assert read([arguments[:at], "", arguments[at:]]) == text, at


def test_input_leaves_as_it_comes() -> None:
    reader = StringReader()
    pieces = ['{"in', 'put": "', "a", "b\\", "nc", "\\u00", "e9", "\\ud83d", "\\ude00d", '"', "}"]
    assert [reader.feed(piece) for piece in pieces] == ["", "", "a", "b", "\nc", "", "é", "", "😀d", "", ""]
    assert reader.finish() == ""


def test_bare_text_leaves_as_it_comes() -> None:
    reader = StringReader()
    assert [reader.feed(piece) for piece in [" ", " *", "*", "\n"]] == ["", "  *", "*", "\n"]
    assert reader.finish() == ""


@given(text=TEXTS, ascii=st.booleans(), places=places)
@example(text="\\ud83d", ascii=True, places=[19])
@example(text="\U0001f600", ascii=True, places=[12, 17])
def test_any_text_in_any_encoding_cut_anywhere(text: str, ascii: bool, places: list[int]) -> None:
    for arguments in [
        json.dumps({"input": text}, ensure_ascii=ascii),
        json.dumps({"input": text, "more": {"input": "x"}}, ensure_ascii=ascii, indent=1),
        json.dumps({"odd": text}, ensure_ascii=ascii),
        json.dumps(text, ensure_ascii=ascii),
        orjson.dumps({"input": text}).decode(),
    ]:
        assert read(cut(arguments, places)) == text


@given(text=TEXTS, places=places)
def test_every_character_escaped(text: str, places: list[int]) -> None:
    units = text.encode("utf-16-be")
    escaped = "".join(f"\\u{units[i]:02X}{units[i + 1]:02x}" for i in range(0, len(units), 2))
    assert read(cut('{"input":"' + escaped + '"}', places)) == text


@given(arguments=TEXTS | TEXTS.map('{{"input": "{}'.format), places=places)
def test_cuts_of_anything_change_nothing(arguments: str, places: list[int]) -> None:
    text = read(cut(arguments, places))
    assert text == read([arguments])
    text.encode()  # no half of a pair is left in it


@given(text=TEXTS)
def test_nothing_is_held_that_is_certain(text: str) -> None:
    """Unescaped text leaves in the call in which it came."""
    plain = text.replace("\\", "").replace('"', "")
    reader = StringReader()
    reader.feed('{"input": "')
    assert [reader.feed(character) for character in plain] == list(plain)


HOSTILE = [
    '{"',
    "{",
    " ",
    '{ "input"',
    '{"input" ',
    '{"input": ',
    '{"input": "',
    '{"odd": "',
    '"',
    "x",
    "[",
    '{"input": "\\ud83d',
]


@pytest.mark.parametrize("more", ["x", " ", "\\", "\\u", "\\ud83d", "{", "[]"])
@pytest.mark.parametrize("begin", HOSTILE)
def test_what_is_looked_at_again_is_bounded(begin: str, more: str) -> None:
    reader, balance = StringReader(), Balance()
    for piece in (begin, *[more] * 3000):
        reader.feed(piece)
        balance.feed(piece)
        assert len(reader._buffer) <= HEAD + len(more)
    assert_linear(lambda length: deque(map(StringReader().feed, [begin, *[more] * length]), maxlen=0), 500)


def test_a_head_of_blanks_is_decided_at_the_end() -> None:
    for text in ('{"input": "x"}', '{"odd": "x"}', "x", '"x"', "[7]"):
        for blanks in (HEAD - 10, HEAD - 1, HEAD, 2 * HEAD):
            padded = " " * blanks + text
            assert read([padded]) == read(list(padded)) == (padded if text in ("x", "[7]") else "x")


# ------------------------------------------------------------------------------------------------------ lone surrogates

HALVES = st.text(alphabet=st.sampled_from('\\"ud83de0x\ud83d\ude00😀é\n'), max_size=30)


@pytest.mark.parametrize(
    ("raw", "mended"),
    [
        (rb'"\ud83d"', rb'"\ufffd"'),
        (rb'"\uDFFFx\uD800"', rb'"\ufffdx\ufffd"'),
        (rb'"\ud83d\ud83d\ude00"', rb'"\ufffd\ud83d\ude00"'),
        (rb'"\ud83d\ude00\ude00"', rb'"\ud83d\ude00\ufffd"'),
        (rb'"\ude00\ud83d"', rb'"\ufffd\ufffd"'),
        (rb'"\\ud83d\ude00"', rb'"\\ud83d\ufffd"'),
        (rb'"\ud83d\\ude00"', rb'"\ufffd\\ude00"'),
        (rb'"\\\ud83d"', rb'"\\\ufffd"'),
        (rb'"\ud83d\u0041"', rb'"\ufffd\u0041"'),
        (b'"\xed\xa0\xbd\xed\xb8\x80"', '"\ufffd\ufffd"'.encode()),
    ],
)
def test_a_lone_half_is_replaced_and_nothing_else(raw: bytes, mended: bytes) -> None:
    assert at_once(without_lone_surrogates(raw)) == mended


@pytest.mark.parametrize("raw", [b"", rb'"\ud83d\ude00"', rb'"\\ud83d"', '"😀\ud7ff"'.encode(), b'"\xff"', b"\\ud8"])
def test_what_has_no_lone_half_is_left_as_it_is(raw: bytes) -> None:
    assert at_once(without_lone_surrogates(raw)) is raw


@given(HALVES, st.integers(1, 40), st.booleans())
@example("\ud83d" * 9, 1, True)
@example("\\" * 9 + "\ud83d", 3, True)
def test_any_text_is_mended_as_by_a_decoder_of_utf_16(text: str, block: int, escaped: bool) -> None:
    raw = json.dumps([text], ensure_ascii=escaped).encode("utf-8", "surrogatepass")
    with patch("dragoman.translators.json_text.BLOCK", block):
        read = orjson.loads(at_once(without_lone_surrogates(raw)))
    # halves that are bytes are never joined
    joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert read == [joined if escaped else re.sub("[\ud800-\udfff]", "\ufffd", text)]


@given(st.text(alphabet="\\a", max_size=40), st.integers(1, 9))
def test_blocks_cut_no_escape(text: str, size: int) -> None:
    raw = text.encode()
    with patch("dragoman.translators.json_text.BLOCK", size):
        pieces = list(blocks(raw))
    assert b"".join(pieces) == raw
    assert all(size <= len(piece) <= size + 1 for piece in pieces[:-1])
    assert all((len(piece) - len(piece.rstrip(b"\\"))) % 2 == 0 for piece in pieces[:-1])


def test_a_flood_of_halves_is_not_mended() -> None:
    raw = b'"' + rb"\ud83d" * 200_000 + b'"'
    assert at_once(without_lone_surrogates(raw)) is raw


def test_a_large_text_is_mended_in_steps() -> None:
    raw = b'"' + rb"\ud83d\ude00\ud83d " * 50_000 + b'"'
    steps = without_lone_surrogates(raw)
    assert sum(1 for _ in steps) >= 3 * len(raw) // (128 * 1024)
    assert orjson.loads(at_once(without_lone_surrogates(raw))) == "😀\ufffd " * 50_000


def test_values_are_counted_exactly_where_they_might_be_too_many() -> None:
    text = '{"code": "a[0], b[1], {}", "list": [1, 2]}'
    assert values_in(text, 100) == 10
    assert values_in(text, 9) == 5
    assert bounded_loads(text, 5) == json.loads(text)
    with pytest.raises(ValueError, match="more than 4 values"):
        bounded_loads(text, 4)
