"""Calls written as a header with the name, followed by the bare JSON of the arguments.

A family says how its header is read, what separates the two, and what may follow the arguments.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import orjson

from dragoman.backends.markup.calls import CallReader, Calls
from dragoman.backends.markup.closing import closing
from dragoman.backends.markup.text import MORE, Signal, Step, Text

_FENCES = ("```json", "```")
_LINE_NAME = re.compile(r"[\w.:/-]+")


@dataclass(frozen=True, slots=True)
class HeadedCalls:
    """`header` reads a whole header, with the groups `name` and, where it has one, `id`; `separator` ends it.
    `beginning` is what an unfinished header may look like, where most text is none. `sections` hold several calls;
    `again` begins the next call, `closers` are skipped after one. `name_alone`: the object may follow the name without
    a separator. `word`: a header of this word has the name on the next line, and the object may stand in a fence.
    `by_keys`: a header that is only a number names the tool that takes the arguments."""

    header: re.Pattern[str]
    separator: str
    beginning: re.Pattern[str] | None = None
    sections: tuple[str, ...] = ()
    again: tuple[str, ...] = ()
    closers: tuple[str, ...] = ()
    name_alone: bool = False
    word: str = ""
    by_keys: bool = False

    def open(self, text: Text, calls: Calls, opener: str) -> Step:
        reader = _HeadedReader(self, text, calls)
        return reader.section if opener.lstrip() in self.sections else reader.header


class _HeadedReader(CallReader):
    def __init__(self, form: HeadedCalls, text: Text, calls: Calls) -> None:
        super().__init__(text, calls)
        self._form = form
        self._name = self._id = ""
        self._pieces: list[str] = []

    def section(self) -> Step | Signal:
        """Between the section's opener and its first call, and between calls."""
        text, form = self.text, self._form
        if not text.skip_blank():
            return MORE
        found = text.literal((*form.again, *form.closers))
        if found is MORE:
            return MORE
        if found is None:
            if self.calls.count or not text.holding:
                return self.leave()
            self.only_declared = True  # what begins the first call is missing
            return self.header
        text.take(text.at + len(found))
        if found in form.again:
            return self.header
        if not self.calls.count:
            return self.broken()
        text.hold()  # a section's end
        return self.section

    def header(self) -> Step | Signal:
        text, form = self.text, self._form
        possible = form.beginning is None or form.beginning.fullmatch(text.all, text.at) is not None
        end = text.until(form.separator) if possible else None
        if end is MORE or end is None:
            if form.name_alone:
                return self._name_alone(separator_may_come=end is MORE)
            return MORE if end is MORE else self.broken()
        match = form.header.fullmatch(text.all[text.at : end].strip())
        if match is None:
            return self.broken()
        self._name, self._id = match["name"], match.groupdict().get("id") or ""
        text.take(end + len(form.separator))
        return self._arguments_begin

    def _name_alone(self, *, separator_may_come: bool) -> Step | Signal:
        """A name that an object follows at once."""
        text = self.text
        match = self._form.header.match(text.all, text.at)
        if match is not None and text.all[match.end() : match.end() + 1] == "{":
            self._name, self._id = match["name"], ""
            text.take(match.end())
            return self._arguments_begin
        return MORE if separator_may_come else self.broken()

    def _arguments_begin(self) -> Step | Signal:
        text = self.text
        if not text.skip_blank():
            over = text.over and not text.cut and self.calls.is_tool(self._name)
            return self._no_arguments() if over else MORE
        if self._form.word:
            if text.all[text.at] not in "{`" and self._name == self._form.word:
                return self._name_on_next_line()
            found = text.literal(_FENCES)
            if found is MORE:
                return MORE
            if found is not None:
                text.take(text.at + len(found))
                return self._arguments_begin
        ended = text.literal(self._form.closers)
        begins = text.object_begins() if ended is None else False
        if ended is MORE or begins is MORE:
            return MORE
        if ended is not None and not self._name.isdigit():
            return self._no_arguments()
        if not begins:
            return self.broken()
        self.begin_json(*self._form.sections, *self._form.again, *self._form.closers, "<|", "<\uff5c")
        if self._form.by_keys and self._name.isdigit():
            self._pieces.clear()
            return self._nameless
        self.announce(self._name, self._id)
        return self._arguments

    def _no_arguments(self) -> Step:
        self.announce(self._name, self._id)
        self.end_call()
        return self.section

    def _name_on_next_line(self) -> Step | Signal:
        end = self.text.until("\n")
        if end is MORE:
            return MORE
        name = self.text.all[self.text.at : end].strip() if end is not None else ""
        if end is None or not _LINE_NAME.fullmatch(name):
            return self.broken()
        self._name = name
        self.text.take(end)
        return self._arguments_begin

    def _arguments(self) -> Step | Signal:
        if not self.stream_arguments():
            return MORE
        self.end_call()
        return self.section

    def _nameless(self) -> Step | Signal:
        """The arguments tell which tool is meant, so they are read to their end first."""
        self._pieces.append(self.json_piece())
        if not self.json_over:
            return MORE
        arguments = "".join(self._pieces)
        if self.broken_json:
            arguments += closing(arguments)
        try:
            name = self.calls.named_by_keys(frozenset(orjson.loads(arguments)))
        except orjson.JSONDecodeError:
            name = None
        if name is None:
            return self.broken()
        self.announce(name)
        self.calls.extend(arguments)
        self.end_call()
        return self.section
