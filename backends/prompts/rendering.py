"""How a conversation is shown to a model, as named settings with one line of explanation each.

Whatever renders conversations obeys them: the messages of a chat request, prompts for servers that take no messages,
prompts that are only counted. What else a kind of server can be told is added by its backend.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from dragoman.backends.markup import FAMILIES
from dragoman.backends.numeric_fields import NumericFields
from dragoman.backends.prompts.call_form import ThoughtField
from dragoman.translators.errors import GatewayError, Kind

STRICT = ConfigDict(frozen=True, extra="forbid")

PROBE = "probe"  # as `markup`: the family that the server's answers prove

Model = TypeVar("Model", bound=BaseModel)


class Rendering(NumericFields):
    model_config = STRICT

    # ---- conversation
    developer_role: bool = Field(False, description="Keep the role developer; otherwise it is sent as system.")
    system_messages: Literal["leading", "keep", "hoist", "user"] = Field(
        "leading",
        description="leading: the first ones merged, later ones in place; keep: none merged; hoist: all merged to the "
        "front (costs the prefix cache); user: later ones in place as marked user messages.",
    )
    turns: Literal["as_sent", "alternate"] = Field(
        "as_sent",
        description="alternate: user messages in a row become one, and before one that follows tool results, as agents "
        "send reminders, stands a short turn of the assistant; for templates that refuse both (Mistral's, Gemma's).",
    )
    reasoning_field: ThoughtField | None = Field(
        None, description="Field that carries earlier reasoning back, on every assistant turn; null sends none."
    )
    empty_content: Literal["null", "empty"] = Field(
        "null", description='Content of an assistant turn that only calls tools: null or "".'
    )
    images: bool = Field(True, description="Whether the model sees images.")
    tool_images: Literal["user", "inside"] = Field(
        "user", description="Images in tool results: in a user message after the results, or inside the tool message."
    )

    # ---- tools
    call_ids: Literal["as_sent", "short"] = Field(
        "as_sent",
        description="short: ids of calls become nine letters and digits, as Mistral's older templates and its API "
        "demand. On Triton the template itself shows it.",
    )
    tool_choice_none: Literal["drop", "send"] = Field(
        "drop", description="With tool_choice none: drop the tools, or send them with none (keeps the prefix cache)."
    )
    tool_schemas: Literal["as_sent", "plain"] = Field(
        "as_sent",
        description="plain: patterns and long bounds stand in descriptions, for servers that make a grammar of all "
        "tools and refuse every request where they cannot (llama.cpp, and so LM Studio and Ollama).",
    )
    strict_tools: bool = Field(False, description="Whether strict is accepted on a tool's function.")
    deferred_tools: Literal["listed", "in_place", "native"] = Field(
        "listed",
        description="Tools that became known in the conversation. listed: at the end of the list; in_place: described "
        "where they became known and not listed (keeps the prefix cache; needs a server that lets the model call what "
        "is not listed); native: as defer_loading and tool_reference, for templates that know these.",
    )

    # ---- the template
    extra_body: Mapping[str, Any] = Field(
        {}, description="Fields added to every request body, for example chat_template_kwargs; they win over ours."
    )
    markup: str | None = Field(
        None,
        description="Family by whose markup calls and reasoning are read out of the answer's text, for a server whose "
        f"own parser fails: {', '.join(FAMILIES)}; probe: at start each model is asked for two calls, and the family "
        "that reads both out of the text is used for it; null trusts the server.",
    )

    @property
    def probes_markup(self) -> bool:
        return self.markup == PROBE

    @property
    def template_kwargs(self) -> dict[str, Any]:
        """The operator's switches for the chat template."""
        return dict(self.extra_body.get("chat_template_kwargs") or {})

    @field_validator("markup")
    @classmethod
    def _family(cls, value: str | None) -> str | None:
        if value is not None and value not in FAMILIES and value != PROBE:
            raise ValueError(f"unknown markup {value}; known are {', '.join(FAMILIES)}, {PROBE}")
        return value


def checked(kind: type[Model], given: Mapping[str, Any]) -> Model:
    """Settings as they were written; raises `GatewayError` INVALID, in one line, for a wrong one."""
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        raise wrong(where, first["msg"].removeprefix("Value error, ")) from None


def wrong(setting: str, reason: str) -> GatewayError:
    return GatewayError(Kind.INVALID, f"setting {setting}: {reason}", setting)
