"""Generated answers of each family: calls, thoughts and text, whole and with what models forget, cut anywhere."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragoman.backends.markup import FAMILIES
from dragoman.backends.markup.closing import closing
from dragoman.translators.ir import Request, StopReason, Tool
from tests.backends.markup.test_families import parse, told
from tests.backends.markup.writers import WRITINGS
from tests.event_grammar import plain

every_writing = pytest.mark.parametrize("family", WRITINGS)

# No family escapes its own markers in bare values, and none writes white space at the ends of values on purpose.
words = st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters="<>|\uff5c[]{}`\\\"'"), min_size=1)
lines = st.lists(words, min_size=1, max_size=4).map(lambda pieces: " \n".join(pieces))
notes = lines.filter(lambda text: text.lower() not in ("null", "none"))
leaves = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | lines
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)
runs = st.fixed_dictionaries(
    {},
    optional={
        "options": st.dictionaries(words, values, max_size=3),
        "flag": st.booleans(),
        "count": st.integers(-(10**9), 10**9),
        "ratio": st.floats(-1000, 1000, allow_nan=False, width=16),
        "note": notes,
        "maybe": notes,
    },
).map(lambda arguments: ("run", arguments))
writes = st.builds(lambda path, content: ("write_file", {"path": path, "content": content}), notes, notes)
calls = st.lists(runs | writes | st.just(("list_files", {})), min_size=1, max_size=3)
cuts = st.lists(st.integers(0, 2000), max_size=8)


def without_nested(call: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    return call[0], {key: value for key, value in call[1].items() if key != "options"}


def cut(text: str, places: Sequence[int]) -> list[str]:
    edges = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[start:end] for start, end in pairwise(edges)]


def answer(family: str, given: list[tuple[str, dict[str, Any]]], thought: str, text: str) -> str:
    tags = next(iter(FAMILIES[family].thinking.items()), None)
    before = f"{tags[0]}\n{thought}\n{tags[1]}\n\n" if tags and thought else ""
    return before + text * (not WRITINGS[family].bare) + WRITINGS[family].write(*given)


@every_writing
@settings(max_examples=8, deadline=None)
@given(given=calls, thought=st.just("") | lines, text=st.just("") | words, places=cuts)
def test_calls_arrive_as_they_were_meant_however_they_are_cut(
    family: str, given: list[tuple[str, dict[str, Any]]], thought: str, text: str, places: list[int]
) -> None:
    if WRITINGS[family].flat:
        given = [without_nested(call) for call in given]
    written = answer(family, given, thought, text)
    events, noted = parse(family, [written])
    whole = told(events, noted)
    assert told(*parse(family, cut(written, places))) == whole
    assert told(*parse(family, written)) == whole
    found = [part for part in plain(events) if part[0] == "call"]
    assert [(part[1], json.loads(part[2])) for part in found] == given
    assert not [note for note in noted if note.name != "call_id"]  # which one of the writers repeats
    if thought and FAMILIES[family].thinking:
        assert plain(events)[0] == ("reasoning", thought)


@every_writing
@settings(max_examples=5, deadline=None)
@given(given=calls, which=st.integers(0, 9), thought=st.booleans(), places=cuts)
def test_what_models_forget_is_added(
    family: str, given: list[tuple[str, dict[str, Any]]], which: int, thought: bool, places: list[int]
) -> None:
    writing = WRITINGS[family]
    if not writing.forgets:
        return
    if writing.flat:
        given = [without_nested(call) for call in given]
    given = [*given, ("write_file", {"path": "a", "content": "b"})]
    written = answer(family, given, "", "").removesuffix(writing.forgets[which % len(writing.forgets)])
    if thought and FAMILIES[family].breaks:
        written = f"{next(iter(FAMILIES[family].thinking))}Hm.\n{written}"
    events, noted = parse(family, [written])
    found = [part for part in plain(events) if part[0] == "call"]
    assert [(part[1], json.loads(part[2])) for part in found] == given
    assert told(*parse(family, cut(written, places))) == told(events, noted)
    assert told(*parse(family, written)) == told(events, noted)


FIXED: list[tuple[str, dict[str, Any]]] = [
    ("run", {"options": {"a": [1, {"b": 'c"\\é'}, None]}, "flag": True, "ratio": -0.5, "note": "x\ny", "maybe": "zz"}),
    ("write_file", {"path": "a b", "content": 'e\n"f" {g}'}),
]


@every_writing
def test_arguments_are_json_unless_the_answer_was_cut(family: str) -> None:
    """Wherever a model stops by itself; and a call that was cut is not completed, so that no half file is written."""
    written = WRITINGS[family].write(*FIXED)
    for end in range(0, len(written), 2):
        for part in plain(parse(family, [written[:end]])[0]):
            assert part[0] != "call" or isinstance(json.loads(part[2]), dict), written[:end]
        for cut_part in told(*parse(family, [written[:end]], reason=StopReason.LENGTH))["parts"]:
            if cut_part["kind"] == "call" and cut_part.get("complete", True) and not WRITINGS[family].flat:
                assert json.loads(cut_part["text"]) in [arguments for _, arguments in FIXED]


@every_writing
def test_where_no_tool_is_declared_nothing_is_a_call(family: str) -> None:
    written = WRITINGS[family].write(("write_file", {"path": "a b", "content": "words"}))
    request = Request(id="r1", model="m", messages=())
    kinds = [part[0] for part in plain(parse(family, [written], request=request)[0])]
    assert "call" not in kinds
    assert "words" in "".join(part[1] for part in plain(parse(family, written, request=request)[0]))


_LOOSE_TOOL = Tool("run", "", {"type": "object", "properties": {"any": {}, "list": {"type": "array"}}})
LOOSE: list[dict[str, Any]] = [{"any": "if a { b[0] = c } }"}, {"any": "two words"}, {"list": ["a", True, {"b": None}]}]


@every_writing
@pytest.mark.parametrize("python", [False, True])
def test_what_there_is_of_a_cut_call_is_the_beginning_of_json(family: str, python: bool) -> None:
    """Clients read it while it comes, and some raise where nothing that followed could make JSON of it."""
    request = Request(id="r1", model="m", messages=(), tools=(_LOOSE_TOOL,))
    for arguments in LOOSE:
        text = WRITINGS[family].write(("run", arguments))
        if python:
            text = text.replace("true", "True").replace("null", "None").replace('"a"', "'a'")
        for end in range(len(text)):
            events, _ = parse(family, [text[:end]], request=request, reason=StopReason.LENGTH)
            for part in plain(events):
                if part[0] == "call":
                    assert isinstance(json.loads(part[2] + closing(part[2])), dict), text[:end]


_PIECE = re.compile(r"<[^<>]{0,40}>|\[[A-Z_/]{2,}\]|[\w ]+|\n|.", re.DOTALL)


def fragments(family: str) -> list[str]:
    """What a family's answers are made of."""
    found = FAMILIES[family]
    writing = WRITINGS.get(family)
    written = writing.write(("run", {"note": "a", "options": {"b": [1]}}), ("list_files", {})) if writing else ""
    markers = [*found.openers, *found.thinking, *found.thinking.values(), *found.frames, *found.ends]
    return sorted({*_PIECE.findall(written), *markers, "`", "\n", " ", "x", "{", '"', "é🙂", "<"})


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=15, deadline=None)
@given(data=st.data(), places=cuts, opened=st.booleans())
def test_fragments_in_any_order_cut_anywhere(family: str, data: st.DataObject, places: list[int], opened: bool) -> None:
    text = "".join(data.draw(st.lists(st.sampled_from(fragments(family)), max_size=24)))
    prompt = next(iter(FAMILIES[family].thinking), "") if opened else ""
    whole = told(*parse(family, [text], prompt=prompt))
    assert told(*parse(family, cut(text, places), prompt=prompt)) == whole
    assert told(*parse(family, text, prompt=prompt)) == whole


@pytest.mark.parametrize("family", FAMILIES)
def test_no_marker_begins_another(family: str) -> None:
    """Of two that begin alike, which one is found would depend on where the text is cut."""
    found = FAMILIES[family]
    markers = {*found.openers, *found.thinking, *found.thinking.values(), *found.frames, *found.answer_frames}
    markers |= {*found.ends}
    assert not [(one, other) for one in markers for other in markers if one != other and other.startswith(one)]


def work(family: str, text: str, size: int) -> int:
    """How many calls of functions, built-in ones too, reading takes: no clock, no luck."""
    counted = 0

    def count(*_: object) -> None:
        nonlocal counted
        counted += 1

    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    sys.setprofile(count)
    try:
        parse(family, pieces)
    finally:
        sys.setprofile(None)
    return counted


@every_writing
def test_calls_cost_what_they_are_long(family: str) -> None:
    def cost(size: int) -> int:
        long = [("write_file", {"path": "p", "content": 'x "y" \n' * size})] * 2
        return work(family, WRITINGS[family].write(*long, *[("list_files", {})] * size), 7)

    assert cost(120) < 5 * cost(30)
