"""What a model reads of a search, how searches are numbered, and which pages a client's domains admit."""

from __future__ import annotations

import pytest

from dragoman.translators.ir import Message, SearchEnded, SearchResult, ToolCall
from dragoman.translators.web_search import SearchCount, admitted, call_of, function, known_error, query_of, shown


@pytest.mark.parametrize(
    ("arguments", "query"),
    [
        ('{"query": " old maps "}', "old maps"),
        ('{"query": "a\\ud800b"}', ""),  # orjson refuses half of a pair
        ('{"query": 1}', ""),
        ('{"q": "x"}', ""),
        ('["x"]', ""),
        ('{"query": "x', ""),
        ("", ""),
    ],
)
def test_a_query_is_the_text_of_the_call(arguments: str, query: str) -> None:
    assert query_of(arguments) == query


def test_the_model_reads_titles_addresses_and_excerpts() -> None:
    results = (SearchResult("https://a.b/", "A", "Words.", "2 days ago"), SearchResult("https://c.d/", "C"))
    assert shown(SearchEnded(results)) == "A (2 days ago)\nhttps://a.b/\nWords.\n\nC\nhttps://c.d/"
    assert shown(SearchEnded()) == "Nothing was found."
    assert shown(SearchEnded(error="unavailable")).startswith("The search failed: ")


def test_an_unknown_error_is_one_that_is_known() -> None:
    assert known_error("too_many_requests") == "too_many_requests"
    assert known_error("later_word") == known_error(None) == known_error({}) == "unavailable"


def test_searches_are_numbered_through_a_conversation() -> None:
    count = SearchCount()
    first = call_of(count.next(), "web_search", "x")
    assert first == ToolCall("search001", "web_search", '{"query":"x"}')
    later = SearchCount(
        [Message("assistant", (first, ToolCall("search12", "f", "{}"), ToolCall("search007", "f", "{}")))]
    )
    assert later.next() == "search008"
    assert SearchCount([Message("assistant", (ToolCall(f"search{'9' * 5000}", "f", "{}"),))]).next() == "search001"


def test_the_function_takes_a_query() -> None:
    assert function("w").name == "w"
    assert function().parameters["required"] == ["query"]


@pytest.mark.parametrize(
    ("domain", "kept"),
    [
        ("example.org", [0, 1, 2]),
        ("Example.ORG.", [0, 1, 2]),
        ("https://example.org", [0, 1, 2]),
        ("*.example.org", [0, 1, 2]),
        ("docs.example.org", [1]),
        ("example.org/blog", [2]),
        ("org", [0, 1, 2, 3]),
        ("", []),
    ],
)
def test_a_domain_stands_for_its_subdomains_and_may_have_a_path(domain: str, kept: list[int]) -> None:
    urls = (
        "https://example.org/",
        "http://docs.example.org:8080/x",
        "https://EXAMPLE.org/blog/1",
        "https://anexample.org/blogs",
    )
    results = [SearchResult(url, "t") for url in urls]
    assert admitted(results, [domain], []) == [results[place] for place in kept]
    assert admitted(results, [], [domain]) == [each for place, each in enumerate(results) if place not in kept]


def test_without_domains_everything_is_admitted() -> None:
    results = [SearchResult("https://a.b/", "t")]
    assert admitted(results, (), ()) == results
