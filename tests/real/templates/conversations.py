"""Fourteen conversations that agents have, as we render them for a template and as its author expects them."""

from __future__ import annotations

import json
from typing import Any

from dragoman.backends.prompts.call_form import THOUGHT_FIELDS

Json = dict[str, Any]

TOOLS: list[Json] = [
    {
        "type": "function",
        "function": {
            "name": "look_up",
            "description": "Looks up the weather of a city & more.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "A city."},
                    "days": {"type": "integer", "description": "How many days."},
                },
                "required": ["city"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "list_rooms",
            "description": "Lists rooms.",
            "parameters": {
                "type": "object",
                "properties": {
                    "floor": {"type": "integer", "description": "A floor."},
                    "tags": {"type": "array", "items": {"type": "string"}, "description": "Tags."},
                },
            },
        },
    },
]
PIXEL = "data:image/png;base64,iVBORw0KGgo="


def say(role: str, content: Any, **more: Any) -> Json:
    return {"role": role, "content": content, **more}


def call(id: str, name: str, **arguments: Any) -> Json:
    written = json.dumps(arguments, ensure_ascii=False)
    return {"id": id, "type": "function", "function": {"name": name, "arguments": written}}


def result(id: str, content: str) -> Json:
    return say("tool", content, tool_call_id=id)


SYSTEM = say("system", "Be brief.")
ASK = say("user", "Weather?")
LOOK_UP = call("callaaaa1", "look_up", city="Zürich", days=2)
LIST_ROOMS = call("callbbbb2", "list_rooms", floor=2, tags=["quiet", "sunny side"])
SUNNY = result("callaaaa1", "sunny")
THANKS = say("user", "Thanks. And tomorrow?")
THOUGHT = {"reasoning_content": "I look it up."}

# name: messages, and whether tools are declared
CONVERSATIONS: dict[str, tuple[list[Json], bool]] = {
    "question": ([ASK], False),
    "turns": ([SYSTEM, ASK, say("assistant", "Sunny."), THANKS], False),
    "two system messages": ([SYSTEM, say("system", "Be kind."), ASK], False),
    "late system message": ([SYSTEM, ASK, say("assistant", "Sunny."), say("system", "Be kind."), THANKS], False),
    "developer": ([say("developer", "Be brief."), ASK], False),
    "text parts": ([SYSTEM, say("user", [{"type": "text", "text": "Weather?"}])], False),
    "image": (
        [say("user", [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": PIXEL}}])],
        False,
    ),
    "tools": ([SYSTEM, ASK], True),
    "call and result": ([SYSTEM, ASK, say("assistant", None, tool_calls=[LOOK_UP]), SUNNY], True),
    "parallel calls": (
        [
            SYSTEM,
            ASK,
            say("assistant", None, tool_calls=[LOOK_UP, LIST_ROOMS]),
            SUNNY,
            result("callbbbb2", "12, 14"),
            say("assistant", "Sunny; rooms 12 and 14."),
            THANKS,
        ],
        True,
    ),
    "call beside text": ([SYSTEM, ASK, say("assistant", "One moment.", tool_calls=[LOOK_UP]), SUNNY], True),
    "thought": ([SYSTEM, ASK, say("assistant", "Sunny.", **THOUGHT), THANKS], False),
    "thought and call": ([SYSTEM, ASK, say("assistant", None, tool_calls=[LOOK_UP], **THOUGHT), SUNNY], True),
    "thought, text and call": (
        [SYSTEM, ASK, say("assistant", "One moment.", tool_calls=[LOOK_UP], **THOUGHT), SUNNY],
        True,
    ),
}


def as_authors_expect(messages: list[Json]) -> list[Json]:
    """Arguments are objects, a result knows its call's name, and a thought is found under whatever name is read."""
    names = {call["id"]: call["function"]["name"] for message in messages for call in message.get("tool_calls", ())}
    expected: list[Json] = []
    for message in messages:
        message = dict(message)
        if calls := message.get("tool_calls"):
            message["tool_calls"] = [call | {"function": _object(call["function"])} for call in calls]
        if thought := message.get("reasoning_content"):
            message |= dict.fromkeys(THOUGHT_FIELDS, thought)
        if message["role"] == "tool":
            message["name"] = names[message["tool_call_id"]]
        expected.append(message)
    return expected


def _object(function: Json) -> Json:
    return function | {"arguments": json.loads(function["arguments"])}
