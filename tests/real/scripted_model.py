"""What the functions that play a model in tests of real clients read and answer: chat completions on both sides."""

from __future__ import annotations

import json

from tests.scripted import Json, Script, call_stream, text_stream


def function_names(asked: Json) -> list[str]:
    return [tool["function"]["name"] for tool in asked.get("tools", [])]


def results(asked: Json) -> list[str]:
    """What tools have answered, in the order in which the model sees it."""
    return [str(message["content"]) for message in asked["messages"] if message["role"] == "tool"]


def says(*pieces: str) -> Script:
    return Script(text_stream(*pieces))


def calls(*made: tuple[str, Json], text: str = "") -> Script:
    return Script(call_stream(*((name, json.dumps(arguments)) for name, arguments in made), text=text))
