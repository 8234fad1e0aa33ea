"""Request bodies, made the same on every run: a short question, and a turn of a coding agent deep in a conversation.

The large one has the shape of what Codex CLI 0.169 sends on its fortieth item: instructions, calls with their outputs,
reasoning, tools of every kind it declares. About 200 kB; all words are made up.
"""

from __future__ import annotations

import random
from typing import Any

import orjson

LARGE_BYTES = 200_000
_TEXT = """
court letter envoy reads answers quietly between two rivers the bridge was closed before anyone noticed and every clerk
had copied "the same" line into his ledger path/to/file.py def value(self): return None # C:\\temp
"""
_WORDS = ("\n", *_TEXT.split())

Json = dict[str, Any]


def question(model: str, *, stream: bool = True, text: str = "Tell me about the court.") -> bytes:
    return orjson.dumps({"model": model, "input": text, "stream": stream})


def agent_turn(model: str) -> bytes:
    """About `LARGE_BYTES` bytes of JSON."""
    words = random.Random(7)
    body: Json = {
        "model": model,
        "stream": True,
        "instructions": _prose(words, 18_000),
        "input": _history(words),
        "tools": _tools(words),
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "01a2045d-0f38-7470-a125-af3a39dd0a9b",
        "client_metadata": {"session_id": "01a2045d-0f38-7470-a125-af3a39dd0a9b", "turn_id": "7"},
    }
    missing = LARGE_BYTES - len(orjson.dumps(body))
    body["instructions"] += _prose(words, missing)
    return orjson.dumps(body)


def _prose(words: random.Random, size: int) -> str:
    pieces: list[str] = []
    while size > 0:
        pieces.append(words.choice(_WORDS))
        size -= len(pieces[-1]) + 1
    return " ".join(pieces)


def _message(role: str, text: str) -> Json:
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}


def _history(words: random.Random) -> list[Json]:
    """40 items: the two opening messages, then turns of reasoning, a remark, a call and its output; some patches."""
    items = [_message("developer", _prose(words, 6_000)), _message("user", _prose(words, 1_500))]
    for turn in range(9):
        call_id = f"call_{turn:024d}"
        items.append({"type": "reasoning", "summary": [{"type": "summary_text", "text": _prose(words, 300)}]})
        items.append(_message("assistant", _prose(words, 400)))
        if turn % 3 == 2:
            patch = "*** Begin Patch\n" + _prose(words, 3_000) + "\n*** End Patch"
            items.append({"type": "custom_tool_call", "call_id": call_id, "name": "apply_patch", "input": patch})
            items.append({"type": "custom_tool_call_output", "call_id": call_id, "output": _prose(words, 300)})
            continue
        arguments = orjson.dumps({"cmd": f"sed -n 1,200p file_{turn}.py", "workdir": "/srv/court"}).decode()
        call = {"type": "function_call", "call_id": call_id, "name": "exec_command", "arguments": arguments}
        items.append(call)
        output = _prose(words, 16_500) + (" ✓ naïve" if turn % 3 == 0 else "")  # most outputs are plain ASCII
        items.append({"type": "function_call_output", "call_id": call_id, "output": output})
    items.append(_message("assistant", _prose(words, 800)))
    items.append(_message("user", _prose(words, 200)))
    return items


def _tools(words: random.Random) -> list[Json]:
    """30 tools: 20 plain functions, 8 in a namespace, a custom one with a grammar, and a hosted search."""
    functions = [_function("exec_command", words), *(_function(f"tool_{place}", words) for place in range(19))]
    members = [_function(f"agent_{place}", words) for place in range(8)]
    grammar = 'start: begin hunk+ end\nbegin: "*** Begin Patch" LF\nhunk: /.+/ LF\nend: "*** End Patch" LF?\n'
    return [
        *functions,
        {"type": "namespace", "name": "multi_agent_v1", "description": _prose(words, 80), "tools": members},
        {
            "type": "custom",
            "name": "apply_patch",
            "description": _prose(words, 300),
            "format": {"type": "grammar", "syntax": "lark", "definition": grammar},
        },
        {"type": "web_search", "external_web_access": True},
    ]


def _function(name: str, words: random.Random) -> Json:
    kinds = (
        {"type": "string"},
        {"type": "number"},
        {"type": "boolean"},
        {"type": "array", "items": {"type": "string"}},
    )
    properties = {f"field_{place}": {**kinds[place % 4], "description": _prose(words, 90)} for place in range(7)}
    properties["mode"] = {"type": "string", "description": _prose(words, 60), "enum": ["plain", "careful"]}
    if name == "exec_command":
        properties["cmd"] = {"type": "string", "description": "Shell command to execute."}
    return {
        "type": "function",
        "name": name,
        "description": _prose(words, 350),
        "strict": False,
        "parameters": {
            "type": "object",
            "properties": properties,
            "required": ["mode"],
            "additionalProperties": False,
        },
    }
