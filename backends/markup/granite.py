"""Granite: `<|tool_call|>[{…}, …]` (3.0, 3.2, 3.3), `<tool_call>[…]` (3.1), `<tool_call>{…}</tool_call>` (4).
Phi-4-mini closes the first form with `<|/tool_call|>`. After reasoning, 3.3 puts its answer into `<response>`."""

from __future__ import annotations

from typing import ClassVar

from dragoman.backends.markup.json_calls import JsonCalls


class Granite(JsonCalls):
    openers: ClassVar = {
        "<|tool_call|>": "_json_calls",
        "<tool_call>": "_json_calls",
        "\n<tool_call>": "_json_calls",
        "<response>": "_frame",
        "</response>": "_frame",
    }
    closers = ("</tool_call>", "<|/tool_call|>")
    ends = ("<|end_of_text|>", "<|end|>", "<|endoftext|>")
    arrays = True

    def _frame(self) -> bool:
        tag, self._raw = "".join(self._raw or ()), None
        self._state = self._after_tag if self._reasoned else self._outside
        if not self._reasoned:  # without reasoning there is no frame, and the tag is text
            self._emit_text(tag)
        return True
