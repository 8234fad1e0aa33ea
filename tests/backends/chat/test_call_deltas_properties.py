"""Call deltas under Hypothesis: answers as every kind of server writes them come out whole and once, whatever is
interleaved, and any deltas at all make a grammatical stream that neither loses nor invents."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragoman.translators.ir import Event, Note, StopReason, ToolCall
from tests.chat_parts import ChatParts
from tests.event_grammar import check, fold, plain

pytestmark = pytest.mark.slow

STOP, LENGTH, FILTER = StopReason.STOP, StopReason.LENGTH, StopReason.CONTENT_FILTER


def end(parts: ChatParts) -> list[Event]:
    parts.finish(STOP, None)
    events = parts.take()
    check(events)
    return events


# ----------------------------------------------------------------------------------- answers as real servers write them


@dataclass
class Call:
    number: int
    name: str
    pieces: list[str]

    @property
    def arguments(self) -> str:
        return "".join(self.pieces)


Deltas = list[tuple[Any, ...]]  # (index, id, name, arguments)


@dataclass(frozen=True)
class Server:
    """How a server writes one call; `mixes`: its deltas tell the calls apart when they interleave."""

    write: Callable[[Call], Deltas]
    mixes: bool = False


def headed(call: Call, index: int | None, id: str, again: bool = False) -> Deltas:
    header = (index, id, call.name, "")
    return [header, *((index, id if again else "", call.name if again else "", piece) for piece in call.pieces)]


SERVERS = {
    "by index": Server(lambda c: headed(c, c.number, f"id{c.number}"), mixes=True),
    "by index, no ids": Server(lambda c: headed(c, c.number, ""), mixes=True),
    "by index with gaps": Server(lambda c: headed(c, 3 * c.number + 2, f"id{c.number}"), mixes=True),
    "by index, everything again": Server(lambda c: headed(c, c.number, f"id{c.number}", True), mixes=True),
    "by index, one id": Server(lambda c: headed(c, c.number, "same"), mixes=True),
    "index 0": Server(lambda c: headed(c, 0, f"id{c.number}")),
    "index 0, no ids": Server(lambda c: headed(c, 0, "")),
    "index 0, ids again": Server(lambda c: headed(c, 0, f"id{c.number}", True), mixes=True),
    "no index": Server(lambda c: headed(c, None, f"id{c.number}")),
    "no index, ids again": Server(lambda c: headed(c, None, f"id{c.number}", True), mixes=True),
    "no index, no ids": Server(lambda c: headed(c, None, "")),
    "no header": Server(lambda c: headed(c, c.number, f"id{c.number}", True)[1:], mixes=True),
    "whole, neither index nor id": Server(lambda c: [(None, "", c.name, c.arguments)], mixes=True),
    "whole, index 0": Server(lambda c: [(0, "", c.name, c.arguments)], mixes=True),
    "new ids": Server(lambda c: [(i, f"id{c.number}-{n}", *r) for n, (i, _, *r) in enumerate(headed(c, 0, ""))]),
    "name last": Server(
        lambda c: [(c.number, f"id{c.number}", "", p) for p in c.pieces] + [(c.number, "", c.name, "")], mixes=True
    ),
    "snapshots": Server(
        lambda c: [(c.number, f"id{c.number}", c.name, "".join(c.pieces[: n + 1])) for n in range(len(c.pieces))],
        mixes=True,
    ),
}

VALUES = st.recursive(
    st.none() | st.integers(-9, 99) | st.text(max_size=6) | st.sampled_from(["}", '"', "\\", "\\\\", "{"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)


@st.composite
def call(draw: st.DrawFn, number: int) -> Call:
    arguments = json.dumps({"n": number, **draw(st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3))})
    ends = sorted({0, len(arguments), *draw(st.lists(st.integers(1, len(arguments)), max_size=5))})
    pieces = [arguments[a:b] for a, b in pairwise(ends)]
    return Call(number, draw(st.sampled_from(["f", "g", "get_weather"])), pieces)


@dataclass
class Answer:
    """`deltas` are what the server sends, `parts` what it means, with white space taken out of the text."""

    deltas: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)
    parts: list[tuple[str, ...]] = field(default_factory=list)
    server: str = ""


@st.composite
def answer(draw: st.DrawFn) -> Answer:
    result = Answer(server=draw(st.sampled_from(sorted(SERVERS))))
    server = SERVERS[result.server]
    number = 0
    for _ in range(draw(st.integers(1, 4))):
        if draw(st.booleans()):
            kind = draw(st.sampled_from(["text", "reasoning", "refusal"]))
            pieces = draw(st.lists(st.sampled_from(["Hello", " a", "b\n", "\n", " "]), min_size=1, max_size=4))
            result.deltas += [(kind, (piece,)) for piece in pieces]
            if text := "".join("".join(pieces).split()):
                if result.parts and result.parts[-1][0] == kind:
                    result.parts[-1] = (kind, result.parts[-1][1] + text)
                else:
                    result.parts.append((kind, text))
            continue
        group = [draw(call(number + n)) for n in range(draw(st.integers(1, 3)))]
        number += len(group)
        queues = [server.write(one) for one in group]
        while any(queues):
            # what begins first is first in the answer, so the first deltas keep their order
            begun = [n for n, queue in enumerate(queues) if queue and len(queue) < len(server.write(group[n]))]
            fresh = [n for n, queue in enumerate(queues) if len(queue) == len(server.write(group[n]))][:1]
            choice = (
                draw(st.sampled_from(begun + fresh)) if server.mixes else next(n for n, q in enumerate(queues) if q)
            )
            result.deltas.append(("call", queues[choice].pop(0)))
            if draw(st.integers(0, 5)) == 0:
                result.deltas.append((draw(st.sampled_from(["text", "reasoning"])), ("\n",)))
        result.parts += [("call", one.name, one.arguments) for one in group]
    return result


def squeezed(parts: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    return [part if part[0] == "call" else (part[0], "".join(part[1].split())) for part in parts]


def send(parts: ChatParts, deltas: list[tuple[str, tuple[Any, ...]]]) -> None:
    for kind, arguments in deltas:
        getattr(parts, kind)(*arguments)


@settings(max_examples=200, deadline=None)
@given(answer=answer())
def test_every_part_comes_out_whole_and_once(answer: Answer) -> None:
    parts = ChatParts("s", names=["f", "g", "get_weather"])
    send(parts, answer.deltas)
    assert squeezed(plain(end(parts))) == (answer.parts or [("text", "")])
    assert [note for note in parts.notes if note.kind == "drop"] == []


@settings(max_examples=100, deadline=None)
@given(answer=answer(), data=st.data())
def test_a_break_leaves_a_beginning_of_the_answer(answer: Answer, data: st.DataObject) -> None:
    length = data.draw(st.integers(0, len(answer.deltas)))
    parts = ChatParts("s", names=["f", "g", "get_weather"])
    send(parts, answer.deltas[:length])
    parts.abort()
    events = parts.take()
    check(events, ended=False)
    whole = [part for part in squeezed(plain(events)) if part[0] == "call"]
    assert whole == [part for part in answer.parts if part[0] == "call"][: len(whole)]


# ------------------------------------------------------------------------------------------------------------- anything

ANYTHING = st.lists(
    st.tuples(st.sampled_from(["text", "reasoning", "refusal"]), st.tuples(st.sampled_from(["a", "b ", "\n", " "])))
    | st.tuples(
        st.just("call"),
        st.tuples(
            st.sampled_from([0, 0, 1, 2, 7, None]),
            st.sampled_from(["", "", "x", "y", "old", "call_s01", " "]),
            st.sampled_from(["", "", "f", "F", "g", "get_", "weather", " ", "functions.f"]),
            st.sampled_from(["", " ", "{", "}", "{}", '{"a":', "1}", '"', "\\", "[", "x", '{"a":1}', '{"a":1}}']),
        ),
    ),
    max_size=12,
)


@settings(max_examples=250, deadline=None)
@given(deltas=ANYTHING, reason=st.sampled_from([STOP, LENGTH, FILTER, None]))
def test_anything_obeys_the_grammar(deltas: list[tuple[str, tuple[Any, ...]]], reason: StopReason | None) -> None:
    parts = ChatParts("s", taken=["old"], names=["f", "get_weather"])
    send(parts, deltas)
    if reason is None:
        parts.abort()
    else:
        parts.finish(reason, None)
    events = parts.take()
    check(events, ended=reason is not None)
    assert not {part.id for part in fold(events).parts if isinstance(part, ToolCall)} & {"old"}


@settings(max_examples=150, deadline=None)
@given(deltas=ANYTHING)
def test_of_anything_nothing_is_lost_and_nothing_invented(deltas: list[tuple[str, tuple[Any, ...]]]) -> None:
    """Every delta carries characters of its own, so that none is a snapshot of another."""
    numbered: list[tuple[str, tuple[Any, ...]]] = []
    for number, (kind, said) in enumerate(deltas):
        mark = chr(0x4E00 + number)
        numbered.append((kind, (*said[:-1], said[-1].replace("x", mark).replace("a", mark).replace("1", mark) or mark)))
    parts = ChatParts("s", names=["f", "get_weather"])
    send(parts, numbered)
    result = plain(end(parts))
    came = sorted(c for _, said in numbered for c in said[-1] if ord(c) >= 0x4E00)
    gone = sorted(c for _, *said in result for c in said[-1] if ord(c) >= 0x4E00)
    if Note("drop", "late_arguments") not in parts.notes:
        assert gone == came
    assert len(set(gone)) == len(gone) or len(set(came)) < len(came)
    for kind in ("text", "reasoning", "refusal"):
        sent = "".join(said[0] for to, said in numbered if to == kind)
        got = "".join(text for to, text, *_ in result if to == kind)
        if Note("repair", "nameless_call") not in parts.notes:
            assert "".join(got.split()) == "".join(sent.split())
