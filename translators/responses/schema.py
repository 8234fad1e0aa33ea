"""The fields of a request body, checked once by pydantic, and the words in which a wrong one is refused.

Strict about types and ranges (a bool is no integer, a string no number), lenient about what it does not know: unknown
fields are kept apart in `model_extra`, so that the parser can report them. `input`, `tools` and `tool_choice` are
deep and often large; they are read by hand in `items.py` and `tools.py`, which is several times faster than a union
of forty models and can name the exact place of a fault. All refusals use OpenAI's codes and sentences, with `param`
as a path: `input[2].type`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from translators.errors import GatewayError, Kind, invalid
from translators.ir import Note
from translators.protocol import Json

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
INCLUDES = frozenset(
    {
        "code_interpreter_call.outputs",
        "computer_call_output.output.image_url",
        "file_search_call.results",
        "message.input_image.image_url",
        "message.output_text.logprobs",
        "reasoning.encrypted_content",
        "web_search_call.action.sources",
        "web_search_call.results",
    }
)
_UNPRINTABLE = re.compile(r"[^a-zA-Z0-9_.-]")
_INT32 = 2**31 - 1  # what engines store such numbers in


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


class _Lenient(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class Reasoning(_Lenient):
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None
    context: str | None = None
    mode: str | None = None


class TextConfig(_Lenient):
    format: dict[str, Any] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


_Settings = TypeVar("_Settings", Reasoning, TextConfig)


class StreamFields(_Lenient):
    include_obfuscation: bool | None = None


class CacheOptions(_Lenient):
    prewarm: bool | None = None


class CreateResponse(BaseModel):
    """The body of `POST /v1/responses` (responses API of 2026-11) with the extensions that engines share."""

    model_config = ConfigDict(strict=True, extra="allow")

    model: str = Field(min_length=1)
    input: Any = None
    instructions: str | None = None
    tools: Any = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    max_output_tokens: int | None = Field(None, ge=16, le=_INT32)
    max_tool_calls: int | None = Field(None, ge=1, le=_INT32)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    top_logprobs: int | None = Field(None, ge=0, le=20)
    stream: bool | None = None
    stream_options: StreamFields | None = None
    text: TextConfig | None = None
    reasoning: Reasoning | None = None
    include: list[str] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    metadata: dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]] | None = Field(
        None, max_length=16
    )
    service_tier: str | None = None
    safety_identifier: str | None = None
    user: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: CacheOptions | None = None
    store: bool | None = None
    background: bool | None = None
    previous_response_id: str | None = None
    # Refused as soon as they hold anything: see `parse`.
    conversation: Any = None
    prompt: Any = None
    context_management: Any = None
    moderation: Any = None
    multi_agent: Any = None
    # Accepted for their senders' sake.
    access_programs: Any = None
    image: Any = None
    client_metadata: Any = None

    # Extensions of the engines, sent by clients through `extra_body`.
    top_k: int | None = Field(None, ge=-1, le=_INT32)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0)
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1)
    stop: Annotated[
        list[Annotated[str, Field(min_length=1)]] | None, Field(max_length=16), BeforeValidator(_as_list)
    ] = None
    min_tokens: int | None = Field(None, ge=0, le=_INT32)
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    include_stop_str_in_output: bool | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None


def validate(body: Json) -> CreateResponse:
    """The checked fields; raises INVALID for the first fault in the order of the fields above."""
    try:
        return CreateResponse.model_validate(body)
    except ValidationError as fault:
        raise _refusal(fault) from None


def validate_part(model: type[Reasoning] | type[TextConfig], value: object, path: str) -> Reasoning | TextConfig:
    """The same for a part of the body that travels in an input item."""
    try:
        return model.model_validate(value)
    except ValidationError as fault:
        raise _refusal(fault, path) from None


def overridden(asked: _Settings, update: _Settings | None) -> _Settings:
    """What was asked for, except where a later `configuration_update` item said something else."""
    return asked if update is None else asked.model_copy(update=update.model_dump(exclude_none=True))


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


def _refusal(fault: ValidationError, prefix: str = "") -> GatewayError:
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
