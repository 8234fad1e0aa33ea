"""The fields of a body of `POST /v1/messages`, checked once by pydantic.

`messages`, `system`, `tools` and `tool_choice` are deep and often large; they are read by hand in `content.py` and
`tools.py`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from dragoman.translators.fields import INT32, Lenient, RequestFields, Whole
from dragoman.translators.messages.reading import refused
from dragoman.translators.protocol import Json
from dragoman.translators.soft_words import Effort


class ThinkingConfig(Lenient):
    type: str
    # Anthropic asks for 1,024 at least; open models may think less.
    budget_tokens: Whole | None = Field(None, ge=1, le=INT32)
    display: str | None = None


class OutputFormat(Lenient):
    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")
    name: str | None = None


class OutputConfig(Lenient):
    effort: Effort | None = None
    format: OutputFormat | None = None


class Metadata(Lenient):
    user_id: str | None = None


class CreateMessage(RequestFields):
    """The body of `POST /v1/messages` in both API versions, with the extensions that engines share. Sampling
    parameters, which 2026-10-21 removed, are taken in both: open models need them."""

    messages: list[Any] = Field(min_length=1, max_length=100_000)
    max_tokens: Whole | None = Field(None, ge=0, le=INT32)
    system: Any = None
    stop_sequences: list[Annotated[str, Field(min_length=1)]] | None = Field(None, max_length=1024)
    stream: bool | None = None
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


def validate(body: Json) -> CreateMessage:
    """The checked fields; raises INVALID for the first fault in the order of the fields."""
    try:
        return CreateMessage.model_validate(body)
    except ValidationError as fault:
        first = fault.errors(include_url=False)[0]
        path = ".".join(str(step) for step in first["loc"])
        raise refused(path, first["msg"]) from None
