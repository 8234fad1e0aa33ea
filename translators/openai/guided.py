"""Constraints on the answer in the words of the engines: `guided_json`, `guided_choice`, `structured_outputs` …

A constraint is enforced or refused, never lost: an answer without it is a wrong answer. JSON becomes the ordinary
format; the rest is a `Guided`, which the backend gives to the server under the server's own name or refuses. Names
are those of vLLM, before and after 0.11.
"""

from __future__ import annotations

from typing import Any

import orjson

from dragoman.translators.errors import invalid
from dragoman.translators.fields import Unread
from dragoman.translators.ir import Format, Guided, JsonObject, JsonSchema
from dragoman.translators.openai.fields import CreateFields
from dragoman.translators.openai.refusals import empty, unsupported, wrong_type

_FIELDS = ("guided_json", "guided_choice", "guided_regex", "guided_grammar")
_OWNER = "structured_outputs"
_KEYS = ("json", "choice", "regex", "grammar", "json_object")


def constrained(fields: CreateFields, wanted: Format | None, unread: Unread) -> Format | None:
    """The format that the answer must have: `wanted`, which the API's own field asks for, or one of these."""
    found = [(name, name.removeprefix("guided_"), getattr(fields, name)) for name in _FIELDS]
    owner = fields.structured_outputs
    if owner is not None:
        if not isinstance(owner, dict):
            raise wrong_type(_OWNER, "an object", owner)
        if owner.get("structural_tag") is not None:
            raise unsupported(f"{_OWNER}.structural_tag", "Structural tags are not supported by this gateway.")
        given = unread.given(owner, _OWNER)
        found += [(f"{_OWNER}.{key}", key, given.get(key)) for key in _KEYS]
        given.close()
    for path, kind, value in found:
        if value is None or value is False:
            continue
        if wanted is not None:
            raise invalid(f"Only one constraint on the answer is possible: '{path}' is one too many.", path)
        wanted = _constraint(kind, value, path)
    return wanted


def _constraint(kind: str, value: Any, path: str) -> Format:
    match kind:
        case "json":
            return JsonSchema("output", _schema(value, path))
        case "json_object":
            return JsonObject()
        case "choice":
            if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
                raise wrong_type(path, "an array of strings", value)
            if not value:
                raise empty(path)
            return Guided("choice", tuple(value), path)
        case _:
            if not isinstance(value, str):
                raise wrong_type(path, "a string", value)
            return Guided("regex" if kind == "regex" else "grammar", value, path)


def _schema(value: Any, path: str) -> dict[str, Any]:
    """A schema, or its text."""
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except ValueError:
            raise invalid(f"Invalid '{path}': the text is not JSON.", path) from None
    if not isinstance(value, dict):
        raise wrong_type(path, "a JSON schema", value)
    return value
