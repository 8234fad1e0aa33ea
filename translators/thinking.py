"""The switches for thinking that clients of open models use, and what else they tell the chat template.

`chat_template_kwargs.enable_thinking`, `chat_template_kwargs.thinking`, `enable_thinking` and `thinking: {"type": …}`
are one wish, and mean the same in every protocol. "Off" is the effort `none`. "On" says nothing about how much, so it
becomes the template's own switch: some templates are off by default, and each reads its own name for it.

Variables that we do not know go on to servers that take them, except for those by which a client could replace the
template or the conversation.
"""

from __future__ import annotations

from typing import Any

from dragoman.translators import soft_words
from dragoman.translators.fields import RequestFields, Unread
from dragoman.translators.ir import Thinking

SWITCHES = ("enable_thinking", "thinking")
_FIELD = "chat_template_kwargs"
_RESERVED = frozenset(
    {
        "add_generation_prompt",
        "bos_token",
        "chat_template",
        "continue_final_message",
        "conversation",
        "eos_token",
        "max_length",
        "messages",
        "padding",
        "raise_exception",
        "return_assistant_tokens_mask",
        "return_dict",
        "return_tensors",
        "strftime_now",
        "tokenize",
        "tokenizer",
        "tokenizer_kwargs",
        "tools",
        "truncation",
    }
)


def switched(
    fields: RequestFields, asked: Thinking, unread: Unread, switch: bool | None = None
) -> tuple[Thinking, dict[str, Any]]:
    """`asked` with what the switches say, and the variables for the template. `switch` is a further one, which only
    this protocol has. A word for how much to think is kept beside a switch."""
    given = fields.chat_template_kwargs or {}
    kwargs = {name: value for name, value in given.items() if name not in _RESERVED}
    if len(kwargs) < len(given):
        unread.add(_FIELD, {name: True for name in given if name in _RESERVED})
    said = (*(kwargs.get(name) for name in SWITCHES), fields.enable_thinking, switch)
    on = next((each for each in said if isinstance(each, bool)), None)
    if on is None:
        return asked, kwargs
    if on is False and asked.effort is None:
        return Thinking("none", asked.budget), kwargs
    return asked, {**dict.fromkeys(SWITCHES, on), **kwargs}


def switch_of(value: object) -> bool | None:
    """What `thinking` says in the shape of the Messages API, or as a bare boolean."""
    if isinstance(value, bool):
        return value
    word = value.get("type") if isinstance(value, dict) else value
    plain = soft_words.plainly(word) if isinstance(word, str) else ""
    return False if plain in soft_words.OFF else True if plain in ("enabled", "adaptive", "true", "on") else None
