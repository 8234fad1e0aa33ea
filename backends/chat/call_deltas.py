"""What a delta of a tool call means: which call it is of, whether another begins, whether its arguments are a snapshot.

Chat servers leave that open. Indexes and ids repeat, change or are missing; names come late, in pieces or with every
delta; arguments come as pieces or as all of them so far; headers come twice. `CallDeltas` decides by the four tables
below, each in order: the first row that holds decides, and where none does the answer is the one for servers that do
it right. A row is named for the golden case (tests/golden/streams/chat_completions) that needs it, and
tests/backends/chat/test_call_deltas.py holds that none is there without need.

`translators.parts` gives the calls their place in the answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from io import StringIO
from itertools import takewhile
from typing import Generic, ParamSpec, TypeVar

from dragoman.translators.call_part import CallPart
from dragoman.translators.ir import Deltas, Note
from dragoman.translators.json_text import Balance, JsonScanner, is_object, joined_halves
from dragoman.translators.parts import Parts

Facts = ParamSpec("Facts")
Decision = TypeVar("Decision")


@dataclass(frozen=True, slots=True)
class Row(Generic[Facts, Decision]):
    """`case` is the golden case that needs it; `when` is true or false of a delta, a call or both."""

    case: str
    when: Callable[Facts, object]
    then: Decision


MAX_IDS = 16_384  # that are remembered: some servers send a new one with each delta
MOST_CUT = 7  # characters of a cut escape, and one more


class Verdict(Enum):
    CONTINUES = 0
    BEGINS = 1


class Meaning(Enum):
    """Of a piece of arguments, where it is not simply the next one."""

    SNAPSHOT = 0  # everything so far
    UNDECIDED = 1  # either: the next piece decides
    CONFIRMS = 2  # a snapshot, and so was the piece that was held
    REFUTES = 3  # the piece that was held was the next one; this one is looked at anew
    REPEATED = 4  # everything, in other words
    NOTHING = 5  # no arguments, in other words


class Sending(Enum):
    """How this server sends arguments."""

    UNKNOWN = 0
    SNAPSHOTS = 1


class _Quoted:
    """Arguments that come as a JSON string. Where it holds an object, that is what they are: models write them so, and
    vLLM's Hermes parser encodes what they wrote once more (vllm#54964)."""

    __slots__ = ("_scanner", "_text")

    def __init__(self) -> None:
        self._text = StringIO()
        self._scanner = JsonScanner()

    def feed(self, piece: str) -> str:
        """The arguments, once they are whole."""
        end = self._scanner.scan(piece, 0)
        self._text.write(piece[:end])
        return self.arguments + piece[end:] if self._scanner.complete else ""

    @property
    def arguments(self) -> str:
        """As far as they came."""
        text = self._text.getvalue()
        if self._scanner.complete:
            inner = _unquoted(text)
            return inner if is_object(inner) else text
        ends = (_unquoted(f'{text[: len(text) - cut]}"') for cut in range(MOST_CUT))
        inner = next(filter(None, ends), "")
        return inner if inner.lstrip().startswith("{") else text


def _unquoted(text: str) -> str:
    try:
        return joined_halves(json.loads(text, strict=False))
    except ValueError:
        return ""


class _Call:
    """`repeats` is the name of the call before it at the same index: this may be that one's header again. `held` is a
    piece that either continues the arguments or repeats them as a snapshot, `quoted` a string that may hold them."""

    __slots__ = ("held", "index", "part", "quoted", "repeats")

    def __init__(self, part: CallPart, index: int, repeats: str) -> None:
        self.part = part
        self.index = index
        self.repeats = repeats
        self.held = ""
        self.quoted: _Quoted | None = None

    @property
    def id(self) -> str:
        return self.part.id

    @property
    def name(self) -> str:
        return self.part.name

    @property
    def begun(self) -> bool:
        """Its arguments have begun."""
        return self.part.balance.begun or self.quoted is not None

    @property
    def done(self) -> bool:
        return self.part.balance.complete

    def is_continued_by(self, id: str, name: str, piece: str) -> bool:
        """Certainly: the header says nothing else, and the piece is too short to repeat what came."""
        part = self.part
        if (id and id != part.id) or (name and (name != part.name or part.balance.complete)):
            return False
        return not self.held and len(piece) < part.size

    def repeated_by(self, piece: str) -> bool:
        return len(piece) >= self.part.size and piece.startswith(self.part.arguments)

    @property
    def value_may_begin(self) -> bool:
        """Then {"a": and {"a": 1} is a nested object or a snapshot."""
        return not self.part.balance.in_string and self.part.arguments.rstrip()[-1:] in (":", "[", ",")


@dataclass(slots=True)
class _Delta:
    """`index`, `id` and `name` are what the server sent, None or "" where it sent nothing. `whole`: `arguments` is
    certainly all of them. Three calls it may be about: `at` is the newest at its index, `known` the last that came with
    its id, `last` the one that the delta before it was about."""

    index: int | None
    id: str
    name: str
    arguments: str
    whole: bool
    at: _Call | None
    known: _Call | None
    last: _Call | None
    declared: Collection[str]
    sending: Sending

    @property
    def begins(self) -> bool:
        """Its arguments are the beginning of an object."""
        return self.arguments.lstrip().startswith("{")

    @property
    def blank(self) -> bool:
        return not self.arguments.strip()

    @property
    def headless(self) -> bool:
        return not self.id and not self.name

    @property
    def addressed(self) -> _Call | None:
        """By its index, as far as it has one."""
        return self.last if self.index is None else self.at

    @property
    def of_another(self) -> bool:
        """Its id is that of a call other than the one at its index. A name at a new index is a new call, whatever its
        id."""
        if self.known is None:
            return False
        return self.addressed.id != self.id if self.addressed is not None else not self.name

    def continues(self, call: _Call) -> bool:
        """Its arguments can be the next piece of the call's."""
        return not call.done and not (call.begun and self.begins)

    def goes_on(self, call: _Call) -> bool:
        """They are more of the call's than came so far."""
        return not call.done and len(self.arguments) > call.part.size and self.repeats(call)

    def same_id(self, call: _Call) -> bool:
        return bool(self.id) and self.id == call.id

    def other_id(self, call: _Call) -> bool:
        return bool(self.id and call.id) and self.id != call.id

    def other_name(self, call: _Call) -> bool:
        return bool(self.name and call.name) and self.name != call.name

    def joined_name(self, call: _Call) -> str:
        """Names come whole, in pieces, or as what there is of them so far."""
        return self.name if self.name.startswith(call.name) else call.name + self.name

    def completes_name(self, call: _Call) -> bool:
        """The declared names decide whether the name is the next piece of the call's, or what there is of it so far."""
        joined = self.joined_name(call)
        other = call.name if joined == self.name else self.name
        if call.begun or (self.id and self.id != call.id) or other in self.declared:
            return False
        return any(name.startswith(joined) for name in self.declared)

    @property
    def certain(self) -> bool:
        """What repeats the arguments so far is a snapshot."""
        return self.whole or self.sending is Sending.SNAPSHOTS

    def repeats(self, call: _Call) -> bool:
        """In text that is not JSON, "*" and then "**" looks like a snapshot and is not."""
        return call.begun and (self.certain or not call.part.balance.bare) and call.repeated_by(self.arguments)

    def may_repeat(self, call: _Call) -> bool:
        return not self.certain and self.repeats(call) and call.value_may_begin

    def confirms(self, call: _Call) -> bool:
        """It begins with the piece that is held and is not longer than one value."""
        return self.arguments.startswith(call.held) and Balance().feed(self.arguments) >= len(self.arguments.rstrip())


# Which call a delta is about; none so far, where no row holds.
ADDRESSES: Sequence[Row[[_Delta], Callable[[_Delta], _Call | None]]] = (
    Row("calls-interleaved-by-id", lambda d: d.of_another, lambda d: d.known),
    Row("call-index-missing", lambda d: d.index is None, lambda d: d.last),
    Row("call-name-repeated", lambda d: d.at is not None, lambda d: d.at),
    Row(
        "call-index-counts-deltas",
        lambda d: d.index is not None and d.headless and d.last and d.continues(d.last),
        lambda d: d.last,
    ),
    Row("call-snapshots-at-another-index", lambda d: d.headless and d.last and d.goes_on(d.last), lambda d: d.last),
)
# Whether it continues that call; it does, where no row holds.
VERDICTS: Sequence[Row[[_Delta, _Call], Verdict]] = (
    Row("call-name-in-pieces", lambda d, c: d.other_name(c) and d.completes_name(c), Verdict.CONTINUES),
    Row("calls-same-index-other-name", lambda d, c: d.other_name(c), Verdict.BEGINS),
    Row(
        "call-new-id-on-each-continuation",
        lambda d, c: d.other_id(c) and not d.name and not (c.done and d.begins),
        Verdict.CONTINUES,
    ),
    Row(
        "call-new-id-and-name-on-each-continuation",
        lambda d, c: d.other_id(c) and d.name and c.begun and not d.blank and d.continues(c),
        Verdict.CONTINUES,
    ),
    Row("calls-same-index-no-arguments", lambda d, c: d.other_id(c), Verdict.BEGINS),
    Row("call-header-again", lambda d, c: c.done and d.name and d.same_id(c) and not d.begins, Verdict.CONTINUES),
    Row("call-name-arrives-last", lambda d, c: c.done and d.name and not c.name and d.blank, Verdict.CONTINUES),
    Row("call-last-delta-again", lambda d, c: c.done and d.name and c.repeated_by(d.arguments), Verdict.CONTINUES),
    Row("calls-same-index-same-name-no-ids", lambda d, c: c.done and d.name, Verdict.BEGINS),
)
# What its arguments are; the next piece, where no row holds.
MEANINGS: Sequence[Row[[_Delta, _Call], Meaning]] = (
    Row("call-arguments-say-null", lambda d, c: not c.begun and d.arguments.strip() == "null", Meaning.NOTHING),
    Row("call-snapshots-of-nested-objects", lambda d, c: c.held and d.confirms(c), Meaning.CONFIRMS),
    Row("call-deltas-that-look-like-a-snapshot", lambda d, c: c.held, Meaning.REFUTES),
    Row("call-nested-objects-that-begin-alike", lambda d, c: d.may_repeat(c), Meaning.UNDECIDED),
    Row("call-cumulative-snapshots", lambda d, c: d.repeats(c), Meaning.SNAPSHOT),
    Row("call-arguments-again-as-object", lambda d, c: d.whole and c.begun, Meaning.REPEATED),
)
# What was no call, once the answer is over, and what is noted of it. Its arguments become text, so that they are not
# lost.
PHANTOMS: Sequence[Row[[_Call], Note | None]] = (
    Row("call-nameless", lambda c: not c.name and c.begun, Note("repair", "nameless_call")),
    Row("call-of-nothing-but-an-id", lambda c: not c.name and not c.begun, Note("drop", "nameless_call")),
    Row("call-name-again-after-its-end", lambda c: not c.id and c.name == c.repeats and not c.begun, None),
)


def deciding(
    rows: Sequence[Row[Facts, Decision]], *facts: Facts.args, **named: Facts.kwargs
) -> Row[Facts, Decision] | None:
    return next((row for row in rows if row.when(*facts, **named)), None)


class CallDeltas:
    """Call `finish` or `abort` before those of the parts."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._all: list[_Call] = []
        self._at: dict[int, _Call] = {}  # by index: the newest call there
        self._by_id: dict[str, _Call] = {}  # by id: the newest call that has it
        self._last: _Call | None = None
        self._next = 0  # the index of a call that has none
        self._sending = Sending.UNKNOWN

    @property
    def unfinished(self) -> bool:
        """Whether the newest call is not whole yet, as far as its arguments show it."""
        return bool(self._all) and not self._all[-1].done and not self._all[-1].part.balance.bare

    def feed(
        self, index: int | None, id: str = "", name: str = "", arguments: str = "", *, whole: bool = False
    ) -> None:
        """A delta: `index`, `id` and `name` as the server sent them, None or "" where it sent nothing. `whole`:
        `arguments` is certainly all of them."""
        call = self._last if index is None else self._at.get(index)
        if call is not None and not whole and call.is_continued_by(id, name, arguments):
            # Nearly every delta: the first two tables give this call, the third the next piece of its arguments.
            if id:
                self._by_id[id] = call
            self._last = call
            self._parts.extend_call(call.part, arguments)
            return
        id, name = id.strip() and id, name.strip() and name
        at = self._at.get(index) if index is not None else None
        known = self._by_id.get(id)
        self._read(_Delta(index, id, name, arguments, whole, at, known, self._last, self._parts.names, self._sending))

    def feed_all(self, index: int | None, id: str, name: str, several: Deltas) -> None:
        """As `feed` for each of these pieces of arguments, which came with the same header."""
        pieces = several.texts
        call = self._last if index is None else self._at.get(index)
        if call is not None and call.is_continued_by(id, name, max(pieces, key=len)):
            if id:
                self._by_id[id] = call
            self._last = call
            pieces = self._parts.extend_open(call.part, several)
        for piece in pieces:
            self.feed(index, id, name, piece)

    def _read(self, delta: _Delta) -> None:
        address = deciding(ADDRESSES, delta)
        call = address.then(delta) if address is not None else None
        verdict = deciding(VERDICTS, delta, call) if call is not None else None
        if call is None or (verdict is not None and verdict.then is Verdict.BEGINS):
            if call is None and delta.headless and delta.blank:
                return  # it says nothing
            call = self._begin(delta)
        if delta.id and (len(self._by_id) < MAX_IDS or delta.id in self._by_id):
            self._by_id[delta.id] = call
        self._last = call
        piece = self._piece(delta, call) if delta.arguments else ""
        name = delta.joined_name(call) if delta.name else ""
        self._parts.extend_call(call.part, piece, id="" if call.id else delta.id, name=name)

    def _begin(self, delta: _Delta) -> _Call:
        index, before = delta.index, delta.at
        if index is None:
            index, before = self._next, self._at[self._last.index] if self._last is not None else None
        call = _Call(self._parts.begin_call(delta.id, delta.name), index, before.name if before is not None else "")
        self._next = max(self._next, index + 1)
        self._at[index] = call
        self._all.append(call)
        return call

    def _piece(self, delta: _Delta, call: _Call) -> str:
        """What of the delta's arguments is new."""
        if call.quoted is None and not call.begun and delta.arguments.lstrip().startswith('"'):
            call.quoted = _Quoted()
        if call.quoted is not None and not call.part.balance.begun:
            self._parts.came(delta.arguments)
            return call.quoted.feed(delta.arguments)
        row = deciding(MEANINGS, delta, call)
        match row.then if row is not None else None:
            case None:
                return delta.arguments
            case Meaning.REPEATED | Meaning.NOTHING:
                return ""
            case Meaning.UNDECIDED:
                call.held = delta.arguments
                return ""
            case Meaning.REFUTES:
                held, call.held = call.held, ""
                self._parts.extend_call(call.part, held)
                return self._piece(delta, call)
            case Meaning.CONFIRMS | Meaning.SNAPSHOT:
                self._sending, call.held = Sending.SNAPSHOTS, ""
                return delta.arguments[call.part.size :]

    # -------------------------------------------------------------------------------------------------------------- end

    def finish(self) -> None:
        """No more deltas come."""
        phantoms = {call.part: row.then for call in self._all if (row := deciding(PHANTOMS, call)) is not None}
        for note in phantoms.values():
            if note is not None:
                self._parts.note(note.kind, note.name)
        self._parts.settle(_rests(self._all), phantoms)

    def abort(self) -> None:
        """The stream broke. A call without a name may have had one yet to come, so the answer ends before it."""
        before = [*takewhile(lambda call: call.name, self._all)]
        self._parts.settle(_rests(before), {call.part for call in before if deciding(PHANTOMS, call) is not None})


def _rests(calls: Iterable[_Call]) -> dict[CallPart, str]:
    """The pieces that are held, now that nothing follows to decide about them: one that is a value by itself was a
    snapshot."""
    rests = {}
    for call in calls:
        if call.quoted is not None and not call.part.balance.begun:
            rests[call.part] = call.quoted.arguments
        elif call.held:
            snapshot = Balance()
            snapshot.feed(call.held)
            rests[call.part] = call.held[call.part.size :] if snapshot.complete else call.held
    return rests
