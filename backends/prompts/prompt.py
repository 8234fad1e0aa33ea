"""A `Request` as the prompt that the model reads: rendered, tokenized, counted.

For servers that take a prompt instead of messages, and for counting where the server cannot. It starts from the one
rendering of `backends.prompts.messages` and adds what a chat server would do itself: the template, its switches for
thinking, the ids. Notes say what the template cannot show the model. Long prompts are made off the event loop by
`backends.model_folder`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from dragoman.backends.efforts import nearest_effort
from dragoman.backends.prompts.messages import has_unsent_reasoning, render
from dragoman.backends.prompts.rendering import Rendering
from dragoman.backends.prompts.tools import described, shown_tools
from dragoman.translators.ir import Note, Request
from dragoman.translators.soft_words import EFFORTS
from dragoman.translators.thinking import SWITCHES

TEMPLATE_EFFORTS = ("low", "medium", "high")  # what gpt-oss's template knows, the only one that prints the word


class Template(Protocol):
    @property
    def source(self) -> str: ...

    @property
    def takes_tools(self) -> bool: ...

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


def _reasoning_field(template: str) -> Literal["reasoning_content", "reasoning"] | None:
    """The name under which the template prints what the model thought in earlier turns."""
    if "reasoning_content" in template:
        return "reasoning_content"
    return "reasoning" if re.search(r"message(?:\.|\[['\"])reasoning\b", template) else None


class Prompt:
    """One model's prompts. Reasoning goes back to the model where its template has a place for it."""

    def __init__(self, settings: Rendering, template: Template, tokenizer: Encoder) -> None:
        self._template = template
        self._tokenizer = tokenizer
        if settings.reasoning_field is None and (field := _reasoning_field(template.source)) is not None:
            settings = settings.model_copy(update={"reasoning_field": field})
        self._settings = settings

    def notes(self, request: Request) -> tuple[Note, ...]:
        """What the template cannot show, or not in the way that was meant."""
        notes: list[Note] = []
        if request.tools and request.tool_choice != "none" and not self._template.takes_tools:
            notes.append(Note("tool", "auto:unsupported"))
        if has_unsent_reasoning(request.messages, self._settings):
            notes.append(Note("item", "reasoning"))
        if request.prefill:
            notes.append(Note("item", "prefill"))
        if any(not self._knows(name) for name in request.template_kwargs):
            notes.append(Note("field", "chat_template_kwargs"))
        return tuple(notes)

    def _knows(self, name: str) -> bool:
        """Whether the template may read a variable. A switch for thinking has two names, of which it reads one."""
        return any(each in self._template.source for each in (SWITCHES if name in SWITCHES else (name,)))

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
        effort, budget = request.thinking.effort, request.thinking.budget
        source, kwargs = self._template.source, dict[str, Any]()
        if effort in EFFORTS or budget is not None:
            for switch in SWITCHES:
                if switch in source:
                    kwargs[switch] = effort != "none"
        if effort in EFFORTS and "reasoning_effort" in source:
            kwargs["reasoning_effort"] = nearest_effort(str(effort), TEMPLATE_EFFORTS)
        return kwargs | dict(request.template_kwargs) | self._settings.template_kwargs
