"""Mistral: `[TOOL_CALLS] [{"name": …, "arguments": {…}, "id": …}, …]`, and since tokenizer v11 for every call
`[TOOL_CALLS]NAME[ARGS]{…}`, with `[CALL_ID]…` before `[ARGS]` in some. Reasoning stands in `[THINK]…[/THINK]`.
"""

from __future__ import annotations

import re
from typing import ClassVar

from dragoman.backends.markup.headed import HeadedCalls
from dragoman.backends.markup.json_calls import JsonCalls

_HEADER = re.compile(r"(?P<name>[\w.:/-]+)\s*(?:\[CALL_ID\]\s*(?P<id>\S+))?")
_MAY_BE = re.compile(r"\s*[\w.:/-]+\s*(?:\[.*)?", re.DOTALL)


class Mistral(JsonCalls, HeadedCalls):
    openers: ClassVar = {"[TOOL_CALLS]": "_either"}
    breaks = ("[TOOL_CALLS]",)
    thinking: ClassVar = {"[THINK]": "[/THINK]", "<think>": "</think>"}
    ends = ("</s>",)
    separator = "[ARGS]"
    arrays = True

    def _either(self) -> bool:
        if not self._skip_blank():
            return False
        self._state = self._json_calls if self._text[self._at] in "[{" else self._header
        return True

    def _header(self) -> bool:
        return super()._header() if _MAY_BE.fullmatch(self._text, self._at) else self._broken()

    def _read_header(self, header: str) -> tuple[str, str] | None:
        match = _HEADER.fullmatch(header)
        return None if match is None else (match["name"], match["id"] or "")

    def _section(self) -> bool:
        return self._leave()
