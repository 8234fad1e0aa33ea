"""DeepSeek: three forms of calls.

V3 and R1: in a section, each call begins with the word function, a separator and the NAME; the JSON stands in a fence.
V3.1: the NAME comes before the separator, bare JSON after it. V3.2: `<DSML>` tags (with bars) around each parameter,
which say themselves whether it is a string. The bars of all tokens are U+FF5C, their underscores U+2581. A section ends
reasoning that was left open: its markers are special tokens.
"""

from __future__ import annotations

import re
from typing import ClassVar

from dragoman.backends.markup.headed import HeadedCalls
from dragoman.backends.markup.tagged import TaggedCalls

_NAME = re.compile(r"[\w.:/-]+")
_BAR, _LINE = "\uff5c", "\u2581"


def _token(words: str) -> str:
    return f"<{_BAR}{words.replace(' ', _LINE)}{_BAR}>"


CALLS_BEGIN, CALLS_END = _token("tool calls begin"), _token("tool calls end")
_CALL_BEGIN, _CALL_END = _token("tool call begin"), _token("tool call end")
DSML = f"{_BAR}DSML{_BAR}"
_PARAMETER = re.compile(rf'<{DSML}parameter name="(?P<key>[^"]*)"(?:\s+string="(?P<string>true|false)")?\s*>')
_INVOKES = f"<{DSML}function_calls>"


class DeepSeek(TaggedCalls, HeadedCalls):
    openers: ClassVar = {
        CALLS_BEGIN: "_section",
        _CALL_BEGIN: "_header",
        _INVOKES: "_between_calls",
        f"\n\n{_INVOKES}": "_between_calls",
    }
    breaks = (CALLS_BEGIN, _INVOKES)
    ends = (_token("end of sentence"), "<|EOT|>")
    again = (_CALL_BEGIN,)
    closers = ("```", _CALL_END, CALLS_END)
    separator = _token("tool sep")

    call_tag = re.compile(r'\s*name="(\s*[^"\s][^"]*)"\s*>')
    parameter_open = f"<{DSML}parameter"
    parameter_tag = _PARAMETER
    value_ends = (f"</{DSML}parameter>",)
    call_ends = (f"</{DSML}invoke>",)
    next_calls: ClassVar = {f"<{DSML}invoke": "_call_tag"}
    section_ends = (f"</{DSML}function_calls>",)

    def _read_header(self, header: str) -> tuple[str, str] | None:
        return (header, "") if _NAME.fullmatch(header) else None

    def _arguments_begin(self) -> bool:
        """V3's header is the word function; the name and the fence follow."""
        if not self._skip_blank():
            return False
        if self._text[self._at] not in "{`" and self._head[0] == "function":
            end = self._until("\n")
            if end == -1:
                return False
            name = self._text[self._at : end].strip() if end is not None else ""
            if end is None or not _NAME.fullmatch(name):
                return self._broken()
            self._head = (name, "")
            self._take(end)
            return True
        found = self._literal("```json", "```")
        if found == "" or (found == "```" and not self._final and "```json".startswith(self._text[self._at :])):
            return False
        if found is not None:
            self._take(self._at + len(found))
            return True
        return super()._arguments_begin()

    def _is_string(self, match: re.Match[str]) -> bool | None:
        return None if match["string"] is None else match["string"] == "true"
