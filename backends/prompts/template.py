"""The model's own chat template: messages and tools into the prompt, as Hugging Face renders it.

Rules: the same messages, tools, arguments and day always give the same text, so that the prompt of a turn stays a
prefix of the next turn's where the template allows it. The arguments of earlier calls go in as the model wrote them
where the template prints strings as they are, else as objects. What a template cannot express is an error in its own
words, never a prompt with something missing: a template that prints no calls beside text gets them as two messages.

Templates run in Jinja's sandbox with bounds on their size, their work and their output. They belong to the model that
the operator serves: the bounds are against accidents and bad downloads, not a defence in depth. Needs the extra
`tokenizer`.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from dragoman.backends.prompts.tokenizer_config import unusable
from dragoman.translators.errors import GatewayError, Kind

try:
    import jinja2
    from jinja2 import nodes
    from jinja2.exceptions import SecurityError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment
except ImportError as error:
    raise ImportError("chat templates need jinja2: pip install 'dragoman[tokenizer]'") from error

Json = dict[str, Any]

SOURCE_LIMIT = 1 << 20  # characters of a template's text
OUTPUT_LIMIT = 1 << 26  # characters of a prompt
REPEAT_LIMIT = 1 << 20  # elements of what a template multiplies
SECONDS = 20.0


class _Refused(jinja2.TemplateError):
    """`raise_exception` was called by the template."""


class _TooMuch(jinja2.TemplateError):
    pass


_TAGS = {"generation"}


class _Generation(Extension):
    """`{% generation %}…{% endgeneration %}` marks what training learns from; a prompt holds it as it is."""

    tags = _TAGS

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        for one, other in ((left, right), (right, left)):
            if isinstance(one, str | list | tuple) and isinstance(other, int) and len(one) * other > REPEAT_LIMIT:
                raise _TooMuch("the template repeats a value too often")
        if operator == "**" and (abs(left) > 1_000_000 or abs(right) > 64):
            raise _TooMuch("the template computes too large a power")
        return super().call_binop(context, operator, left, right)


class _Ranges:
    """`range` in one rendering: loops within loops count together, since nothing else would ever stop them."""

    def __init__(self) -> None:
        self._left = REPEAT_LIMIT

    def __call__(self, *bounds: int) -> range:
        numbers = range(*bounds)
        self._left -= len(numbers)
        if self._left < 0:
            raise _TooMuch(f"its loops go beyond {REPEAT_LIMIT} rounds")
        return numbers


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: object) -> None:
    raise _Refused(str(message))


def _environment() -> _Sandbox:
    environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    return environment


class ChatTemplate:
    """`source` is the text of the template (of all of them, where tools have one of their own), for `markup.detect`;
    `tokens` are the special tokens by the names that templates know them by."""

    def __init__(
        self, template: str, *, with_tools: str | None = None, tokens: Mapping[str, str] | None = None
    ) -> None:
        """Raises `GatewayError` INVALID for a template that cannot be read."""
        self.source = template if with_tools is None else f"{template}\n{with_tools}"
        self.tokens = dict(tokens or {})
        if len(self.source) > SOURCE_LIMIT:
            raise unusable(f"the chat template is longer than {SOURCE_LIMIT} characters")
        environment = _environment()
        try:
            self._plain = environment.from_string(template)
            self._with_tools = self._plain if with_tools is None else environment.from_string(with_tools)
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
        prepared = self._prepared(messages)
        return self._rendered(prepared, tools, add_generation_prompt, kwargs, strftime_now)

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
            "tools": list(tools) if tools else None,
            "documents": (kwargs or {}).get("documents"),
            "add_generation_prompt": add_generation_prompt,
            "range": _Ranges(),
            **({"strftime_now": strftime_now} if strftime_now else {}),
        }
        try:
            return _collected(template, context)
        except _Refused as error:
            message = f"The model's chat template refuses this conversation: {_one_line(error)}"
            raise GatewayError(Kind.UNSUPPORTED, message) from None
        except _TooMuch as error:
            raise GatewayError(Kind.UNSUPPORTED, f"The model's chat template was stopped: {_one_line(error)}") from None
        except (SecurityError, OverflowError, MemoryError) as error:
            message = f"The model's chat template does what a template may not: {_one_line(error)}"
            raise GatewayError(Kind.UNSUPPORTED, message) from None
        except (jinja2.TemplateError, TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
            message = f"The model's chat template cannot render this conversation: {_one_line(error)}"
            raise GatewayError(Kind.UNSUPPORTED, message) from error

    # -------------------------------------------------------------------------------------- what the template can print

    @cached_property
    def takes_tools(self) -> bool:
        """Whether declared tools occur in the prompt at all."""
        return _NAME in self._probe([_USER], [_PROBE_TOOL])

    @cached_property
    def thinks(self) -> bool:
        """Whether the template has a switch for thinking."""
        return any(word in self.source for word in ("enable_thinking", "reasoning_effort", "thinking"))

    @cached_property
    def _call_form(self) -> tuple[str | None, bool] | None:
        """The content beside calls that have no text, and whether arguments go in as text, exactly as the model wrote
        them; None where the template prints no calls. DeepSeek's templates want None and text, Llama's objects, and
        the first ones of Qwen 3 fail on None."""
        for content in (None, ""):
            if _WRITTEN in self._probe(_turn(_WRITTEN, content)):
                return content, True
            if _NAME in self._probe(_turn(json.loads(_WRITTEN), content)):
                return content, False
        return None

    @cached_property
    def _calls_beside_text(self) -> bool:
        """Whether a turn's calls are printed when it has text as well; DeepSeek V3's first template drops them."""
        form = self._call_form
        return form is not None and _NAME in self._probe(_turn(_WRITTEN if form[1] else json.loads(_WRITTEN), "Text."))

    @cached_property
    def _short_ids(self) -> bool:
        """Mistral's templates demand call ids of nine letters and digits."""
        return "length != 9" in self.source or "length == 9" in self.source

    def _probe(self, messages: Sequence[Json], tools: Sequence[Json] | None = None) -> str:
        try:
            return self._rendered(messages, tools, True, None, _probe_date)
        except GatewayError:
            return ""

    def _prepared(self, messages: Sequence[Json]) -> list[Json]:
        """Copies, with calls in the form that the template wants."""
        prepared: list[Json] = []
        for message in messages:
            if message.get("tool_calls"):
                prepared += self._with_calls(message)
            elif message.get("role") == "tool" and self._short_ids:
                prepared.append(message | {"tool_call_id": _short(str(message.get("tool_call_id", "")))})
            else:
                prepared.append(message)
        return prepared

    def _with_calls(self, message: Json) -> list[Json]:
        form, content = self._call_form, message.get("content")
        if form is None:  # as text, so that the conversation still shows them
            texts = [_tojson(_spoken(call)) for call in message["tool_calls"]]
            rest = {key: value for key, value in message.items() if key != "tool_calls"}
            return [rest | {"content": "\n".join([*([content] if content else []), *texts])}]
        calls = [self._call(call, as_text=form[1]) for call in message["tool_calls"]]
        if not content:
            return [message | {"content": form[0], "tool_calls": calls}]
        if self._calls_beside_text:
            return [message | {"tool_calls": calls}]
        text = {key: value for key, value in message.items() if key != "tool_calls"}
        return [text, {"role": message["role"], "content": form[0], "tool_calls": calls}]

    def _call(self, call: Json, *, as_text: bool) -> Json:
        call = copy.deepcopy(call)
        if self._short_ids:
            call["id"] = _short(str(call.get("id", "")))
        function = call.get("function")
        if isinstance(function, dict):
            arguments = function.get("arguments")
            if isinstance(arguments, str) and not as_text:
                function["arguments"] = _parsed(arguments)
            elif not isinstance(arguments, str) and as_text:
                function["arguments"] = _tojson(arguments)
        return call


def _probe_date(format: str) -> str:
    return time.strftime(format, (2000, 1, 1, 0, 0, 0, 5, 1, 0))


_NAME = "probe_of_tools"
_WRITTEN = '{"probe":  "\u00e9"}'
_USER: Json = {"role": "user", "content": "Hi"}
_PROBE_TOOL: Json = {
    "type": "function",
    "function": {"name": _NAME, "description": "A probe.", "parameters": {"type": "object", "properties": {}}},
}


def _turn(arguments: str | Json, content: str | None) -> list[Json]:
    call = {"id": "abcdef123", "type": "function", "function": {"name": _NAME, "arguments": arguments}}
    return [
        _USER,
        {"role": "assistant", "content": content, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "abcdef123", "name": _NAME, "content": "ok"},
    ]


def _collected(template: jinja2.Template, context: Json) -> str:
    """The whole output, piece by piece so that a template without end is stopped."""
    pieces: list[str] = []
    size = 0
    end = time.monotonic() + SECONDS
    for piece in template.generate(context):
        pieces.append(piece)
        size += len(piece)
        if size > OUTPUT_LIMIT:
            raise _TooMuch(f"it wrote more than {OUTPUT_LIMIT} characters")
        if time.monotonic() > end:
            raise _TooMuch(f"it took more than {SECONDS:g} s")
    return "".join(pieces)


def _parsed(arguments: Any) -> Any:
    if not isinstance(arguments, str):
        return arguments
    try:
        value = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    return value if isinstance(value, dict) else arguments


def _spoken(call: Json) -> Json:
    function = call.get("function") or {}
    return {"name": function.get("name"), "arguments": _parsed(function.get("arguments") or "{}")}


def _short(id: str) -> str:
    """Nine letters and digits, the same for the same id."""
    if len(id) == 9 and id.isascii() and id.isalnum():
        return id
    return base64.b32encode(hashlib.sha256(id.encode()).digest()).decode().lower()[:9]


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
