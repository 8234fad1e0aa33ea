"""Calls in a text that nobody reads for calls."""

from __future__ import annotations

import pytest

from dragoman.backends.markup.unread import UnreadCalls
from tests.backends.markup.writers import WRITINGS

TAGGED = [family for family in WRITINGS if family not in ("llama3", "pythonic")]  # which have no opener


def found(pieces: list[str]) -> bool:
    calls = UnreadCalls(["get_weather", "run"])
    for piece in pieces:
        calls.feed(piece)
    return calls.found


@pytest.mark.parametrize("family", TAGGED)
@pytest.mark.parametrize("size", [1, 5, 10_000])
def test_each_familys_call_is_seen_however_it_is_cut(family: str, size: int) -> None:
    text = f"a < b, [1] and so on.\n{WRITINGS[family].write(('get_weather', {'city': 'Rome'}))} More."
    assert found([text[at : at + size] for at in range(0, len(text), size)])


@pytest.mark.parametrize(
    "text",
    ["", "get_weather", "<b>get_weather</b>", "The tag `<tool_call>` opens a call.", "<tool_call>" + "x" * 200 + "run"],
)
@pytest.mark.parametrize("size", [1, 5, 10_000])
def test_text_that_shows_no_call_is_none(text: str, size: int) -> None:
    assert not found([text[at : at + size] for at in range(0, len(text), size)])


def test_a_tag_that_is_spoken_of_does_not_hide_a_call() -> None:
    assert found(["`<tool_call>` it is. ", "x" * 200, "<tool_call>", '{"name": "run"}'])


def test_a_text_of_nothing_but_openers_costs_no_more_than_its_length() -> None:
    calls = UnreadCalls(f"tool_{number}" for number in range(1000))
    calls.feed("<tool_call>" * 100_000)
    for _ in range(1000):
        calls.feed("<tool_call>")
    assert not calls.found
    assert not calls.reading


@pytest.mark.parametrize("piece", ["if a[0] > 1:", " x < self", "dict[str, A] =", "<div class", "-> None"])
def test_code_is_not_watched_beyond_what_may_begin_a_call(piece: str) -> None:
    calls = UnreadCalls(["run"])
    calls.feed(piece)
    assert not calls.reading


@pytest.mark.parametrize("piece", ["so: <", "a <tool_c", "[{", "[TOOL_CALLS"])
def test_the_beginning_of_an_opener_is(piece: str) -> None:
    calls = UnreadCalls(["run"])
    calls.feed(piece)
    assert calls.reading
