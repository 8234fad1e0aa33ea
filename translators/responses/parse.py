"""The body of `POST /v1/responses` → a `Turn`: what to ask the server, how to answer, and what was left out on the way.

Each field is translated, refused with its path, or noted. What the response object repeats of the request (`echo`) is
also built here, in a form that both OpenAI's types and the Open Responses schema accept, wherever there is one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dragoman.translators.errors import invalid
from dragoman.translators.fields import Unread, few, noted, unusual
from dragoman.translators.guided import constrained
from dragoman.translators.history import repair
from dragoman.translators.ir import Message, Note, Request, Text, ToolChoice
from dragoman.translators.openai import fields as shared
from dragoman.translators.openai.fields import affinity, answer_format, sampling
from dragoman.translators.openai.refusals import missing, unsupported, validated
from dragoman.translators.openai.tool_choice import DROPPED
from dragoman.translators.protocol import Context, Json, Turn
from dragoman.translators.responses import schema, tool_choice, tools
from dragoman.translators.responses.items import Items
from dragoman.translators.responses.options import ResponsesStreamOptions
from dragoman.translators.responses.schema import CreateResponse, TextConfig
from dragoman.translators.responses.state import not_found
from dragoman.translators.responses.stream import ResponsesStream
from dragoman.translators.responses.tools import ResponsesCatalogue
from dragoman.translators.seen import array_of, kept_of, reading

_LOGPROBS = "message.output_text.logprobs"
_ENCRYPTED = "reasoning.encrypted_content"
_MAX_TOOL_CALLS = Note("field", "max_tool_calls")
_NO_TEXT, _NO_REASONING = TextConfig(), CreateResponse.Reasoning()
_NOT_HERE = ("prompt", "moderation", "multi_agent")
_NOTED = ("user", "safety_identifier", "max_tool_calls", "access_programs", "image", "context_management")
_ORDINARY = {"truncation": ("disabled", "auto"), "service_tier": ("auto", "default")}


def parse(body: Json, context: Context) -> Turn:
    """Raises `GatewayError` with the path of the first fault."""
    fields = validated(CreateResponse, body)
    _refuse(fields, context)
    notes, unread = _ignored(fields), _unread(fields, context)
    catalogue = ResponsesCatalogue(context.policy, notes, unread)
    if (declared := array_of(body, "tools", fields.tools)) is not None:
        catalogue.declare_first(declared, "tools")
    items = Items(catalogue, context, notes, unread, reading(declared, ("responses", context.policy)))
    _read_input(fields, items)
    messages, repairs = repair(items.messages, strict=context.policy.strict_history, kept=kept_of(fields.input))
    if not messages:
        raise invalid("Invalid 'input': the conversation has no messages.", "input", "empty_array")
    notes.extend(repairs)
    choice, allowed = tool_choice.choose(fields.tool_choice, catalogue, notes, unread)
    if DROPPED in notes and allowed is None:
        fields.tool_choice = None  # the answer repeats what was done, not what was asked
    text = schema.known_text(schema.overridden(fields.text or _NO_TEXT, items.text), notes)
    thinking = schema.known_reasoning(schema.overridden(fields.reasoning or _NO_REASONING, items.reasoning), notes)
    asked, kwargs = shared.thinking(fields, thinking.effort, None, unread)
    request = Request(
        id=context.id,
        model=fields.model,
        messages=messages,
        tools=catalogue.offered(allowed),
        tool_choice=choice,
        parallel_tool_calls=fields.parallel_tool_calls is not False,
        max_tokens=fields.max_output_tokens,
        sampling=sampling(fields),
        format=constrained(fields, answer_format(text.format, items.format_path, unread), unread),
        thinking=asked,
        template_kwargs=kwargs,
        logprobs=_logprobs(fields),
        affinity=affinity(fields, context),
        truncates=_truncates(fields),
        whole=fields.stream is not True,
    )
    request = _shortest(request) if _prewarms(fields) else _searching(request, catalogue, fields.max_tool_calls, notes)
    echo = _echo(fields, tools.echo(declared or []), text, thinking, context.stored)
    stream = ResponsesStream(context, echo, catalogue, _options(fields, context, thinking, echo, request))
    return Turn(request, fields.stream is True, stream, few([*notes, *unread.notes()]))


def _searching(request: Request, catalogue: ResponsesCatalogue, most: int | None, notes: list[Note]) -> Request:
    """With the web search that the gateway runs, where it is offered. The calls that `max_tool_calls` limits are those
    of such tools."""
    search = catalogue.search
    if search is None or all(tool.name != search.tool for tool in request.tools):
        return request
    if _MAX_TOOL_CALLS in notes:
        notes.remove(_MAX_TOOL_CALLS)
    return replace(request, search=replace(search, most=most))


def _read_input(fields: CreateResponse, items: Items) -> None:
    if fields.input is None:
        raise missing("input")
    if fields.instructions:
        items.messages.append(Message("system", (Text(fields.instructions),)))
    items.read(fields.input)


# -------------------------------------------------------------------------------------------------- refused and ignored


def _refuse(fields: CreateResponse, context: Context) -> None:
    """Refuses what the API has and this gateway does not."""
    if fields.background:
        raise unsupported("background", "Background mode is not supported by this gateway.", "unsupported_parameter")
    if fields.previous_response_id and not context.continues:
        raise not_found(fields.previous_response_id)
    if fields.conversation not in (None, "", {}):
        message = "Conversation objects are not kept by this gateway; continue an answer with 'previous_response_id'."
        raise unsupported("conversation", message, "unsupported_parameter")
    for name in _NOT_HERE:
        if getattr(fields, name) not in (None, "", [], {}):
            message = f"The parameter '{name}' is not supported by this gateway."
            if name == "conversation":
                message += " Send `store: false`, and the whole conversation in 'input'."
            raise unsupported(name, message, "unsupported_parameter")


def _ignored(fields: CreateResponse) -> list[Note]:
    """Fields that are accepted and change nothing, although the client may have meant them to."""
    names = [name for name in _NOTED if getattr(fields, name) is not None]
    names.extend(unusual(fields, _ORDINARY))
    if fields.text and fields.text.verbosity:
        names.append("text.verbosity")
    if fields.reasoning and fields.reasoning.mode not in (None, "standard"):
        names.append("reasoning.mode")
    return [noted("field", name) for name in names]


def _unread(fields: CreateResponse, context: Context) -> Unread:
    """What the schema does not have."""
    unread = Unread(context.policy.max_items)
    unread.of_model(fields)
    unread.add("include", dict.fromkeys(fields.include or (), True), inert=schema.INCLUDES)
    return unread


# ----------------------------------------------------------------------------------------------------------- translated


def _options(
    fields: CreateResponse, context: Context, thinking: CreateResponse.Reasoning, echo: Json, request: Request
) -> ResponsesStreamOptions:
    summarized = thinking.summary or thinking.generate_summary  # who asks for a summary shows nothing else
    return ResponsesStreamOptions(
        obfuscation=bool(fields.stream_options and fields.stream_options.include_obfuscation),
        reasoning_events="summary" if summarized else context.policy.reasoning_events,
        logprobs=_logprobs(fields) is not None,
        prewarm=_prewarms(fields),
        encrypted_reasoning=_ENCRYPTED in (fields.include or ()),
        refusals_as_text=_is_codex(context.headers),  # it drops refusal parts silently
        json=echo["text"]["format"]["type"] != "text",
        calls=bool(request.tools) and request.tool_choice != "none",
    )


def _is_codex(headers: Mapping[str, str]) -> bool:
    """Its originator is the name of what runs it: `codex_exec`, `Codex Desktop`, an editor of another vendor."""
    return "x-codex-turn-metadata" in headers or headers.get("originator", "").casefold().startswith("codex")


def _truncates(fields: CreateResponse) -> bool:
    return fields.truncation == "auto"


def _prewarms(fields: CreateResponse) -> bool:
    return bool(fields.prompt_cache_options and fields.prompt_cache_options.prewarm)


def _shortest(request: Request) -> Request:
    """The same prompt, and as little of an answer as a server can be asked for; nothing forces one."""
    choice: ToolChoice = "none" if request.tool_choice == "none" else "auto"
    return replace(request, max_tokens=1, format=None, tool_choice=choice, logprobs=None)


def _logprobs(fields: CreateResponse) -> int | None:
    """How many alternatives to ask for: 0 for the chosen tokens alone, None for no log probabilities."""
    if fields.top_logprobs or _LOGPROBS in (fields.include or ()):
        return fields.top_logprobs or 0
    return None


# ----------------------------------------------------------------------------------------------------------------- echo


def _echo(
    fields: CreateResponse, shown: list[Any], text: TextConfig, thinking: CreateResponse.Reasoning, stored: bool
) -> Json:
    """The part of the response object that the request decides. Values that strict readers refuse as null have their
    defaults. `store` and `background` are what is done, not what was asked. `shown` are the tools."""
    out: dict[str, Any] = {
        "background": False,
        "frequency_penalty": _or(fields.frequency_penalty, 0),
        "instructions": fields.instructions,
        "max_output_tokens": fields.max_output_tokens,
        "max_tool_calls": fields.max_tool_calls,
        "metadata": fields.metadata or {},
        "model": fields.model,
        "parallel_tool_calls": fields.parallel_tool_calls is not False,
        "presence_penalty": _or(fields.presence_penalty, 0),
        "previous_response_id": fields.previous_response_id or None,
        "prompt_cache_key": fields.prompt_cache_key,
        "reasoning": {"effort": None, "summary": None, **schema.said(thinking)},
        "safety_identifier": fields.safety_identifier,
        "service_tier": "default",
        "store": stored,
        "temperature": _or(fields.temperature, 1.0),
        "text": _text_echo(text),
        "tool_choice": tool_choice.echo(fields.tool_choice),
        "tools": shown,
        "top_logprobs": fields.top_logprobs or 0,
        "top_p": _or(fields.top_p, 1.0),
        "truncation": "auto" if _truncates(fields) else "disabled",
    }
    for name in ("user", "prompt_cache_retention"):
        if (value := getattr(fields, name)) is not None:
            out[name] = value
    return out


def _text_echo(text: TextConfig) -> Json:
    asked = text.format or {}
    shown: Json = {"type": asked.get("type", "text")}
    if shown["type"] == "json_schema":
        for key in ("name", "description", "schema"):
            shown[key] = asked.get(key)
        shown["strict"] = bool(asked.get("strict"))
    out: Json = {"format": shown}
    if text.verbosity is not None:  # null is refused by the Open Responses schema
        out["verbosity"] = text.verbosity
    return out


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
