"""The shared scanner: a model's raw text, cut anywhere, into text, thoughts and calls.

Rules that hold for every family:

* What may yet become a marker is held back, everything else leaves in the call in which it came.
* After the opener of calls a reader of the family's form takes over. Whatever turns out to be no call is passed on as
  what it stood in, text or thought; in text it is noted (`malformed_call`).
* An open thought ends at a call only where one is read: a marker that is spoken of stays thought, and so does one
  after a back-tick or in a Markdown fence. In the text, a marker after a back-tick is text, and in Markdown's code,
  where markup is shown as an example, only a call of a declared tool is one.
* Newlines beside the tags of a thought belong to the tags. A tag that is written once more, or closes what is not open
  any more, is dropped; after a back-tick, and in a Markdown fence in the text, it is spoken of. An end-of-turn token
  counts only where nothing follows it.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

from dragoman.backends.markup.calls import Calls, Form, NotACall
from dragoman.backends.markup.family import Family
from dragoman.backends.markup.fences import Fences
from dragoman.backends.markup.text import MORE, Markers, Signal, Step, Text, markers_of
from dragoman.translators.ir import Deltas, Request
from dragoman.translators.parts import Parts

RESCAN_LIMIT = 4_096  # of what was no call, that are searched for further markers
RESCANS = 262_144  # the same of all calls of an answer that were none
SLICE = 4_096  # that are read at once: what turns out to be no call may have as much after it
TAG_BLANKS = 8  # characters of white space that are held back because a tag may follow them


def _over() -> Signal:
    return MORE


class Markup:
    """The parser of one answer."""

    def __init__(self, family: Family, parts: Parts, *, prompt: str = "", request: Request | None = None) -> None:
        self._family = family
        self._parts = parts
        self._text = Text()
        self._calls = Calls(parts, request)
        self._before = ""  # the last character of text or of a thought
        self._fences = Fences()  # of the text or the thought
        self._reasoned = False
        self._quoted = False  # a tag that opens thoughts
        self._begins = family.bare is not None  # only blanks, thoughts or calls have come
        self._lead = False  # newlines that follow a tag are skipped
        self._closer = ""
        self._rescans = RESCANS
        self._step: Step = self._outside
        thinking, frames = family.thinking, (*family.frames, *family.answer_frames)
        openers = (*family.openers, *(family.headers.openers if family.headers is not None else ()))
        outer = (*openers, *thinking, *thinking.values(), *frames, *family.ends)
        self._openers = family.openers
        self._outer = markers_of(outer)
        if family.named and request is not None:
            named = {f"{tool.name}{opener}": form for tool in request.tools for opener, form in family.openers.items()}
            self._openers = {**family.openers, **named}
            self._outer = Markers((*outer, *named))
        self._inner = self._outer
        opened = prompt.rstrip()
        if family.goes_on and opened.endswith(family.goes_on):
            self._text.feed(family.goes_on)
        for opener, closer in thinking.items():
            if opened.endswith(opener):
                self._step = self._think(closer)
                break

    def feed(self, text: str) -> None:
        self._parts.came(text)
        for at in range(0, len(text), SLICE):
            self._text.feed(text[at : at + SLICE])
            self._run()

    def feed_all(self, several: Deltas) -> None:
        """As `feed` for each of them. Those that are plain text go on together."""
        if not self._parts.takes(several):
            for text in several.texts:
                self.feed(text)
            return
        run, (markers, thinks) = list[str](), self._awaited()
        for text in several.texts:
            if markers is not None and markers.none_in(text) and not (thinks and text[-1].isspace()):
                run.append(text)
                continue
            self._pass_on(run, thinks)
            self.feed(text)
            run, (markers, thinks) = [], self._awaited()
        self._pass_on(run, thinks)

    def _awaited(self) -> tuple[Markers | None, bool]:
        """Without which markers a text goes on at once and as it is, None where that is not so; and whether that is as
        a thought, in which white space at the end is held back."""
        if not self._text.empty or self._text.holding:
            return None, False
        if self._own is Markup._outside and not self._begins:
            return self._outer, False
        return (self._inner, True) if self._own is Markup._thinking and not self._lead else (None, False)

    def _pass_on(self, run: list[str], thinks: bool) -> None:
        if not run:
            return
        text = "".join(run)
        self._parts.came(text, len(run))
        self._before = text[-1]
        self._fences.feed(text)
        self._parts.texts(Deltas(run, text), "reasoning" if thinks else "text")

    def finish(self, *, cut: bool = False) -> None:
        """Nothing more comes. `cut`: the model had not finished, so what is open stays broken off; otherwise the
        closing brackets and quotes that it forgot are written for it."""
        self._text.final, self._text.cut = True, cut
        self._run()
        if self._calls.one_is_open and not cut:
            self._calls.mend()
            if not self._text.empty:  # what was waited for has not come
                self._calls.note("malformed_call")
                self._calls.end()
                self._emit(len(self._text.all))
        self._step = _over

    @property
    def _step(self) -> Step:
        """What reads on. One of our own is kept without `self`: a scanner that refers to itself is freed late."""
        return self._other if self._own is None else MethodType(self._own, self)

    @_step.setter
    def _step(self, step: Step) -> None:
        self._own: Callable[[Any], Step | Signal] | None = None
        self._other = step
        if isinstance(step, MethodType) and step.__self__ is self:
            self._own, self._other = step.__func__, _over

    def _run(self) -> None:
        step = self._step
        try:
            while (further := self._after(step)) is not None:
                step = further
        finally:
            self._step = step

    def _after(self, step: Step) -> Step | None:
        """The step that follows this one; None where more text is needed first."""
        try:
            outcome = step()
        except NotACall:
            outcome = Signal.NO_CALL
        if outcome is Signal.MORE:
            if not self._text.holding or not (self._text.final or self._calls.too_late(self._text)):
                return None
            outcome = Signal.NO_CALL
        if outcome is Signal.NO_CALL:
            outcome = self._no_call()
        elif outcome is Signal.DONE:
            outcome = self._calls_over()
        assert callable(outcome)
        return outcome

    # ------------------------------------------------------------------------------------------------------------ text

    def _outside(self) -> Step | Signal:
        text = self._text
        if self._begins and (bare := self._bare()) is not None:
            return bare
        match = self._outer.find(text.all, text.at)
        if match is None:
            self._emit(len(text.all) if text.final else self._outer.held(text.all, text.at))
            return MORE
        self._emit(match.start())
        marker = match[0]
        if marker in self._family.ends:
            return self._end_token(match.end(), in_thought=False)
        return self._opened(marker, match.end())

    def _opened(self, marker: str, end: int) -> Step | Signal:
        if marker not in self._openers:
            return self._tag(marker, end)
        if self._before == "`" and not self._fences.open:
            self._emit(end)  # spoken of
            return self._outside
        self._text.at = end
        return self._try(self._openers[marker], marker)

    def _tag(self, marker: str, end: int) -> Step:
        """A tag of thoughts or of frames."""
        family, text = self._family, self._text
        unframed = marker in family.answer_frames and not self._reasoned
        if unframed or (marker not in family.frames and self._spoken_of(marker)):
            self._emit(end)
            return self._outside
        text.at = end
        if marker in family.thinking:
            return self._think(family.thinking[marker])
        if marker in family.frames or marker in family.answer_frames:
            return self._after_tag
        if self._reasoned:  # closes what is not open any more
            return self._outside
        self._reasoned = True  # opened by a prompt that is not known here: what came before has left as text
        self._fences = Fences()
        self._calls.note("unopened_reasoning")
        return self._after_tag

    def _spoken_of(self, tag: str) -> bool:
        """Whether the tag of a thought is quoted, not meant. One that closes may close a thought that has left as text,
        with a fence in it that stayed open, unless its opener was quoted too."""
        opens, fences = tag in self._family.thinking, self._fences
        spoken = self._before == "`" or (fences.open and (opens or self._reasoned or self._quoted))
        spoken = spoken or (fences.in_line and self._quoted and not opens)
        self._quoted |= spoken and opens
        return spoken

    def _bare(self) -> Step | Signal | None:
        """The step that reads calls without an opener, where they may begin here."""
        bare, text = self._family.bare, self._text
        assert bare is not None
        stripped = text.all[text.at :].lstrip()
        if not stripped:
            return None
        self._emit(len(text.all) - len(stripped))
        begins = text.literal(bare.begins)
        if begins is None or begins is MORE:
            return begins
        return self._try(bare.form, "", bare=True)

    def _emit(self, end: int) -> None:
        if end > self._text.at:
            self._emit_text(self._text.all[self._text.at : end])
            self._text.at = end

    def _emit_text(self, text: str) -> None:
        self._before = text[-1]
        self._fences.feed(text)
        self._begins = self._begins and not text.strip()
        self._parts.text(text)

    # --------------------------------------------------------------------------------------------------------- thoughts

    def _think(self, closer: str) -> Step:
        family = self._family
        self._reasoned = self._lead = True
        self._closer, self._before = closer, ""
        self._fences = Fences()
        breaks = (opener for opener in family.openers if not opener[0].isspace()) if family.breaks else ()
        self._inner = markers_of((closer, *family.thinking, *breaks, *family.ends))
        return self._thinking

    def _thinking(self) -> Step | Signal:
        text = self._text
        if self._lead and not self._skip_newlines():
            return MORE
        match = self._inner.find(text.all, text.at)
        if match is None:
            end = len(text.all) if text.final else self._inner.held(text.all, text.at)
            self._emit_thought(end if text.final else self._blanks_before(end))
            return MORE
        start, marker = match.start(), match[0]
        if marker == self._closer:
            self._emit_thought(self._newlines_before(start))
            text.at, self._before = match.end(), ""
            self._fences = Fences()
            return self._after_tag
        if marker in self._family.ends:
            self._emit_thought(self._newlines_before(start))
            return self._end_token(match.end(), in_thought=True)
        if (text.all[start - 1] if start > text.at else self._before) == "`":
            self._emit_thought(match.end())
            return self._thinking
        if marker in self._family.openers:
            self._emit_thought(self._blanks_before(start))
            if self._fences.open:  # spoken of
                self._emit_thought(match.end())
                return self._thinking
            blanks, text.at = text.all[text.at : start], match.end()
            return self._try(self._family.openers[marker], marker, before=blanks, in_thought=True)
        self._emit_thought(start)
        text.at = match.end()
        self._lead = not self._before  # the opener, written once more
        return self._thinking

    def _blanks_before(self, end: int) -> int:
        """Where the white space begins that may belong to the tag at `end`."""
        return max(self._text.at + len(self._text.all[self._text.at : end].rstrip()), end - TAG_BLANKS)

    def _newlines_before(self, end: int) -> int:
        return max(self._text.at + len(self._text.all[self._text.at : end].rstrip("\n")), end - TAG_BLANKS)

    def _emit_thought(self, end: int) -> None:
        if end > self._text.at:
            self._emit_reasoning(self._text.all[self._text.at : end])
            self._text.at = end

    def _emit_reasoning(self, text: str) -> None:
        self._before = text[-1]
        self._fences.feed(text)
        self._parts.reasoning(text)

    def _after_tag(self) -> Step | Signal:
        self._lead = True
        return self._outside if self._skip_newlines() else MORE

    def _skip_newlines(self) -> bool:
        text = self._text
        while not text.empty and text.all[text.at] == "\n":
            text.at += 1
        self._lead = text.empty
        return not self._lead

    def _end_token(self, end: int, *, in_thought: bool) -> Step:
        """An end-of-turn token is dropped with the blanks and tokens after it; it is text where anything else
        follows."""
        self._text.hold()
        self._text.take(end)
        self._calls.in_thought = in_thought
        return self._ending

    def _ending(self) -> Step | Signal:
        text = self._text
        while text.skip_blank():
            found = text.literal(self._family.ends)
            if found is MORE:
                return MORE
            if found is None:
                held, thought = text.held, self._calls.in_thought
                text.release()
                (self._emit_reasoning if thought else self._emit_text)(held)
                return self._thinking if thought else self._outside
            text.take(text.at + len(found))
        if text.final:
            text.release()
        return MORE

    # ------------------------------------------------------------------------------------------------------------ calls

    def _try(
        self, form: Form, opener: str, *, before: str = "", bare: bool = False, in_thought: bool = False
    ) -> Step | Signal:
        """Lets a reader of the form go on after the opener."""
        self._text.hold(*([before + opener] if opener else []))
        self._calls.bare, self._calls.in_thought = bare, in_thought
        in_line = self._fences.in_line and "\n" not in before + opener
        self._calls.in_code = bool(opener) and (self._fences.open or in_line)
        return form.open(self._text, self._calls, opener)

    def _calls_over(self) -> Step:
        """White space after the last call is text."""
        if not self._fences.open:
            self._fences = Fences()
        self._calls.in_thought = self._calls.bare = self._calls.in_code = False
        self._before = ""
        if blank := "".join(self._text.release()):
            self._emit_text(blank)
        return self._outside

    def _no_call(self) -> Step:
        """No call after all: its first piece is what it stood in, the rest is scanned again."""
        first, *others = self._text.release() or [""]
        rest = "".join(others)
        thought = self._calls.in_thought
        if (first.strip() or rest.strip()) and not (thought or self._calls.in_code):
            self._calls.note("malformed_call")
        emit = self._emit_reasoning if thought else self._emit_text
        self._begins = False
        if first:
            emit(first)
        self._rescans -= len(rest)
        if (len(rest) > RESCAN_LIMIT and not thought) or self._rescans < 0:
            end = rest.find(self._closer) if thought else -1
            unread, rest = (rest, "") if end < 0 else (rest[:end], rest[end:])
            if unread:
                emit(unread)
        self._text.give_back(rest)
        self._calls.in_thought = self._calls.bare = self._calls.in_code = False
        return self._thinking if thought else self._outside
