"""A `Request` as the prompt that the model reads: rendered, tokenized, counted.

For servers that take a prompt instead of messages, and for counting where the server cannot. It starts from the one
rendering of `backends.prompts.messages` and adds what a chat server would do itself: the template, its switches for
thinking, the ids. Notes say what the template cannot show the model. Long prompts are made off the event loop by
`backends.model_folder`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from dragoman.backends.prompts.call_form import ThoughtField
from dragoman.backends.prompts.messages import has_unsent_reasoning, render
from dragoman.backends.prompts.rendering import Rendering
from dragoman.backends.prompts.switches import switches
from dragoman.backends.prompts.tools import described, shown_tools
from dragoman.translators.ir import Note, Request, ToolCall
from dragoman.translators.thinking import SWITCHES


class Template(Protocol):
    @property
    def variables(self) -> Collection[str]: ...

    @property
    def takes_tools(self) -> bool: ...

    @property
    def thought_field(self) -> ThoughtField | None: ...

    @property
    def refuses_late_system(self) -> bool: ...

    @property
    def alternates(self) -> bool: ...

    def calls_as_text(self, tools: bool) -> bool: ...

    def render(
        self,
        messages: Sequence[dict[str, Any]],
        tools: Sequence[dict[str, Any]] | None = None,
        *,
        kwargs: Mapping[str, Any] | None = None,
        strftime_now: Callable[[str], str] | None = None,
    ) -> str: ...


class Encoder(Protocol):
    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]: ...


@dataclass(frozen=True, slots=True)
class Rendered:
    text: str
    ids: Sequence[int]

    @property
    def count(self) -> int:
        return len(self.ids)


class Prompt:
    """One model's prompts. What the settings leave open is as the template has it: the name of earlier thoughts, and
    whether, because it refuses them otherwise, later system messages become user messages and turns alternate.
    `thoughts` is False where the server that renders for real is sent none."""

    def __init__(self, settings: Rendering, template: Template, tokenizer: Encoder, *, thoughts: bool = True) -> None:
        self._template = template
        self._tokenizer = tokenizer
        field = settings.reasoning_field or template.thought_field
        found: dict[str, Any] = {"reasoning_field": field if thoughts else None}
        if "system_messages" not in settings.model_fields_set and template.refuses_late_system:
            found["system_messages"] = "user"
        if "turns" not in settings.model_fields_set and template.alternates:
            found["turns"] = "alternate"
        self._settings = settings.model_copy(update=found)

    def notes(self, request: Request) -> tuple[Note, ...]:
        """What the template cannot show, or not in the way that was meant."""
        notes: list[Note] = []
        if request.tools and request.tool_choice != "none" and not self._template.takes_tools:
            notes.append(Note("tool", "auto:unsupported"))
        if has_unsent_reasoning(request.messages, self._settings):
            notes.append(Note("item", "reasoning"))
        if self._template.calls_as_text(bool(shown_tools(request, self._settings))) and _holds_calls(request):
            notes.append(Note("item", "tool_call:as_text"))
        if request.prefill:
            notes.append(Note("item", "prefill"))
        if any(not self._knows(name) for name in request.template_kwargs):
            notes.append(Note("field", "chat_template_kwargs"))
        return tuple(notes)

    def _knows(self, name: str) -> bool:
        """Whether the template may read a variable. A switch for thinking has two names, of which it reads one."""
        return any(each in self._template.variables for each in (SWITCHES if name in SWITCHES else (name,)))

    def text(self, request: Request, *, strftime_now: Callable[[str], str]) -> str:
        """Raises `GatewayError` UNSUPPORTED where the template refuses the conversation."""
        messages = render(request.messages, self._settings)
        tools = [described(tool, self._settings) for tool in shown_tools(request, self._settings)]
        return self._template.render(messages, tools, kwargs=self.kwargs(request), strftime_now=strftime_now)

    def build(self, request: Request, *, strftime_now: Callable[[str], str]) -> Rendered:
        """The prompt and its ids; the template has written the BOS, so no special tokens are added."""
        text = self.text(request, strftime_now=strftime_now)
        return Rendered(text, self._tokenizer.encode(text, add_special_tokens=False))

    def kwargs(self, request: Request) -> dict[str, Any]:
        """The template's variables: what the request says about thinking, in the words that this template has, the
        client's own, and the operator's `chat_template_kwargs`, which win."""
        own = switches(request.thinking, self._template.variables)
        return own | dict(request.template_kwargs) | self._settings.template_kwargs


def _holds_calls(request: Request) -> bool:
    return any(isinstance(part, ToolCall) for message in request.messages for part in message.parts)
