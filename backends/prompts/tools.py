"""Declared tools as the model is shown them: in a chat server's request or in a prompt that is rendered here."""

from __future__ import annotations

from typing import Any

from dragoman.backends.prompts.rendering import Rendering
from dragoman.translators.ir import Request, Tool

Json = dict[str, Any]


def shown_tools(request: Request, settings: Rendering) -> tuple[Tool, ...]:
    return () if request.tool_choice == "none" and settings.tool_choice_none == "drop" else request.tools


def described(tool: Tool, settings: Rendering) -> Json:
    """Description and parameters are always there: NVIDIA NIM refuses tools without them (9router#276)."""
    parameters = dict(tool.parameters) or {"type": "object", "properties": {}}
    function: Json = {"name": tool.name, "description": tool.description, "parameters": parameters}
    if tool.strict and settings.strict_tools:
        function["strict"] = True
    return {"type": "function", "function": function}
