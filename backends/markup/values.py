"""The JSON of a value that a model wrote as bare text between tags.

What a value may be follows from the parameter's schema, through `$ref`, `allOf`, `anyOf`, `oneOf` and lists of types;
words of other languages for types (`float`, `dict`) are understood. Objects and lists that are almost JSON are mended.
A declared string is never read as JSON, nor is a parameter that the tool does not declare. Nothing but the type is
checked.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Mapping
from typing import Any

from dragoman.backends.markup.model_json import ModelJson
from dragoman.translators.json_text import joined_halves, without_lone_surrogates
from dragoman.translators.steps import at_once

Types = frozenset[str] | None  # None: nothing is said about it

LITERAL_LIMIT = 10_000  # characters of a value that are tried as a Python literal
VALUE_LIMIT = 1_048_576  # characters of a value that are looked through for objects and lists in another notation
WORD_LIMIT = 64  # characters of a number
REFERENCE_LIMIT = 16  # steps of one `$ref` to the next

STRING: Types = frozenset({"string"})
_WORDS = {
    "str": "string",
    "text": "string",
    "float": "number",
    "double": "number",
    "int": "integer",
    "long": "integer",
    "bool": "boolean",
    "dict": "object",
    "map": "object",
    "list": "array",
    "tuple": "array",
}
_SIZED = {"integer": ("int", "uint", "long", "short"), "number": ("num", "float", "double")}  # int64, float32
_NUMBERS = frozenset({"integer", "number"})
_KNOWN = frozenset({"string", "number", "integer", "boolean", "object", "array", "null"})


def types_of(schema: object, root: Mapping[str, Any] | None = None, depth: int = 0) -> Types:
    """The JSON types that a property's schema allows. `root` is the schema that `$ref` points into."""
    if not isinstance(schema, Mapping) or depth > REFERENCE_LIMIT:
        return None
    declared = schema.get("type")
    if isinstance(declared, str | list):
        return _words([declared] if isinstance(declared, str) else declared)
    if isinstance(reference := schema.get("$ref"), str):
        return types_of(resolved(reference, root), root, depth + 1)
    found: set[str] = set()
    for word in ("anyOf", "oneOf", "allOf"):
        for branch in _branches(schema, word):
            found |= types_of(branch, root, depth + 1) or set()
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if not found and isinstance(values, list):
        found = {_type_of(value) for value in values}
    return frozenset(found) or None


def _words(declared: list[Any]) -> Types:
    words = {_WORDS.get(word, word) for word in map(str, declared)}
    words |= {kind for word in words - _KNOWN for kind, begins in _SIZED.items() if word.startswith(begins)}
    return frozenset(words & _KNOWN) or (STRING if words else None)


def _branches(schema: Mapping[str, Any], word: str) -> list[Any]:
    branches = schema.get(word)
    return branches if isinstance(branches, list) else []


def resolved(reference: str, root: Mapping[str, Any] | None) -> object:
    """What `#/$defs/Name` points at, within the same schema."""
    at: object = root
    if not reference.startswith("#"):
        return None
    for step in reference.lstrip("#/").split("/") if reference != "#" else ():
        at = at.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(at, Mapping) else None
    return at


def types_of_parameter(tool: Mapping[str, Any] | None, key: str) -> Types:
    """The types of an argument, in whichever branch of the tool's schema; a string where the tool is known and does not
    declare it."""
    if tool is None:
        return None
    others = types_of(tool.get("additionalProperties"), tool)
    if not (declared := _declared(tool)):
        return others
    if found := [types_of(properties[key], tool) for properties in declared if key in properties]:
        return None if None in found else frozenset().union(*filter(None, found))
    return others or STRING


def _declared(tool: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """All `properties` of a tool, also of what its schema refers to and combines."""
    found: list[Mapping[str, Any]] = []
    seen: set[int] = set()
    open_schemas: list[object] = [tool]
    while open_schemas:
        schema = open_schemas.pop()
        if not isinstance(schema, Mapping) or id(schema) in seen:
            continue
        seen.add(id(schema))
        if isinstance(properties := schema.get("properties"), Mapping):
            found.append(properties)
        if isinstance(reference := schema.get("$ref"), str):
            open_schemas.append(resolved(reference, tool))
        for word in ("anyOf", "oneOf", "allOf"):
            open_schemas += _branches(schema, word)
    return found


# -------------------------------------------------------------------------------------------------------------- values

_NUMBER = re.compile(r"-?\d*\.?\d*(?:[eE][+-]?\d*)?")
_BARE_NUMBER = re.compile(r"[+-]?(?:\d{1,18}\.\d{0,18}|\.\d{1,18}|\d{1,18})")  # as 5., .5 and +1 are
# of JSON's numbers and words, as far as they came
_BITS = {"1": "true", "0": "false"}
_BEGUN_SCALAR = re.compile(
    r"-?(?:0|[1-9]\d*)(?:\.(?:\d+(?:[eE][+-]?\d*)?)?|[eE][+-]?\d*)?|-\Z"
    r"|(?:t(?:r(?:ue?)?)?|f(?:a(?:l(?:se?)?)?)?|n(?:u(?:ll?)?)?)(?!\w)"
)


def may_be_other(text: str, types: Types) -> bool:
    """Whether a value that may be a string can still turn out to be exactly another type's JSON. `text` is its
    beginning: more than `WORD_LIMIT` characters need not be looked at."""
    others = (types or frozenset()) - {"string"}
    begun = text.strip()
    if not others or not begun:
        return bool(others)
    if begun[0] in "{[":
        return ("object" if begun[0] == "{" else "array") in others
    words = {"null": ("null",), "boolean": ("true", "false")}
    if any(word.startswith(begun) for kind in others for word in words.get(kind, ())):
        return True
    number = _NUMBER.fullmatch(begun) is not None and len(text) <= WORD_LIMIT
    return number and bool(others & {"integer", "number"})


def as_json(text: str, types: Types) -> str:
    """JSON of a value: its own, a Python literal's, else a string's. Where a string is allowed, only exact JSON of
    another allowed type is something else."""
    stripped = text.strip()
    if types is not None and "string" in types:
        value, found = _from_json(stripped)
        other = found and not isinstance(value, str) and _fits(value, types)
        return in_pairs(stripped) if other else json.dumps(text, ensure_ascii=False)
    if not stripped and (empty := _empty(types)):
        return empty
    for read in (_from_json, _from_python):
        value, found = read(stripped)
        if isinstance(value, str) and read is _from_json:  # JSON within a string
            stripped = value.strip()
            value, found = read(stripped)
        if found and _fits(value, types):
            if isinstance(value, float) and value.is_integer() and types is not None and "number" not in types:
                return str(int(value))
            return in_pairs(stripped) if read is _from_json else joined_halves(json.dumps(value, ensure_ascii=False))
        if found and value is None:  # no other word says so
            return "null"
    if types == frozenset({"boolean"}) and stripped in _BITS:
        return _BITS[stripped]
    if types is not None and types & {"integer", "number"} and _BARE_NUMBER.fullmatch(stripped):
        return json.dumps(float(stripped) if "." in stripped else int(stripped))
    if types is not None and stripped[:1] in ("{", "[") and '\\"' in stripped:  # quotes are escaped
        value, found = _from_json(f'"{stripped}"')
        if found and _fits(_from_json(value)[0], types):
            return in_pairs(value)
    mended = _mended(stripped) if types is not None and types & {"object", "array"} else None
    return json.dumps(text, ensure_ascii=False) if mended is None else mended


def _empty(types: Types) -> str:
    """What no text at all stands for, where that may be no string."""
    words = {"array": "[]", "object": "{}", "null": "null"}
    return next((words[kind] for kind in words if types is not None and kind in types), "")


def given_as_json(text: str) -> str:
    """A value whose tag says that it is JSON, or text where it is none."""
    stripped = text.strip()
    return in_pairs(stripped) if _from_json(stripped)[1] else _mended(stripped) or as_json(text, None)


def begun_as_json(text: str, types: Types) -> str:
    """What the JSON of a value begins with whose answer was cut, as far as that is certain: a string stays open."""
    stripped = text.strip()
    if stripped[:1] in ("{", "[") and (types is None or types & {"object", "array"}):
        return ModelJson().read(stripped[:VALUE_LIMIT], 0, final=False)[1]
    if types is None or "string" in types:
        return json.dumps(text, ensure_ascii=False)[:-1] if stripped else ""
    begun = _BEGUN_SCALAR.match(stripped)
    return begun[0] if begun else ""


def broken_off(written: str) -> str:
    """JSON that does not end, of a value whose answer was cut."""
    return written.rstrip('"]}')


def in_pairs(text: str) -> str:
    """JSON without halves of surrogate pairs that stand alone, which few parsers take."""
    return at_once(without_lone_surrogates(text.encode())).decode() if "\\u" in text else text


def _mended(text: str) -> str | None:
    """The JSON of an object or a list that is written almost as JSON, and whole."""
    if text[:1] not in ("{", "[") or len(text) > VALUE_LIMIT:
        return None
    found = ModelJson()
    end, written = found.read(text, 0, final=True)
    return written if found.complete and end == len(text) else None


def _from_json(text: str) -> tuple[Any, bool]:
    try:
        return json.loads(text, parse_constant=_refuse), True
    except (ValueError, RecursionError):
        return None, False


def _refuse(word: str) -> None:
    raise ValueError(word)


def _from_python(text: str) -> tuple[Any, bool]:
    """True, None and {'a': 1}, which models learn from templates that print values without tojson."""
    if len(text) > LITERAL_LIMIT:
        return None, False
    named = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in named:
        return named[text.lower()], True
    if text[:1] not in ("{", "["):
        return None, False
    try:
        with warnings.catch_warnings():  # about odd escapes in the model's strings
            warnings.simplefilter("ignore")
            value = ast.literal_eval(text)
        json.dumps(value, allow_nan=False)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None, False
    return value, True


def _type_of(value: Any) -> str:
    match value:
        case bool():
            return "boolean"
        case None:
            return "null"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


def _fits(value: Any, types: Types) -> bool:
    if types is None:
        return not isinstance(value, str)
    kind = _type_of(value)
    return kind in types or (kind in _NUMBERS and bool(types & _NUMBERS))
