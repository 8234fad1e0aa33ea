"""Schemas as EBNF: that it is bounded whatever a client declares. What it lets through is for `tests.real.grammars`."""

from __future__ import annotations

import re
from graphlib import TopologicalSorter
from typing import Any

from dragoman.backends.markup.ebnf import MOST_RULES, Arguments, Rules, literal

WIDE: dict[str, Any] = {"type": "object", "properties": {f"p{number}": {"type": "string"} for number in range(50)}}


def rules_of(schema: dict[str, Any], style: str = "json") -> str:
    rules = Rules()
    arguments = Arguments(rules, schema).written(style)
    assert arguments is not None
    return rules.text(arguments)


def test_a_text_is_escaped_as_a_terminal() -> None:
    assert literal('a"\\\n') == '"a\\"\\\\\\n"'


def test_a_schema_that_refers_to_itself_ends() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#"}}}
    assert rules_of(node).count("ref_") < 10


def test_references_in_a_circle_are_any_value() -> None:
    """A rule that leads back to itself before it has read a character would keep a server busy for ever."""
    circle = {"x": {"anyOf": [{"$ref": "#/$defs/y"}, {"type": "null"}]}, "y": {"$ref": "#/$defs/x"}}
    rules = dict(
        line.split(" ::= ", 1)
        for line in rules_of({"properties": {"a": {"$ref": "#/$defs/x"}}, "$defs": circle}).splitlines()
        if line
    )
    graph = {name: re.findall(r"ref_\d+", body) for name, body in rules.items() if name.startswith("ref_")}
    assert len(graph) == 2
    assert [*TopologicalSorter(graph).static_order()]  # raises where there is a circle


def test_what_a_schema_is_followed_is_bounded() -> None:
    wide = {**WIDE, "properties": {f"q{number}": WIDE for number in range(500)}}
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(500):
        deep = {"type": "array", "items": deep}
    for schema in (wide, {"properties": {"deep": deep}}):
        assert rules_of(schema).count("::=") < 2 * MOST_RULES


def test_a_style_that_ebnf_cannot_say_has_no_grammar() -> None:
    assert Arguments(Rules(), WIDE).written("kimi_k3_xml") is None
