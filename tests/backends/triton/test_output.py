"""From ids, deltas and cumulative texts to clean text; stop strings cut wherever they lie."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.backends.triton.output import BROKEN, Cumulative, Ids, Stops

WORDS = st.text(alphabet="abE N", max_size=30)


class Letters:
    """Decodes an id as the letter of that number."""

    def feed(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))

    def finish(self) -> str:
        return ""


def run(text: Cumulative, *snapshots: str) -> list[str]:
    return [*(text.feed(snapshot) for snapshot in snapshots), text.finish()]


def test_snapshots_become_their_differences() -> None:
    assert run(Cumulative(), "a", "ab", "ab", "abc") == ["a", "b", "", "c", ""]


def test_a_broken_character_at_the_end_is_held_until_it_is_whole() -> None:
    # recorded from a BLS model with accumulate_tokens on a real server
    broken = [f"aé{BROKEN}"] * 3
    assert run(Cumulative(), "a", *broken, "aé🙂") == ["a", "é", "", "", "🙂", ""]


def test_a_character_that_stays_broken_is_the_model_s_own() -> None:
    assert run(Cumulative(), f"a{BROKEN}{BROKEN}") == ["a", BROKEN * 2]


def test_a_shrinking_text_takes_nothing_back_and_says_nothing_twice() -> None:
    assert run(Cumulative(), "abc", "ab", "abc", "abcd") == ["abc", "", "", "d", ""]


def test_a_text_whose_beginning_changes_goes_on_after_what_was_sent() -> None:
    assert "".join(run(Cumulative(), "hello .", "hello.", "hello. World")) == "hello . World"


@given(WORDS, st.lists(st.integers(0, 30)))
def test_any_snapshots_of_a_growing_text_give_it_whole(text: str, cuts: list[int]) -> None:
    snapshots = [text[:cut] for cut in sorted(cuts)]
    assert "".join(run(Cumulative(), *snapshots, text)) == text


def test_an_end_token_ends_the_answer_and_is_counted() -> None:
    ids = Ids(Letters(), [0])
    assert ids.feed([104, 105, 0, 106]) == "hi"
    assert ids.ended
    assert ids.count == 3
    assert ids.feed([107]) == ""
    assert ids.count == 3


def test_an_echoed_prompt_is_left_out() -> None:
    ids = Ids(Letters(), [0], prompt=[97, 98])
    assert ids.feed([97, 98, 99]) == "c"
    assert ids.feed([97, 98, 99]) == "abc"


def test_an_answer_that_only_begins_otherwise_is_no_echo() -> None:
    assert Ids(Letters(), [0], prompt=[97, 98]).feed([97, 99]) == "ac"


def cut(stops: Stops, pieces: Sequence[str]) -> str:
    return "".join([*(stops.feed(piece) for piece in pieces), stops.finish()])


def test_without_stop_strings_nothing_is_held() -> None:
    assert Stops().feed("anything") == "anything"


def test_only_what_may_begin_a_stop_string_is_held() -> None:
    stops = Stops(("END",))
    assert [stops.feed("say E"), stops.feed("N"), stops.feed("O"), stops.finish()] == ["say ", "", "ENO", ""]
    assert stops.found is None


def test_a_stop_string_at_the_very_end_may_be_incomplete() -> None:
    assert cut(Stops(("END",)), ["the EN"]) == "the EN"


def test_what_the_server_took_back_is_not_shown() -> None:
    stops = Stops(("END",))
    assert stops.feed("the EN") == "the "
    assert stops.finish(2) == ""


def test_the_stop_string_that_is_complete_first_counts_and_then_the_longer_one() -> None:
    stops = Stops(("b", "bc", "a b"))
    assert stops.feed("x a bcd") == "x "
    assert stops.found == "a b"
    assert stops.done


def test_a_stop_string_can_stay_in_the_text() -> None:
    stops = Stops(("END",), include=True)
    assert cut(stops, ["the E", "ND of it"]) == "the END"


def test_the_text_of_an_end_token_is_cut_and_not_reported() -> None:
    stops = Stops(("x",), hidden=("<|im_end|>",), include=True)
    assert cut(stops, ["Done.<|im", "_end|>", "more"]) == "Done."
    assert stops.done
    assert stops.found is None


@given(WORDS, st.lists(st.text(alphabet="abE N", min_size=1, max_size=4), min_size=1, max_size=3), st.data())
def test_any_cutting_finds_the_same(text: str, words: list[str], data: st.DataObject) -> None:
    whole = Stops(words)
    expected = cut(whole, [text])
    places = sorted(data.draw(st.lists(st.integers(0, len(text)))))
    pieces = [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]
    stops = Stops(words)
    said = cut(stops, pieces)
    assert (said, stops.done, stops.found) == (expected, whole.done, whole.found)
    if not stops.done:
        assert said == text
    assert not any(word in said for word in words)


@pytest.mark.parametrize("stop", ["", "never"])
def test_an_empty_stop_string_is_none(stop: str) -> None:
    assert cut(Stops((stop,)), ["abc"]) == "abc"
