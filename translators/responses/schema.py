"""The fields of a body of `POST /v1/responses`, checked once by pydantic.

`input`, `tools` and `tool_choice` are deep and often large; they are read by hand in `items.py` and `tools.py`.
"""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, Field

from dragoman.translators import soft_words
from dragoman.translators.fields import INT32, Lenient, Whole
from dragoman.translators.ir import Note
from dragoman.translators.openai.fields import CreateFields

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


class TextConfig(Lenient):
    format: dict[str, Any] | None = None
    verbosity: str | None = None


class CreateResponse(CreateFields):
    """The body of `POST /v1/responses` (responses API of 2026-11)."""

    class StreamFields(Lenient):
        include_obfuscation: bool | None = None

    class Reasoning(Lenient):
        effort: soft_words.Effort | None = None
        summary: str | None = None
        generate_summary: str | None = None
        context: str | None = None
        mode: str | None = None

    input: Any = None
    instructions: str | None = None
    max_output_tokens: Whole | None = Field(None, ge=16, le=INT32)
    max_tool_calls: Whole | None = Field(None, ge=1, le=INT32)
    stream_options: StreamFields | None = None
    text: TextConfig | None = None
    reasoning: Reasoning | None = None
    include: list[str] | None = None
    truncation: str | None = None
    background: bool | None = None
    previous_response_id: str | None = None
    # Refused as soon as they hold anything: see `parse`.
    conversation: Any = None
    prompt: Any = None
    context_management: Any = None
    moderation: Any = None
    multi_agent: Any = None
    # Accepted and ignored, because some clients send them.
    access_programs: Any = None
    image: Any = None
    client_metadata: Any = None


_Settings = TypeVar("_Settings", CreateResponse.Reasoning, TextConfig)


def overridden(asked: _Settings, update: _Settings | None) -> _Settings:
    """What was asked for, except where a later `configuration_update` item changes it."""
    return asked if update is None else asked.model_copy(update=said(update))


def said(settings: BaseModel) -> dict[str, Any]:
    """The fields that the schema has and the client set."""
    fields = type(settings).model_fields
    return {name: value for name in fields if (value := getattr(settings, name)) is not None}


def known_reasoning(asked: CreateResponse.Reasoning, notes: list[Note]) -> CreateResponse.Reasoning:
    """`asked` with only those words that the API has; `notes` grows with others."""
    summaries = {
        name: None
        if soft_words.plainly(word) in soft_words.OFF
        else soft_words.known(word, soft_words.SUMMARIES, "auto", f"reasoning.{name}", notes)
        for name in ("summary", "generate_summary")
        if (word := getattr(asked, name)) is not None
    }
    effort = soft_words.effort(asked.effort, "reasoning.effort", notes)
    return _with(asked, {"effort": effort, **summaries})


def known_text(asked: TextConfig, notes: list[Note]) -> TextConfig:
    word = soft_words.known(asked.verbosity, soft_words.VERBOSITIES, "medium", "text.verbosity", notes)
    return _with(asked, {"verbosity": word})


def _with(asked: _Settings, words: dict[str, str | None]) -> _Settings:
    changed = {name: word for name, word in words.items() if getattr(asked, name) != word}
    return asked.model_copy(update=changed) if changed else asked  # a copy costs more than the rest of it
