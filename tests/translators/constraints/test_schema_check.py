"""The check of answers against clients' schemas: no regular expression of theirs is ever run, and nothing that is
skipped makes the check stricter."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from dragoman.translators.constraints.schema_check import faults, usable
from dragoman.translators.ir import JsonSchema, Text
from tests.backends.test_enforce import run
from tests.recording import ask
from tests.scripted import Script, text_stream

Schema = dict[str, Any]
HOSTILE = "(a+)+$"
LONG = "a" * 60 + "!"
DRAFTS = [
    "http://json-schema.org/draft-03/schema#",
    "http://json-schema.org/draft-04/schema#",
    "http://json-schema.org/draft-06/schema#",
    "http://json-schema.org/draft-07/schema#",
    "https://json-schema.org/draft/2019-09/schema",
    "https://json-schema.org/draft/2020-12/schema",
]
# What runs a pattern, with a value on which it would.
PATTERNS: dict[str, tuple[Schema, Any]] = {
    "of a text": ({"pattern": HOSTILE}, LONG),
    "of names": ({"patternProperties": {HOSTILE: {}}}, {LONG: 1}),
    "of names that are not additional": (
        {"patternProperties": {HOSTILE: {}}, "additionalProperties": False},
        {LONG: 1},
    ),
    "of names that are evaluated": ({"patternProperties": {HOSTILE: {}}, "unevaluatedProperties": False}, {LONG: 1}),
    "of names elsewhere that are evaluated": (
        {"allOf": [{"patternProperties": {HOSTILE: {}}}], "unevaluatedProperties": False},
        {LONG: 1},
    ),
    "of every name": ({"propertyNames": {"pattern": HOSTILE}}, {LONG: 1}),
    "that the answer is": ({"format": "regex"}, HOSTILE),
}
# Where in a schema it may be.
PLACES: dict[str, Callable[[Schema, Any], tuple[Schema, Any]]] = {
    "root": lambda it, value: (it, value),
    "properties": lambda it, value: ({"properties": {"a": it}}, {"a": value}),
    "deep": lambda it, value: ({"properties": {"a": {"items": {"properties": {"b": it}}}}}, {"a": [{"b": value}]}),
    "additionalProperties": lambda it, value: ({"additionalProperties": it}, {"a": value}),
    "unevaluatedProperties": lambda it, value: ({"unevaluatedProperties": it}, {"a": value}),
    "dependentSchemas": lambda it, value: (
        {"dependentSchemas": {"a": {"properties": {"a": it}}}},
        {"a": value},
    ),
    "items": lambda it, value: ({"items": it}, [value]),
    "prefixItems": lambda it, value: ({"prefixItems": [it]}, [value]),
    "contains": lambda it, value: ({"contains": it}, [value]),
    "unevaluatedItems": lambda it, value: ({"unevaluatedItems": it}, [value]),
    "allOf": lambda it, value: ({"allOf": [it]}, value),
    "anyOf": lambda it, value: ({"anyOf": [it, it]}, value),
    "oneOf": lambda it, value: ({"oneOf": [it, it]}, value),
    "not": lambda it, value: ({"not": it}, value),
    "if": lambda it, value: ({"if": it, "then": False}, value),
    "then": lambda it, value: ({"if": True, "then": it}, value),
    "else": lambda it, value: ({"if": False, "else": it}, value),
    "contentSchema": lambda it, value: ({"contentSchema": it}, value),
    "$defs": lambda it, value: ({"$defs": {"a": it}, "$ref": "#/$defs/a"}, value),
    "definitions": lambda it, value: ({"definitions": {"a": it}, "allOf": [{"$ref": "#/definitions/a"}]}, value),
    "$anchor": lambda it, value: ({"$defs": {"a": {**it, "$anchor": "x"}}, "$ref": "#x"}, value),
    "$dynamicAnchor": lambda it, value: ({"$defs": {"a": {**it, "$dynamicAnchor": "x"}}, "$dynamicRef": "#x"}, value),
    "$id": lambda it, value: ({"$defs": {"a": {**it, "$id": "http://x/y"}}, "$ref": "http://x/y"}, value),
    "id": lambda it, value: ({"$defs": {"a": {**it, "id": "http://x/y"}}, "$ref": "http://x/y"}, value),
    "const": lambda it, value: ({"anyOf": [{"const": it}, {"$ref": "#/anyOf/0/const"}]}, value),
    "enum": lambda it, value: ({"anyOf": [{"enum": [it]}, {"$ref": "#/anyOf/0/enum/0"}]}, value),
    "default": lambda it, value: ({"default": it, "$ref": "#/default"}, value),
    "examples": lambda it, value: ({"examples": [it], "$ref": "#/examples/0"}, value),
    "no keyword": lambda it, value: ({"x": [{"y": it}], "$ref": "#/x/0/y"}, value),
    "the specification's own schema": lambda it, value: (
        {"$dynamicAnchor": "meta", **it, "allOf": [{"properties": {"items": {"$ref": DRAFTS[-1]}}}]},
        {"items": {"items": value}},
    ),
}


class Ran(Exception):
    pass


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The client's patterns that were handed to `re`; none of them is run, so that a failure does not last for ever."""
    seen: list[str] = []
    compile_: Callable[..., Any] = vars(re)["_compile"]  # the one function below `re.search`, `re.compile` and the rest

    def record(pattern: Any, *flags: Any) -> Any:
        if HOSTILE in str(pattern):
            seen.append(pattern)
            raise Ran
        return compile_(pattern, *flags)

    monkeypatch.setattr(re, "_compile", record)
    with pytest.raises(Ran):
        re.search(HOSTILE, "")
    seen.clear()
    return seen


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("draft", [None, *DRAFTS])
def test_no_pattern_of_a_client_is_run_wherever_it_is(ran: list[str], place: str, draft: str | None) -> None:
    for name, (schema, value) in PATTERNS.items():
        named = schema if draft is None else {"$schema": draft, **schema}
        whole, instance = PLACES[place](named, value)
        usable(whole)
        faults(instance, whole)
        assert ran == [], name


@pytest.mark.parametrize("place", sorted(set(PLACES) - {"the specification's own schema"}))
def test_what_is_skipped_is_accepted_wherever_it_is(place: str) -> None:
    for name, (schema, value) in PATTERNS.items():
        whole, instance = PLACES[place](schema, value)
        assert faults(instance, whole) is None, name


async def test_no_pattern_is_run_for_a_forced_format(ran: list[str]) -> None:
    inner = {"$schema": DRAFTS[3], "type": "string", "pattern": HOSTILE}
    wanted = JsonSchema("s", {"type": "object", "properties": {"a": inner}})
    said = Script(text_stream(f'{{"a": "{LONG}"}}'))
    sink, bodies = await run(ask(format=wanted), said, preset="triton-openai")
    assert sink.parts == [Text(f'{{"a": "{LONG}"}}')]
    assert len(bodies) == 1
    assert ran == []


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"not": {"pattern": "^b"}}, "a"),
        ({"not": {"allOf": [{"$ref": "#/$defs/a"}]}, "$defs": {"a": {"pattern": "^b"}}}, "a"),
        ({"not": {"format": "email"}}, "a"),
        ({"not": {"patternProperties": {"^b": False}}}, {"b": 1}),
        ({"if": {"pattern": "^b"}, "then": {"maxLength": 0}}, "a"),
        ({"oneOf": [{"pattern": "^a"}, {"pattern": "^b"}]}, "a"),
        ({"contains": {"pattern": "^b"}, "maxContains": 1}, ["b", "a"]),
        ({"$ref": "#/enum/0", "enum": [5]}, 5),
        ({"$ref": "#/x", "x": {"type": "nonsense"}}, 5),
        ({"$ref": "#/x", "x": {"minimum": "one"}}, 5),
    ],
)
def test_what_cannot_be_decided_is_never_held_against_the_answer(schema: Schema, value: Any) -> None:
    assert usable(schema) is None
    assert faults(value, schema) is None


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"not": {"type": "string"}}, "a"),
        ({"if": {"type": "string"}, "then": {"maxLength": 0}}, "a"),
        ({"oneOf": [{"type": "string"}, {"minLength": 1}]}, "a"),
        ({"oneOf": [{"type": "integer"}, {"type": "null"}]}, "a"),
        ({"contains": {"type": "integer"}}, ["a"]),
        ({"pattern": "^b", "maxLength": 0}, "a"),
        ({"properties": {"a": {"$schema": DRAFTS[3], "type": "integer"}}}, {"a": "x"}),
        ({"properties": {"pattern": {"type": "integer"}}}, {"pattern": "x"}),
        ({"properties": {"$schema": {"type": "integer"}}}, {"$schema": "x"}),
        ({"properties": {"patternProperties": False}}, {"patternProperties": 1}),
        ({"const": {"pattern": "a"}}, {"pattern": "b"}),
        ({"enum": [{"$schema": DRAFTS[3]}]}, {}),
        ({"$ref": "#/$defs/pattern", "$defs": {"pattern": {"type": "integer"}}}, "a"),
    ],
)
def test_what_can_be_decided_is_checked(schema: Schema, value: Any) -> None:
    assert usable(schema) is None
    assert faults(value, schema) is not None


@pytest.mark.parametrize("pattern", [r"\p{L}+", "(?<year>\\d{4})", "(", "a{99999999999999999999}", "(" * 5000])
def test_a_pattern_that_python_does_not_know_is_none_of_our_business(pattern: str) -> None:
    schema = {"pattern": pattern, "patternProperties": {pattern: {}}}
    assert usable(schema) is None
    assert faults("a", schema) is None


@pytest.mark.parametrize(
    ("schema", "value", "fits"),
    [
        ({"type": "integer"}, 3, True),
        ({"type": "integer"}, "3", False),
        ({"$ref": "http://127.0.0.1:9/never-asked"}, 3, True),
        ({"$ref": "#"}, 3, True),
        ({"type": "string", "pattern": "^(a+)+$"}, "a" * 60 + "!", True),
        ({"patternProperties": {"^(a+)+$": {}}, "additionalProperties": False}, {"a" * 60 + "!": 1}, True),
        ({"properties": {"a": {}}, "additionalProperties": False}, {"b": 1}, False),
    ],
    ids=["fits", "does not", "remote", "cyclic", "hostile pattern", "hostile names", "closed object"],
)
def test_checking_is_never_too_strict_and_never_dangerous(schema: dict[str, Any], value: Any, fits: bool) -> None:
    assert usable(schema) is None
    assert (faults(value, schema) is None) is fits


def test_references_that_multiply_are_given_up() -> None:
    doubling = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)}
    schema = {"$defs": {**doubling, "d40": {"type": "integer"}}, "$ref": "#/$defs/d0"}
    assert faults(3, schema) is None


def test_a_schema_that_contains_itself_is_not_usable() -> None:
    loop: dict[str, Any] = {"type": "object"}
    loop["properties"] = {"again": loop}
    assert usable(loop) == "it contains itself"
