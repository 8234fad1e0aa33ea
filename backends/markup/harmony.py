"""Harmony, the format of gpt-oss: messages of `<|start|>ROLE<|channel|>CHANNEL<|message|>…` ended by `<|end|>`,
`<|call|>` or `<|return|>`; `to=RECIPIENT` and `<|constrain|>json` stand in the header.

The prompt ends in `<|start|>assistant`, or further on where the channel is forced. The channel analysis is reasoning;
final, and commentary without a recipient, are text; a message to a recipient is a call of it. Text outside of any
message is text. It wants the special tokens as text: a detokenizer that skips them leaves nothing to read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from dragoman.backends.markup.headed import BareArguments
from dragoman.backends.markup.scanner import markers_of
from dragoman.translators.ir import Request
from dragoman.translators.parts import Parts

_MESSAGE, _START = "<|message|>", "<|start|>"
_RECIPIENT = re.compile(r"\bto=([^\s<]+)")
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)")
_ROLES = frozenset({"assistant", "user", "all", "system", "developer"})
_STOPS = ("<|end|>", "<|return|>", "<|call|>")


class Harmony(BareArguments):
    openers: ClassVar = {"<|channel|>": "_header", "<|start|>": "_header", "<|message|>": "_body"}
    thinking: ClassVar[Mapping[str, str]] = {}
    ends = ("<|endoftext|>",)

    def __init__(self, parts: Parts, *, prompt: str = "", request: Request | None = None) -> None:
        super().__init__(parts, prompt=prompt, request=request)
        self._reasons = False  # this message is reasoning
        self._outer = markers_of((*self.openers, *_STOPS, *self.ends))
        self._stops = markers_of((*_STOPS, _START, "<|channel|>", *self.ends))
        header = prompt.rpartition(_START)[2] if _START in prompt else ""
        if "<|channel|>" in header:
            self.feed(header[header.index("<|channel|>") :])

    def _outside(self) -> bool:
        match = self._outer.find(self._text, self._at)
        if match is not None and match[0] in _STOPS:  # the end of a message that was a call
            self._emit(match.start())
            self._at = match.end()
            return True
        return super()._outside()

    def _header(self) -> bool:
        end = self._until(_MESSAGE)
        if end == -1:
            return False
        if end is None:
            return self._broken()
        header = "".join(self._raw or ()) + self._text[self._at : end]
        self._take(end + len(_MESSAGE))
        recipient, channel = _RECIPIENT.search(header), _CHANNEL.search(header)
        name = recipient[1].removeprefix("functions.") if recipient else ""
        self._reasons = channel is not None and channel[1] == "analysis"
        if name and name not in _ROLES:
            self._name = name
            self._state = self._call_begins
        else:
            self._raw = None
            self._state = self._body
        return True

    def _body(self) -> bool:
        self._raw = None
        text = self._text
        match = self._stops.find(text, self._at)
        end = match.start() if match else len(text) if self._final else self._stops.held(text, self._at)
        if end > self._at:
            if self._reasons:
                self._parts.reasoning(text[self._at : end])
                self._at = end
            else:
                self._emit(end)
        if match is None:
            return False
        if match[0] in self.ends:
            return self._end_token(match[0])
        if match[0] in _STOPS:
            self._at = match.end()
        self._reasons = False
        self._state = self._outside
        return True

    def _call_begins(self) -> bool:
        if not self._skip_blank():
            return False
        found = self._literal(*_STOPS)
        if found == "":
            return False
        if found is not None:  # a call without arguments
            self._announce(self._name)
            return self._call_ended()
        return self._arguments_of(self._name)

    def _after_call(self) -> bool:
        if not self._skip_blank():
            return False
        found = self._literal(*_STOPS, _START)
        if found == "":
            return False
        if found in _STOPS:
            self._at += len(found)
            self._raw = []
        return self._leave()
