"""Declared tools as the functions that every chat server takes, for both OpenAI protocols.

A function keeps its schema, in one canonical form. A free-form (`custom`) tool becomes a function with one string,
`input`, whose description holds the grammar; `translators.json_text.StringReader` takes the text out of the call again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from dragoman.translators.errors import invalid
from dragoman.translators.fields import Given
from dragoman.translators.openai.reading import bool_or_null, expect_text, given_object, object_or_null, text_or_null
from dragoman.translators.openai.refusals import wrong_value
from dragoman.translators.protocol import Json

NO_PARAMETERS: Json = {"type": "object", "properties": {}}
CUSTOM_PARAMETERS: Json = {
    "type": "object",
    "properties": {
        "input": {"type": "string", "description": "The whole input of the tool, as plain text."},
    },
    "required": ["input"],
    "additionalProperties": False,
}
_REMEMBERED = 8192  # bytes of a schema; an agent sends the same ones with every request


@dataclass(frozen=True, slots=True)
class Function:
    """What a declaration holds besides the name."""

    description: str
    parameters: Json
    strict: bool | None


def read_function(owner: Given, path: str, key: str = "parameters") -> Function:
    """`owner` holds `strict`, `description` and, under `key`, the schema of the parameters."""
    parameters = object_or_null(owner, key, path)
    if parameters and not _may_be_object(parameters.get("type")):
        raise invalid(
            f"Invalid schema for function '{owner.get('name')}': schema must be a JSON Schema of "
            f"'type: \"object\"', got 'type: {parameters['type']!r}'.",
            f"{path}.{key}",
            "invalid_function_parameters",
        )
    strict = bool_or_null(owner, "strict", path)
    return Function(text_or_null(owner, "description", path) or "", object_schema(parameters), strict)


def _may_be_object(kind: object) -> bool:
    return kind is None or kind == "object" or (isinstance(kind, list) and "object" in kind)


def custom_description(description: str, owner: Given, path: str, nested: str = "") -> str:
    """What a free-form tool does, and the grammar of its text where the client gave one: a chat server cannot enforce
    it, so the model has to read it. `owner` holds `format`; `nested` is the key of that which holds the grammar."""
    if owner.get("format") is None:
        return description
    format_, place = given_object(owner, "format", path), f"{path}.format"
    match expect_text(format_, "type", place):
        case "text":
            format_.close()
            return description
        case "grammar":
            pass
        case other:
            raise wrong_value(f"{place}.type", other, "'text' and 'grammar'")
    if nested not in format_ and "definition" in format_:  # the flat form of Responses, as Cursor mixes them
        nested = ""
    grammar = given_object(format_, nested, place) if nested else format_
    place = f"{place}.{nested}" if nested else place
    definition, syntax = expect_text(grammar, "definition", place), expect_text(grammar, "syntax", place)
    format_.close()
    if nested:
        grammar.close()
    rule = f"The text in `input` must follow this {syntax} grammar:\n{definition}"
    return f"{description}\n\n{rule}" if description else rule


# --------------------------------------------------------------------------------------------------------- JSON schemas

_MAPS_OF_SCHEMAS = frozenset({"properties", "$defs", "definitions", "patternProperties", "dependentSchemas"})
_SCHEMAS = frozenset(
    {
        "additionalProperties",
        "allOf",
        "anyOf",
        "contains",
        "else",
        "if",
        "items",
        "not",
        "oneOf",
        "prefixItems",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)


def canonical_schema(schema: Any) -> Any:
    """The schema in the form in which every turn of a session shows it to the model.

    `required` is sorted, because some clients keep it in a set: its order then changes from run to run and with it the
    prefix of the prompt, so that the server's prefix cache is lost. Codex's mark `encrypted` is left out: servers that
    check schemas refuse it. The order of keys and of `enum` means something to the model and stays. What needs no
    change is not copied."""
    if isinstance(schema, list):
        members = [canonical_schema(one) for one in schema]
        return members if _differs(schema, members) else schema
    if not isinstance(schema, dict):
        return schema
    changed: Json = {}
    for key, value in schema.items():
        if key in _SCHEMAS:
            canonical = canonical_schema(value)
        elif key in _MAPS_OF_SCHEMAS and isinstance(value, dict):
            mapped = {name: canonical_schema(one) for name, one in value.items()}
            canonical = mapped if _differs(value.values(), mapped.values()) else value
        elif key == "required" and isinstance(value, list) and all(isinstance(name, str) for name in value):
            canonical = value if (ordered := sorted(value)) == value else ordered
        else:
            continue
        if canonical is not value:
            changed[key] = canonical
    out = {**schema, **changed} if changed else schema
    if isinstance(out.get("encrypted"), bool):
        out = {key: value for key, value in out.items() if key != "encrypted"}
    return out


def _differs(before: Iterable[Any], after: Iterable[Any]) -> bool:
    return any(one is not other for one, other in zip(before, after, strict=True))


def _canonical(schema: Mapping[str, Any]) -> Json:
    try:
        text = orjson.dumps(schema)
    except TypeError:  # nested deeper than the encoder goes
        text = b""
    canonical: Json = _remembered(text) if 0 < len(text) <= _REMEMBERED else canonical_schema(schema)
    return canonical


@lru_cache(maxsize=1024)
def _remembered(text: bytes) -> Json:
    """Shared between requests, since everything in a `Request` is read-only."""
    canonical: Json = canonical_schema(orjson.loads(text))
    return canonical


def object_schema(schema: Mapping[str, Any] | None) -> Json:
    """A function's `parameters` as an object schema with `type` and `properties`: some servers refuse less."""
    if not schema:
        return dict(NO_PARAMETERS)
    out = _canonical(schema)
    properties = out.get("properties")
    if out.get("type") == "object" and isinstance(properties, dict):
        return out
    # also where the type was null, or a list with "object" in it
    known = out if "type" in out else {"type": "object", **out}
    return {**known, "type": "object", "properties": properties if isinstance(properties, dict) else {}}
