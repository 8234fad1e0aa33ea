"""Granite: `<|tool_call|>[{…}, …]` (3.0, 3.2, 3.3), `<tool_call>[…]` (3.1), `<tool_call>{…}</tool_call>` (4).
Phi-4-mini closes the first form with `<|/tool_call|>`."""

from __future__ import annotations

from typing import ClassVar

from backends.markup.json_calls import JsonCalls


class Granite(JsonCalls):
    openers: ClassVar = {"<|tool_call|>": "_json_calls", "<tool_call>": "_json_calls", "\n<tool_call>": "_json_calls"}
    closers = ("</tool_call>", "<|/tool_call|>")
    ends = ("<|end_of_text|>", "<|end|>", "<|endoftext|>")
    arrays = True
