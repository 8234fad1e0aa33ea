"""What small models get wrong in JSON, in every family that writes it: the call arrives as meant, and is noted."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from dragoman.translators.ir import Note
from tests.backends.markup import writers
from tests.backends.markup.test_families import parse, told
from tests.event_grammar import plain

CALLS: list[tuple[str, dict[str, Any]]] = [
    ("run", {"note": 'one\ntwo "three" \\d+', "flag": True, "options": {"a": ["b", {"c": None}]}}),
    ("write_file", {"path": "a", "content": "\tit's\n\n"}),
]


def with_line_ends(value: Any) -> str:
    return writers_json(value).replace("\\n", "\n").replace("\\t", "\t")


def with_bare_backslashes(value: Any) -> str:
    return writers_json(value).replace("\\\\", "\\")


def with_bare_quotes(value: Any) -> str:
    return writers_json(value).replace('\\"', '"')


def with_more_commas(value: Any) -> str:
    return writers_json(value).replace("}", ",}").replace("]", ",]")


def with_words_of_python(value: Any) -> str:
    return writers_json(value).replace("true", "True").replace("null", "None")


writers_json = writers.js
SLIPS = [with_line_ends, with_bare_backslashes, with_bare_quotes, with_more_commas, with_words_of_python, repr]
FAMILIES = ["hermes", "ernie45", "xlam", "llama3", "jamba", "granite", "mistral", "nemotron", "kimi_k2", "harmony"]
FAMILIES += ["phi4_mini", "command", "command_r", "apriel", "hunyuan", "internlm2", "inkling", "apertus", "gigachat"]
FAMILIES += ["solar", "longcat", "plamo3", "functionary"]


@pytest.mark.parametrize("slip", SLIPS, ids=lambda slip: slip.__name__)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_slip_in_json_costs_no_call(family: str, slip: Callable[[Any], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writers, "js", slip)
    text = writers.WRITINGS[family].write(*CALLS)
    events, noted = parse(family, [text])
    found = [(part[1], json.loads(part[2])) for part in plain(events) if part[0] == "call"]
    assert found == CALLS
    assert Note("repair", "malformed_call") in noted
    assert told(*parse(family, text)) == told(events, noted)
