"""Which answers a grammar is made for. What grammars let through is for `tests.real.grammars`."""

from __future__ import annotations

import json

import pytest

from dragoman.backends.markup import FAMILIES
from dragoman.backends.markup.grammar import ebnf, optional_tags, structural_tag
from dragoman.translators.ir import Tool

ADD = Tool("add", "", {"type": "object", "properties": {"a": {"type": "integer"}}}, strict=True)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_of_which_nothing_is_known_has_no_grammar(name: str) -> None:
    family = FAMILIES[name]
    made = [make(family, [ADD], several=True) for make in (structural_tag, optional_tags, ebnf)]
    if family.written is None:
        assert made == [None, None, None]
    else:
        assert made[0] is not None
        assert (made[1] is None) is (family.bare is not None)


@pytest.mark.parametrize("tools", [[], [Tool('a"b', "", {})], [ADD, Tool("a b", "", {})]])
def test_names_that_would_have_to_be_escaped_have_none(tools: list[Tool]) -> None:
    assert structural_tag(FAMILIES["hermes"], tools, several=True) is None
    assert ebnf(FAMILIES["hermes"], tools, several=True) is None


def test_one_call_alone_where_only_one_may_be_made_or_can_be_written() -> None:
    for name, several in (("hermes", False), ("kimi_k2", True)):
        text = structural_tag(FAMILIES[name], [ADD], several=several)
        assert text is not None
        calls = json.loads(text)["format"]
        assert calls.get("content", calls)["stop_after_first"] is True


def test_too_many_rules_are_no_grammar() -> None:
    wide = {"type": "object", "properties": {f"p{number}": {"type": "string"} for number in range(400)}}
    tools = [Tool(f"t{number}", "", wide) for number in range(50)]
    assert ebnf(FAMILIES["hermes"], tools, several=True) is None
    assert ebnf(FAMILIES["hermes"], tools[:1], several=True) is not None
