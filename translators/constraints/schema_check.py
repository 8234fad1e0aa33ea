"""Whether a JSON value fits a client's JSON schema, for answers of servers that cannot constrain their decoding.

The schema comes from the client and may be hostile: nothing is ever fetched (remote references do not resolve), no
regular expression is run or compiled (one could hold a thread for ever), and references are followed a bounded number
of times. Both functions may take seconds all the same, so they run in a child process, never in the loop
(`backends.schema_checks`).

Every schema is read as draft 2020-12, whatever `$schema` says anywhere in it: for another draft the library would
switch to a class of its own, which runs patterns. What is skipped counts as fitting, and where another keyword depends
on it (`not`, `if`, `oneOf`), that counts as fitting too: the check may be too lenient, never too strict.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

MAX_SCHEMA = 256 * 1024  # characters of JSON
MAX_REFERENCES = 20_000

Keyword = Callable[..., Iterator[Any] | None]

# Keywords that run patterns, and keywords that are assertions only in other drafts or to some readers.
_SKIPPED = (
    "pattern", "patternProperties", "unevaluatedProperties", "format", "dependencies", "additionalItems",
    "$recursiveRef",
)  # fmt: skip
# With these, a subschema that accepts too much makes the whole refuse too much.
_DOUBTED = ("not", "if", "oneOf", "contains", "unevaluatedItems")


class _TooMuch(Exception):
    pass


def usable(schema: Mapping[str, Any]) -> str | None:
    """Why nothing can be checked against the schema, None where it can."""
    try:
        if len(json.dumps(schema, default=dict)) > MAX_SCHEMA:
            return f"it is larger than {MAX_SCHEMA} characters"
    except (ValueError, RecursionError):
        return "it contains itself"
    import jsonschema

    try:
        no_formats = jsonschema.FormatChecker(())  # "regex" would compile
        jsonschema.Draft202012Validator.check_schema(schema, format_checker=no_formats)
    except jsonschema.SchemaError as error:
        return error.message[:200]
    except RecursionError:
        return "it is nested too deeply"
    return None


def faults(value: object, schema: Mapping[str, Any]) -> str | None:
    """The first thing that does not fit, None where everything does or it cannot be decided."""
    from referencing import Registry

    validator = _Check().validator()
    try:
        error = next(validator(schema, registry=Registry()).iter_errors(value), None)
    except Exception:  # the library fails on some schemas in many ways, none of which is the answer's fault
        return None
    return None if error is None else f"{error.json_path}: {error.message}"[:500]


class _Check:
    """The state of one check."""

    def __init__(self) -> None:
        self._references = 0
        self._skips = 0

    def validator(self) -> Any:
        import attrs
        import jsonschema

        known: dict[str, Keyword] = jsonschema.Draft202012Validator.VALIDATORS
        changed = {
            **{each: self._skip for each in _SKIPPED},
            **{each: partial(self._doubt, known[each]) for each in _DOUBTED},
            **{each: partial(self._follow, known[each]) for each in ("$ref", "$dynamicRef")},
            "additionalProperties": partial(self._additional, known["additionalProperties"]),
        }
        extend: Any = jsonschema.validators.extend
        validator = extend(jsonschema.Draft202012Validator, changed)
        validator.evolve = attrs.evolve  # for subschemas; the library's own obeys their `$schema`
        return validator

    def _skip(self, *_: Any) -> Iterator[Any]:
        self._skips += 1
        return iter(())

    def _doubt(self, keyword: Keyword, *rest: Any) -> Iterator[Any]:
        before = self._skips
        errors = list(keyword(*rest) or ())
        return iter(errors if self._skips == before else ())

    def _follow(self, keyword: Keyword, *rest: Any) -> Iterator[Any]:
        self._references += 1
        if self._references > MAX_REFERENCES:
            raise _TooMuch
        yield from keyword(*rest) or ()

    def _additional(self, keyword: Keyword, validator: Any, extra: Any, instance: Any, schema: Any) -> Iterator[Any]:
        """Which properties are additional depends on the patterns beside it."""
        if "patternProperties" in schema:
            return self._skip()
        return keyword(validator, extra, instance, schema) or iter(())
