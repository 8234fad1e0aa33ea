"""Numbers after the text of a chunk may change where nothing depends on them; see `test_known_frame` too."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from dragoman.backends.chat import changing_numbers
from dragoman.backends.chat.changing_numbers import ChangingNumbers, counts_prompt

HEAD = b'{"choices":[{"index":0,"delta":{"content":'
TAIL = b'},"finish_reason":null,"rate":N}],"usage":{"prompt_tokens":10,"completion_tokens":M}}'


def of(head: bytes, tail: bytes) -> ChangingNumbers | None:
    return ChangingNumbers.of(head, tail, orjson.loads(head + b"0" + tail))


def with_numbers(rate: bytes, count: bytes) -> bytes:
    return TAIL.replace(b"N", rate).replace(b"M", count)


def learned() -> ChangingNumbers:
    numbers = of(HEAD, with_numbers(b"1", b"2"))
    assert numbers is not None
    return numbers


@pytest.mark.parametrize("number", [b"0", b"7", b"-1", b"0.5", b"-1.25e-07", b"3E+9", b"1234567890123456"])
def test_any_number_may_stand_there(number: bytes) -> None:
    tail = with_numbers(number, number)
    orjson.loads(HEAD + b'"a"' + tail)
    assert learned().text_before(b'"a"' + tail) == b'"a"'
    assert learned().fit(tail)


@pytest.mark.parametrize(
    "other",
    [b"", b"01", b"1.", b".5", b"+1", b"1e", b"--1", b"NaN", b"1e999", b"9" * 40, b'"1"', b"null", b"[1]", b" 1"],
)
def test_nothing_else_may(other: bytes) -> None:
    assert learned().text_before(b'"a"' + with_numbers(other, b"1")) == b""
    assert learned().text_before(b'"a"' + with_numbers(b"1", other)) == b""
    assert not learned().fit(with_numbers(other, b"1"))


def test_the_count_of_the_prompt_stays() -> None:
    assert learned().text_before(b'"a"' + with_numbers(b"1", b"2").replace(b":10,", b":11,")) == b""


@pytest.mark.parametrize(
    ("head", "tail"),
    [
        (b'{"choices":[{"delta":{"content":', b'},"index":0}]}'),
        (b'{"choices":[{"delta":{"content":', b',"weight":1}}]}'),
        (b'{"choices":[{"delta":{"content":', b'}}],"error":0}'),
        (b'{"choices":[{"delta":{"content":', b'}}],"prompt_progress":0}'),
        (b'{"choices":[{"delta":{"content":', b'}}],"usage":{"prompt\\u005ftokens":3}}'),
        (b'{"choices":[{"delta":{"tool_calls":[{"function":{"arguments":', b'},"index":0}]}}]}'),
        (b'{"choices":[{"delta":{"content":', b"}}]}"),
    ],
)
def test_a_number_that_is_read_may_not_change(head: bytes, tail: bytes) -> None:
    assert of(head, tail) is None


def test_an_end_that_is_too_long_is_not_looked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers, widest = learned(), b"-1234567890123456.123456789012345678901234567890e-12"
    assert numbers.text_before(b'"a"' + with_numbers(widest, widest))
    monkeypatch.setattr(changing_numbers, "_NUMBER", None)
    assert not numbers.text_before(b'"a"' + with_numbers(b"1", b"2")[:-2] + b",1" * 1000)


@pytest.mark.parametrize(
    ("usage", "counts"),
    [({"prompt_tokens": 1}, True), ({"prompt_tokens": 0, "completion_tokens": 1}, False), ({}, False), ([1], False)],
)
def test_a_usage_that_counts_the_prompt_counts(usage: Any, counts: bool) -> None:
    assert counts_prompt(usage) is counts
