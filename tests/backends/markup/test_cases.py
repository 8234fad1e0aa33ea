"""`tests/cases/markup.json`: the smallest texts that were once read wrong, whole and character by character."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dragoman.backends.markup import open_markup
from dragoman.translators.ir import Message, Reasoning, Request, StopReason, Text, Tool, ToolCall
from dragoman.translators.parts import Parts
from tests.event_grammar import check, fold

CASES = json.loads((Path(__file__).parents[2] / "cases" / "markup.json").read_text("utf-8"))
STRINGS = {"type": "array", "items": {"type": "string"}}
TOOLS = [
    {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"type": "string"}, "days": {"type": "integer"}},
        },
    },
    {
        "name": "list_rooms",
        "parameters": {
            "type": "object",
            "properties": {"floor": {"type": "integer"}, "tags": STRINGS, "note": {"type": "string"}},
        },
    },
]


def read(case: dict[str, Any], pieces: list[str]) -> dict[str, Any]:
    tools = tuple(Tool(tool["name"], "", tool["parameters"]) for tool in case.get("tools", TOOLS))
    request = Request(id="r1", model="m", messages=(Message("user", (Text("Go"),)),), tools=tools)
    parts = Parts.of(request)
    markup = open_markup(case["family"], parts, prompt=case["prompt_ends"], request=request)
    for piece in pieces:
        markup.feed(piece)
    markup.finish()
    parts.finish(StopReason.STOP, None)
    events = parts.take()
    check(events)
    said = fold(events).parts
    return {
        "content": "".join(part.text for part in said if isinstance(part, Text)),
        "reasoning": "".join(part.text for part in said if isinstance(part, Reasoning)),
        "calls": [
            {"name": part.name, "arguments": json.loads(part.arguments)} for part in said if isinstance(part, ToolCall)
        ],
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_what_was_once_read_wrong(case: dict[str, Any]) -> None:
    assert read(case, [case["text"]]) == case["expect"]
    assert read(case, [*case["text"]]) == case["expect"]
