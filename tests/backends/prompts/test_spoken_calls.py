"""Calls as text, in the markup that a template asks for without printing it."""

from __future__ import annotations

from typing import Any

import pytest

from dragoman.backends.markup import open_markup
from dragoman.backends.prompts.spoken_calls import spoken
from dragoman.translators.ir import Message, Request, StopReason, Text, Tool, ToolCall
from dragoman.translators.parts import Parts
from tests.event_grammar import fold

CALLS: list[dict[str, Any]] = [
    {"function": {"name": "look_up", "arguments": '{"city": "Zürich", "days": 2, "now": true}'}},
    {"function": {"name": "list_rooms", "arguments": '{"tags": ["a"]}'}},
]
GRANITE = "respond only with <|tool_call|> followed by a JSON list of tools used."
GLM = "<tool_call>function_name\n<arg_key>parameter_name</arg_key>"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (
            "",
            '{"name": "look_up", "arguments": {"city": "Zürich", "days": 2, "now": true}}\n'
            '{"name": "list_rooms", "arguments": {"tags": ["a"]}}',
        ),
        (
            GRANITE,
            '<|tool_call|>[{"name": "look_up", "arguments": {"city": "Zürich", "days": 2, "now": true}}, '
            '{"name": "list_rooms", "arguments": {"tags": ["a"]}}]',
        ),
        (
            "List of tools: <|tool_list_start|>[",
            "<|tool_call_start|>[look_up(city='Zürich', days=2, now=True), list_rooms(tags=['a'])]<|tool_call_end|>",
        ),
        (
            GLM,
            "<tool_call>look_up\n<arg_key>city</arg_key>\n<arg_value>Zürich</arg_value>\n"
            "<arg_key>days</arg_key>\n<arg_value>2</arg_value>\n<arg_key>now</arg_key>\n<arg_value>true</arg_value>\n"
            '</tool_call>\n<tool_call>list_rooms\n<arg_key>tags</arg_key>\n<arg_value>["a"]</arg_value>\n</tool_call>',
        ),
    ],
)
def test_calls_are_written_as_the_model_is_told_to(source: str, text: str) -> None:
    assert spoken(CALLS, source) == text


@pytest.mark.parametrize("source", ["", GRANITE, GLM, "List of tools: ["])
def test_arguments_that_are_no_object_are_written_as_they_are(source: str) -> None:
    assert '"arguments": "nonsense"' in spoken([{"function": {"name": "f", "arguments": "nonsense"}}], source)


@pytest.mark.parametrize(("source", "family"), [(GRANITE, "granite"), (GLM, "glm")])
def test_what_is_written_reads_as_the_same_calls(source: str, family: str) -> None:
    tools = (Tool("look_up", "", {"type": "object"}), Tool("list_rooms", "", {"type": "object"}))
    asked = Request(id="r", model="m", messages=(Message("user", (Text("?"),)),), tools=tools)
    parts = Parts.of(asked)
    markup = open_markup(family, parts, request=asked)
    markup.feed(spoken(CALLS, source))
    markup.finish()
    parts.finish(StopReason.STOP, None)
    calls = [part for part in fold(parts.take()).parts if isinstance(part, ToolCall)]
    assert [call.name for call in calls] == ["look_up", "list_rooms"]
    assert "Zürich" in calls[0].arguments
