"""The order of an answer's parts: the only place that decides where one begins and where it ends.

`Parts` takes pieces of text and of calls as they come and makes events in the order of the stream grammar
(`translators.ir`). Its rules:

* A call is announced once its name and a first byte of its arguments (or its end) are known.
* It ends when something else begins *and* its arguments are complete JSON, otherwise with the answer. What begins
  in the meantime waits and is played back in order; everything else leaves in the same call of a method.
* Where a server may complete the JSON of a call that the limit cut (`holds_closing`), the last bracket of a call leaves
  with its end, and one that was cut has none: whoever reads it as a whole call would run half of it.
* Text for a call that has ended is dropped and noted. Blank text never opens a part: it precedes the next text or
  vanishes beside a call.
* An upstream id is kept when it is not empty and new to the conversation; otherwise one is made from the seed.
* An answer without any part has one empty text part.
* An answer is bounded: in bytes, of which every piece and every log probability costs some whatever its length, in
  parts and in calls. What exceeds a bound raises `GatewayError`, once: what the decoder still holds may follow.

Which call a piece belongs to is the caller's to know: `begin_call` gives it something to hold on to. `translators.fold`
is the other direction.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from io import StringIO
from itertools import takewhile
from typing import Any, Literal

from dragoman.translators.call_part import CallPart, PendingPart, Stage
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import (
    Delta,
    Deltas,
    Event,
    Finished,
    Note,
    NoteKind,
    PartEnded,
    PartKind,
    PartStarted,
    Request,
    Started,
    StopReason,
    ToolCall,
    Usage,
)
from dragoman.translators.json_text import is_object

ANSWER_BYTES = 8 * 1024 * 1024  # of an answer, unless the configuration says otherwise
PIECE = 32  # bytes that a piece costs beside its text
LOGPROB = 64  # bytes that a token's log probability costs
MAX_CALLS = 1024
MAX_PARTS = 4096
MAX_NOTES = 1024  # that are kept one by one
_NAMESPACES = ("functions.", "default_api.")  # in which gpt-oss and Gemma know tools


@lru_cache(16)
def _spellings(names: tuple[str, ...]) -> Mapping[str, str]:
    """What is declared, by itself and without its case. The same for all streams with the same tools."""
    return {name.casefold(): name for name in reversed(names)} | {name: name for name in names}


class Parts:
    """`notes` are facts for the metrics. `limit`: bytes of the answer."""

    def __init__(
        self, seed: str, *, taken: Collection[str] = (), names: Collection[str] = (), limit: float = math.inf
    ) -> None:
        self.holds_closing = False
        self._notes: list[Note] = []
        self._more: Counter[tuple[NoteKind, str]] = Counter()  # what `MAX_NOTES` leaves no room for, by kind and name
        self._limit = self._left = limit
        self._parts = self._calls = self._come = 0
        self._events: list[Event] = []
        self._seed = seed
        self._taken = set(taken)  # call ids that the conversation already has
        self.names = _spellings(tuple(names))  # of the tools, in any case
        self._open: PendingPart | None = None
        self._waiting: list[PendingPart] = []  # a deque takes 700 bytes, for every open stream
        self._blank: dict[PartKind, PendingPart] = {}  # white space that may yet become the beginning of a part
        self._kinds: set[PartKind] = set()  # kinds that were opened
        self._made = 0

    @classmethod
    def of(cls, request: Request, limit: float = math.inf) -> Parts:
        taken = {part.id for message in request.messages for part in message.parts if isinstance(part, ToolCall)}
        return cls(request.id, taken=taken, names=[tool.name for tool in request.tools], limit=limit)

    @property
    def notes(self) -> list[Note]:
        return [*self._notes, *(Note(kind, name, count) for (kind, name), count in self._more.items())]

    @property
    def begun(self) -> bool:
        """Something other than white space has come."""
        return bool(self._kinds or self._waiting)

    @property
    def markup_size(self) -> int:
        """Of the text that came to be read for calls, certain or not; it grows with each piece."""
        return self._come

    def take(self) -> list[Event]:
        """What became certain since it was last taken."""
        events, self._events = self._events, []
        return events

    def note(self, kind: NoteKind, name: str) -> None:
        if len(self._notes) < MAX_NOTES:
            self._notes.append(Note(kind, name))
        else:
            self._more[kind, name] += 1

    # ------------------------------------------------------------------------------------------------------------- text

    def text(self, text: str, logprobs: list[dict[str, Any]] | None = None) -> None:
        self._left -= PIECE + (len(text) if text.isascii() else _size(text))  # without a call for each token
        if logprobs:
            self._left -= LOGPROB * sum(1 + len(each.get("top_logprobs") or ()) for each in logprobs)
        if self._left < 0:
            self._exceeded(f"{self._limit:.0f} bytes")
        part = self._open
        if part is not None and part.kind == "text":  # then nothing waits: whatever came would have ended it
            self._events.append(Delta(text, logprobs))
        else:
            self._add("text", text, logprobs)

    def texts(self, several: Deltas, kind: Literal["text", "reasoning"] = "text") -> None:
        """As `text` or `reasoning` for each of them."""
        part, cost = self._open, _cost(several)
        if part is not None and part.kind == kind and not self._waiting and cost <= self._left:
            self._left -= cost
            self._events.append(several)
            return
        add = self.text if kind == "text" else self.reasoning
        for text in several.texts:
            add(text)

    def reasoning(self, text: str) -> None:
        self._spend(text)
        self._add("reasoning", text)

    def refusal(self, text: str) -> None:
        self._spend(text)
        self._add("refusal", text)

    def _add(self, kind: PartKind, text: str, logprobs: list[dict[str, Any]] | None = None) -> None:
        last = self._waiting[-1] if self._waiting else self._open
        if last is None or last.kind != kind:
            last = self._blank.setdefault(kind, PendingPart(kind))
            if text.strip():
                self._count()
                self._waiting.append(self._blank.pop(kind))
        if last is self._open:
            self._events.append(Delta(text, logprobs))
            return
        last.pieces.write(text)
        if logprobs:
            last.logprobs = last.logprobs or []
            last.logprobs += logprobs
        self._advance()

    # ------------------------------------------------------------------------------------------------------------ calls

    def begin_call(self, id: str = "", name: str = "") -> CallPart:
        """A call begins. Its name may come later, with a piece of the arguments; if it never does, it is `settle`d."""
        self._calls += 1
        self._count()
        self._spend(id + name)
        call = CallPart(id, name)
        self._waiting.append(call)
        self._blank.clear()
        self._advance()
        return call

    def extend_call(self, call: CallPart, piece: str, *, id: str = "", name: str = "") -> None:
        """The next piece of its arguments, which may be empty, and what was missing of its header."""
        if id:
            call.id = id
        if name:
            call.name = name
        self._accept(call, piece)
        self._advance()

    def extend_open(self, call: CallPart, several: Deltas) -> Sequence[str]:
        """As `extend_call` for each of these pieces, as far as they are simply the next ones of the part that is open;
        gives those that are left."""
        pieces, cost = several.texts, _cost(several)
        if call is not self._open or self._waiting or cost > self._left:
            return pieces
        taken, late = call.accept(several.text)
        going = self._without_closing(call, taken)
        if not late and going == taken:
            self._left -= cost
            self._events.append(several)
            return ()
        begin = 0  # the arguments are whole with one of the pieces
        for at, piece in enumerate(pieces):
            if begin >= len(taken):
                return pieces[at:]
            end = begin + len(piece)
            self._spend(piece)
            if begin < len(going):
                self._events.append(Delta(going[begin:end]))
            if end > len(taken) and piece[len(taken) - begin :].strip():
                self.note("drop", "late_arguments")
            begin = end
        return ()

    def end_call(self, call: CallPart) -> None:
        """Nothing more of it comes, so that one without arguments can be announced."""
        if not call.balance.begun:
            self.extend_call(call, "{}")

    def _accept(self, call: CallPart, piece: str) -> None:
        self._spend(piece)
        taken, late = call.accept(piece)
        if late.strip():
            self.note("drop", "late_arguments")
        taken = self._without_closing(call, taken)
        if taken and call is self._open:
            self._events.append(Delta(taken))
        elif taken:
            call.pieces.write(taken)

    def _without_closing(self, call: CallPart, taken: str) -> str:
        """What has come of the arguments, without the last bracket where that is held."""
        if self.holds_closing and taken and call.whole:
            taken, call.closing = taken[:-1], taken[-1]
        return taken

    def settle(self, rests: Mapping[CallPart, str], phantoms: Collection[CallPart]) -> None:
        """What was decided about calls when the answer was over, before `finish` or `abort`: the last pieces of
        arguments, and which were no calls after all. The arguments of those become text in their place."""
        for call, rest in rests.items():
            self._accept(call, rest)
        waiting, self._waiting = self._waiting, []
        for part in waiting:
            if not isinstance(part, CallPart) or part not in phantoms:
                self._waiting.append(part)
            elif part.balance.begun:
                text = PendingPart("text")
                text.pieces = part.pieces
                text.pieces.write(part.closing)
                self._waiting.append(text)

    # ----------------------------------------------------------------------------------------------------------- bounds

    def takes(self, several: Deltas) -> bool:
        """Whether they are certainly within the bounds, as text that is read for calls."""
        return self._come + _cost(several) <= self._limit

    def came(self, markup: str, pieces: int = 1) -> None:
        """Text that is read for calls, which may hold it for long before it becomes parts."""
        self._come += PIECE * pieces + len(markup)
        if self._come > self._limit:
            self._exceeded(f"{self._limit:.0f} bytes")

    def _spend(self, text: str) -> None:
        self._left -= PIECE + _size(text)
        if self._left < 0:
            self._exceeded(f"{self._limit:.0f} bytes")

    def _count(self) -> None:
        self._parts += 1
        if self._calls > MAX_CALLS:
            self._exceeded(f"{MAX_CALLS} tool calls")
        if self._parts > MAX_PARTS:
            self._exceeded(f"{MAX_PARTS} parts")

    def _exceeded(self, bound: str) -> None:
        self._limit = self._left = math.inf
        self._parts = self._calls = 0
        self.note("answer", "too_large")
        message = f"The model's answer has more than the {bound} that the gateway takes."
        error = GatewayError(Kind.BACKEND_FAILED, message, source="backend")
        error.certain = False  # its request may have asked for it: nothing is held against the server
        raise error

    # ------------------------------------------------------------------------------------------------------------ order

    def _advance(self) -> None:
        """Opens and ends what may be opened and ended now."""
        while self._waiting:
            if self._open is not None:
                if not self._open.whole:
                    return
                self._end(True)
            if not self._waiting[0].ready:
                return
            self._start(self._waiting.pop(0))

    def _start(self, part: PendingPart) -> None:
        if not self._kinds:
            self._events.append(Started())
        self._kinds.add(part.kind)
        if isinstance(part, CallPart):
            self._events.append(PartStarted("call", self._call_id(part.id), self._declared(part.name)))
        else:
            self._events.append(PartStarted(part.kind))
        if text := part.pieces.getvalue():
            self._events.append(Delta(text, part.logprobs))
            part.pieces = StringIO()
        part.stage = Stage.OPEN
        self._open = part

    def _end(self, complete: bool) -> None:
        assert self._open is not None
        if complete:
            self._close_brackets(self._open)
        self._events.append(PartEnded(complete))
        self._open.stage = Stage.ENDED
        self._open = None

    def _close_brackets(self, part: PendingPart) -> None:
        if isinstance(part, CallPart) and part.closing:
            self._events.append(Delta(part.closing))
            part.closing = ""

    def _call_id(self, id: str) -> str:
        if id in self._taken:
            self.note("repair", "call_id")
        while not id or id in self._taken:
            self._made += 1
            id = f"call_{self._seed}{self._made:02d}"
        self._taken.add(id)
        return id

    def declared_name(self, name: str) -> str | None:
        """The name as the request declares it. Models and servers change its case, pad it, prefix it or write it twice,
        and leave markup after it."""
        plain = name.partition("<")[0].strip()
        half = plain[: len(plain) // 2]
        once = half if plain == f"{half}.{half}" else plain
        for candidate in (name, plain, *map(plain.removeprefix, _NAMESPACES), once):
            declared = self.names.get(candidate) or self.names.get(candidate.casefold())
            if declared is not None:
                return declared
        return None

    def _declared(self, name: str) -> str:
        declared = self.declared_name(name)
        if declared is None:
            return name
        if declared != name:
            self.note("repair", "tool_name")
        return declared

    # -------------------------------------------------------------------------------------------------------------- end

    def finish(
        self, reason: StopReason, usage: Usage | None, stop_sequence: str | None = None, *, in_call: bool = False
    ) -> None:
        """The answer is over: everything that waits is played back, then `Finished` follows. `in_call`: an answer that
        was cut ended in its last call, whatever its arguments look like."""
        cut = reason is not StopReason.STOP
        while self._open is not None or self._waiting:
            if self._open is None:
                self._start(self._waiting.pop(0))
            elif isinstance(self._open, CallPart):
                last = not self._waiting
                self._end(self._call_is_complete(self._open, cut) and not (cut and in_call and last))
            else:
                self._end(not cut or bool(self._waiting))
        if not self._kinds:
            self.note("answer", "empty")
            self._start(self._blank.get("text") or PendingPart("text"))
            self._end(not cut)
        elif self._kinds == {"reasoning"}:
            self.note("answer", "reasoning_only")
        self._events.append(Finished(reason, usage, stop_sequence))

    def _call_is_complete(self, call: CallPart, cut: bool) -> bool:
        if call.whole:
            return True
        if cut:
            return False
        if not call.balance.begun:
            self._events.append(Delta("{}"))
        elif not is_object(call.arguments):
            self.note("answer", "invalid_arguments")
        return True

    def abort(self) -> None:
        """The stream broke: what waits is played back up to the first part that is not whole, which stays open. A call
        whose name had yet to come cannot even be opened, so the answer ends before it."""
        whole = len(self._waiting)
        self._waiting = list(takewhile(lambda part: not isinstance(part, CallPart) or part.name, self._waiting))
        if len(self._waiting) < whole:
            self.note("drop", "after_break")
        while self._waiting and (self._open is None or self._open.whole):
            if self._open is not None:
                self._end(True)
            self._start(self._waiting.pop(0))
        if self._waiting:
            self.note("drop", "after_break")
        if self._open is not None:  # no server completes what it breaks off
            self._close_brackets(self._open)


def _cost(several: Deltas) -> int:
    return PIECE * len(several.texts) + _size(several.text)


def _size(text: str) -> int:
    """In bytes."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
