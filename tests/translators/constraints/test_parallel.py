"""`parallel_tool_calls: false`: exactly the answer up to its first call, and an end that says so."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragoman.translators.call_part import CallPart
from dragoman.translators.constraints.parallel import FirstCallOnly
from dragoman.translators.ir import Delta, Event, Finished, PartEnded, PartKind, PartStarted, Started, StopReason, Usage
from dragoman.translators.parts import Parts
from tests.event_grammar import check, plain

STOP, LENGTH, FILTER = StopReason.STOP, StopReason.LENGTH, StopReason.CONTENT_FILTER
USAGE = Usage(5, 7)


def text(words: str = "Hi", complete: bool = True) -> list[Event]:
    return [PartStarted("text"), Delta(words), PartEnded(complete)]


def call(id: str = "a", complete: bool = True) -> list[Event]:
    return [PartStarted("call", id, "f"), Delta("{"), Delta("}"), PartEnded(complete)]


def test_an_answer_without_calls_passes_unchanged() -> None:
    answer = [Started(), *text(), *text(complete=False), Finished(LENGTH, USAGE, None)]
    stage = FirstCallOnly()
    assert stage.feed(answer) == answer
    assert not stage.enough


def test_one_call_passes_unchanged() -> None:
    answer = [Started(), *text(), *call(), Finished(STOP, USAGE, "###")]
    stage = FirstCallOnly()
    assert stage.feed(answer) == answer
    assert not stage.enough
    assert stage.dropped == 0


@pytest.mark.parametrize("after", [call("b"), text(), [*text(), *call("b"), *call("c", False)]])
@pytest.mark.parametrize("reason", [STOP, LENGTH, FILTER])
def test_what_follows_the_first_call_is_swallowed(after: list[Event], reason: StopReason) -> None:
    kept = [Started(), *text(), *call()]
    stage = FirstCallOnly()
    answer = stage.feed([*kept, *after, Finished(reason, USAGE, "###")])
    # neither the limit nor the stop string, which came later, is part of this answer
    assert answer == [*kept, Finished(STOP, USAGE, None)]
    assert stage.enough
    assert stage.dropped == sum(isinstance(event, PartStarted) and event.kind == "call" for event in after)


def test_a_limit_that_cut_the_kept_call_is_reported() -> None:
    stage = FirstCallOnly()
    answer = stage.feed([Started(), *call(complete=False), *call("b"), Finished(LENGTH, USAGE)])
    assert answer == [Started(), *call(complete=False), Finished(LENGTH, USAGE)]
    assert not stage.enough


def test_a_limit_right_after_the_call_is_reported() -> None:
    answer = [Started(), *call(), Finished(LENGTH, USAGE)]
    assert FirstCallOnly().feed(answer) == answer


def test_enough_is_known_as_soon_as_something_else_begins() -> None:
    stage = FirstCallOnly()
    assert stage.feed([Started(), *call()]) == [Started(), *call()]
    assert not stage.enough
    assert stage.feed([PartStarted("text")]) == []
    assert stage.enough


def test_it_holds_nothing_back() -> None:
    stage = FirstCallOnly()
    for event in [Started(), *text(), *call()]:
        assert stage.feed([event]) == [event]


kinds: st.SearchStrategy[PartKind] = st.sampled_from(["text", "reasoning", "call"])


@settings(deadline=None)
@given(
    deltas=st.lists(st.tuples(kinds, st.sampled_from(["{", "}", "{}", '{"a":', "1}"]), st.integers(0, 2)), max_size=10),
    reason=st.sampled_from([STOP, LENGTH, FILTER]),
    data=st.data(),
)
def test_the_result_is_the_answer_up_to_its_first_call(
    deltas: list[tuple[PartKind, str, int]], reason: StopReason, data: st.DataObject
) -> None:
    parts, calls = Parts("s"), dict[int, CallPart]()
    for kind, said, index in deltas:
        if kind == "call":
            if index not in calls:
                calls[index] = parts.begin_call(f"id{index}", "f")
            parts.extend_call(calls[index], said)
        else:
            getattr(parts, kind)(said)
    parts.finish(reason, USAGE)
    answer = parts.take()
    at = data.draw(st.integers(0, len(answer)))
    stage = FirstCallOnly()
    kept = stage.feed(answer[:at]) + stage.feed(answer[at:])
    check(kept)
    begin = next((n for n, e in enumerate(answer) if isinstance(e, PartStarted) and e.kind == "call"), None)
    if begin is None:
        assert kept == answer
        return
    end = next(n for n in range(begin, len(answer)) if isinstance(answer[n], PartEnded))
    assert kept[:-1] == answer[: end + 1]
    assert stage.dropped == sum(part[0] == "call" for part in plain(answer)) - 1
    assert stage.enough == (answer[end] == PartEnded(True) and len(answer) > end + 2)
    assert kept[-1] == (Finished(STOP, USAGE) if stage.enough else answer[-1])
