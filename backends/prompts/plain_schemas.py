"""Schemas of tools without the bounds that a grammar may not hold, which stand in the descriptions instead.

llama.cpp makes one grammar of all tools, and refuses every request that offers them where one `pattern` has no anchors
or an escape, or one `maxLength` is large (kubernetes-mcp-server#758, firecrawl#4512). The model reads the bounds all
the same, and whoever runs the tool checks its arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import orjson

_LENGTHS = ("minLength", "maxLength", "minItems", "maxItems")
_SHORT = 16  # repetitions that every grammar holds, also some levels deep
_MAPS_OF_SCHEMAS = frozenset({"properties", "$defs", "definitions", "patternProperties", "dependentSchemas"})
_SCHEMAS = frozenset(
    {"additionalProperties", "allOf", "anyOf", "contains", "else", "if", "items", "not", "oneOf", "prefixItems", "then"}
)
_REMEMBERED = 8192  # bytes of a schema; an agent sends the same ones with every request


def plain_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    try:
        text = orjson.dumps(schema, default=dict)
    except TypeError:  # a number beyond 64 bits, or nested too deep
        text = b""
    plain: dict[str, Any] = _remembered(text) if 0 < len(text) <= _REMEMBERED else _plain(schema)
    return plain


@lru_cache(maxsize=1024)
def _remembered(text: bytes) -> Any:
    """Shared between requests: nobody changes it."""
    return _plain(orjson.loads(text))


def _is_long(bound: object) -> bool:
    return isinstance(bound, int | float) and bound > _SHORT


def _plain(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_plain(one) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    bounds = {key: schema[key] for key in _LENGTHS if _is_long(schema.get(key))}
    if isinstance(pattern := schema.get("pattern"), str):
        bounds["pattern"] = pattern
    out: dict[str, Any] = {}
    for key, value in schema.items():
        if key in bounds:
            continue
        if key in _MAPS_OF_SCHEMAS and isinstance(value, Mapping):
            out[key] = {name: _plain(one) for name, one in value.items()}
        else:
            out[key] = _plain(value) if key in _SCHEMAS else value
    if bounds:
        said = ", ".join(f"{key}: {value}" for key, value in bounds.items())
        described = out.get("description")
        out["description"] = f"{described} ({said})" if isinstance(described, str) and described else said
    return out
