"""What is wrong with a request, in OpenAI's codes and sentences, with a path as `param`: `input[2].type`."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from dragoman.translators.errors import GatewayError, Kind, invalid, quoted

_Model = TypeVar("_Model", bound=BaseModel)


def missing(path: str) -> GatewayError:
    return invalid(f"Missing required parameter: '{path}'.", path, "missing_required_parameter")


def empty(path: str) -> GatewayError:
    return invalid(f"Invalid '{path}': empty string.", path, "empty_string")


def wrong_type(path: str, expected: str, value: object) -> GatewayError:
    """`expected` with its article: "a string"."""
    return invalid(
        f"Invalid type for '{path}': expected {expected}, but got {_named(value)} instead.", path, "invalid_type"
    )


def wrong_value(path: str, value: object, allowed: str = "") -> GatewayError:
    hint = f" Supported values are: {allowed}." if allowed else ""
    return invalid(f"Invalid value: {quoted(value)}.{hint}", path, "invalid_value")


def unsupported(path: str, message: str, code: str = "unsupported_value") -> GatewayError:
    """The API allows it, but it is not possible here."""
    return GatewayError(Kind.UNSUPPORTED, message, path, code=code)


def _named(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"


# ------------------------------------------------------------------------------------------------ what pydantic refuses

_EXPECTED = {
    "string_type": "a string",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "bool_type": "a boolean",
    "list_type": "an array",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}
_BOUNDS = {
    "greater_than_equal": ("below_min", "ge", "above or equal to"),
    "greater_than": ("below_min", "gt", "above"),
    "less_than_equal": ("above_max", "le", "below or equal to"),
}
_LENGTHS = {
    "string_too_short": ("string_below_min_length", "is too short: at least {min_length} characters are needed"),
    "string_too_long": ("string_above_max_length", "is too long: at most {max_length} characters are allowed"),
    "too_long": ("array_above_max_length", "has too many entries: at most {max_length} are allowed"),
}


def validated(model: type[_Model], value: object, path: str = "") -> _Model:
    """`value` as a model; raises INVALID for the first fault in the order of the model's fields."""
    try:
        return model.model_validate(value)
    except ValidationError as fault:
        raise _refusal(fault, path) from None


def _refusal(fault: ValidationError, prefix: str) -> GatewayError:
    """The first of pydantic's errors in OpenAI's words."""
    first = fault.errors(include_url=False)[0]
    kind, value, limits = first["type"], first["input"], first.get("ctx", {})
    path = _path(first["loc"], prefix)
    if kind == "missing":
        return missing(path)
    if kind in _EXPECTED:
        return wrong_type(path, _EXPECTED[kind], value)
    if kind == "literal_error":
        return wrong_value(path, value, str(limits["expected"]).replace(" or ", " and "))
    if kind in _BOUNDS:
        word, key, relation = _BOUNDS[kind]
        name = "integer" if isinstance(value, int) and isinstance(limits[key], int) else "decimal"
        said = word.replace("_", " ")
        expected = f"Expected a value {relation} {limits[key]}, but got {value!r} instead."
        return invalid(f"Invalid '{path}': {name} {said} value. {expected}", path, f"{name}_{word}_value")
    if kind in _LENGTHS:
        code, words = _LENGTHS[kind]
        return invalid(f"Invalid '{path}': the value {words.format(**limits)}.", path, code)
    return invalid(f"Invalid '{path}': {first['msg']}.", path)


def _path(location: tuple[int | str, ...], prefix: str) -> str:
    path = prefix
    if location and location[-1] == "[key]":  # pydantic's mark that the key is at fault: name the mapping
        location = location[:-2]
    for step in location:
        if isinstance(step, int):
            path += f"[{step}]"
        else:
            path += f".{step}" if path else step
    return path
