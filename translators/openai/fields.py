"""What the two OpenAI protocols have in common in a request body, and OpenAI's words for what is wrong with one.

Strict about types and ranges (a bool is no integer, a string no number), lenient about what is not known: unknown
fields are kept apart in `model_extra`, so that a parser can report them. What is deep and often large (conversation,
tools) is read by hand with the `expect_` functions, which is several times faster than a union of forty models and
can name the exact place of a fault. All refusals use OpenAI's codes and sentences, with `param` as a path:
`input[2].type`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from dragoman.translators import ir
from dragoman.translators.errors import GatewayError, Kind, invalid
from dragoman.translators.ir import Note, Sampling
from dragoman.translators.protocol import Context, Json

INT32 = 2**31 - 1  # what engines store such numbers in
_SESSION_HEADERS = ("thread-id", "session-id", "session_id")
_UNPRINTABLE = re.compile(r"[^a-zA-Z0-9_.-]")


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


class Lenient(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class CreateFields(BaseModel):
    """The fields that both bodies have, and the extensions that engines share."""

    model_config = ConfigDict(strict=True, extra="allow")

    model: str = Field(min_length=1)
    tools: Any = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    top_logprobs: int | None = Field(None, ge=0, le=20)
    stream: bool | None = None
    metadata: dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]] | None = Field(
        None, max_length=16
    )
    service_tier: str | None = None
    safety_identifier: str | None = None
    user: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    store: bool | None = None

    # Extensions of the engines, sent by clients through `extra_body`.
    top_k: int | None = Field(None, ge=-1, le=INT32)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0)
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1)
    stop: Annotated[
        list[Annotated[str, Field(min_length=1)]] | None, Field(max_length=16), BeforeValidator(_as_list)
    ] = None
    min_tokens: int | None = Field(None, ge=0, le=INT32)
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    include_stop_str_in_output: bool | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None


# ----------------------------------------------------------------------------------------------------------- translated


def sampling(fields: CreateFields) -> Sampling:
    return Sampling(
        temperature=fields.temperature,
        top_p=fields.top_p,
        top_k=fields.top_k if fields.top_k and fields.top_k > 0 else None,  # 0 and -1 switch it off; some engines crash
        min_p=fields.min_p,
        repetition_penalty=fields.repetition_penalty,
        presence_penalty=fields.presence_penalty,
        frequency_penalty=fields.frequency_penalty,
        seed=fields.seed,
        stop=tuple(fields.stop) if fields.stop else None,
        min_tokens=fields.min_tokens,
        ignore_eos=fields.ignore_eos,
        skip_special_tokens=fields.skip_special_tokens,
        include_stop_str_in_output=fields.include_stop_str_in_output,
        logit_bias=fields.logit_bias or None,
    )


def answer_format(asked: Json | None, path: str, nested: str = "") -> ir.Format | None:
    """The form that the answer must have. `nested` is the key below `asked` under which a schema lies, where it does
    not lie beside `type`."""
    if asked is None:
        return None
    match expect_text(asked, "type", path):
        case "text":
            return None
        case "json_object":
            return ir.JsonObject()
        case "json_schema":
            owner = expect_object(asked, nested, path) if nested else asked
            place = f"{path}.{nested}" if nested else path
            strict, description = bool_or_null(owner, "strict", place), text_or_null(owner, "description", place)
            name = expect_text(owner, "name", place)
            return ir.JsonSchema(name, expect_object(owner, "schema", place), strict, description)
        case other:
            raise wrong_value(f"{path}.type", other, "'json_object', 'json_schema' and 'text'")


def affinity(fields: CreateFields, context: Context) -> str | None:
    """What names the session, for routing it to the server that knows its prefix."""
    if parent := context.headers.get("x-codex-parent-thread-id"):
        return parent  # a sub-agent shares the beginning of its parent's prompt
    if fields.prompt_cache_key:
        return fields.prompt_cache_key
    return next((value for name in _SESSION_HEADERS if (value := context.headers.get(name))), None)


# ----------------------------------------------------------------------------------------------------- reading by hand


def expect_text(owner: Mapping[str, Any], key: str, path: str) -> str:
    """`owner[key]` as a string; `path` is that of `owner`."""
    value = owner.get(key)
    if isinstance(value, str):
        return value
    if key not in owner:
        raise missing(f"{path}.{key}")
    raise wrong_type(f"{path}.{key}", "a string", value)


def expect_list(owner: Mapping[str, Any], key: str, path: str) -> list[Any]:
    value = owner.get(key)
    if isinstance(value, list):
        return value
    if key not in owner:
        raise missing(f"{path}.{key}")
    raise wrong_type(f"{path}.{key}", "an array", value)


def expect_object(owner: Mapping[str, Any], key: str, path: str) -> Json:
    value = owner.get(key)
    if isinstance(value, dict):
        return value
    if key not in owner:
        raise missing(f"{path}.{key}")
    raise wrong_type(f"{path}.{key}", "an object", value)


def text_or_null(owner: Mapping[str, Any], key: str, path: str) -> str | None:
    return None if owner.get(key) is None else expect_text(owner, key, path)


def object_or_null(owner: Mapping[str, Any], key: str, path: str) -> Json | None:
    value = owner.get(key)
    if value is None or isinstance(value, dict):
        return value
    raise wrong_type(f"{path}.{key}", "an object", value)


def bool_or_null(owner: Mapping[str, Any], key: str, path: str) -> bool | None:
    value = owner.get(key)
    if value is None or isinstance(value, bool):
        return value
    raise wrong_type(f"{path}.{key}", "a boolean", value)


def name_of(owner: Mapping[str, Any], path: str) -> str:
    """A name that is there and not empty."""
    name = expect_text(owner, "name", path)
    if not name:
        raise invalid(f"Invalid '{path}.name': empty string.", f"{path}.name", "empty_string")
    return name


def missing(path: str) -> GatewayError:
    return invalid(f"Missing required parameter: '{path}'.", path, "missing_required_parameter")


def wrong_type(path: str, expected: str, value: object) -> GatewayError:
    """`expected` with its article: "a string"."""
    return invalid(
        f"Invalid type for '{path}': expected {expected}, but got {_named(value)} instead.", path, "invalid_type"
    )


def wrong_value(path: str, value: object, allowed: str = "") -> GatewayError:
    hint = f" Supported values are: {allowed}." if allowed else ""
    return invalid(f"Invalid value: {_quoted(value)}.{hint}", path, "invalid_value")


def unsupported(path: str, message: str, code: str = "unsupported_value") -> GatewayError:
    """Right by the API, but not possible here."""
    return GatewayError(Kind.UNSUPPORTED, message, path, code=code)


def noted(kind: Literal["tool", "field"], name: str) -> Note:
    """A note whose name the client chose: cut to what may stand in a header and in a metric."""
    return Note(kind, _UNPRINTABLE.sub("_", name[:64]))


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


def _quoted(value: object) -> str:
    return f"'{value[:64]}'" if isinstance(value, str) else repr(value)[:64]


# ----------------------------------------------------------------------------------------------------- pydantic's words

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


def refusal(fault: ValidationError, prefix: str = "") -> GatewayError:
    """The first of pydantic's errors as OpenAI would say it."""
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
