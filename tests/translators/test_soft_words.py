"""Words that nobody knows yet: what they are taken for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.translators.ir import Note
from dragoman.translators.soft_words import EFFORTS, effort, known

NOTED = [Note("field", "f")]


@pytest.mark.parametrize("word", [*EFFORTS, None])
def test_known_efforts_are_kept_without_a_note(word: str | None) -> None:
    notes: list[Note] = []
    assert effort(word, "f", notes) == word
    assert notes == []


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("High", "high"),
        ("x-high", "xhigh"),
        ("X_HIGH", "xhigh"),
        ("very_high", "high"),
        ("ultra-low", "low"),
        ("maximum", "max"),
        ("minimum", "minimal"),
        ("off", "none"),
        ("Disabled", "none"),
        ("auto", None),
        ("default", None),
        ("ultra", "max"),
        ("insane!", "max"),
        ("9", "max"),
    ],
)
def test_other_efforts_are_the_nearest_and_noted(word: str, meant: str | None) -> None:
    notes: list[Note] = []
    assert effort(word, "f", notes) == meant
    assert effort(word, "f", notes) == meant
    assert notes == NOTED


def test_an_empty_word_is_none() -> None:
    notes: list[Note] = []
    assert effort("", "f", notes) is None
    assert known("", ("a",), "b", "f", notes) is None
    assert notes == []


@pytest.mark.parametrize(("word", "meant"), [("low", "low"), ("L-O-W", "low"), ("loud", "medium")])
def test_other_words_have_a_default(word: str, meant: str) -> None:
    notes: list[Note] = []
    assert known(word, ("low", "medium"), "medium", "f", notes) == meant
    assert notes == ([] if word == "low" else NOTED)


@given(st.text())
def test_any_word_is_taken(word: str) -> None:
    assert effort(word, "f", []) in (None, *EFFORTS)
