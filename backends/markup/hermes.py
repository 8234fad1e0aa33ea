"""Hermes, Qwen 2.5 and 3: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, the newline before it being the
template's."""

from __future__ import annotations

from typing import ClassVar

from dragoman.backends.markup.json_calls import JsonCalls


class Hermes(JsonCalls):
    openers: ClassVar = {"<tool_call>": "_json_calls", "\n<tool_call>": "_json_calls"}
    closers = ("</tool_call>",)
    arrays = True
