"""Declared tools as the model is shown them: in a chat server's request or in a prompt that is rendered here.

Most templates print the list of tools before the conversation, so a tool that joins the list costs the prefix cache.
Hence a tool that became known in the conversation can also be described in it.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from dragoman.backends.prompts.plain_schemas import plain_schema
from dragoman.backends.prompts.rendering import Rendering
from dragoman.translators.ir import Image, Message, Named, Part, Request, Text, Tool, ToolReference, ToolResult

Json = dict[str, Any]


def shown_tools(request: Request, settings: Rendering) -> tuple[Tool, ...]:
    if request.tool_choice == "none" and settings.tool_choice_none == "drop":
        return ()
    if settings.deferred_tools != "in_place":
        return request.tools
    return tuple(tool for tool in request.tools if not tool.deferred or request.tool_choice == Named(tool.name))


def described(tool: Tool, settings: Rendering) -> Json:
    """Description and parameters are always there: NVIDIA NIM refuses tools without them (9router#276)."""
    parameters = dict(tool.parameters) or {"type": "object", "properties": {}}
    if settings.tool_schemas == "plain":
        parameters = plain_schema(parameters)
    function: Json = {"name": tool.name, "description": tool.description, "parameters": parameters}
    if tool.strict and settings.strict_tools:
        function["strict"] = True
    if tool.deferred and settings.deferred_tools == "native":
        function["defer_loading"] = True
    return {"type": "function", "function": function}


def with_definitions(message: Message, settings: Rendering) -> Message:
    """The message with the definitions of the tools that it makes known, where nothing else shows them: with `native` a
    template knows references in results only."""
    parts = tuple(_defined(part, settings) for part in message.parts)
    return message if parts == message.parts else Message(message.role, parts)


def _defined(part: Part, settings: Rendering) -> Part:
    match part:
        case ToolReference(text=text, tool=Tool() as tool):
            return Text(f"{text}\n{_definition(tool, settings)}")
        case ToolResult(content=content) if settings.deferred_tools == "in_place":
            told = tuple(_defined(item, settings) for item in content)
            return ToolResult(
                part.call_id, tuple(item for item in told if isinstance(item, Text | Image)), part.is_error
            )
        case _:
            return part


def _definition(tool: Tool, settings: Rendering) -> str:
    function = described(replace(tool, deferred=False), settings)["function"]
    return json.dumps(function, ensure_ascii=False, separators=(",", ":"), default=dict)
