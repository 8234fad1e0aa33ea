"""Markup families: golden transcripts, and what holds for every text however it is cut.

`tests/golden/markup/<family>/<case>.txt` is what a model wrote, `<case>.events.json` what became of it, written by
`pytest tests/test_markup.py --golden`. The answers are to one request, which declares the tools of the transcripts.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.markup import FAMILIES, detect, open_markup
from tests.event_grammar import check, plain
from tests.replay import GOLDEN
from translators.errors import GatewayError
from translators.ir import Delta, Event, Message, Note, PartEnded, PartStarted, Request, StopReason, Text, Tool
from translators.parts import Parts

CASES = sorted((GOLDEN / "markup").glob("*/*.txt"))
every_case = pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}-{path.stem}")
every_family = pytest.mark.parametrize("family", FAMILIES)

STRING = {"type": "string"}
TOOLS = {
    "get_weather": {"city": STRING, "days": {"type": "integer"}},
    "read_file": {"path": STRING},
    "write_file": {"path": STRING, "content": STRING},
    "list_files": {},
    "run": {
        "options": {"type": "object"},
        "flag": {"type": "boolean"},
        "count": {"type": "integer"},
        "ratio": {"type": "number"},
        "note": STRING,
        "maybe": {"anyOf": [STRING, {"type": "null"}]},
    },
}
REQUEST = Request(
    id="r1",
    model="m",
    messages=(Message("user", (Text("Hi"),)),),
    tools=tuple(Tool(name, "", {"type": "object", "properties": properties}) for name, properties in TOOLS.items()),
)
UNHEARD_OF = "unheard-of characters: "


def parse(
    family: str,
    pieces: Iterable[str],
    *,
    prompt: str = "",
    request: Request | None = REQUEST,
    reason: StopReason = StopReason.STOP,
) -> tuple[list[Event], list[Note]]:
    parts = Parts.of(request) if request is not None else Parts("r1")
    markup = open_markup(family, parts, prompt=prompt, request=request)
    for piece in pieces:
        markup.feed(piece)
    markup.finish()
    parts.finish(reason, None)
    check(parts.events)
    return parts.events, parts.notes


def told(events: Sequence[Event], notes: Sequence[Note]) -> Json:
    """Parts with their ids and whether they are complete: deltas are the cutting's, not the text's."""
    parts: list[Any] = []
    for event in events:
        match event:
            case PartStarted(kind, id, name):
                parts.append({"kind": kind} | ({"id": id, "name": name} if kind == "call" else {}) | {"text": ""})
            case Delta():
                parts[-1]["text"] += event.text
            case PartEnded(complete) if not complete:
                parts[-1]["complete"] = False
    return {"parts": parts, "notes": sorted(f"{note.kind}:{note.name}" for note in notes)}


Json = dict[str, Any]


def family_of(path: Path) -> str:
    return path.parent.name


def read(path: Path) -> str:
    return path.read_bytes().decode()


def reason_of(path: Path) -> StopReason:
    return StopReason.LENGTH if "cut" in path.stem else StopReason.STOP


@every_case
def test_transcript(path: Path, rewrite_golden: bool) -> None:
    events, notes = parse(family_of(path), [read(path)], reason=reason_of(path))
    data = orjson.dumps(told(events, notes), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    golden = path.with_suffix(".events.json")
    if rewrite_golden:
        golden.write_bytes(data)
    assert golden.exists(), f"no {golden.name}: pytest tests/test_markup.py --golden writes it"
    assert orjson.loads(data) == orjson.loads(golden.read_bytes())


@every_family
def test_every_family_has_transcripts(family: str) -> None:
    assert len([path for path in CASES if family_of(path) == family]) >= 8


@every_case
def test_any_cutting_gives_the_same_parts(path: Path) -> None:
    text, reason = read(path), reason_of(path)
    whole = told(*parse(family_of(path), [text], reason=reason))
    assert told(*parse(family_of(path), text, reason=reason)) == whole  # character by character
    chance = random.Random(path.name)
    for _ in range(20):
        cuts = sorted(chance.sample(range(len(text) + 1), min(len(text), chance.randint(1, 12))))
        edges = [0, *cuts, len(text)]
        pieces = [text[start:end] for start, end in zip(edges, edges[1:], strict=False)]
        assert told(*parse(family_of(path), pieces, reason=reason)) == whole, pieces


@every_case
def test_every_beginning_is_an_answer(path: Path) -> None:
    text = read(path)
    for end in range(len(text)):
        parse(family_of(path), [text[:end]], reason=StopReason.LENGTH)
