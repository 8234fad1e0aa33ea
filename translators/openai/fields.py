"""The fields that the bodies of both OpenAI protocols have, and what those become in a request."""

from __future__ import annotations

from typing import Annotated, Any, TypeGuard

from pydantic import BeforeValidator, Field

from dragoman.translators import fields as every_protocol
from dragoman.translators import ir
from dragoman.translators.fields import INT32, Given, Lenient, RequestFields, Unread, Whole
from dragoman.translators.openai.reading import (
    bool_or_null,
    expect_object,
    expect_text,
    given_object,
    object_or_null,
    text_or_null,
)
from dragoman.translators.openai.refusals import wrong_value
from dragoman.translators.protocol import Context, Json
from dragoman.translators.thinking import switch_of, switched

_SESSION_HEADERS = ("thread-id", "session-id", "session_id")


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


class CacheOptions(Lenient):
    """Servers cache prefixes on their own."""

    prewarm: bool | None = None
    mode: Any = None
    ttl: Any = None
    comparison_response_id: Any = None


class CreateFields(RequestFields):
    """The fields that both bodies have, and the extensions that engines share."""

    tools: Any = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    top_logprobs: Whole | None = Field(None, ge=0, le=20)
    stream: bool | None = None
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

    # Extensions of the engines, sent by clients through `extra_body`.
    thinking: Any = None
    stop: Annotated[
        list[Annotated[str, Field(min_length=1)]] | None,
        Field(max_length=16),
        BeforeValidator(_as_list, json_schema_input_type=str | list[str] | None),
    ] = None
    min_tokens: Whole | None = Field(None, ge=0, le=INT32)
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    include_stop_str_in_output: bool | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None


def thinking(
    fields: CreateFields, effort: str | None, budget: int | None, unread: Unread, switch: bool | None = None
) -> tuple[ir.Thinking, Json]:
    """How much to think, with what `thinking`, the other switches and a protocol's own `switch` say, and the variables
    for the chat template."""
    if (asked := fields.thinking) is not None:
        said = switch_of(asked)
        if said is None:
            unread.add("", {"thinking": asked})
        elif isinstance(asked, dict):
            given = unread.given(asked, "thinking")
            given.pass_over("type")
            if budget is None and said and _is_budget(tokens := asked.get("budget_tokens")):
                given.pass_over("budget_tokens")
                budget = tokens
            given.close()
        switch = said if switch is None else switch
    return switched(fields, ir.Thinking(effort, budget), unread, switch)


def _is_budget(tokens: object) -> TypeGuard[int]:
    return type(tokens) is int and 0 < tokens <= INT32


def sampling(fields: CreateFields) -> ir.Sampling:
    return every_protocol.sampling(
        fields,
        fields.stop,
        min_tokens=fields.min_tokens,
        ignore_eos=fields.ignore_eos,
        skip_special_tokens=fields.skip_special_tokens,
        include_stop_str_in_output=fields.include_stop_str_in_output,
        logit_bias=fields.logit_bias or None,
    )


def answer_format(asked: Json | None, path: str, unread: Unread, nested: str = "") -> ir.Format | None:
    """The format that the answer must have. `nested` is the key of `asked` that holds the schema's fields, where they
    are not beside `type`."""
    if asked is None:
        return None
    given = unread.given(asked, path)
    wanted = _format(given, path, nested)
    given.close()
    return wanted


def _format(asked: Given, path: str, nested: str) -> ir.Format | None:
    match expect_text(asked, "type", path):
        case "text":
            return None
        case "json_object":
            schema = object_or_null(asked, "schema", path)  # llama.cpp's and Together's form of json_schema
            return ir.JsonObject() if schema is None else ir.JsonSchema("output", schema)
        case "json_schema" if nested and nested not in asked and "schema" in asked:
            return _schema(asked, path, text_or_null(asked, "name", path) or "output")
        case "json_schema" if nested:
            owner, place = given_object(asked, nested, path), f"{path}.{nested}"
            wanted = _schema(owner, place, text_or_null(owner, "name", place) or "output")  # llama.cpp asks for none
            owner.close()
            return wanted
        case "json_schema":
            return _schema(asked, path)
        case other:
            raise wrong_value(f"{path}.type", other, "'json_object', 'json_schema' and 'text'")


def _schema(owner: Given, path: str, name: str | None = None) -> ir.JsonSchema:
    strict, description = bool_or_null(owner, "strict", path), text_or_null(owner, "description", path)
    name = name or expect_text(owner, "name", path)
    return ir.JsonSchema(name, expect_object(owner, "schema", path), strict, description)


def affinity(fields: CreateFields, context: Context) -> str | None:
    """What identifies the session, for routing it to the server that has its prefix in the cache."""
    if parent := context.headers.get("x-codex-parent-thread-id"):
        return parent  # a sub-agent shares the beginning of its parent's prompt
    if fields.prompt_cache_key:
        return fields.prompt_cache_key
    return next((value for name in _SESSION_HEADERS if (value := context.headers.get(name))), None)
