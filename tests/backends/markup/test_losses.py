"""Nothing that a model wrote is lost, wherever its answer ends and whatever it leaves out, writes twice or swaps."""

from __future__ import annotations

import json
import random
import re

import pytest

from dragoman.backends.markup import FAMILIES
from dragoman.translators.ir import StopReason
from tests.backends.markup.test_families import parse, told
from tests.backends.markup.writers import WRITINGS
from tests.event_grammar import plain

every_writing = pytest.mark.parametrize("family", WRITINGS)
LETTERS = "".join(map(chr, range(0x3400, 0x3400 + 60)))  # each stands for what must not be lost
PIECE = re.compile(r"<[^<>]{0,60}>|\[[A-Z_/]{2,}\]|\w+|\n|.", re.DOTALL)


def answer(family: str) -> str:
    writing = WRITINGS[family]
    before = "" if writing.bare else f"Before {LETTERS[:5]} "
    calls = writing.write(
        ("write_file", {"path": LETTERS[5:15], "content": LETTERS[15:40]}),
        ("run", {"note": LETTERS[40:50], "options": {"k": [LETTERS[50:52]]}}),
    )
    return f"{before}{calls} after {LETTERS[52:]}"


def letters(text: str) -> list[str]:
    return [letter for letter in text if letter in LETTERS]


@every_writing
def test_no_letter_is_lost_wherever_an_answer_ends(family: str) -> None:
    text = answer(family)
    for end in range(0, len(text), 3):
        for reason in (StopReason.STOP, StopReason.LENGTH):
            events, _ = parse(family, [text[:end]], reason=reason)
            said = "".join("".join(part[1:]) for part in plain(events))
            assert letters(said) == letters(text[:end]), text[:end]


def mistaken(text: str, chance: random.Random) -> str:
    """The text with one or two mistakes, none of which takes a letter away."""
    pieces = PIECE.findall(text)
    for _ in range(chance.choice((1, 1, 2))):
        at = chance.randrange(len(pieces) - 1)
        match chance.choice(("leave out", "swap", "repeat", "insert")):
            case "leave out" if not letters(pieces[at]):
                del pieces[at]
            case "swap":
                pieces[at], pieces[at + 1] = pieces[at + 1], pieces[at]
            case "repeat":
                pieces.insert(at, pieces[at])
            case _:
                pieces.insert(at, chance.choice(("x", "\n", " ", "`", '"')))
    return "".join(pieces)


@every_writing
def test_no_letter_is_lost_by_a_models_mistakes(family: str) -> None:
    chance = random.Random(family)
    for _ in range(120):
        text = mistaken(answer(family), chance)
        events, noted = parse(family, [text])
        parts = plain(events)
        assert {*letters(text)} <= {*letters("".join("".join(part[1:]) for part in parts))}, text
        assert all(isinstance(json.loads(part[2]), dict) for part in parts if part[0] == "call"), text
        place = chance.randrange(len(text))
        assert told(*parse(family, [text[:place], text[place:]])) == told(events, noted), (text[:place], text[place:])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("body", ["!", "a=;", "'", '"""', "\\", "a=b'", "{", "\x00"])
def test_what_cannot_be_read_is_no_error(family: str, body: str) -> None:
    for opener in (*FAMILIES[family].openers, "", "["):
        for text in (f"{opener}run({body})]", f"{opener}[run({body})]", f"{opener}run{body}", f"{opener}{body}"):
            assert plain(parse(family, [text])[0]) is not None
