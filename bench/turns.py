"""Requests of an agent in each of the three protocols: a short one, and a long conversation that grows step by step.

A conversation is the same on every run with the same seed, and shares nothing but its shape with one of another seed:
about 205 kB with 60 tools and 28 steps of a remark, a call and its output. All words are made up.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import orjson

TOOLS = 60
STEPS = 28
_PROSE = "the envoy reads a letter from court and then copies each line of it into his ledger before anyone answers"
_WORDS = _PROSE.split()

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Step:
    call_id: str
    remark: str
    tool: str
    arguments: Json
    output: str


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    description: str
    schema: Json


@dataclass(slots=True)
class Conversation:
    instructions: str
    tools: list[Tool]
    steps: list[Step] = field(default_factory=list)

    def until(self, steps: int) -> Conversation:
        """As it was after so many steps."""
        return Conversation(self.instructions, self.tools, self.steps[:steps])


def short() -> Conversation:
    schema = {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}
    return Conversation("You are a coding agent.", [Tool("shell", "Runs a command.", schema)])


def long(seed: int, steps: int = STEPS) -> Conversation:
    """With `STEPS` steps about 205 kB of JSON in every protocol; one with more steps begins with the same bytes."""
    words = random.Random(seed)
    tools = [Tool(f"tool_{place}", _prose(words, 220), _schema(words)) for place in range(TOOLS)]
    conversation = Conversation(_prose(words, 14_000), tools)
    for place in range(steps):
        arguments = {"command": ["bash", "-lc", _prose(words, 80)], "path": f"/src/file_{place}.py"}
        remark, output = _prose(words, 200), _prose(words, 3_300 if place < STEPS else 1_000)
        call_id = f"call_{words.getrandbits(96):024x}"
        conversation.steps.append(Step(call_id, remark, f"tool_{place % TOOLS}", arguments, output))
    return conversation


def encode(protocol: str, model: str, conversation: Conversation, *, stream: bool = True) -> bytes:
    """The body of the request in `responses`, `messages` or `chat`."""
    body = {"model": model, "stream": stream, **PROTOCOLS[protocol](conversation)}
    if protocol == "chat" and stream:
        body["stream_options"] = {"include_usage": True}
    return orjson.dumps(body)


def _responses(conversation: Conversation) -> Json:
    items: list[Json] = [_item("user", "input_text", "Please mend the ledger.")]
    for step in conversation.steps:
        items.append(_item("assistant", "output_text", step.remark))
        call = {"name": step.tool, "arguments": _text(step.arguments)}
        items.append({"type": "function_call", "call_id": step.call_id, **call})
        items.append({"type": "function_call_output", "call_id": step.call_id, "output": step.output})
    tools = [
        {"type": "function", "name": each.name, "description": each.description, "strict": False}
        | {"parameters": each.schema}
        for each in conversation.tools
    ]
    settings = {"tool_choice": "auto", "parallel_tool_calls": True, "store": False, "prompt_cache_key": "agent"}
    return {"instructions": conversation.instructions, "input": items, "tools": tools, **settings}


def _item(role: str, kind: str, text: str) -> Json:
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}


def _messages(conversation: Conversation) -> Json:
    system = [{"type": "text", "text": conversation.instructions, "cache_control": {"type": "ephemeral"}}]
    messages: list[Json] = [{"role": "user", "content": [{"type": "text", "text": "Please mend the ledger."}]}]
    for step in conversation.steps:
        call = {"type": "tool_use", "id": step.call_id, "name": step.tool, "input": step.arguments}
        messages.append({"role": "assistant", "content": [{"type": "text", "text": step.remark}, call]})
        result = {"type": "tool_result", "tool_use_id": step.call_id, "content": step.output}
        messages.append({"role": "user", "content": [result]})
    tools = [
        {"name": each.name, "description": each.description, "input_schema": each.schema} for each in conversation.tools
    ]
    return {"system": system, "messages": messages, "tools": tools, "max_tokens": 4096}


def _chat(conversation: Conversation) -> Json:
    messages: list[Json] = [
        {"role": "system", "content": conversation.instructions},
        {"role": "user", "content": "Please mend the ledger."},
    ]
    for step in conversation.steps:
        function = {"name": step.tool, "arguments": _text(step.arguments)}
        call = {"id": step.call_id, "type": "function", "function": function}
        messages.append({"role": "assistant", "content": step.remark, "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": step.call_id, "content": step.output})
    tools = [
        {
            "type": "function",
            "function": {"name": each.name, "description": each.description, "parameters": each.schema},
        }
        for each in conversation.tools
    ]
    return {"messages": messages, "tools": tools, "max_tokens": 4096}


PROTOCOLS = {"responses": _responses, "messages": _messages, "chat": _chat}


def _schema(words: random.Random) -> Json:
    options = {
        f"option_{place}": {"type": "string", "enum": ["a", "b", "c"], "description": _prose(words, 60)}
        for place in range(3)
    }
    properties = {
        "command": {"type": "array", "items": {"type": "string"}, "description": _prose(words, 160)},
        "path": {"type": "string", "description": _prose(words, 120)},
        "timeout_ms": {"type": "integer", "description": _prose(words, 90)},
        "options": {"type": "object", "properties": options},
    }
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["command", "path"],
        "properties": properties,
    }


def _prose(words: random.Random, size: int) -> str:
    pieces: list[str] = []
    while size > 0:
        pieces.append(words.choice(_WORDS))
        size -= len(pieces[-1]) + 1
    return " ".join(pieces)


def _text(value: Json) -> str:
    return orjson.dumps(value).decode()
