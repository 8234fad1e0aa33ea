"""Does a JSON value fit a client's JSON schema? For answers of servers that cannot constrain their decoding.

The schema is the client's and so are its tricks: nothing is ever fetched (remote references do not resolve), regular
expressions are not run (a hostile `pattern` could hold a thread for ever), and references are followed a bounded
number of times. What is skipped so is accepted: the check may be too kind, never too strict.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from typing import Any

MAX_SCHEMA = 256 * 1024  # characters of JSON
MAX_REFERENCES = 20_000


class _TooMuch(Exception):
    pass


def usable(schema: Mapping[str, Any]) -> str | None:
    """Why the schema cannot be checked against, None when it can."""
    try:
        if len(json.dumps(schema, default=dict)) > MAX_SCHEMA:
            return f"it is larger than {MAX_SCHEMA} characters"
    except (ValueError, RecursionError):
        return "it contains itself"
    import jsonschema

    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        return error.message[:200]
    except RecursionError:
        return "it is nested too deeply"
    return None


def faults(value: object, schema: Mapping[str, Any]) -> str | None:
    """The first thing that does not fit, None when all does or it cannot be told."""
    import referencing.exceptions
    from referencing import Registry

    left = [MAX_REFERENCES]
    try:
        error = next(_validator(left)(schema, registry=Registry()).iter_errors(value), None)
    except (referencing.exceptions.Unresolvable, referencing.exceptions.NoSuchResource, RecursionError, _TooMuch):
        return None
    return None if error is None else f"{error.json_path}: {error.message}"[:500]


def _validator(left: list[int]) -> Any:
    import jsonschema

    original: Mapping[str, Any] = jsonschema.Draft202012Validator.VALIDATORS

    def counted(keyword: str, validator: Any, *rest: Any) -> Iterator[Any]:
        left[0] -= 1
        if left[0] < 0:
            raise _TooMuch
        yield from original[keyword](validator, *rest) or ()

    def without_patterns(keyword: str, validator: Any, extra: Any, instance: Any, schema: Any) -> Iterator[Any]:
        if "patternProperties" not in schema:
            yield from original[keyword](validator, extra, instance, schema) or ()

    def skipped(*_: Any) -> Iterator[Any]:
        return iter(())

    changed: dict[str, Any] = {
        "pattern": skipped,
        "patternProperties": skipped,
        "unevaluatedProperties": skipped,  # would run the patterns of other places
        "additionalProperties": functools.partial(without_patterns, "additionalProperties"),
        "$ref": functools.partial(counted, "$ref"),
        "$dynamicRef": functools.partial(counted, "$dynamicRef"),
    }
    extend: Any = jsonschema.validators.extend
    return extend(jsonschema.Draft202012Validator, changed)
