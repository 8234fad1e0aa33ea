"""Constraints on the answer in the words of the engines: `guided_json`, `structured_outputs`, `regex`, `grammar` …

A constraint is enforced or refused, never lost: an answer without it is a wrong answer. JSON becomes the ordinary
format; the rest is a `Guided`, which the backend gives to the server under the server's own name or refuses. Names are
those of vLLM, before and after 0.11, of SGLang and of llama.cpp. They mean the same in every protocol and before every
server, except for the language of a grammar, which is the server's.
"""

from __future__ import annotations

from typing import Any

from dragoman.translators.errors import GatewayError, Kind, invalid
from dragoman.translators.fields import RequestFields, Unread
from dragoman.translators.ir import Format, Guided, JsonObject, JsonSchema
from dragoman.translators.json_text import bounded_loads

_FIELDS = {  # each with what it constrains
    "guided_json": "json",
    "guided_choice": "choice",
    "guided_regex": "regex",
    "guided_grammar": "grammar",
    "json_schema": "json",  # llama.cpp, and SGLang as text
    "regex": "regex",  # SGLang
    "ebnf": "grammar",  # SGLang
    "grammar": "grammar",  # llama.cpp
}
_OWNER = "structured_outputs"
_KEYS = ("json", "choice", "regex", "grammar", "json_object")


def constrained(fields: RequestFields, wanted: Format | None, unread: Unread) -> Format | None:
    """The format that the answer must have: `wanted`, which the API's own field asks for, or one of these."""
    given = fields.model_fields_set
    found = [(name, kind, getattr(fields, name)) for name, kind in _FIELDS.items() if name in given]
    owner = fields.structured_outputs
    if owner is not None:
        if not isinstance(owner, dict):
            raise _wrong(_OWNER, "an object")
        if owner.get("structural_tag") is not None:
            path = f"{_OWNER}.structural_tag"
            message = f"'{path}': structural tags are not supported by this gateway."
            raise GatewayError(Kind.UNSUPPORTED, message, path, code="unsupported_value")
        inner = unread.given(owner, _OWNER)
        found += [(f"{_OWNER}.{key}", key, inner.get(key)) for key in _KEYS]
        inner.close()
    for path, kind, value in found:
        if value in (None, False, ""):
            continue
        constraint = _constraint(kind, value, path)
        if wanted is None:
            wanted = constraint
        elif not _same(wanted, constraint):
            raise invalid(f"Only one constraint on the answer is possible: '{path}' is one too many.", path)
    return wanted


def _same(one: Format, other: Format) -> bool:
    """Whether the same is asked for twice, as guidance asks vLLM under the older and the newer name."""
    if isinstance(one, JsonSchema) and isinstance(other, JsonSchema):
        return one.schema == other.schema
    return one == other


def _constraint(kind: str, value: Any, path: str) -> Format:
    match kind:
        case "json":
            return JsonSchema("output", _schema(value, path))
        case "json_object":
            return JsonObject()
        case "choice":
            if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
                raise _wrong(path, "an array of strings")
            return Guided("choice", tuple(value), path)
        case _:
            if not isinstance(value, str):
                raise _wrong(path, "a string")
            return Guided("regex" if kind == "regex" else "grammar", value, path)


def _schema(value: Any, path: str) -> dict[str, Any]:
    """A schema, or its text."""
    if isinstance(value, str):
        try:
            value = bounded_loads(value)
        except ValueError:
            raise _wrong(path, "a JSON schema") from None
    if not isinstance(value, dict):
        raise _wrong(path, "a JSON schema")
    return value


def _wrong(path: str, expected: str) -> GatewayError:
    return invalid(f"Invalid value for '{path}': expected {expected}.", path, "invalid_type")
