"""The body of `POST /v1/chat/completions` → a `Turn`: what to ask the server, how to answer, and what was left out on
the way.

Each field is translated, refused with its path, or noted. Nothing passes through untouched because the server happens
to speak the same protocol: a request means the same on every backend.
"""

from __future__ import annotations

from typing import Any

from dragoman.translators import soft_words
from dragoman.translators.chat_completions.content import ChatConversation
from dragoman.translators.chat_completions.foreign_shapes import messages_of
from dragoman.translators.chat_completions.schema import CreateChatCompletion
from dragoman.translators.chat_completions.stream import ChatStream, ChatStreamOptions
from dragoman.translators.chat_completions.tools import ChatCatalogue
from dragoman.translators.errors import invalid
from dragoman.translators.fields import Unread, few, noted, unusual
from dragoman.translators.guided import constrained
from dragoman.translators.history import repair
from dragoman.translators.ir import Note, Request, Thinking
from dragoman.translators.openai.fields import affinity, answer_format, sampling, thinking
from dragoman.translators.openai.refusals import missing, unsupported, validated
from dragoman.translators.protocol import Context, Json, Turn
from dragoman.translators.seen import array_of, kept_of, reading

_NOTED = ("audio", "metadata", "prediction", "safety_identifier", "user", "verbosity")
_ORDINARY = {"service_tier": ("auto", "default"), "store": (False,)}
_REPLACED = {"functions": "tools", "function_call": "tool_choice"}


def parse(body: Json, context: Context) -> Turn:
    """Raises `GatewayError` with the path of the first fault."""
    fields = validated(CreateChatCompletion, body)
    _refuse(fields)
    notes, unread = _ignored(fields), Unread(context.policy.max_items)
    unread.of_model(fields)
    tools = ChatCatalogue(context.policy, notes, unread)
    if (declared := array_of(body, "tools", fields.tools)) is not None:
        tools.declare_first(declared, "tools")
    if fields.web_search_options is not None:
        tools.leave_out("web_search", "web_search_options")
    key = reading(declared, ("chat_completions", context.policy))
    conversation = ChatConversation(tools, context.policy, notes, unread, key)
    given = array_of(body, "messages", fields.messages)
    _read(fields, given, conversation)
    messages, repairs = repair(conversation.messages, strict=context.policy.strict_history, kept=kept_of(given))
    if not messages:
        raise invalid("Invalid 'messages': the conversation has no messages.", "messages", "empty_array")
    notes.extend(repairs)
    choice, allowed = tools.choose(fields.tool_choice)
    wanted = answer_format(fields.response_format, "response_format", unread, "json_schema")
    asked, kwargs = _thinking(fields, notes, unread)
    request = Request(
        id=context.id,
        model=fields.model,
        messages=messages,
        tools=tools.offered(allowed),
        tool_choice=choice,
        parallel_tool_calls=fields.parallel_tool_calls is not False,
        max_tokens=_max_tokens(fields),
        sampling=sampling(fields),
        format=constrained(fields, wanted, unread),
        thinking=asked,
        template_kwargs=kwargs,
        logprobs=(fields.top_logprobs or 0) if fields.logprobs else None,
        affinity=affinity(fields, context) or fields.user or None,
        prefill=_prefill(fields, conversation, unread),
        whole=fields.stream is not True,
    )
    stream = ChatStream(context, _options(fields), tools)
    return Turn(request, fields.stream is True, stream, few([*notes, *unread.notes()]))


def _read(fields: CreateChatCompletion, messages: list[Any] | None, conversation: ChatConversation) -> None:
    if not messages and fields.input is not None:
        messages = messages_of(fields.input)
        if fields.instructions:
            messages = [{"role": "system", "content": fields.instructions}, *messages]
    if messages is None:
        raise missing("messages")
    conversation.read(messages)


# -------------------------------------------------------------------------------------------------- refused and ignored


def _refuse(fields: CreateChatCompletion) -> None:
    """Refuses what the API has and this gateway does not."""
    for name, instead in _REPLACED.items():
        if getattr(fields, name) not in (None, []):
            message = f"The parameter '{name}' is not supported by this gateway: use '{instead}'."
            raise unsupported(name, message, "unsupported_parameter")
    if fields.n is not None and fields.n > 1:
        raise unsupported("n", "Only one choice per request is supported by this gateway: 'n' must be 1.")
    if fields.modalities and "audio" in fields.modalities:
        raise unsupported("modalities", "Audio is not supported by this gateway: 'modalities' must be ['text'].")
    if fields.moderation not in (None, {}):
        message = "The parameter 'moderation' is not supported by this gateway."
        raise unsupported("moderation", message, "unsupported_parameter")
    if fields.top_logprobs and not fields.logprobs:
        raise invalid("The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled.", "top_logprobs")


def _ignored(fields: CreateChatCompletion) -> list[Note]:
    """Fields that are accepted and change nothing, although the client may have meant them to."""
    names = [name for name in _NOTED if getattr(fields, name) is not None]
    names.extend(unusual(fields, _ORDINARY))
    if fields.messages:  # else they are read in its place
        names.extend(name for name in ("input", "instructions") if getattr(fields, name) is not None)
    if fields.stream_options is not None and not fields.stream:
        names.append("stream_options")
    return [noted("field", name) for name in names]


# ----------------------------------------------------------------------------------------------------------- translated


def _max_tokens(fields: CreateChatCompletion) -> int | None:
    """`max_tokens` is the older name of `max_completion_tokens`."""
    new, old = fields.max_completion_tokens, fields.max_tokens
    if new is not None and old is not None and new != old:
        message = "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported."
        raise invalid(message, "max_tokens")
    return old if new is None else new


def _thinking(fields: CreateChatCompletion, notes: list[Note], unread: Unread) -> tuple[Thinking, Json]:
    """How much to think, and the variables for the chat template."""
    asked = fields.reasoning or CreateChatCompletion.Reasoning()
    effort = soft_words.effort(fields.reasoning_effort, "reasoning_effort", notes)
    effort = effort or soft_words.effort(asked.effort, "reasoning.effort", notes)
    budget = asked.max_tokens if fields.thinking_token_budget is None else fields.thinking_token_budget
    return thinking(fields, effort, budget, unread, asked.enabled)


def _prefill(fields: CreateChatCompletion, conversation: ChatConversation, unread: Unread) -> bool:
    """Whether the answer goes on with the last message, which must be the assistant's: by a mark on that message, or in
    vLLM's words."""
    wanted = fields.continue_final_message is True
    prefill = conversation.prefill or (wanted and conversation.messages[-1].role == "assistant")
    if wanted and not prefill:
        unread.add("", {"continue_final_message": True})
    if fields.add_generation_prompt is False and not prefill:
        unread.add("", {"add_generation_prompt": True})
    return prefill


def _options(fields: CreateChatCompletion) -> ChatStreamOptions:
    asked = fields.stream_options
    return ChatStreamOptions(
        model=fields.model,
        usage=bool(asked and asked.include_usage),
        obfuscation=bool(asked and asked.include_obfuscation),
        logprobs=fields.logprobs is True,
    )
