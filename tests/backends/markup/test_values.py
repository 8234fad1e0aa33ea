"""What a bare value between tags becomes, by the schema of its parameter."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dragoman.backends.markup.values import as_json, begun_as_json, given_as_json, types_of, types_of_parameter

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
        ({"enum": ["7", None]}, {"string", "null"}),
        ({"enum": [1, 2.5, True, [], {}]}, {"integer", "number", "boolean", "array", "object"}),
        ({"type": "float"}, {"number"}),
        ({"type": "dict"}, {"object"}),
        ({"type": "tuple"}, {"array"}),
        ({"type": "date"}, {"string"}),
        ({"type": ["uint32", "float64"]}, {"integer", "number"}),
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
        ("null", {"integer"}, None),
        ("none", {"object"}, None),
        ("1", {"boolean"}, True),
        ("0", {"boolean"}, False),
        ("1", {"boolean", "integer"}, 1),
        ("1", {"boolean", "string"}, "1"),
        ("{'a': 1}", {"object"}, {"a": 1}),
        ("null", {"string", "null"}, None),
        ("2.5", {"number"}, 2.5),
        ("maybe", {"boolean"}, "maybe"),
        ("NaN", {"number"}, "NaN"),
        ("[1", {"array"}, "[1"),
        ("7", None, 7),
        (r"{'a': '\ud83d\ude00', '\ud83d': 1}", {"object"}, {"a": "\U0001f600", "\ufffd": 1}),
        (r"{'a': '\ude00'}", None, {"a": "\ufffd"}),
        (r'{"a": "\ud83d", "b": "\\ud83d"}', {"object"}, {"a": "\ufffd", "b": r"\ud83d"}),
        (r'["\ud83d\ude00", "\ude00"]', {"string", "array"}, ["\U0001f600", "\ufffd"]),
        (r'{"a": "\ud83d",}', {"object"}, {"a": "\ufffd"}),
    ],
)
def test_a_value_by_its_types(text: str, types: set[str] | None, value: Any) -> None:
    written = as_json(text, None if types is None else frozenset(types))
    assert json.loads(written.encode()) == value


def test_a_value_that_is_said_to_be_json_has_no_half_of_a_surrogate_pair() -> None:
    assert json.loads(given_as_json(r'{"a": "\ud83d"}')) == {"a": "\ufffd"}
    assert json.loads(given_as_json(r"{'a': '\ud83d\ude00'}").encode()) == {"a": "\U0001f600"}


@pytest.mark.parametrize(
    ("text", "types", "begun"),
    [
        ("two words", None, '"two words'),
        ('say "hi', {"string", "null"}, r'"say \"hi'),
        ("{'a': 'b", {"object"}, '{"a": "b'),
        ("['a', Tr", None, '["a"'),
        ("{'a': 'b", {"object", "string"}, '{"a": "b'),
        ("Tru", {"boolean"}, ""),
        ("tru", {"boolean"}, "tru"),
        ("12.", {"number"}, "12."),
        ("-", {"integer"}, "-"),
        ("007", {"integer"}, "0"),
        ("3\n</par", {"integer"}, "3"),
        ("3]", {"integer"}, "3"),
        ("word", {"integer"}, ""),
        ("]", {"object"}, ""),
        ("", None, ""),
    ],
)
def test_a_value_whose_answer_was_cut_is_the_beginning_of_json(text: str, types: set[str] | None, begun: str) -> None:
    assert begun_as_json(text, None if types is None else frozenset(types)) == begun


def test_a_parameter_that_the_tool_does_not_declare_is_a_string() -> None:
    tool = {"type": "object", "properties": {"a": {"type": "integer"}}}
    assert types_of_parameter(tool, "b") == frozenset({"string"})
    assert types_of_parameter(tool, "a") == frozenset({"integer"})
    assert types_of_parameter({"type": "object"}, "b") is None
    assert types_of_parameter({"additionalProperties": {"type": "string"}}, "b") == frozenset({"string"})
    assert types_of_parameter({**tool, "additionalProperties": {"type": "integer"}}, "c") == frozenset({"integer"})
    assert types_of_parameter(None, "b") is None
