"""The checker itself: it must be able to fail."""

import pytest

from dragoman.translators.ir import (
    Delta,
    Event,
    Finished,
    PartEnded,
    PartStarted,
    SearchEnded,
    SearchStarted,
    Started,
    StopReason,
)
from tests.event_grammar import check, violations

TEXT: list[Event] = [PartStarted("text"), Delta("Hi"), PartEnded()]
CALL: list[Event] = [PartStarted("call", "a", "f"), Delta("{}"), PartEnded()]
SEARCH: list[Event] = [SearchStarted("x"), SearchEnded()]
END = Finished(StopReason.STOP)


def test_an_answer_passes() -> None:
    check([Started(), *TEXT, *CALL, *TEXT, END])
    check([Started(), *SEARCH, *TEXT, *SEARCH, END])


@pytest.mark.parametrize("length", range(7))
def test_each_beginning_of_an_answer_passes_as_a_broken_one(length: int) -> None:
    events = [Started(), *TEXT, *CALL, END][:length]
    check(events, ended=False)
    assert violations(events, ended=True)


@pytest.mark.parametrize(
    "events",
    [
        [*TEXT, END],  # not started
        [Started(), Started(), *TEXT, END],
        [Started(), END],  # no part
        [Started(), PartStarted("text"), *CALL, PartEnded(), END],  # two open at a time
        [Started(), PartStarted("text"), END],  # left open
        [Started(), Delta("x"), *TEXT, END],
        [Started(), PartEnded(), *TEXT, END],
        [Started(), PartStarted("text"), Delta(""), PartEnded(), END],
        [Started(), *CALL, *CALL, END],  # the same id twice
        [Started(), PartStarted("call", "", "f"), PartEnded(), END],
        [Started(), PartStarted("call", "a", " "), PartEnded(), END],
        [Started(), PartStarted("text", "a"), PartEnded(), END],
        [Started(), *TEXT, END, END],
        [Started(), SearchStarted("x"), *TEXT, SearchEnded(), END],
        [Started(), SearchStarted("x"), END],
        [Started(), *TEXT, SearchEnded(), END],
        [Started(), *TEXT, END, *TEXT],
    ],
)
def test_what_is_no_answer_fails(events: list[Event]) -> None:
    assert violations(events, ended=False)
