"""What a model reads of a PDF: its heading, its pages, and what was left out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.translators.documents import REST, Extract, shown
from dragoman.translators.ir import Document

MOST = 1000


def lines(extract: Extract, most: int = MOST, name: str | None = None, context: str | None = None) -> list[str]:
    return shown(Document("[left out]", "", name, context), extract, most).text.text.split("\n")


def test_each_page_stands_under_its_number() -> None:
    reading = shown(Document("[left out]", "", "a\n report"), Extract(("one", "two\nlines"), 2), MOST)
    assert reading.text.text == '[PDF document "a report", 2 pages]\n[Page 1]\none\n[Page 2]\ntwo\nlines'
    assert reading.whole


@pytest.mark.parametrize(
    ("extract", "head"),
    [
        (Extract(("a",), 1), "[PDF document, 1 page]"),
        (Extract(("a",), 9), "[PDF document, page 1 of 9]"),
        (Extract(("a", "b"), 9), "[PDF document, pages 1 to 2 of 9]"),
        (Extract(("a", "b"), 2, cut=True), "[PDF document, 2 pages]"),
    ],
)
def test_the_heading_says_which_pages_follow(extract: Extract, head: str) -> None:
    read = lines(extract)
    assert read[0] == head
    assert (read[-1] == REST) == (extract.total == 9 or extract.cut)


def test_pages_without_text_are_named() -> None:
    assert lines(Extract(("", None, "c"), 3))[1:] == [
        "[Page 1 has no text]",
        "[Page 2 cannot be read]",
        "[Page 3]",
        "c",
    ]
    assert shown(Document("", ""), Extract(("", "c"), 2), MOST).whole
    assert not shown(Document("", ""), Extract((None, "c"), 2), MOST).whole


def test_what_the_client_says_of_it_stands_before_its_text() -> None:
    assert lines(Extract(("a",), 1), context="Read page one.")[1:3] == ["Read page one.", "[Page 1]"]


def test_the_text_ends_where_the_room_does() -> None:
    assert lines(Extract(("abcd", "efgh"), 2), 6) == [
        "[PDF document, 2 pages]",
        "[Page 1]",
        "abcd",
        "[Page 2]",
        "ef",
        REST,
    ]
    assert lines(Extract(("abcd", "efgh"), 2), 4) == ["[PDF document, page 1 of 2]", "[Page 1]", "abcd", REST]
    assert lines(Extract(("abcd", "efgh"), 2), 8)[-1] == "efgh"


@given(st.lists(st.none() | st.text("ab", max_size=9), min_size=1, max_size=5), st.integers(1, 50), st.integers(0, 3))
def test_a_text_is_whole_or_says_that_it_is_not(pages: list[str | None], most: int, more: int) -> None:
    extract = Extract(tuple(pages), len(pages) + more)
    reading = shown(Document("", ""), extract, most)
    assert reading.whole == (not more and None not in pages and extract.size <= most) or pages[-1] == ""
    assert reading.whole or REST in reading.text.text or "cannot be read" in reading.text.text
