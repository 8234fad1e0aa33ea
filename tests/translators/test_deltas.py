"""Deltas that come together are to a client what each is alone: the same bytes, in every protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.translators.fold import Fold
from dragoman.translators.framing import BARE, SSE, Framing
from dragoman.translators.ir import Deltas, Event, Finished, PartEnded, PartKind, PartStarted, Started, StopReason
from dragoman.translators.json_text import encoded
from tests.event_grammar import apart
from tests.replay import CONTEXT, PROTOCOL, turn

ASKED: dict[str, list[dict[str, Any]]] = {
    "responses": [
        {},
        {"include": []},
        {"stream_options": {"include_obfuscation": True}},
        {"include": ["message.output_text.logprobs"]},
        {"stream": False},
        {"generate": False},
        {"include": [], "text": {"format": {"type": "json_object"}}},
    ],
    "messages": [{}, {"thinking": {"type": "adaptive", "display": "omitted"}}, {"stream": False}],
    "chat_completions": [
        {},
        {"stream_options": {"include_usage": True, "include_obfuscation": True}},
        {"logprobs": True},
        {"stream": False},
    ],
}
CALLS = ["read_file", "apply_patch"]  # the input of the second is a text, where the protocol has such tools
CASES = [(name, fields) for name, all in ASKED.items() for fields in all]
TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5), min_size=1, max_size=6)
PIECES = st.lists(st.text('{}[]":,\\ na1é', min_size=1, max_size=4), min_size=1, max_size=6)
OBJECTS = st.text('"\\é,:', max_size=20).map(lambda text: ['{"inp', 'ut": "', *encoded_pieces(text), '"', "}"])


def encoded_pieces(text: str) -> list[str]:
    said = encoded([text])[0].decode()
    return [said[at : at + 3] for at in range(0, len(said), 3)]


def together(texts: Sequence[str]) -> Deltas:
    return Deltas(list(texts), "".join(texts))


def part(kind: PartKind, runs: Sequence[Sequence[str]], complete: bool, name: str = "") -> list[Event]:
    started = PartStarted(kind, "call_1" if name else "", name)
    return [started, *map(together, runs), PartEnded(complete)]


def said(
    protocol: str, fields: dict[str, Any], events: Sequence[Event], framing: Framing
) -> tuple[list[bytes], object]:
    asked = turn(PROTOCOL[protocol], replace(CONTEXT, framing=framing), **fields)
    asked.stream.unseen = not asked.streaming
    return asked.stream.feed(events), asked.stream.body()


def same(protocol: str, fields: dict[str, Any], parts: Sequence[Event], reason: StopReason, framing: Framing) -> None:
    events = [Started(), *parts, Finished(reason)]
    assert said(protocol, fields, events, framing) == said(protocol, fields, apart(events), framing)


@pytest.mark.parametrize(("protocol", "fields"), CASES)
@given(
    kinds=st.lists(st.sampled_from(["text", "reasoning", "refusal"]), min_size=1, max_size=3),
    runs=st.lists(TEXTS, min_size=1, max_size=3),
    complete=st.booleans(),
    framing=st.sampled_from([SSE, BARE]),
)
def test_text(
    protocol: str,
    fields: dict[str, Any],
    kinds: list[PartKind],
    runs: list[list[str]],
    complete: bool,
    framing: Framing,
) -> None:
    parts = [event for kind in kinds for event in part(kind, runs, complete)]
    same(protocol, fields, parts, StopReason.STOP if complete else StopReason.LENGTH, framing)


@pytest.mark.parametrize(("protocol", "fields"), CASES)
@given(data=st.data(), runs=st.one_of(st.lists(PIECES, min_size=1, max_size=3), OBJECTS.map(lambda each: [each])))
def test_arguments(protocol: str, fields: dict[str, Any], data: st.DataObject, runs: list[list[str]]) -> None:
    name, complete = data.draw(st.sampled_from(CALLS)), data.draw(st.booleans())
    after = part("text", [["and", " more"]], True)
    same(protocol, fields, [*part("call", runs, complete, name), *after], StopReason.STOP, SSE)


def test_the_fold_of_both_is_the_same() -> None:
    events = [Started(), *part("text", [["a", "b"], ["c"]], True), Finished(StopReason.STOP)]
    folds = [Fold(), Fold()]
    folds[0].feed(events)
    folds[1].feed(apart(events))
    assert folds[0].parts == folds[1].parts


@pytest.mark.parametrize(
    "texts",
    [
        ["a"],
        ['"'],
        ["\\"],
        ['","'],
        ['a\\",\\"', "b"],
        ["", "é", "\n", "\x00"],
        ['",', "1"],
        ["\x7f", "a"],
        ["a", "b\x7f"],
    ],
)
def test_each_of_several_texts_as_json(texts: list[str]) -> None:
    assert [b'"%b"' % each for each in encoded(texts)] == [orjson.dumps(text) for text in texts]
