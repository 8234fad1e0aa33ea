"""Part boundaries under Hypothesis: what callers who know their calls make of `Parts`, whatever is interleaved."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragoman.translators.call_part import CallPart
from dragoman.translators.ir import Delta, Deltas, Note, PartStarted, StopReason, ToolCall
from dragoman.translators.parts import Parts
from tests.event_grammar import check, fold

pytestmark = pytest.mark.slow

STOP, LENGTH, FILTER = StopReason.STOP, StopReason.LENGTH, StopReason.CONTENT_FILTER
PIECES = st.sampled_from(["", " ", "{", "}", "{}", '{"a":', "1}", '"', "\\", "[", "x", '{"a":1}'])
STEPS = st.lists(
    st.tuples(st.sampled_from(["text", "reasoning", "refusal"]), st.sampled_from(["a", "b ", "\n", " "]))
    | st.tuples(st.just("begin"), st.sampled_from(["", "x", "old", "call_s01"]))
    | st.tuples(st.integers(0, 3), PIECES)
    | st.tuples(st.integers(0, 3), st.none()),
    max_size=14,
)


@given(deltas=st.lists(st.tuples(st.sampled_from(["text", "reasoning"]), st.sampled_from(["a", " b", "\n", "c "]))))
def test_what_nothing_holds_back_leaves_at_once(deltas: list[tuple[str, str]]) -> None:
    parts = Parts("s")
    parts.extend_call(parts.begin_call("x", "f"), "{}")  # complete, so that it holds nothing back
    came = {"text": "", "reasoning": ""}
    left = {"text": "", "reasoning": ""}
    kind = ""
    for to, text in deltas:
        getattr(parts, to)(text)
        came[to] += text
        for event in parts.take():
            kind = event.kind if isinstance(event, PartStarted) else kind
            if isinstance(event, Delta) and kind != "call":
                left[kind] += event.text
        if text.strip():
            assert left[to] == came[to]


@settings(max_examples=300, deadline=None)
@given(steps=STEPS, reason=st.sampled_from([STOP, LENGTH, FILTER, None]), holds=st.booleans())
def test_any_order_obeys_the_grammar_and_loses_nothing(
    steps: list[tuple[Any, ...]], reason: StopReason | None, holds: bool
) -> None:
    parts, calls, written = Parts("s", taken=["old"]), list[CallPart](), list[str]()
    parts.holds_closing = holds
    for step in steps:
        match step:
            case "begin", str(id):
                calls.append(parts.begin_call(id, "f"))
                written.append("")
            case int(number), str(piece) if number < len(calls):
                parts.extend_call(calls[number], piece)
                written[number] += piece
            case int(number), None if number < len(calls):
                parts.end_call(calls[number])
                written[number] = written[number] if written[number].strip() else written[number] + "{}"
            case str(kind), str(text):
                getattr(parts, kind)(text)
            case _:
                pass  # a call that has not begun
    if reason is None:
        parts.abort()
    else:
        parts.finish(reason, None)
    events = parts.take()
    check(events, ended=reason is not None)
    came = [part for part in fold(events).parts if isinstance(part, ToolCall)]
    assert not {part.id for part in came} & {"old"}
    if reason is not None and Note("drop", "late_arguments") not in parts.notes:
        nothing = "{}" if reason is STOP else ""
        assert [part.arguments.strip() or nothing for part in came] == [text.strip() or nothing for text in written]


@settings(max_examples=300, deadline=None)
@given(
    first=PIECES,
    reads=st.lists(st.lists(PIECES.filter(bool), min_size=1, max_size=5), max_size=4),
    reason=st.sampled_from([STOP, LENGTH]),
    holds=st.booleans(),
)
def test_pieces_of_one_read_are_what_they_are_one_by_one(
    first: str, reads: list[list[str]], reason: StopReason, holds: bool
) -> None:
    def made(together: bool) -> tuple[list[Any], list[Note]]:
        parts = Parts("s")
        parts.holds_closing = holds
        call = parts.begin_call("x", "f")
        parts.extend_call(call, first)
        for read in reads:
            left = parts.extend_open(call, Deltas(tuple(read), "".join(read))) if together else read
            for piece in left:
                parts.extend_call(call, piece)
        parts.finish(reason, None)
        events = parts.take()
        singly = [[*map(Delta, event.texts)] if isinstance(event, Deltas) else [event] for event in events]
        return [each for some in singly for each in some], parts.notes

    assert made(together=True) == made(together=False)
