"""Calls whose parameters are tagged one by one: Qwen3-Coder's XML, GLM's key and value tags, DeepSeek's DSML.

The JSON of the arguments is written here. Strings stream as they come; other values are converted once they are whole
(`values`). Where a value ends:

* at its closing tag, if a tag follows that may; so a closing tag may occur in a value. One that is written twice counts
  once (llama.cpp#24807), unless the value is empty without it or holds an opening tag that it may close;
* where that is forgotten, at the next opening tag of a parameter that the tool declares and that was not given yet, at
  the beginning of a line where the family writes one parameter a line;
* else at a closing tag of the call which only closing tags, calls or the end of the answer follow.

A call whose own closing tag is forgotten ends at its section's, at the next call or with the answer.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from html import unescape

from dragoman.backends.markup.argument import Argument
from dragoman.backends.markup.calls import CallReader, Calls, properties_of
from dragoman.backends.markup.text import HEADER_LIMIT, MORE, Markers, Open, Signal, Step, Text, markers_of
from dragoman.backends.markup.values import types_of_parameter

CHAIN_LIMIT = 8  # closing tags that may follow each other at the end of a value or a call
TAG_LENGTH = 64
_NAME = re.compile(r"\s*([\w.:/-]+)\s*>?\s*")  # GLM 5.3 writes a > before an object
_NAME_AND_KEY = re.compile(r"\s{0,256}([\w.:/-]{1,256}(?:\s{1,8}[\w.-]{1,256})?)")
_MAY_BE_NAME = re.compile(r"\s{0,256}[\w.:/-]{0,256}\s{0,256}>?\s{0,256}")
_CDATA = ("<![CDATA[", "]]>")


@dataclass(frozen=True, slots=True)
class TaggedCalls:
    """`call_tag` reads the rest of a call's opening tag up to and with `tag_end`, the name being its first group; None
    where the bare name follows the opener. `parameter_tag` reads the whole opening tag of a parameter, with the group
    `key`, and, where the tag says what the value is, `string` ("true" or "false") or `type`.

    `section_opens` are openers that hold calls, `call_opens` begin another call of the section, `follows` other calls
    after it. `skipped` is written around calls without a meaning. `body_opens` and `body_ends` surround arguments that
    are given as one JSON object, where `body` allows that. `trims`: one newline at each end of a value belongs to its
    tags, `both_or_none`: if it begins with one; `by_line`: each parameter begins a line. `cdata`: values may stand in
    `<![CDATA[…]]>`; `escaped`: names and keys are escaped as in HTML. `value_opens` begin a value after its key's tags,
    `key_end` closes a key; models forget the former (vllm#49248) and the tag before the first key (vllm#47190).
    `type_tag`: tags around the value's type, which may stand before the value. `stops`: tokens that no value holds."""

    parameter_opens: tuple[str, ...]
    parameter_tag: re.Pattern[str]
    value_ends: tuple[str, ...]
    call_ends: tuple[str, ...]
    call_tag: re.Pattern[str] | None = None
    tag_end: str = ">"
    parameter_tag_end: str = ">"
    section_opens: tuple[str, ...] = ()
    call_opens: tuple[str, ...] = ()
    section_ends: tuple[str, ...] = ()
    follows: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    body: bool = False
    body_opens: tuple[str, ...] = ()
    body_ends: tuple[str, ...] = ()
    trims: bool = False
    both_or_none: bool = False
    by_line: bool = False
    cdata: bool = False
    escaped: bool = False
    value_opens: tuple[str, ...] = ()
    key_end: str = ""
    type_tag: tuple[str, str] | None = None
    stops: tuple[str, ...] = ()

    def open(self, text: Text, calls: Calls, opener: str) -> Step:
        reader = _TaggedReader(self, text, calls)
        if opener.strip("\n") in self.section_opens:
            return reader.between_calls
        reader.only_declared = bool(self.section_opens)  # its section was forgotten, or it is an example in the text
        return reader.name if self.call_tag is None else reader.call_tag

    def value_marks(self) -> Markers:
        tags = (*self.value_ends, *self.parameter_opens, *self.call_ends, *self.section_ends, *self.stops)
        untrimmed = () if self.trims else self.value_ends  # the newline before them is the value's
        return markers_of((*tags, *(f"\n{tag}" for tag in tags if tag not in untrimmed)))


class _TaggedReader(CallReader):
    def __init__(self, form: TaggedCalls, text: Text, calls: Calls) -> None:
        super().__init__(text, calls)
        self._form = form
        self._marks = form.value_marks()
        self._called = False  # the section holds a call
        self._tool = ""
        self._given: set[str] = set()
        self._whole = False  # the arguments were one object
        self._value = Argument(self.calls.extend, None)
        self._trimmed = False  # the value began with a newline
        self._openings = tuple(tag.replace("/", "", 1).removesuffix(">") for tag in form.value_ends)
        self._filled = self._opened = False  # the value holds something, and a tag that a closing one may close
        self._tail = ""  # of the value, where such a tag may begin

    # ------------------------------------------------------------------------------------------------------------ calls

    def between_calls(self) -> Step | Signal:
        text, form = self.text, self._form
        if not text.skip_blank():
            return MORE
        skipped = (*form.skipped, *form.call_ends)  # the end of a call may be written twice
        found = text.literal((*form.section_ends, *form.call_opens, *skipped))
        if found is MORE:
            return MORE
        if found is None:
            return self.leave()
        if found in form.section_ends:
            return self._section_ends(found)
        text.take(text.at + len(found))
        if found in skipped:
            if self._called:
                text.hold()
            return self.between_calls
        return self.name if form.call_tag is None else self.call_tag

    def _section_ends(self, found: str) -> Signal:
        if not self._called:
            self.text.take(self.text.at + len(found))
            return self.broken()
        return self.close(found)

    def call_tag(self) -> Step | Signal:
        text, form = self.text, self._form
        assert form.call_tag is not None
        end = text.until(form.tag_end)
        if end is MORE:
            return MORE
        match = form.call_tag.fullmatch(text.all, text.at, end + len(form.tag_end)) if end is not None else None
        if match is None:
            return self.broken()
        text.take(match.end())
        self._begin(self._unescaped(match[1]).rstrip("/"))
        return self._end() if match[0].endswith(f"/{form.tag_end}") else self._parameters

    def name(self) -> Step | Signal:
        text = self.text
        match = _MAY_BE_NAME.match(text.all, text.at)
        assert match is not None
        if match.end() == len(text.all) and match.end() - text.at < HEADER_LIMIT // 2:
            return MORE
        name = _NAME.fullmatch(text.all, text.at, match.end())
        follows = text.all[match.end() : match.end() + 1] in ("<", "{" if self._form.body else "<")
        if name is None or not follows or not self.calls.declared(name[1]):
            key = self._key_without_tag()
            if key is not None:
                return key
        if name is None or not follows:
            return self.broken()
        text.take(match.end())
        self._begin(name[1])
        return self._parameters

    def _key_without_tag(self) -> Step | Open | None:
        """The first value, where the name and the first key stand together."""
        text, end = self.text, self._form.key_end
        match = _NAME_AND_KEY.match(text.all, text.at)
        if not end or match is None:
            return None
        if match.end() == len(text.all):
            return None if text.final else MORE
        found = text.literal((end,), match.end())
        if found is MORE or found is None:
            return found
        if (both := self.calls.tool_and_parameter(match[1])) is None:
            return None
        text.take(match.end() + len(end))
        self._begin(both[0])
        return self._begin_value(both[1], None)

    def _unescaped(self, text: str) -> str:
        return unescape(text) if self._form.escaped else text

    def _begin(self, name: str) -> None:
        self._tool = name
        self._given, self._whole = set(), False

    def _end(self) -> Step | Signal:
        """The call is over, whether its closing tag stood there or not."""
        if self.text.holding and self.calls.in_thought and not self.calls.declared(self._tool):
            return Signal.NO_CALL  # a thought that speaks of the tags
        if self.text.holding:
            self.announce(self._tool)
            self.calls.extend("{}")
        elif self._given:
            self.calls.extend("}")
        self.end_call()
        self._called = True
        return self.between_calls

    # ------------------------------------------------------------------------------------------------------- parameters

    def _parameters(self) -> Step | Signal:
        text, form = self.text, self._form
        if not text.skip_blank():
            return self._end() if text.over and not text.cut and not text.holding else MORE
        if form.body and text.all[text.at] == "{" and text.holding:
            return self._body_begins
        body = form.body_opens if text.holding else form.body_ends
        overs = (*form.section_ends, *form.call_opens, *form.follows)
        skipped = (*form.skipped, *form.value_ends)
        found = text.literal((*form.call_ends, *body, *form.parameter_opens, *overs, *skipped))
        if found is MORE:
            return MORE
        if found is None:
            return self.broken()
        if found in form.parameter_opens:
            return self.broken() if self._whole else self._parameter_tag
        if found in overs:
            return self.broken() if text.holding and found not in form.section_ends else self._end()
        text.take(text.at + len(found))
        return self._end() if found in form.call_ends else self._parameters

    def _parameter_tag(self) -> Step | Signal:
        match = self._tag_at(self.text.at)
        if match is MORE:
            return MORE
        if match is None:
            return self.broken()
        self.text.take(match.end())
        said = match.groupdict()
        tagged = said.get("string") or {None: "", "string": "true"}.get(said.get("type"), "false")
        return self._begin_value(self._unescaped(match["key"].strip()), tagged == "true" if tagged else None)

    def _tag_at(self, at: int) -> re.Match[str] | Open | None:
        """The opening tag of a parameter."""
        form, text = self._form, self.text
        end = text.until(form.parameter_tag_end, at)
        if end is MORE or end is None:
            return end
        return form.parameter_tag.fullmatch(text.all, at, end + len(form.parameter_tag_end))

    def _body_begins(self) -> Step | Signal:
        begins = self.text.object_begins()
        if begins is MORE:
            return MORE
        if not begins:
            return self.broken()
        self.announce(self._tool)
        form = self._form
        self.begin_json(*form.body_ends, *form.call_ends, *form.section_ends, *form.call_opens, *form.follows)
        return self._body

    def _body(self) -> Step | Signal:
        if not self.stream_object():
            return MORE
        self._whole = True
        return self.broken() if self.broken_json else self._parameters

    # ----------------------------------------------------------------------------------------------------------- values

    def _begin_value(self, key: str, is_string: bool | None) -> Step:
        types = types_of_parameter(self.calls.schema(self._tool), key)
        if self.text.holding:
            self.announce(self._tool)
        self.calls.extend(f"{', ' if self._given else '{'}{json.dumps(key, ensure_ascii=False)}: ")
        self._given.add(key)
        self._value = Argument(self.calls.extend, types, is_string)
        self._trimmed = self._filled = self._opened = False
        self._tail = ""
        if self._form.value_opens:
            return self._value_opens
        if self._form.trims or self._form.cdata:
            return self._value_begins
        return self._value_text

    def _value_opens(self) -> Step | Signal:
        text = self.text
        begin = text.past_blank(text.at)
        if begin is MORE:
            return MORE
        types = self._form.type_tag or ("", "")
        found = text.literal((*self._form.value_opens, *filter(None, types[:1])), begin)
        if found is MORE:
            return MORE
        if found == types[0]:
            return self._type(begin + len(found), types[1])
        if found is not None:
            text.at = begin + len(found)
        elif text.all[text.at : text.at + 1] == "\n":
            text.at += 1
        return self._value_text

    def _type(self, at: int, closer: str) -> Step | Signal:
        end = self.text.until(closer, at)
        if end is MORE:
            return MORE
        if end is None:
            return self._value_text
        self._value = Argument(self.calls.extend, None, self.text.all[at:end].strip() == "string")
        self.text.at = end + len(closer)
        return self._value_opens

    def _value_begins(self) -> Step | Signal:
        text = self.text
        if text.empty:
            return self._value_text if text.final else MORE
        if self._form.trims and text.all[text.at] == "\n":
            text.at += 1
            self._trimmed = True
        if self._form.cdata and (found := text.literal(_CDATA[:1])) is not None:
            if found is MORE:
                return MORE
            text.at += len(found)
            return self._cdata
        return self._value_text

    def _cdata(self) -> Step | Signal:
        text, marks = self.text, markers_of(_CDATA[1:])
        match = marks.find(text.all, text.at)
        self._piece(match.start() if match else len(text.all) if text.final else marks.held(text.all, text.at))
        if match is None:
            return self._answer_ends() if text.final else MORE
        text.at = match.end()
        return self._value_text

    def _value_text(self) -> Step | Signal:
        text, form = self.text, self._form
        match = self._marks.find(text.all, text.at)
        if match is None:
            if text.final:
                return self._answer_ends()
            self._piece(self._marks.held(text.all, text.at))
            return MORE
        self._piece(match.start())
        tag = match[0].lstrip("\n")
        start = match.end() - len(tag)
        end: int | Open | None
        if tag in form.value_ends:
            end = self._value_end(match.end(), tag)
        elif tag in form.stops:
            end = start
        else:
            by_line = tag != match[0] or not self._value.begun
            opens = tag in form.parameter_opens
            over = self._next_parameter(start, by_line=by_line) if opens else self._ends_call(start)
            end = over if over is MORE else start if over else None
        if end is MORE:
            return MORE
        if end is None:  # the tag is a piece of the value
            self._piece(match.end())
            return self._value_text
        if tag in form.value_ends and form.both_or_none and not self._trimmed:
            self._piece(start)
        text.at = end
        self._value.end()
        return self._parameters

    def _value_end(self, at: int, tag: str) -> int | Open | None:
        """Where the closing tags of a value end, the first of them at `at`, if what may follow a value begins there
        after white space."""
        text, form = self.text, self._form
        follows = (*form.parameter_opens, *form.call_ends, *form.section_ends, *form.call_opens, *form.follows)
        again = (tag,) if self._filled and not self._opened else ()
        for _ in range(CHAIN_LIMIT):
            begin = text.past_blank(at)
            if begin is MORE:
                return MORE
            if text.final and begin == len(text.all):
                return at
            found = text.literal((*follows, *again), begin)
            if found is MORE:
                return MORE
            if found != tag:
                return None if found is None else at
            at = begin + len(tag)
        return None

    def _next_parameter(self, at: int, *, by_line: bool) -> bool | Open:
        if self._form.by_line and not by_line:
            return False
        match = self._tag_at(at)
        if match is MORE:
            return MORE
        key = self._unescaped(match["key"].strip()) if match is not None else ""
        return key not in self._given and key in properties_of(self.calls.schema(self._tool))

    def _ends_call(self, at: int) -> bool | Open:
        """Whether only closing tags stand from `at` to the next call or the end of the answer."""
        text, form = self.text, self._form
        ends = (*form.call_ends, *form.section_ends, *form.skipped)
        for _ in range(CHAIN_LIMIT):
            begin = text.past_blank(at)
            if begin is MORE:
                return MORE
            if text.final and begin == len(text.all):
                return True
            found = text.literal((*ends, *form.call_opens, *form.follows), begin)
            if found is MORE or found is None:
                return MORE if found is MORE else False
            if found not in ends:
                return True
            at = begin + len(found)
        return False

    def _piece(self, end: int) -> None:
        if end > self.text.at:
            piece = self.text.all[self.text.at : end]
            self._value.add(piece)
            self.text.at = end
            self._watch(piece)

    def _watch(self, piece: str) -> None:
        seen = self._tail + piece
        self._filled = self._filled or not piece.isspace()
        self._opened = self._opened or any(opening in seen for opening in self._openings)
        self._tail = seen[-TAG_LENGTH:]

    def _answer_ends(self) -> Step | Signal:
        """The answer ends in the value. What there is of it goes out, unclosed where the answer was cut."""
        text = self.text
        if text.cut:
            self._piece(len(text.all))
            self._value.cut()
            return MORE
        rest = text.all[text.at :]
        self._piece(len(text.all) - rest.endswith("\n"))
        text.at = len(text.all)
        self._value.end()
        return self._end()
