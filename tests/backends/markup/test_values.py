"""What a bare value between tags becomes, by the schema of its parameter."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dragoman.backends.markup.values import as_json, types_of, types_of_parameter

DEFINITIONS = {"$defs": {"Id": {"type": "string"}, "Loop": {"$ref": "#/$defs/Loop"}}}


@pytest.mark.parametrize(
    ("schema", "types"),
    [
        ({"type": "string"}, {"string"}),
        ({"type": ["integer", "null"]}, {"integer", "null"}),
        ({"$ref": "#/$defs/Id"}, {"string"}),
        ({"$ref": "#/$defs/Loop"}, None),
        ({"$ref": "https://elsewhere/schema"}, None),
        ({"allOf": [{"$ref": "#/$defs/Id"}, {"minLength": 1}]}, {"string"}),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, {"integer", "null"}),
        ({"enum": ["a", "b"]}, {"string"}),
        ({"const": "a"}, {"string"}),
        ({"type": "float"}, {"number"}),
        ({"type": "dict"}, {"object"}),
        ({"type": "tuple"}, {"array"}),
        ({"type": "date"}, {"string"}),
        ({}, None),
        (True, None),
    ],
)
def test_types_of_a_schema(schema: Any, types: set[str] | None) -> None:
    assert types_of(schema, DEFINITIONS) == (None if types is None else frozenset(types))


@pytest.mark.parametrize(
    ("text", "types", "value"),
    [
        ("42", {"string"}, "42"),
        ("42", {"string", "integer"}, 42),
        ("42 rooms", {"string", "integer"}, "42 rooms"),
        ("True", {"boolean"}, True),
        ("None", {"null", "integer"}, None),
        ("{'a': 1}", {"object"}, {"a": 1}),
        ("null", {"string", "null"}, None),
        ("2.5", {"number"}, 2.5),
        ("maybe", {"boolean"}, "maybe"),
        ("NaN", {"number"}, "NaN"),
        ("[1", {"array"}, "[1"),
        ("7", None, 7),
    ],
)
def test_a_value_by_its_types(text: str, types: set[str] | None, value: Any) -> None:
    assert json.loads(as_json(text, None if types is None else frozenset(types))) == value


def test_a_parameter_that_the_tool_does_not_declare_is_a_string() -> None:
    tool = {"type": "object", "properties": {"a": {"type": "integer"}}}
    assert types_of_parameter(tool, "b") == frozenset({"string"})
    assert types_of_parameter(tool, "a") == frozenset({"integer"})
    assert types_of_parameter({"type": "object"}, "b") is None
    assert types_of_parameter(None, "b") is None
