"""The fields of a request body, checked once by pydantic, and the words in which a wrong one is refused.

Strict about types (a bool is no integer), lenient about what it does not know: unknown fields are kept apart in
`model_extra`, so that the parser can report them. `messages`, `system`, `tools` and `tool_choice` are deep and often
large; they are read by hand in `content.py` and `tools.py`, which can name the exact place of a fault. Refusals have
this API's form, the path and pydantic's own sentence: `messages.0.content: Field required`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dragoman.translators.errors import GatewayError, Kind, invalid
from dragoman.translators.ir import Note, NoteKind
from dragoman.translators.protocol import Json
from dragoman.translators.soft_words import Effort

_INT32 = 2**31 - 1  # what engines store such numbers in
_UNPRINTABLE = re.compile(r"[^a-zA-Z0-9_.-]")


class _Lenient(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class ThinkingConfig(_Lenient):
    type: str
    # Anthropic asks for 1,024 at least; how little an open model may think is its own affair.
    budget_tokens: int | None = Field(None, ge=1, le=_INT32)
    display: str | None = None


class OutputFormat(_Lenient):
    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")
    name: str | None = None


class OutputConfig(_Lenient):
    effort: Effort | None = None
    format: OutputFormat | None = None


class Metadata(_Lenient):
    user_id: str | None = None


class CreateMessage(BaseModel):
    """The body of `POST /v1/messages` in both API versions, with the extensions that engines share. Sampling
    parameters, which 2026-10-21 removed, are taken in both: open models need them."""

    model_config = ConfigDict(strict=True, extra="allow")

    model: str = Field(min_length=1)
    messages: list[Any] = Field(min_length=1, max_length=100_000)
    max_tokens: int | None = Field(None, ge=0, le=_INT32)
    system: Any = None
    stop_sequences: list[Annotated[str, Field(min_length=1)]] | None = None
    stream: bool | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=-1, le=_INT32)
    thinking: ThinkingConfig | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    metadata: Metadata | None = None
    # Change nothing here, or are refused as soon as they hold anything: see `parse`.
    service_tier: Any = None
    speed: Any = None
    cache_control: Any = None
    betas: Any = None
    context_management: Any = None
    container: Any = None
    mcp_servers: Any = None
    thread: Any = None

    # Extensions of the engines, sent by clients through `extra_body`.
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1)


def validate(body: Json) -> CreateMessage:
    """The checked fields; raises INVALID for the first fault in the order of the fields above."""
    try:
        return CreateMessage.model_validate(body)
    except ValidationError as fault:
        first = fault.errors(include_url=False)[0]
        path = ".".join(str(step) for step in first["loc"])
        raise refused(path, first["msg"]) from None


# ----------------------------------------------------------------------------------------------------- reading by hand


def expect_text(owner: Mapping[str, Any], key: str, path: str) -> str:
    """`owner[key]` as a string; `path` is that of `owner`."""
    value = owner.get(key)
    if isinstance(value, str):
        return value
    raise _wrong(owner, key, path, "string")


def expect_object(owner: Mapping[str, Any], key: str, path: str) -> Json:
    value = owner.get(key)
    if isinstance(value, dict):
        return value
    raise _wrong(owner, key, path, "dictionary")


def optional_text(owner: Mapping[str, Any], key: str, path: str) -> str | None:
    return None if owner.get(key) is None else expect_text(owner, key, path)


def as_object(value: object, path: str) -> Json:
    if isinstance(value, dict):
        return value
    raise refused(path, "Input should be a valid dictionary")


def refused(path: str, message: str) -> GatewayError:
    return invalid(f"{path}: {message}", path)


def unsupported(path: str, message: str) -> GatewayError:
    """Right by the API, but not possible here."""
    return GatewayError(Kind.UNSUPPORTED, f"{path}: {message}", path, code="unsupported_value")


def wrong_tag(path: str, tag: object, allowed: str) -> GatewayError:
    """`path` is that of the object whose `type` is not one of those `allowed` here."""
    shown = f"'{tag[:64]}'" if isinstance(tag, str) else repr(tag)[:64]
    return invalid(f"{path}.type: Input tag {shown} does not match any of the expected tags: {allowed}", f"{path}.type")


def noted(kind: NoteKind, name: str) -> Note:
    """A note whose name the client chose: cut to what may stand in a header and in a metric."""
    return Note(kind, _UNPRINTABLE.sub("_", name[:64]))


def _wrong(owner: Mapping[str, Any], key: str, path: str, expected: str) -> GatewayError:
    message = f"Input should be a valid {expected}" if key in owner else "Field required"
    return refused(f"{path}.{key}", message)
