"""The fields of a body of `POST /v1/chat/completions`, checked once by pydantic.

`messages`, `tools` and `tool_choice` are deep and often large; they are read by hand in `content.py` and `tools.py`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from dragoman.translators.fields import INT32, Lenient, Whole, unset
from dragoman.translators.openai.fields import CreateFields
from dragoman.translators.soft_words import Effort

Limit = Annotated[Whole | None, Field(ge=1, le=INT32), BeforeValidator(unset)]


class CreateChatCompletion(CreateFields):
    """The body of `POST /v1/chat/completions` (API of 2026-11), with what vLLM, SGLang and trtllm-serve add for
    reasoning."""

    class StreamFields(Lenient):
        include_usage: bool | None = None
        include_obfuscation: bool | None = None

    class Reasoning(Lenient):
        """OpenRouter's object."""

        effort: Effort | None = None
        enabled: bool | None = None
        max_tokens: Whole | None = Field(None, ge=0, le=INT32)

    messages: Any = None
    input: Any = None  # instead of `messages`
    instructions: str | None = None  # with `input`
    max_completion_tokens: Limit = None
    max_tokens: Limit = None
    n: Whole | None = Field(None, ge=1, le=128)
    logprobs: bool | None = None
    response_format: dict[str, Any] | None = None
    reasoning_effort: Effort | None = None
    stream_options: StreamFields | None = None
    modalities: list[Literal["text", "audio"]] | None = None
    verbosity: str | None = None
    reasoning: Reasoning | None = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None
    thinking_token_budget: Whole | None = Field(None, ge=0, le=INT32)
    # Refused as soon as they hold anything: see `parse`.
    functions: Any = None
    function_call: Any = None
    moderation: Any = None
    # Accepted and ignored, because some clients send them.
    audio: Any = None
    prediction: Any = None
    web_search_options: Any = None
