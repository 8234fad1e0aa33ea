"""Constraints in the words of the engines, read alike in every protocol."""

from __future__ import annotations

from typing import Any

import pytest

from dragoman.translators.errors import GatewayError
from dragoman.translators.fields import RequestFields, Unread
from dragoman.translators.guided import constrained
from dragoman.translators.ir import Guided, JsonObject, JsonSchema


def read(unread: Unread | None = None, **fields: Any) -> Any:
    return constrained(RequestFields.model_validate({"model": "m", **fields}), None, unread or Unread())


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, None),
        ({"structured_outputs": {}}, None),
        ({"guided_json": {"a": 1}}, JsonSchema("output", {"a": 1})),
        ({"structured_outputs": {"json": '{"a": 1}'}}, JsonSchema("output", {"a": 1})),
        ({"structured_outputs": {"json_object": True}}, JsonObject()),
        ({"guided_choice": ["a"]}, Guided("choice", ("a",))),
        ({"structured_outputs": {"grammar": "g"}}, Guided("grammar", "g")),
        ({"regex": "a"}, Guided("regex", "a")),  # SGLang
        ({"ebnf": "g"}, Guided("grammar", "g")),
        ({"json_schema": '{"a": 1}'}, JsonSchema("output", {"a": 1})),
        ({"json_schema": {"a": 1}, "grammar": ""}, JsonSchema("output", {"a": 1})),  # llama.cpp
        ({"grammar": "g", "json_schema": None}, Guided("grammar", "g")),
    ],
)
def test_what_is_asked_for(fields: dict[str, Any], wanted: Any) -> None:
    assert read(**fields) == wanted


def test_the_field_is_named_where_a_server_cannot() -> None:
    assert read(structured_outputs={"regex": "a"}).path == "structured_outputs.regex"
    assert read(ebnf="g").path == "ebnf"


def test_unknown_keys_are_noted_and_constraints_never() -> None:
    unread = Unread()
    read(unread, structured_outputs={"regex": "a", "disable_any_whitespace": True})
    assert [note.name for note in unread.notes()] == ["structured_outputs.disable_any_whitespace"]
    with pytest.raises(GatewayError, match="one too many"):
        read(guided_regex="a", guided_grammar="b")


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"guided_grammar": "g", "structured_outputs": {"grammar": "g"}}, Guided("grammar", "g")),  # guidance
        ({"guided_json": '{"a": 1}', "structured_outputs": {"json": {"a": 1}}}, JsonSchema("output", {"a": 1})),
        ({"guided_choice": ["a", "b"], "structured_outputs": {"choice": ["a", "b"]}}, Guided("choice", ("a", "b"))),
    ],
)
def test_the_same_under_two_names_is_one_constraint(fields: dict[str, Any], wanted: Any) -> None:
    assert read(**fields) == wanted


def test_a_schema_beside_the_same_one_in_the_api_s_own_field() -> None:
    own = JsonSchema("person", {"a": 1}, strict=True)
    fields = RequestFields.model_validate({"model": "m", "guided_json": {"a": 1}})
    assert constrained(fields, own, Unread()) == own
    with pytest.raises(GatewayError, match="one too many"):
        constrained(fields, JsonSchema("person", {"a": 2}), Unread())
