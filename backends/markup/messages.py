"""Answers that are messages with headers: the scanner for families with `Headers`.

The prompt ends in `<|start|>assistant`, or further on where the channel is forced: what follows is the rest of that
header. A message to a tool is a call of it, whatever its channel; so is one without a recipient whose first channel of
two is a tool, as gpt-oss writes at times. A channel of thoughts is reasoning whatever else the header says, and of two
channels or recipients the last counts; a message to another recipient is a call of it; all other messages, and what
stands outside of any, are text. It wants the special tokens as text: a detokenizer that skips them leaves nothing to
read.
"""

from __future__ import annotations

import re

from dragoman.backends.markup.calls import CallReader
from dragoman.backends.markup.family import Family, Headers
from dragoman.backends.markup.scanner import Markup
from dragoman.backends.markup.text import HEADER_LIMIT, MORE, Markers, Open, Signal, Step, markers_of
from dragoman.translators.ir import Request
from dragoman.translators.parts import Parts

_RECIPIENT = re.compile(r"\bto=([^\s<]+)")


class Messages(Markup):
    def __init__(self, family: Family, parts: Parts, *, prompt: str = "", request: Request | None = None) -> None:
        super().__init__(family, parts, prompt=prompt, request=request)
        headers = family.headers
        assert headers is not None
        self._headers: Headers = headers
        self._channel = re.compile(rf"{re.escape(headers.channel)}\s*([\w-]+)")
        self._stops = markers_of((*headers.stops, headers.start, headers.channel, *family.ends))
        self._reasons = False  # this message is reasoning
        self._name = ""
        self._call = CallReader(self._text, self._calls)
        if headers.start in prompt:
            self._continue(prompt.rpartition(headers.start)[2])

    def _continue(self, header: str) -> None:
        """The prompt has begun a message."""
        if self._headers.channel in header:
            self.feed(header[header.index(self._headers.channel) :])
        elif self._headers.message not in header:
            self._step = self._rest_of_header

    def _rest_of_header(self) -> Step | Signal:
        begins = (self._headers.channel, self._headers.message, " to=", "to=", "<|constrain|>")
        found = self._text.literal(begins)
        if found is MORE:
            return MORE
        if found is None:
            return self._outside
        self._text.hold()
        return self._header

    def _opened(self, marker: str, end: int) -> Step | Signal:
        if marker not in self._headers.openers:
            return super()._opened(marker, end)
        self._text.at = end
        if marker == self._headers.message:
            self._reasons = False
            return self._body
        self._text.hold(marker)
        return self._header

    def _header(self) -> Step | Signal:
        text, headers = self._text, self._headers
        end = text.until(headers.message)
        if self._stops_before(end):
            return self._body_without_message()
        if end is MORE:
            return MORE
        if end is None:
            return Signal.NO_CALL
        header = text.held + text.all[text.at : end]
        text.take(end + len(headers.message))
        recipients, channels = _RECIPIENT.findall(header), self._channel.findall(header)
        recipient = recipients[-1] if recipients else next(filter(self._calls.is_tool, channels[:-1]), "")
        name = recipient.removeprefix("functions.")
        to_tool = recipient != name or self._calls.is_tool(name)
        self._reasons = (channels[-1:] != [] and channels[-1] in headers.thoughts) or name in headers.to_self
        self._reasons = self._reasons and not to_tool
        if name and not self._reasons and name not in headers.to_user:
            if headers.in_body:
                text.release()
                return self._outside
            self._name = name
            return self._call_begins
        text.release()
        return self._body

    def _body_without_message(self) -> Step | Signal:
        """The body follows the channel's name at once."""
        text, headers = self._text, self._headers
        begin = "" if text.held.endswith(headers.channel) else rf"\s*\w*\s*{re.escape(headers.channel)}"
        match = re.compile(rf"{begin}\s*({'|'.join(('final', 'commentary', *headers.thoughts))})\s+(?=[^\s<])").match(
            text.all, text.at
        )
        if match is None or text.all.startswith("to=", match.end()):
            return Signal.NO_CALL
        text.take(match.end())
        text.release()
        self._calls.note("malformed_call")
        self._reasons = match[1] in headers.thoughts
        return self._body

    def _stops_before(self, end: int | Open | None) -> bool:
        """Whether the header ends without its message."""
        headers, text = self._headers, self._text
        last = end if isinstance(end, int) else text.at + HEADER_LIMIT
        return any(text.all.find(stop, text.at, last) >= 0 for stop in (*headers.stops, headers.start))

    def _body(self) -> Step | Signal:
        text = self._text
        match = self._stops.find(text.all, text.at)
        end = match.start() if match else len(text.all) if text.final else self._stops.held(text.all, text.at)
        (self._emit_thought if self._reasons else self._emit)(end)
        if match is None:
            return MORE
        if match[0] in self._family.ends:
            return self._end_token(match.end(), in_thought=False)
        if match[0] in self._headers.stops:
            text.at = match.end()
        return self._outside

    def _awaited(self) -> tuple[Markers | None, bool]:
        if self._own is Messages._body and self._text.empty and not self._text.holding:
            return self._stops, self._reasons
        return super()._awaited()

    def _call_begins(self) -> Step | Signal:
        text = self._text
        if not text.skip_blank():
            return MORE
        found = text.literal(self._headers.stops)
        begins = text.object_begins() if found is None else False
        if found is MORE or begins is MORE:
            return MORE
        if found is not None:  # a call without arguments
            self._call.announce(self._name)
            return self._call_ends()
        if not begins:  # its body stays readable, its header is nobody's text
            text.release()
            self._calls.note("malformed_call")
            return self._body
        self._call.announce(self._name)
        self._call.begin_json(*self._headers.stops, self._headers.start)
        return self._arguments

    def _arguments(self) -> Step | Signal:
        return self._call_ends() if self._call.stream_arguments() else MORE

    def _call_ends(self) -> Step:
        self._call.end_call()
        return self._after_call

    def _after_call(self) -> Step | Signal:
        text = self._text
        if not text.skip_blank():
            return MORE
        found = text.literal((*self._headers.stops, self._headers.start))
        if found is MORE:
            return MORE
        if found in self._headers.stops:
            text.at += len(found or "")
            text.hold()
        return Signal.DONE
