"""Kimi K2: `<|tool_calls_section_begin|>`, then for each call `<|tool_call_begin|>functions.NAME:INDEX`,
`<|tool_call_argument_begin|>{…}<|tool_call_end|>`, and `<|tool_calls_section_end|>`.

The model reads its earlier calls by these ids, so the id is kept as it is; a bare `functions.NAME` or a name alone, as
the model writes at times, is a name without an id. A section may begin within reasoning, which it ends.
"""

from __future__ import annotations

import re
from typing import ClassVar

from dragoman.backends.markup.headed import HeadedCalls

_HEADER = re.compile(r"(?P<id>(?:functions\.)?(?P<name>[\w.-]+?)(?::\d+)?)")


class KimiK2(HeadedCalls):
    openers: ClassVar = {"<|tool_calls_section_begin|>": "_section", "<|tool_call_begin|>": "_header"}
    breaks = ("<|tool_calls_section_begin|>", "<|tool_call_begin|>")
    again = ("<|tool_call_begin|>",)
    closers = ("<|tool_call_end|>", "<|tool_calls_section_end|>")
    separator = "<|tool_call_argument_begin|>"
    ends = ("<|im_end|>", "[EOS]")

    def _read_header(self, header: str) -> tuple[str, str] | None:
        match = _HEADER.fullmatch(header)
        if match is None:
            return None
        return match["name"], header if ":" in header else ""
