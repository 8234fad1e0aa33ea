"""Qwen3-Coder (and Nemotron 3): `<tool_call><function=NAME><parameter=KEY>` VALUE `</parameter></function>
</tool_call>`, each tag on its own line. The outer opening tag is at times forgotten."""

from __future__ import annotations

import re
from typing import ClassVar

from dragoman.backends.markup.tagged import TaggedCalls

_NAME = re.compile(r"\s*([\w.:/-]+)\s*>")


class Qwen3Coder(TaggedCalls):
    openers: ClassVar = {
        "<tool_call>": "_wrapped",
        "\n<tool_call>": "_wrapped",
        "<function=": "_function",
        "\n<function=": "_function",
    }
    parameter_open = "<parameter="
    parameter_tag = re.compile(r"<parameter=(?P<key>[^>\n]+)>")
    value_ends = ("</parameter>",)
    call_ends = ("</function>",)
    next_calls: ClassVar = {"<function=": "_function"}
    section_ends = ("</tool_call>",)
    trims_newline = True

    def _wrapped(self) -> bool:
        return self._between_calls()

    def _function(self) -> bool:
        end = self._until(">")
        if end == -1:
            return False
        match = _NAME.fullmatch(self._text, self._at, end + 1) if end is not None else None
        if match is None:
            return self._broken()
        self._take(match.end())
        return self._parameters_of(match[1])
