"""Whether a turn's prompt begins with that of the turn before it, which is what a server's prefix cache lives on.

A conversation is known by the client's key, its session, the model and its first user message, so that the side calls
of a session are none of its turns. Of its last prompt only hashes and sizes are kept, and of the conversations that
were not continued for the longest time nothing. The prompt's tools stand before its messages. An answer that the client
sends back is new in the next turn, and no part of the prompt before it.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from dataclasses import dataclass

import orjson

from dragoman.gateway.calls.context_window import weight
from dragoman.translators.ir import Message, Request, Tool

MOST_CONVERSATIONS = 1000
MOST_KEPT = 500_000  # messages of all conversations, of 16 bytes each
MOST_MESSAGES = 4000  # of a conversation that is followed
# Sets of tools, and the bytes of their JSON together; those that a client sends again are the same objects.
MOST_DECLARED = 64
MOST_DECLARED_BYTES = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Prefix:
    """How a prompt goes on from the last one. `left_at` is the first place that differs, such as `tools` or
    `messages[3]`, None where there is none; `lost` are the bytes of the last prompt from there on."""

    left_at: str | None = None
    lost: int = 0


@dataclass(frozen=True, slots=True)
class _Prompt:
    """`tools`: their hash and size."""

    tools: tuple[int, int]
    messages: array[int]  # hashes
    sizes: array[int]


class Prefixes:
    def __init__(self) -> None:
        self._last: OrderedDict[int, _Prompt] = OrderedDict()  # by hashes, since clients choose names of any length
        self._kept = 0  # messages
        # by the identities of the tools, which are kept, so that no others can have them
        self._declared: OrderedDict[tuple[int, ...], tuple[tuple[Tool, ...], tuple[int, int]]] = OrderedDict()
        self._declared_bytes = 0

    def clear(self) -> None:
        self._last.clear()
        self._declared.clear()
        self._kept = self._declared_bytes = 0

    def follow(self, owner: str, request: Request) -> Prefix | None:
        """How the prompt goes on from the last one of its conversation; None where that is not known."""
        first = next((message for message in request.messages if message.role == "user"), None)
        if first is None or len(request.messages) > MOST_MESSAGES:
            return None
        key = hash((owner, request.affinity, request.model, _hash(first)))
        last = self._last.pop(key, None)
        prompt = self._last[key] = self._prompt(request, last)
        self._kept += len(prompt.messages) - (0 if last is None else len(last.messages))
        while len(self._last) > MOST_CONVERSATIONS or self._kept > MOST_KEPT:
            _, oldest = self._last.popitem(last=False)
            self._kept -= len(oldest.messages)
        return None if last is None else _compared(last, prompt)

    def _prompt(self, request: Request, last: _Prompt | None) -> _Prompt:
        messages = array("q", map(_hash, request.messages))
        known = 0 if last is None else _common(last.messages, messages)
        sizes = array("q") if last is None else last.sizes[:known]
        sizes.extend(map(weight, request.messages[known:]))
        return _Prompt(self._tools(request.tools), messages, sizes)

    def _tools(self, tools: tuple[Tool, ...]) -> tuple[int, int]:
        key = tuple(map(id, tools))
        if (known := self._declared.get(key)) is not None:
            self._declared.move_to_end(key)
            return known[1]
        _, size = made = _declared(tools)
        if size <= MOST_DECLARED_BYTES:
            self._declared[key] = tools, made
            self._declared_bytes += size
        while len(self._declared) > MOST_DECLARED or self._declared_bytes > MOST_DECLARED_BYTES:
            _, (_, (_, oldest)) = self._declared.popitem(last=False)
            self._declared_bytes -= oldest
        return made


def _declared(tools: tuple[Tool, ...]) -> tuple[int, int]:
    shown = [(tool.name, tool.description, tool.strict, tool.parameters) for tool in tools]
    try:
        text = orjson.dumps(shown, default=dict)
    except TypeError:  # an integer beyond 64 bits, or nested deeper than the encoder goes
        text = repr(shown).encode("utf-8", "replace")
    return hash(text), len(text)


def _hash(message: Message) -> int:
    try:
        return hash(message)
    except TypeError:  # it makes a tool known, whose schema is a mapping
        return hash(repr(message))


def _compared(last: _Prompt, prompt: _Prompt) -> Prefix:
    if prompt.tools != last.tools:
        return Prefix("tools", last.tools[1] + sum(last.sizes))
    common = _common(last.messages, prompt.messages)
    if common == len(last.messages):
        return Prefix()
    return Prefix(f"messages[{common}]", sum(last.sizes[common:]))


def _common(one: array[int], other: array[int]) -> int:
    """How many messages are the same from the beginning on."""
    least = min(len(one), len(other))
    if one[:least] == other[:least]:
        return least
    return next(place for place in range(least) if one[place] != other[place])
