"""Events back into parts."""

import pytest

from dragoman.translators.fold import Fold
from dragoman.translators.ir import (
    Delta,
    Finished,
    PartEnded,
    PartStarted,
    Reasoning,
    Refusal,
    Started,
    StopReason,
    Text,
    ToolCall,
)

FINISHED = Finished(StopReason.LENGTH)


def test_each_kind_of_part_is_what_its_deltas_amount_to() -> None:
    fold = Fold()
    for kind in ("reasoning", "text", "refusal"):
        fold.feed([PartStarted(kind), Delta("a"), Delta("b"), PartEnded()])
    fold.feed([PartStarted("call", "x", "f"), Delta("{"), Delta("}"), PartEnded()])
    assert fold.parts == [Reasoning("ab"), Text("ab"), Refusal("ab"), ToolCall("x", "f", "{}")]


def test_the_parts_that_were_cut_are_known_by_their_positions() -> None:
    fold = Fold()
    fold.feed(
        [Started(), PartStarted("text"), Delta("a"), PartEnded(), PartStarted("text"), PartEnded(False), FINISHED]
    )
    assert fold.parts == [Text("a"), Text("")]
    assert fold.cut == {1}
    assert fold.finished is FINISHED


def test_an_open_part_is_not_there_yet() -> None:
    fold = Fold()
    fold.feed([Started(), PartStarted("text"), Delta("a")])
    assert fold.parts == []
    assert fold.finished is None


def test_the_end_of_a_part_that_was_never_started_is_a_mistake() -> None:
    with pytest.raises(AssertionError, match="never started"):
        Fold().feed([PartEnded()])
