"""The model's own chat template: messages and tools into the prompt, as Hugging Face renders it.

Rules: the same messages, tools, arguments and day always give the same text, so that the prompt of a turn stays a
prefix of the next turn's where the template allows it. Earlier calls and thoughts go in as the template prints them
(`call_form`): arguments as the model wrote them where the prompt amounts to the same, else as objects; a thought under
the name that the template knows. What a template cannot express is an error in its own words, never a prompt with
something missing: one that prints no calls beside text gets them as two messages, and one that prints none at all gets
them as text, which `calls_as_text` tells. How templates are confined: `sandbox`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

from dragoman.backends.prompts.call_form import (
    LATE,
    NAME,
    SYSTEM,
    TEXT,
    TOOL,
    USER,
    CallForm,
    Failed,
    ThoughtField,
    find_call_form,
    find_thought_field,
    prints_thought_blocks,
    result_turn,
)
from dragoman.backends.prompts.earlier_turns import EarlierTurns
from dragoman.backends.prompts.sandbox import Ranges, Refused, Sandbox, TooMuch, collected
from dragoman.backends.prompts.switches import SWITCHES, THINKING_ON
from dragoman.backends.prompts.tokenizer_config import unusable
from dragoman.translators.errors import GatewayError, Kind

try:
    import jinja2
    from jinja2.exceptions import SecurityError
except ImportError as error:
    raise ImportError("chat templates need jinja2: pip install 'dragoman[tokenizer]'") from error

Json = dict[str, Any]

SOURCE_LIMIT = 1 << 20  # characters of a template's text


class Stopped(GatewayError):
    """A template reached a bound of the sandbox."""


class ChatTemplate:
    """`source` is the text of the template (of all of them, where tools have one of their own), for `markup.detect`;
    `tokens` are the special tokens by the names that templates know them by."""

    def __init__(
        self, template: str, *, with_tools: str | None = None, tokens: Mapping[str, str] | None = None
    ) -> None:
        """Raises `GatewayError` INVALID for a template that cannot be read."""
        self.source = template if with_tools is None else f"{template}\n{with_tools}"
        self._stopped_probe = ""
        self.tokens = dict(tokens or {})
        if len(self.source) > SOURCE_LIMIT:
            raise unusable(f"the chat template is longer than {SOURCE_LIMIT} characters")
        sandbox = Sandbox()
        try:
            self._plain = sandbox.from_string(template)
            self._with_tools = self._plain if with_tools is None else sandbox.from_string(with_tools)
            self.variables = sandbox.variables(template) | sandbox.variables(with_tools or "")
        except (jinja2.TemplateError, RecursionError) as error:
            raise unusable(f"the chat template cannot be read: {error}") from None

    @property
    def bos(self) -> str:
        return self.tokens.get("bos_token", "")

    def strip_bos(self, prompt: str) -> str:
        """The prompt for a server that adds the BOS itself."""
        return prompt.removeprefix(self.bos) if self.bos else prompt

    def render(
        self,
        messages: Sequence[Json],
        tools: Sequence[Json] | None = None,
        *,
        add_generation_prompt: bool = True,
        kwargs: Mapping[str, Any] | None = None,
        strftime_now: Callable[[str], str] | None = None,
    ) -> str:
        """`messages` as `backends.prompts.messages` renders them, `tools` as in chat completions, `kwargs` what users
        call `chat_template_kwargs`. `strftime_now` formats the date for templates that print it; without it they have
        none. Raises `GatewayError` UNSUPPORTED in the template's words."""
        declared = list(tools) if tools else self._no_tools
        prepared = self._turns(bool(tools)).prepared(messages)
        return self._rendered(prepared, declared, add_generation_prompt, kwargs, strftime_now)

    def _turns(self, tools: bool) -> EarlierTurns:
        return EarlierTurns(self._call_form(tools), self._short_ids, self.source, self._thought_blocks)

    def _rendered(
        self,
        messages: Sequence[Json],
        tools: Sequence[Json] | None,
        add_generation_prompt: bool,
        kwargs: Mapping[str, Any] | None,
        strftime_now: Callable[[str], str] | None,
    ) -> str:
        template = self._with_tools if tools else self._plain
        context = {
            **self.tokens,
            **(kwargs or {}),
            "messages": messages,
            "tools": tools,
            "documents": (kwargs or {}).get("documents"),
            "add_generation_prompt": add_generation_prompt,
            "range": Ranges(),
            **({"strftime_now": strftime_now} if strftime_now else {}),
        }
        try:
            return collected(template, context)
        except Refused as error:
            message = f"The model's chat template refuses this conversation: {_one_line(error)}"
            raise GatewayError(Kind.UNSUPPORTED, message) from None
        except TooMuch as error:
            raise Stopped(Kind.UNSUPPORTED, f"The model's chat template was stopped: {_one_line(error)}") from None
        except (SecurityError, OverflowError, MemoryError) as error:
            message = f"The model's chat template does what a template may not: {_one_line(error)}"
            raise GatewayError(Kind.UNSUPPORTED, message) from None
        except (jinja2.TemplateError, TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
            message = f"The model's chat template cannot render this conversation: {_one_line(error)}"
            raise GatewayError(Kind.UNSUPPORTED, message) from error

    # -------------------------------------------------------------------------------------- what the template can print

    @cached_property
    def takes_tools(self) -> bool:
        """Whether declared tools occur in the prompt, in some templates only beside a system message."""
        return any(NAME in self._shown(messages, [TOOL]) for messages in ([USER], [SYSTEM, USER]))

    def calls_as_text(self, tools: bool) -> bool:
        """Whether earlier calls go in as text, for want of a form; `tools`: whether some are declared."""
        return self._call_form(tools) is None

    @cached_property
    def refuses_late_system(self) -> bool:
        """Whether a system message after the first turn fails, or is dropped, where a user message is shown."""
        asked, late = [USER, {"role": "assistant", "content": TEXT}], {"role": "system", "content": LATE}
        told = self._shown([*asked, late], self._no_tools)
        return LATE not in told and LATE in self._shown([*asked, late | {"role": "user"}], self._no_tools)

    @cached_property
    def alternates(self) -> bool:
        """Whether what a user says right after a result, or after another message of the user's, fails or is dropped,
        where it is shown after an answer."""
        return self._wants_answer([USER], self._no_tools) or self._wants_answer(result_turn(), [TOOL])

    def _wants_answer(self, messages: Sequence[Json], tools: Sequence[Json] | None) -> bool:
        late = USER | {"content": LATE}
        direct, answered = (
            self._shown(self._turns(bool(tools)).prepared([*messages, *between, late]), tools)
            for between in ([], [{"role": "assistant", "content": TEXT}])
        )
        return LATE not in direct and LATE in answered

    @property
    def thinks(self) -> bool:
        """Whether the template has a switch for thinking."""
        return not SWITCHES.isdisjoint(self.variables)

    @cached_property
    def thought_field(self) -> ThoughtField | None:
        """The name under which it prints what the model thought in earlier turns, at least where thinking is on."""
        for kwargs in ({}, {name: True for name in THINKING_ON if name in self.variables}):
            render = partial(self._probe, kwargs=kwargs)
            for tools in ([TOOL], self._no_tools):
                if (field := find_thought_field(render, tools)) is not None:
                    return field
        return "thinking" if self._thought_blocks else None

    @cached_property
    def _thought_blocks(self) -> bool:
        return prints_thought_blocks(self._probe, self._no_tools)

    @cached_property
    def faults(self) -> tuple[str, ...]:
        """What could not be found out, since the template failed: a sentence each, for the operator."""
        faults: list[str] = []
        try:
            self._probe([USER], [TOOL])
        except GatewayError as error:
            faults.append(f"a declared tool: {error.message}")
        if isinstance(form := self._forms[True], Failed):
            faults.append(f"an earlier call: {form.reason}")
        return tuple(faults)

    @cached_property
    def _no_tools(self) -> list[Json] | None:
        """None, as transformers has it; an empty list for a template that loops over tools without asking whether there
        are any."""
        for tools in (None, list[Json]()):
            try:
                self._probe([USER], tools)
                return tools
            except GatewayError:
                continue
        return None

    @cached_property
    def _forms(self) -> dict[bool, CallForm | Failed | None]:
        """By whether tools are declared."""
        return {
            True: find_call_form(self._probe, [TOOL], self.thought_field),
            False: find_call_form(self._probe, self._no_tools, self.thought_field),
        }

    def _call_form(self, tools: bool) -> CallForm | None:
        """Where the probe failed, the conversation is tried all the same: then the template says what is wrong."""
        form = self._forms[tools]
        return CallForm() if isinstance(form, Failed) else form

    @cached_property
    def _short_ids(self) -> bool:
        """Mistral's templates demand call ids of nine letters and digits."""
        return "length != 9" in self.source or "length == 9" in self.source

    def _shown(self, messages: Sequence[Json], tools: Sequence[Json] | None) -> str:
        try:
            return self._probe(messages, tools)
        except GatewayError:
            return ""

    def _probe(
        self, messages: Sequence[Json], tools: Sequence[Json] | None, kwargs: Mapping[str, Any] | None = None
    ) -> str:
        if self._stopped_probe:  # a template that took too long once is not asked forty times more
            raise GatewayError(Kind.UNSUPPORTED, self._stopped_probe)
        try:
            return self._rendered(messages, tools, True, kwargs, _probe_date)
        except Stopped as error:
            self._stopped_probe = error.message
            raise


def _probe_date(format: str) -> str:
    return time.strftime(format, (2000, 1, 1, 0, 0, 0, 5, 1, 0))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
