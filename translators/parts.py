"""Where a part of an answer begins and where it ends: the only place that decides it.

Servers send deltas in no reliable order: calls interleave; ids and indexes repeat, change or are missing; names come
late; arguments come as snapshots; white space appears between calls. `Parts` takes those deltas and appends events in
the order of the stream grammar (`translators.ir`). Its rules:

* A call is announced once its name and a first byte of its arguments (or its end) are known.
* It ends when something else begins *and* its arguments are complete JSON, otherwise with the answer. What begins
  in the meantime waits and is played back in order; everything else leaves in the same call of a method.
* Text for a call that has ended is dropped and noted. Blank text never opens a part: it precedes the next text or
  vanishes beside a call.
* An upstream id is kept when it is not empty and new to the conversation; otherwise one is made from the seed.
* An answer without any part has one empty text part.

`translators.fold` is the other direction: events back into finished parts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from itertools import islice
from typing import Any

from dragoman.translators.ir import (
    Delta,
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
from dragoman.translators.json_text import Balance, is_object


class _Part:
    """A part that is open or waiting: `pieces` is what has not been sent yet."""

    __slots__ = ("kind", "logprobs", "pieces")

    def __init__(self, kind: PartKind) -> None:
        self.kind = kind
        self.pieces: list[str] = []
        self.logprobs: list[dict[str, Any]] | None = None

    @property
    def ready(self) -> bool:
        """Whether it may be opened."""
        return True

    @property
    def whole(self) -> bool:
        """Whether it may be ended because something else has begun."""
        return True


class _Call(_Part):
    """`id` and `name` as the server sent them. `sent` is everything accepted of the arguments; `held` is a piece that
    either continues them or repeats them as a snapshot, which is not clear yet."""

    __slots__ = ("balance", "ended", "held", "id", "name", "repeats", "sent", "size")

    def __init__(self, id: str, name: str, repeats: str | None) -> None:
        super().__init__("call")
        self.id = id
        self.name = name
        self.repeats = repeats  # the name of the call before it at the same index: this may be its header again
        self.balance = Balance()
        self.sent: list[str] = []
        self.size = 0
        self.held = ""
        self.ended = False

    @property
    def ready(self) -> bool:
        return bool(self.name) and self.balance.begun

    @property
    def whole(self) -> bool:
        return self.balance.complete

    @property
    def arguments(self) -> str:
        return "".join(self.sent)

    @property
    def awaits_name(self) -> bool:
        """Some servers send it last."""
        return not self.name and bool(self.id or self.held or self.balance.begun)

    def lacks(self, arguments: str) -> bool:
        """Whether `arguments` that come without a name belong here rather than in a call of their own."""
        return not (self.balance.complete or (self.balance.begun and arguments.lstrip().startswith("{")))

    @property
    def phantom(self) -> bool:
        """A header without arguments or an id of its own that only repeats the name of the call before it."""
        return (
            not self.balance.begun and not self.held and (not self.name or (not self.id and self.name == self.repeats))
        )


class Parts:
    """`events` is what became certain since the owner last took it. `notes` are facts for the metrics."""

    def __init__(self, seed: str, *, taken: Collection[str] = (), names: Collection[str] = ()) -> None:
        self.events: list[Event] = []
        self.notes: list[Note] = []
        self._seed = seed
        self._taken = set(taken)  # call ids that the conversation already has
        self._names = {name.casefold(): name for name in reversed([*names])} | {name: name for name in names}
        self._open: _Part | None = None
        self._waiting: deque[_Part] = deque()
        self._calls: dict[int, _Call] = {}  # by upstream index: the newest call there
        self._by_id: dict[str, _Call] = {}  # by upstream id: the newest call that has it
        self._last: _Call | None = None
        self._blank: dict[PartKind, _Part] = {}  # white space that may yet become the beginning of a part
        self._kinds: set[PartKind] = set()  # kinds that were opened
        self._cumulative = False  # this server sends arguments as snapshots
        self._made = 0

    @classmethod
    def of(cls, request: Request) -> Parts:
        taken = {part.id for message in request.messages for part in message.parts if isinstance(part, ToolCall)}
        return cls(request.id, taken=taken, names=[tool.name for tool in request.tools])

    @property
    def begun(self) -> bool:
        """Something other than white space has come."""
        return bool(self._kinds or self._waiting)

    # ----------------------------------------------------------------------------------------------------------- deltas

    def text(self, text: str, logprobs: list[dict[str, Any]] | None = None) -> None:
        part = self._open
        if part is not None and part.kind == "text" and not self._waiting:
            self.events.append(Delta(text, logprobs))
        else:
            self._add("text", text, logprobs)

    def reasoning(self, text: str) -> None:
        self._add("reasoning", text)

    def refusal(self, text: str) -> None:
        self._add("refusal", text)

    def _add(self, kind: PartKind, text: str, logprobs: list[dict[str, Any]] | None = None) -> None:
        last = self._waiting[-1] if self._waiting else self._open
        if last is None or last.kind != kind:
            last = self._blank.setdefault(kind, _Part(kind))
            if text.strip():
                self._waiting.append(self._blank.pop(kind))
        if last is self._open:
            self.events.append(Delta(text, logprobs))
            return
        last.pieces.append(text)
        if logprobs:
            last.logprobs = (last.logprobs or []) + logprobs
        self._advance()

    def call(
        self, index: int | None, id: str = "", name: str = "", arguments: str = "", *, whole: bool = False
    ) -> None:
        """A delta of a tool call. `index`, `id` and `name` are what the server sent, None or "" where it sent nothing.
        `whole`: `arguments` is certainly all of them."""
        id, name = id.strip() and id, name.strip() and name
        call = self._find(index, id, name, arguments)
        if call is None:
            if not (id or name or arguments.strip()):
                return  # it holds nothing and continues nothing
            before = self._calls.get(self._key(index))
            call = _Call(id, name, before.name if before is not None else None)
            self._calls[self._key(index) if index is not None or not self._calls else max(self._calls) + 1] = call
            self._waiting.append(call)
            self._blank.clear()
        call.name = call.name or name
        call.id = call.id or id
        if id:
            self._by_id[id] = call
        self._last = call
        if arguments:
            self._arguments(call, arguments, whole)
        self._advance()

    def _key(self, index: int | None) -> int:
        if index is not None:
            return index
        return next((key for key, call in self._calls.items() if call is self._last), 0)

    def _find(self, index: int | None, id: str, name: str, arguments: str) -> _Call | None:
        """The call that a delta continues, None where it begins a new one."""
        call = self._last if index is None else self._calls.get(index)
        if id and (call.id != id if call is not None else not name):
            call = self._by_id.get(id, call)
        elif call is None and not name and self._last is not None and self._last.lacks(arguments):
            call = self._last  # an index that counts deltas, not calls
        if call is None:
            return None
        done, begins = call.balance.complete, arguments.lstrip().startswith("{")
        if name and call.name and name != call.name:
            return call if self._completes_name(call, id, name) else None
        if id and call.id and id != call.id:
            if not name:  # some servers make a new id for every piece
                return None if done and begins else call
            return call if call.balance.begun and not done and arguments.strip() and not begins else None
        if done and name:
            if not begins if id and id == call.id else not (call.name or arguments.strip()):
                return call  # its header once more, or its name at last
            return call if self._snapshot_of(call, arguments) else None
        return call

    def _completes_name(self, call: _Call, id: str, name: str) -> bool:
        """Whether `name` is the next piece of the name, or the name so far. The declared names decide."""
        joined, new = (name, call.name) if name.startswith(call.name) else (call.name + name, name)
        if call.balance.begun or (id and id != call.id) or new in self._names:
            return False
        if not any(declared.startswith(joined) for declared in self._names):
            return False
        call.name = joined
        return True

    def _snapshot_of(self, call: _Call, arguments: str) -> bool:
        return len(arguments) >= call.size and arguments.startswith(call.arguments)

    # -------------------------------------------------------------------------------------------------------- arguments

    def _arguments(self, call: _Call, piece: str, whole: bool) -> None:
        if call.held:
            held, call.held = call.held, ""
            if piece.startswith(held) and Balance().feed(piece) >= len(piece.rstrip()):
                self._cumulative = True
            else:
                self._accept(call, held)
        if self._may_repeat(call, whole) and self._snapshot_of(call, piece):
            if not (self._cumulative or whole) and _value_may_begin(call):
                # {"a": then {"a": 1} continues a nested object or repeats the whole: the next piece decides
                call.held = piece
                return
            self._cumulative = True
            piece = piece[call.size :]
        elif whole and call.balance.begun:
            return  # sent already, in another form
        self._accept(call, piece)

    def _may_repeat(self, call: _Call, whole: bool) -> bool:
        """Whether a piece that begins like everything before it can be a snapshot. In text that is not JSON, "*" and
        then "**" looks like one and is not."""
        return call.balance.begun and (self._cumulative or whole or not call.balance.bare)

    def _accept(self, call: _Call, piece: str) -> None:
        if not call.ended:
            length = call.balance.feed(piece)
            piece, rest = piece[:length], piece[length:]
        else:
            piece, rest = "", piece
        if rest.strip():
            self._note("drop", "late_arguments")
        if not piece:
            return
        call.sent.append(piece)
        call.size += len(piece)
        if call is self._open:
            self.events.append(Delta(piece))
        else:
            call.pieces.append(piece)

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
            self._start(self._waiting.popleft())

    def _start(self, part: _Part) -> None:
        if not self._kinds:
            self.events.append(Started())
        self._kinds.add(part.kind)
        if isinstance(part, _Call):  # it keeps the server's own id and name, by which later deltas find it
            self.events.append(PartStarted("call", self._call_id(part.id), self._declared(part.name)))
        else:
            self.events.append(PartStarted(part.kind))
        if text := "".join(part.pieces):
            self.events.append(Delta(text, part.logprobs))
        part.pieces.clear()
        self._open = part

    def _end(self, complete: bool) -> None:
        self.events.append(PartEnded(complete))
        if isinstance(self._open, _Call):
            self._open.ended = True
        self._open = None

    def _call_id(self, id: str) -> str:
        if id in self._taken:
            self._note("repair", "call_id")
        while not id or id in self._taken:
            self._made += 1
            id = f"call_{self._seed}{self._made:02d}"
        self._taken.add(id)
        return id

    def _declared(self, name: str) -> str:
        """The name as the request declares it. Models and servers change its case, pad it or prefix it."""
        for candidate in (name, name.strip(), name.strip().removeprefix("functions.")):
            declared = self._names.get(candidate) or self._names.get(candidate.casefold())
            if declared is not None:
                if declared != name:
                    self._note("repair", "tool_name")
                return declared
        return name

    # -------------------------------------------------------------------------------------------------------------- end

    def finish(self, reason: StopReason, usage: Usage | None, stop_sequence: str | None = None) -> None:
        """The answer is over: everything that waits is played back, then `Finished` follows."""
        self._settle()
        cut = reason is not StopReason.STOP
        while self._open is not None or self._waiting:
            if self._open is None:
                self._start(self._waiting.popleft())
                continue
            last = not self._waiting
            if isinstance(self._open, _Call):
                self._end(self._call_is_complete(self._open, cut))
            else:
                self._end(not (cut and last))
        if not self._kinds:
            self._note("answer", "empty")
            self._start(self._blank.get("text") or _Part("text"))
            self._end(not cut)
        elif self._kinds == {"reasoning"}:
            self._note("answer", "reasoning_only")
        self.events.append(Finished(reason, usage, stop_sequence))

    def _call_is_complete(self, call: _Call, cut: bool) -> bool:
        if call.whole:
            return True
        if cut:
            return False
        if not call.balance.begun:
            self.events.append(Delta("{}"))
        elif not is_object(call.arguments):
            self._note("answer", "invalid_arguments")
        return True

    def abort(self) -> None:
        """The stream broke: what waits is played back up to the first part that is not whole, which stays open. A call
        whose name had yet to come cannot even be opened, so the answer ends before it."""
        nameless = (place for place, part in enumerate(self._waiting) if isinstance(part, _Call) and part.awaits_name)
        if (first := next(nameless, None)) is not None:
            self._waiting = deque(islice(self._waiting, first))
            self._note("drop", "after_break")
        self._settle()
        while self._waiting and (self._open is None or self._open.whole):
            if self._open is not None:
                self._end(True)
            self._start(self._waiting.popleft())
        if self._waiting:
            self._note("drop", "after_break")

    def _settle(self) -> None:
        """Decides what was left for the next delta to decide."""
        for call in [call for call in (self._open, *self._waiting) if isinstance(call, _Call)]:
            if held := call.held:
                call.held = ""
                snapshot = Balance()
                snapshot.feed(held)
                self._accept(call, held[call.size :] if snapshot.complete else held)
        for call in [call for call in self._waiting if isinstance(call, _Call) and (call.phantom or not call.name)]:
            place = self._waiting.index(call)
            self._waiting.remove(call)
            if not call.balance.begun:
                if call.id and not call.name:
                    self._note("drop", "nameless_call")
            else:  # arguments without a call are shown as text, so that they are not lost
                self._note("repair", "nameless_call")
                text = _Part("text")
                text.pieces = call.pieces
                self._waiting.insert(place, text)

    def _note(self, kind: NoteKind, name: str) -> None:
        self.notes.append(Note(kind, name))


def _value_may_begin(call: _Call) -> bool:
    return not call.balance.in_string and call.arguments.rstrip()[-1:] in (":", "[", ",")
