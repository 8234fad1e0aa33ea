"""What a chat template prints for earlier turns, found by rendering turns of our own and looking.

Nothing is concluded from words in the template's source: a name that occurs there may be a switch, a comment or a
branch never taken. A probe has a tool declared or none, as the conversation will, since some templates print calls only
beside tools. A probe that fails is told apart from one that prints nothing: then nothing is known, and its words are
kept for the operator.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, assert_never

from dragoman.translators.errors import GatewayError

Json = dict[str, Any]
Render = Callable[[Sequence[Json], Sequence[Json] | None], str]
ThoughtField = Literal["reasoning_content", "reasoning", "thinking", "thought"]

# No member at all, as transformers has it since version 5; DeepSeek's first templates want null, Qwen 3's a text.
Content = Literal["absent", "null", "empty"]
CONTENTS: tuple[Content, ...] = ("absent", "null", "empty")

THOUGHT_FIELDS: tuple[ThoughtField, ...] = ("reasoning_content", "reasoning", "thinking", "thought")

NAME = "probe_of_tools"
THOUGHT = "a probed thought"
TEXT = "A probed text."
LATE = "A probed reminder."
ID, OTHER_ID = "abcdef123", "abcdef456"  # nine letters and digits, which Mistral's templates demand
SYSTEM: Json = {"role": "system", "content": "Be brief."}
USER: Json = {"role": "user", "content": "Hi"}
ARGUMENTS: Json = {
    "probed_text": "\u00e9 word",
    "probed_number": 70417,
    "probed_truth": True,
    "probed_nothing": None,
    "probed_list": ["first item", "second item"],
}
TOOL: Json = {
    "type": "function",
    "function": {
        "name": NAME,
        "description": "A probe.",
        "parameters": {
            "type": "object",
            "properties": {"declared": {"type": "string", "description": "In no call."}},
        },
    },
}
_WRITTEN = json.dumps(ARGUMENTS, ensure_ascii=False)
# As no template would write it: where this stands in the prompt, strings go in verbatim.
_SPACED = json.dumps(ARGUMENTS, ensure_ascii=False, separators=(" , ", " :  "))
_PYTHON = repr(ARGUMENTS)
_SHOWN = ("probed_text", "\u00e9 word", "probed_number", "70417", "probed_truth", "first item", "second item")


@dataclass(frozen=True, slots=True)
class CallForm:
    """How an earlier turn with calls goes into the template.

    `content`: what stands beside calls that have no text. `as_text`: whether arguments go in as the model wrote them,
    else as objects. `beside_text`, `beside_thought`: whether text and calls are both printed when a turn has both, or
    both and a thought; if not, the text becomes a message of its own. `together`: whether all calls of a turn are
    printed; gpt-oss's template prints the first alone, Llama 3's refuses a second."""

    content: Content = "absent"
    as_text: bool = False
    beside_text: bool = True
    beside_thought: bool = True
    together: bool = True


@dataclass(frozen=True, slots=True)
class Failed:
    """The template could not render the probe; `reason` is the error's words."""

    reason: str


def find_call_form(render: Render, tools: Sequence[Json] | None, thought_field: str | None) -> CallForm | Failed | None:
    """None where the template prints no calls."""
    failure: Failed | None = None
    printed = False
    for content in CONTENTS:
        objects, strings, spaced = (
            _printed(render, _turn(arguments, content), tools) for arguments in (ARGUMENTS, _WRITTEN, _SPACED)
        )
        as_text = _prefers_text(objects, strings, spaced)
        if as_text is not None and not (content == "null" and _prints_null(render, tools, as_text)):
            return _completed(render, tools, thought_field, CallForm(content, as_text))
        for outcome in (objects, strings):
            if isinstance(outcome, Failed):
                failure = failure or outcome
            else:
                printed = True
    return None if printed else failure


def find_thought_field(render: Render, tools: Sequence[Json] | None) -> ThoughtField | None:
    """The first name under which a thought is printed: beside calls after the last user message, or beside text."""
    form = find_call_form(render, tools, None)
    form = form if isinstance(form, CallForm) else CallForm()
    called = _turn(_arguments(form), form.content)
    for field in THOUGHT_FIELDS:
        spoken: list[Json] = [USER, {"role": "assistant", "content": TEXT, field: THOUGHT}]
        for messages in (_thinking(called, field), spoken, [*spoken, USER]):
            if THOUGHT in _text(_printed(render, messages, tools)):
                return field
    return None


def prints_thought_blocks(render: Render, tools: Sequence[Json] | None) -> bool:
    """Whether a thought is printed as a block of the content, as Mistral has it."""
    thinking: Json = {"role": "assistant", "content": TEXT, "thinking": THOUGHT}
    shown = _text(_printed(render, [USER, with_thought_block(thinking)], tools))
    return THOUGHT in shown and TEXT in shown and not any(sign in shown for sign in ("'type'", '"type"'))


def with_thought_block(message: Json) -> Json:
    """The thought, which stands under `thinking`, and the text as blocks."""
    rest = {name: value for name, value in message.items() if name != "thinking"}
    blocks: list[Json] = [{"type": "thinking", "thinking": message["thinking"]}]
    if content := message.get("content"):
        blocks.append({"type": "text", "text": content})
    return rest | {"content": blocks}


def without_text(message: Json, content: Content) -> Json:
    """The turn as it is when it has calls alone."""
    match content:
        case "absent":
            return {name: value for name, value in message.items() if name != "content"}
        case "null":
            return message | {"content": None}
        case "empty":
            return message | {"content": ""}
        case _:
            assert_never(content)


def result_turn() -> list[Json]:
    """A question, a call and its result."""
    return _turn(_WRITTEN, "null")


def _turn(arguments: str | Json, content: Content, text: str = "") -> list[Json]:
    call = {"id": ID, "type": "function", "function": {"name": NAME, "arguments": arguments}}
    calling: Json = {"role": "assistant", "content": text, "tool_calls": [call]}
    return [
        USER,
        calling if text else without_text(calling, content),
        {"role": "tool", "tool_call_id": ID, "name": NAME, "content": "ok"},
    ]


def _two_calls(arguments: str | Json, content: Content) -> list[Json]:
    user, calling, result = _turn(arguments, content)
    other = calling["tool_calls"][0] | {"id": OTHER_ID}
    calling["tool_calls"].append(other)
    return [user, calling, result, result | {"tool_call_id": OTHER_ID}]


def _prefers_text(objects: str | Failed, strings: str | Failed, spaced: str | Failed) -> bool | None:
    """Whether arguments go in as text; None where neither form is printed.

    Text keeps the model's own bytes, so it wins where it amounts to the same, and where an object comes out as
    Python's repr or not at all. That a string is printed verbatim proves nothing by itself: it may be a second-best
    block, or stand between braces of its own."""
    verbatim = _SPACED in _text(spaced)
    if isinstance(objects, str) and _shows(objects):
        return verbatim and isinstance(strings, str) and _same_json(objects, strings)
    if verbatim:
        return True
    return False if _called(objects) else (True if _called(strings) else None)


def _shows(prompt: str) -> bool:
    """Whether the call's arguments stand in it, key by key; a member that is null may be left out."""
    return _PYTHON not in prompt and all(part in prompt for part in _SHOWN)


def _same_json(objects: str, strings: str) -> bool:
    """Whether the object was printed as JSON where the string was printed as it is."""
    before, written, after = strings.partition(_WRITTEN)
    if not written or not objects.startswith(before) or not objects.endswith(after):
        return False
    try:
        return bool(json.loads(objects[len(before) : len(objects) - len(after)]) == ARGUMENTS)
    except ValueError:
        return False


def _prints_null(render: Render, tools: Sequence[Json] | None, as_text: bool) -> bool:
    """Whether a content that is null comes out as the word None."""
    null, empty = (
        _text(_printed(render, _turn(_arguments(CallForm(as_text=as_text)), content), tools)).count("None")
        for content in ("null", "empty")
    )
    return null > empty


def _completed(render: Render, tools: Sequence[Json] | None, thought_field: str | None, form: CallForm) -> CallForm:
    """The form with what else a turn with calls may hold."""
    messages = _turn(_arguments(form), form.content, TEXT)
    beside_text = _called_beside_text(_printed(render, messages, tools))
    beside_thought = beside_text
    if beside_text and thought_field is not None:
        beside_thought = _called_beside_text(_printed(render, _thinking(messages, thought_field), tools))
    both = _text(_printed(render, _two_calls(_arguments(form), form.content), tools))
    together = both.count("70417") > 1
    return replace(form, beside_text=beside_text, beside_thought=beside_thought, together=together)


def _thinking(messages: list[Json], field: str) -> list[Json]:
    return [message | {field: THOUGHT} if message["role"] == "assistant" else message for message in messages]


def _arguments(form: CallForm) -> str | Json:
    return _WRITTEN if form.as_text else ARGUMENTS


def _printed(render: Render, messages: Sequence[Json], tools: Sequence[Json] | None) -> str | Failed:
    try:
        return render(messages, tools)
    except GatewayError as error:
        return Failed(error.message)


def _text(outcome: str | Failed) -> str:
    return outcome if isinstance(outcome, str) else ""


def _called(outcome: str | Failed) -> bool:
    return "70417" in _text(outcome)


def _called_beside_text(outcome: str | Failed) -> bool:
    return _called(outcome) and TEXT in _text(outcome)
