"""Bounds that a grammar may not hold stand in the descriptions of a tool's schema."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.backends.chat.settings import PRESETS, resolve
from dragoman.backends.prompts.plain_schemas import plain_schema
from dragoman.backends.prompts.tools import described
from dragoman.translators.ir import Tool

SAID = {"type": "string", "description": "A date. (maxLength: 10000, pattern: ^(?=x))"}


@pytest.mark.parametrize(
    ("schema", "plain"),
    [
        ({"type": "string", "pattern": r"\d+"}, {"type": "string", "description": r"pattern: \d+"}),
        ({"type": "string", "description": "A date.", "pattern": "^(?=x)", "maxLength": 10_000}, SAID),
        (
            {"maxItems": 17, "items": {"minLength": 17}},
            {"items": {"description": "minLength: 17"}, "description": "maxItems: 17"},
        ),
        (
            {"properties": {"pattern": {"pattern": "x", "description": ""}}},
            {"properties": {"pattern": {"description": "pattern: x"}}},
        ),
        ({"anyOf": [True, {"maxItems": 20}]}, {"anyOf": [True, {"description": "maxItems: 20"}]}),
        ({"$defs": {"a": {"pattern": "y"}}}, {"$defs": {"a": {"description": "pattern: y"}}}),
        ({"maximum": 10**30, "pattern": "y"}, {"maximum": 10**30, "description": "pattern: y"}),
    ],
)
def test_bounds_are_said_and_not_demanded(schema: dict[str, Any], plain: dict[str, Any]) -> None:
    before = copy.deepcopy(schema)
    assert plain_schema(schema) == plain
    assert schema == before


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "minItems": 1, "maxItems": 4, "items": {"type": "string", "maxLength": 16, "format": "uri"}},
        {"properties": {"pattern": {"type": "string"}, "maxLength": {"type": "integer", "maximum": 500}}},
        {"pattern": {"odd": True}, "default": {"pattern": "x"}, "enum": ["a"], "additionalProperties": False},
    ],
)
def test_everything_else_stays(schema: dict[str, Any]) -> None:
    assert plain_schema(schema) == schema


WORDS = st.sampled_from(["properties", "items", "anyOf", "pattern", "maxItems", "description", "a"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
)


@given(VALUES)
def test_whatever_a_schema_holds_it_is_plain_at_once(value: Any) -> None:
    once = plain_schema({"items": value, "properties": {"x": value}})
    assert plain_schema(once) == once


def test_servers_that_make_a_grammar_of_tools_get_plain_schemas() -> None:
    tool = Tool("a", "", {"type": "object", "properties": {"b": {"type": "string", "pattern": "x"}}})
    shown = {preset: described(tool, resolve(preset))["function"]["parameters"] for preset in PRESETS}
    assert {preset for preset in PRESETS if shown[preset] != tool.parameters} == {"llama.cpp"}
