"""Qwen3-Coder (and Nemotron 3): `<tool_call><function=NAME><parameter=KEY>` VALUE `</parameter></function>
</tool_call>`, each tag on its own line. The outer opening tag is at times forgotten."""

from __future__ import annotations

import re
from typing import ClassVar

from dragoman.backends.markup.tagged import TaggedCalls


class Qwen3Coder(TaggedCalls):
    openers: ClassVar = {
        "<tool_call>": "_between_calls",
        "\n<tool_call>": "_between_calls",
        "<function=": "_call_tag",
        "\n<function=": "_call_tag",
    }
    call_tag = re.compile(r"\s*([\w.:/-]+)\s*>")
    parameter_open = "<parameter="
    parameter_tag = re.compile(r"<parameter=(?P<key>[^>\n]+)>")
    value_ends = ("</parameter>",)
    call_ends = ("</function>",)
    next_calls: ClassVar = {"<function=": "_call_tag"}
    section_ends = ("</tool_call>",)
    trims_newline = True
