"""GLM 4.5 and later: `<tool_call>NAME`, for each parameter `<arg_key>KEY</arg_key>` and `<arg_value>VALUE</arg_value>`,
and `</tool_call>`; 4.5 and 4.6 write newlines between the tags, 4.7 none."""

from __future__ import annotations

import re
from typing import ClassVar

from dragoman.backends.markup.scanner import HEADER_LIMIT
from dragoman.backends.markup.tagged import TaggedCalls

_NAME = re.compile(r"\s*([\w.:/-]+)\s*")
_MAY_BE_NAME = re.compile(r"\s*[\w.:/-]*\s*")


class Glm(TaggedCalls):
    openers: ClassVar = {"<tool_call>": "_name", "\n<tool_call>": "_name"}
    ends = ("<|user|>", "<|observation|>", "<|endoftext|>")
    parameter_open = "<arg_key>"
    parameter_tag = re.compile(r"<arg_key>(?P<key>[^<]*)</arg_key>\s*<arg_value>")
    parameter_tag_ends = "<arg_value>"
    value_ends = ("</arg_value>",)
    call_ends = ("</tool_call>",)

    def _name(self) -> bool:
        match = _MAY_BE_NAME.match(self._text, self._at)
        assert match is not None
        if match.end() == len(self._text):
            return self._broken() if match.end() - self._at > HEADER_LIMIT else False
        name = _NAME.fullmatch(self._text, self._at, match.end())
        if name is None or self._text[match.end()] != "<":
            return self._broken()
        self._take(match.end())
        return self._parameters_of(name[1])
