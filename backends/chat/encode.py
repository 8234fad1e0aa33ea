"""A `Request` as the body of one POST to `/chat/completions`.

Only what the server accepts is sent; notes say what is left out. Usage is always asked for. Constraints that the server
cannot enforce have been rewritten by `translators.constraints.forced` before; here only the form of what it can enforce
is chosen.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any, assert_never

import orjson

from dragoman.backends.chat.settings import KNOWN_PARAMETERS, Settings, Wire
from dragoman.backends.efforts import nearest_effort
from dragoman.backends.markup.ebnf import literal
from dragoman.backends.prompts.messages import has_unseen_images, has_unsent_reasoning, render
from dragoman.backends.prompts.rendering import Rendering
from dragoman.backends.prompts.tools import described, shown_tools
from dragoman.translators.constraints.guided import regex_of, unenforceable
from dragoman.translators.ir import Guided, JsonObject, JsonSchema, Named, Note, Request, Sampling, Text, Thinking, Tool
from dragoman.translators.soft_words import EFFORTS
from dragoman.translators.thinking import SWITCHES

Json = dict[str, Any]

SAMPLING = tuple(Sampling.__slots__)
CONTINUATION: Json = {"continue_final_message": True, "add_generation_prompt": False}
PROGRESS = "return_progress"
GO_ON = "Go on."
CONSTRAINTS = frozenset(  # an answer without them would be a wrong answer
    {
        "response_format", "structured_outputs", "guided_choice", "guided_regex", "guided_grammar", "regex", "ebnf",
        "grammar",
    }
)  # fmt: skip


def encode(
    request: Request, settings: Settings, refused: Collection[str] = (), *, whole: bool = False
) -> tuple[Json, tuple[Note, ...]]:
    """The body, and what is left out of it; `refused` are body fields that this server has refused by name. `whole`:
    the answer is asked for in one piece."""
    messages = render(request.messages, settings)
    last = messages[-1]["role"] if messages else ""
    unasked = settings.last_assistant == "continued" and last == "assistant"
    begun = unasked and request.prefill and _may_go_on(request)
    if unasked and not begun:
        messages.append({"role": "user", "content": GO_ON})
    thinking, request = request.thinking.effort, _without_thought(request, settings) if begun else request
    fields, notes = optional_fields(request, settings, refused)
    body: Json = {"model": request.model, "messages": messages, **fields, "stream": not whole}
    if not whole:
        body |= _stream_fields(request, settings, refused)
    if goes_on := _continuation(request, settings, refused):
        body |= goes_on
    elif request.prefill and not begun:
        notes += (Note("item", "prefill"),)
    if begun and thinking not in (None, "none"):
        notes += (Note("field", "reasoning_effort"),)
    return body, notes


def final(body: Json, settings: Settings, model: str | None) -> bytes:
    """The bytes of a body that `encode` made: `model` is the name sent upstream, where that is fixed."""
    return dumps(_with_extra(body if model is None else body | {"model": model}, settings))


def optional_fields(
    request: Request, settings: Settings, refused: Collection[str] = ()
) -> tuple[Json, tuple[Note, ...]]:
    """The part of the body that some servers do not accept, and what had to be left out. No message is rendered."""
    fields: Json = {}
    notes: list[Note] = []
    for name, value in _wanted(request, settings):
        sent = settings.parameter_names.get(name, name)
        if (name in settings.parameters or name not in KNOWN_PARAMETERS) and sent not in refused:
            fields[sent] = value
        elif name != "parallel_tool_calls":  # the gateway's own stage keeps one call where the server does not
            notes.append(Note("field", name))
    if "logprobs" in fields and "top_logprobs" not in refused:
        fields["top_logprobs"] = request.logprobs
    elif "logprobs" in fields:
        notes.append(Note("field", "top_logprobs"))
    if request.thinking.budget is not None and settings.thinking_budget_field is None:
        notes.append(Note("field", "thinking_budget"))
    if request.thinking.effort is not None and (settings.thinking == "none" or request.thinking.effort not in EFFORTS):
        notes.append(Note("field", "reasoning_effort"))
    if _unsaid(request, settings):
        notes.append(Note("field", "chat_template_kwargs"))
    if request.tools and settings.tools == "forced_only" and request.tool_choice == "auto":
        notes.append(Note("tool", "auto:unsupported"))
    if has_unseen_images(request.messages, settings):
        notes.append(Note("item", "image"))
    if has_unsent_reasoning(request.messages, settings):
        notes.append(Note("item", "reasoning"))
    return fields, tuple(notes)


def _unsaid(request: Request, settings: Wire) -> bool:
    """Whether a variable for the template is lost: the server takes none, and the effort does not say the same."""
    if settings.chat_template_kwargs:
        return False
    off = request.thinking.effort == "none" and settings.thinking != "none"
    return any(not (off and name in SWITCHES and value is False) for name, value in request.template_kwargs.items())


def sent_fields(request: Request, settings: Settings, refused: Collection[str] = ()) -> set[str]:
    """The names of all fields that some servers do not accept."""
    fields, _ = optional_fields(request, settings, refused)
    streamed = _stream_fields(request, settings, refused)
    options = streamed.get("stream_options", {}).keys() - {"include_usage"}
    return {*fields, *options, *streamed, *_continuation(request, settings, refused)}


def _wanted(request: Request, settings: Settings) -> Iterator[tuple[str, Any]]:
    tools = sent_tools(request, settings)
    if tools:
        yield "tools", [described(tool, settings) for tool in tools]
        yield "tool_choice", _tool_choice(request, settings)
        yield "parallel_tool_calls", request.parallel_tool_calls
    if (limit := token_limit(request, settings)) is not None:
        yield settings.max_tokens_field, limit
    for name in SAMPLING:
        value = getattr(request.sampling, name)
        if value is not None:
            yield name, dict(value) if name == "logit_bias" else value
    if isinstance(request.format, Guided):
        yield _guided(request.format, settings)
    elif request.format is not None:
        yield "response_format", response_format(request.format, settings)
    if request.logprobs is not None:
        yield "logprobs", True
    yield from _thinking(request, settings)


def token_limit(request: Request, settings: Wire) -> int | None:
    """The most tokens that the answer is asked to have; None leaves it to the server."""
    return request.max_tokens if request.max_tokens is not None else settings.max_tokens_default


def sent_tools(request: Request, settings: Settings) -> tuple[Tool, ...]:
    tools, choice = shown_tools(request, settings), request.tool_choice
    if settings.tools == "forced_only" and choice in ("auto", "none"):
        return ()
    if isinstance(choice, Named) and settings.force_tool == "required":
        return tuple(tool for tool in tools if tool.name == choice.name)
    return tools


def _tool_choice(request: Request, settings: Wire) -> str | Json:
    choice = request.tool_choice
    if not isinstance(choice, Named):
        return choice
    if settings.force_tool == "required":
        return "required"
    return {"type": "function", "function": {"name": choice.name}}


def response_format(wanted: JsonObject | JsonSchema, settings: Wire) -> Json:
    if isinstance(wanted, JsonObject):
        return {"type": "json_object"}
    schema = dict(wanted.schema)
    if settings.schema_shape == "flat":
        return {"type": "json_schema", "schema": schema}
    named: Json = {"name": wanted.name, "schema": schema}
    if wanted.description is not None:
        named["description"] = wanted.description
    if wanted.strict is not None:
        named["strict"] = wanted.strict
    return {"type": "json_schema", "json_schema": named}


def _guided(wanted: Guided, settings: Wire) -> tuple[str, Any]:
    rule = list(wanted.rule) if isinstance(wanted.rule, tuple) else wanted.rule
    if wanted.kind == "tag":
        return _tagged(str(rule), settings)
    grammar = wanted.kind == "grammar"
    match settings.guided:
        case "structured_outputs":
            return "structured_outputs", {wanted.kind: rule}
        case "guided":
            return f"guided_{wanted.kind}", rule
        case "sglang":
            return ("ebnf", rule) if grammar else ("regex", regex_of(wanted))
        case "grammar" if wanted.kind != "regex":
            return "grammar", rule if grammar else f"root ::= {' | '.join(map(literal, rule))}"
        case "response_format" if grammar:
            return "response_format", {"type": "ebnf", "ebnf": rule}
        case "response_format":
            return "response_format", {"type": "regex", "regex": regex_of(wanted)}
        case "none" | "grammar":
            raise unenforceable(wanted)
        case _:
            assert_never(settings.guided)


def _tagged(rule: str, settings: Wire) -> tuple[str, Any]:
    if settings.structural_tags == "response_format":
        return "response_format", orjson.loads(rule)
    return "structured_outputs", {"structural_tag": rule}


def _thinking(request: Request, settings: Wire) -> Iterator[tuple[str, Any]]:
    effort, budget = request.thinking.effort, request.thinking.budget
    if settings.thinking == "reasoning_effort" and effort in EFFORTS and settings.efforts:
        yield "reasoning_effort", nearest_effort(effort, settings.efforts)
    kwargs: Json = {}
    if settings.thinking == "enable_thinking" and (effort in EFFORTS or budget is not None):
        kwargs["enable_thinking"] = effort != "none"
    if settings.chat_template_kwargs:
        kwargs |= request.template_kwargs
    if kwargs:
        yield "chat_template_kwargs", kwargs
    if budget is not None and settings.thinking_budget_field is not None:
        yield settings.thinking_budget_field, budget


def _stream_fields(request: Request, settings: Wire, refused: Collection[str]) -> Json:
    """What only a stream has. Continuous usage makes every chunk longer, so it is asked for only where a stage may end
    the stream early."""
    fields: Json = {}
    if settings.usage == "include_usage" and "stream_options" not in refused:
        fields["stream_options"] = options = {"include_usage": True}
        early = bool(request.tools) and not request.parallel_tool_calls
        if early and settings.continuous_usage and "continuous_usage_stats" not in refused:
            options["continuous_usage_stats"] = True
    if settings.prompt_progress and PROGRESS not in refused:
        fields[PROGRESS] = True
    return fields


def _continuation(request: Request, settings: Wire, refused: Collection[str]) -> Json:
    """What makes the server go on with the last message. It needs text to go on with, and nothing that the answer is
    forced to be: the server would begin that anew. vLLM refuses one field without the other."""
    if not (request.prefill and settings.continue_final_message) or not CONTINUATION.keys().isdisjoint(refused):
        return {}
    return dict(CONTINUATION) if _may_go_on(request) else {}


def _may_go_on(request: Request) -> bool:
    last = request.messages[-1]  # no longer the answer's beginning where an instruction was added
    said = last.role == "assistant" and any(isinstance(part, Text) and part.text.strip() for part in last.parts)
    return said and request.format is None and request.tool_choice in ("auto", "none")


def _without_thought(request: Request, settings: Wire) -> Request:
    """Of an answer that has begun, what comes before it has been thought."""
    if settings.thinking == "none":
        return request
    kwargs = {name: value for name, value in request.template_kwargs.items() if name not in SWITCHES}
    return replace(request, thinking=Thinking("none"), template_kwargs=kwargs)


def _with_extra(body: Json, settings: Rendering) -> Json:
    if not settings.extra_body:
        return body
    body = dict(body)
    for name, value in settings.extra_body.items():
        ours = body.get(name)
        body[name] = {**ours, **value} if isinstance(ours, dict) and isinstance(value, dict) else value
    return body


def dumps(body: Any) -> bytes:
    try:
        return orjson.dumps(body, default=dict)
    except TypeError:
        # a number beyond 64 bits or a lone surrogate in a client's text: valid JSON that orjson does not write
        return json.dumps(body, separators=(",", ":"), default=dict).encode()
