"""The shared scanner: a model's raw text, cut anywhere, into parts.

Rules that every family keeps:

* What may yet become a marker is held back, everything else leaves in the call in which it came.
* A call is announced once its name is known and its arguments have begun as a JSON object; they stream from then on.
  Whatever turns out before that to be no call is passed on as text and noted (`malformed_call`).
* A marker inside a JSON string is text of that string. Outside of strings `<` is never JSON and ends a broken call.
* Reasoning ends at its closing tag; newlines beside its tags belong to the tags. An end-of-turn token counts only where
  nothing follows it.

A family is a subclass: its markers and the states between them. A state is a method that takes from the text what has
become certain and says whether another state (or the same one again) can go on. Nothing is checked against a schema.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import ClassVar

from dragoman.translators.call_part import CallPart
from dragoman.translators.ir import Request, Tool
from dragoman.translators.json_text import JsonScanner
from dragoman.translators.parts import Parts

HELD_LIMIT = 262_144  # characters of a call that may wait for its name
RESCAN_LIMIT = 4_096  # of a malformed call, that are searched for further markers
HEADER_LIMIT = 1_024  # for names, keys and tags
TAG_NEWLINES = 8  # newlines beside a reasoning tag that are held back

_BLANK = re.compile(r"\s*")
_OBJECT_BEGINS = re.compile(r'\{\s*["}]')
_OBJECT_MAY_BEGIN = re.compile(r"\{\s*\Z")


class Markers:
    """A fixed set of markers: the next one in a text, and where one may have begun at its end."""

    def __init__(self, markers: Iterable[str]) -> None:
        ordered = sorted(set(markers), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, ordered)) or r"(?!)")
        self._prefixes = frozenset(marker[:length] for marker in ordered for length in range(1, len(marker)))
        self._firsts = frozenset(marker[0] for marker in ordered)
        self._longest = max(map(len, ordered), default=0)

    def find(self, text: str, at: int) -> re.Match[str] | None:
        return self._pattern.search(text, at)

    def held(self, text: str, at: int) -> int:
        """Where in `text` (after `at`) a marker begins that is not whole yet, its length if there is none."""
        begin = max(at, len(text) - self._longest + 1)
        if self._firsts.isdisjoint(text[begin:]):
            return len(text)
        for start in range(begin, len(text)):
            if text[start] in self._firsts and text[start:] in self._prefixes:
                return start
        return len(text)


markers_of = cache(Markers)


class JsonText(JsonScanner):
    """One JSON object, array or string as it comes, which a `<` outside of strings breaks."""

    __slots__ = ()
    structure = re.compile(r'["{}\[\]<]')


def _over() -> bool:
    return False


class Markup:
    """The scanner, and by itself the family without calls. `openers` names the state that a marker opens; `breaks` are
    those of them that also end reasoning, because only a tokenizer's special token can write them."""

    openers: ClassVar[Mapping[str, str]] = {}
    breaks: ClassVar[tuple[str, ...]] = ()
    thinking: ClassVar[Mapping[str, str]] = {"<think>": "</think>"}
    ends: ClassVar[tuple[str, ...]] = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "</s>")

    def __init__(self, parts: Parts, *, prompt: str = "", request: Request | None = None) -> None:
        self._parts = parts
        self._tools: Mapping[str, Tool] = {tool.name: tool for tool in request.tools} if request else {}
        self._closed_world = request is not None  # the tools are known: any other name is no call
        self._text = ""
        self._at = 0
        self._final = False
        self._raw: list[str] | None = None  # what was taken of a call that is not announced yet
        self._held = 0
        self._calls = 0
        self._call: CallPart | None = None  # the one that is announced and has not ended
        self._json = JsonText()
        self._before = ""  # the last character of text
        self._reasoned = False
        self._closer = ""
        self._lead = False  # newlines that follow a tag are skipped
        self._state: Callable[[], bool] = self._outside
        self._ends = markers_of(self.ends)
        self._outer = markers_of((*self.openers, *self.thinking, *self.thinking.values(), *self.ends))
        opened = prompt.rstrip()
        for opener, closer in self.thinking.items():
            if opened.endswith(opener):
                self._think(closer)

    def feed(self, text: str) -> None:
        self._text = self._text[self._at :] + text
        self._at = 0
        self._run()

    def finish(self) -> None:
        self._final = True
        self._run()
        self._state = _over  # a bound method here would keep the scanner alive as a cycle

    def _run(self) -> None:
        while True:
            while self._state():
                pass
            if self._raw and (self._final or self._held > HELD_LIMIT):
                self._malformed()
            else:
                return

    # -------------------------------------------------------------------------------------------------- text, reasoning

    def _outside(self) -> bool:
        text = self._text
        match = self._outer.find(text, self._at)
        if match is None:
            self._emit(len(text) if self._final else self._outer.held(text, self._at))
            return False
        self._emit(match.start())
        marker = match[0]
        if marker in self.openers:
            self._at = match.end()
            self._raw, self._held = [marker], 0
            self._state = getattr(self, self.openers[marker])
        elif marker in self.ends:
            return self._end_token(marker)
        elif self._before == "`" or (marker not in self.thinking and self._reasoned):
            self._emit(match.end())  # quoted, not meant
        elif marker in self.thinking:
            self._at = match.end()
            self._think(self.thinking[marker])
        else:  # opened by a prompt that is not known here: what came before has left as text
            self._at = match.end()
            self._reasoned = True
            self._note("unopened_reasoning")
            self._state = self._after_tag
        return True

    def _emit(self, end: int) -> None:
        if end > self._at:
            self._emit_text(self._text[self._at : end])
            self._at = end

    def _emit_text(self, text: str) -> None:
        self._before = text[-1]
        self._parts.text(text)

    def _think(self, closer: str) -> None:
        self._reasoned = self._lead = True
        self._closer = closer
        self._inner = markers_of((closer, *self.breaks, *self.ends))
        self._state = self._thinking

    def _thinking(self) -> bool:
        text = self._text
        if self._lead and not self._skip_newlines():
            return False
        match = self._inner.find(text, self._at)
        end = match.start() if match else len(text) if self._final else self._inner.held(text, self._at)
        stop = end
        if match is not None or not self._final:
            stop = max(self._at + len(text[self._at : end].rstrip("\n")), end - TAG_NEWLINES)
        if stop > self._at:
            self._parts.reasoning(text[self._at : stop])
            self._at = stop
        if match is None:
            return False
        if match[0] in self.ends:
            return self._end_token(match[0], match.start())
        self._at = match.end()
        self._state, self._before = self._after_tag, ""
        if match[0] != self._closer:
            self._at = match.start()
        return True

    def _after_tag(self) -> bool:
        self._lead = True
        if not self._skip_newlines():
            return False
        self._state = self._outside
        return True

    def _skip_newlines(self) -> bool:
        while self._at < len(self._text) and self._text[self._at] == "\n":
            self._at += 1
        self._lead = self._at == len(self._text)
        return not self._lead

    def _end_token(self, marker: str, start: int | None = None) -> bool:
        """An end-of-turn token: dropped with the blanks and tokens after it, text where anything else follows."""
        text = self._text
        at = start = self._at if start is None else start
        while (match := self._ends.find(text, at)) is not None and not text[at : match.start()].strip():
            at = match.end()
        if not text[at : len(text) if self._final else self._ends.held(text, at)].strip():
            if self._final:
                self._at = len(text)
            return False
        if self._state == self._outside:
            self._emit(start + len(marker))
        else:
            self._parts.reasoning(text[self._at : start + len(marker)])
            self._at = start + len(marker)
        return True

    # ------------------------------------------------------------------------------------------------------------ calls

    def _note(self, name: str) -> None:
        self._parts.note("repair", name)

    def _take(self, end: int) -> str:
        """The text up to `end`, kept for the case that it is no call."""
        piece, self._at = self._text[self._at : end], end
        if self._raw is not None and piece:
            self._raw.append(piece)
            self._held += len(piece)
        return piece

    def _skip_blank(self) -> bool:
        """Whether anything but white space stands there."""
        match = _BLANK.match(self._text, self._at)
        assert match is not None
        self._take(match.end())
        return self._at < len(self._text)

    def _literal(self, *options: str) -> str | None:
        """Which of the options stands here; "" while that is open, None when none does."""
        for option in options:
            if self._text.startswith(option, self._at):
                return option
        rest = self._text[self._at : self._at + HEADER_LIMIT]
        return "" if not self._final and any(option.startswith(rest) for option in options) else None

    def _until(self, mark: str) -> int | None:
        """Where `mark` begins; -1 while it may still come, None when it certainly does not within a header's bound."""
        found = self._text.find(mark, self._at, self._at + HEADER_LIMIT)
        if found >= 0:
            return found
        return None if self._final or len(self._text) - self._at >= HEADER_LIMIT else -1

    def _malformed(self) -> bool:
        """No call after all: its first piece is text, the rest is scanned again."""
        held, self._raw = self._raw or [], None
        self._state = self._outside
        if held:
            rest = "".join(held[1:])
            if held[0].strip() or rest.strip():
                self._note("malformed_call")
            self._emit_text(held[0])
            if len(rest) > RESCAN_LIMIT:
                self._emit_text(rest)
                rest = ""
            self._text, self._at = rest + self._text[self._at :], 0
        return True

    def _broken(self) -> bool:
        """A call that cannot be read any further: it becomes text, or ends here where it was announced already."""
        if self._raw is not None:
            return self._malformed()
        if not self._final:
            self._note("malformed_call")
        self._end_call()
        self._raw = None
        self._state = self._outside
        return True

    def _announce(self, name: str, id: str = "") -> None:
        self._raw = None
        self._call = self._parts.begin_call(id.strip() and id, name)

    def _emit_arguments(self, piece: str) -> None:
        assert self._call is not None
        self._parts.extend_call(self._call, piece)

    def _end_call(self) -> None:
        assert self._call is not None
        self._parts.end_call(self._call)
        self._call = None
        self._calls += 1
        self._raw, self._held = [], 0

    def _leave(self) -> bool:
        """Leaves the calls: blanks after the last one are text."""
        blank, self._raw = "".join(self._raw or ()), None
        if blank:
            self._emit_text(blank)
        self._state = self._outside
        return True

    # ------------------------------------------------------------------------------------------------ arguments as JSON

    def _object_stands_here(self) -> bool | None:
        """Whether an object begins at the next character; None while that is open."""
        if self._at == len(self._text) or _OBJECT_MAY_BEGIN.match(self._text, self._at):
            return None if not self._final else False
        return _OBJECT_BEGINS.match(self._text, self._at) is not None

    def _stream_object(self) -> bool:
        """Pass on what there is of the object; True when it has ended, one way or the other."""
        end = self._json.scan(self._text, self._at)
        if end > self._at:
            self._emit_arguments(self._take(end))
        return self._json.complete or self._json.broken
