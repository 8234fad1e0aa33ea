"""Libraries as clients, one scenario each; `make conformance` runs all and writes the table of docs/clients.md."""

from __future__ import annotations

import datetime
from dataclasses import replace

import pytest

from tests.conftest import RealComponent
from tests.real.libraries.clients import LIBRARIES, Library, Row
from tests.real.libraries.measure import Result, measure, surprises
from tests.real.libraries.scenarios import PDF_TEXT, READING, SCENARIOS, Outcome
from tests.real.libraries.table import PAGE, between_the_marks, body, written
from tests.scripted import Json

BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
SEEN: Json = {"answers": [], "pieces": [], "reasoning": [], "called": [], "reading": None, "raised": ""}


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.component)
async def test_a_library_runs_two_tools_at_once_in_a_stream(library: Library, real_component: RealComponent) -> None:
    for name in library.components:
        real_component(name)
    results = await measure(library, [replace(BY_NAME["parallel tools"], ways=("streamed",))])
    assert len(results) == len(library.rows)
    assert surprises(results) == []


def test_the_table_is_what_is_declared_with_the_versions_that_are_locked() -> None:
    _, inside, _ = between_the_marks(PAGE.read_text("utf-8"))
    day, _, rest = inside.strip().partition("\n\n")
    measured = datetime.date.fromisoformat(day.removeprefix("Measured on ").removesuffix("."))
    assert rest == body(), "run `make conformance`"
    assert inside == written(measured)


def test_whatever_a_library_is_said_to_lack_is_a_scenario_or_one_way_of_it() -> None:
    known = {*BY_NAME, *(f"{each.name}/{way}" for each in SCENARIOS for way in each.ways)}
    assert {name for library in LIBRARIES for row in library.rows for name in row.lacks} <= known


@pytest.mark.parametrize(
    ("missing", "lacks", "surprising"),
    [
        ("", {}, False),
        ("no text", {}, True),
        ("no text", {"tool": "its fault"}, False),
        ("no text", {"tool/whole": "its fault"}, False),
        ("no text", {"tool/streamed": "its fault"}, True),
        ("", {"tool": "its fault"}, True),
    ],
)
def test_only_what_is_declared_may_be_missing_and_all_of_it_must_be(
    missing: str, lacks: dict[str, str], surprising: bool
) -> None:
    result = Result(Row("chat", "package", lacks=lacks), "tool", "whole", missing)
    assert surprises([result]) == ([result] if surprising else [])


ANSWER = "It is sunny in Rome."
DONE = {"answers": [ANSWER], "called": ["Rome"]}
THOUGHTS = ["I should ask.", "They said so."]
USER: Json = {"role": "user", "content": [{"type": "text", "text": "What is this?"}]}
CALLING: Json = {"role": "assistant", "content": None, "reasoning": "I should ask."}


@pytest.mark.parametrize(
    ("name", "seen", "last_prompt"),
    [
        ("plain", {"answers": ["Hello there."], "raised": "ValueError: no"}, []),
        ("plain", {"answers": ["Hello there.", "Hello there."]}, []),
        ("streamed", {"answers": ["Hello there."], "pieces": ["Hello there."]}, []),
        ("streamed", {"answers": ["Hello there."], "pieces": ["Hello", " there.", "Hello there."]}, []),
        ("tool", {"answers": [ANSWER], "called": []}, []),
        ("tool", {"answers": [ANSWER], "called": ["Rome", "Rome"]}, []),
        ("schema", {"answers": ['{"city": "Rome", "celsius": 21}']}, []),
        ("reasoning shown", {**DONE, "reasoning": THOUGHTS[1:]}, []),
        ("reasoning shown", {**DONE, "reasoning": [*THOUGHTS, *THOUGHTS]}, []),
        ("reasoning replayed", DONE, [{**CALLING, "reasoning": ""}]),
        ("image", {"answers": ["Hello there."]}, [USER]),
        ("PDF", {"answers": ["Hello there."]}, [{"role": "assistant", "content": PDF_TEXT}]),
        ("two turns", {"answers": ["Answer 1.", "Answer 2."]}, [USER]),
        ("cut stream", {"answers": ["Well, the weather "]}, []),
        ("cut stream", {"raised": "KeyError: 'choices'"}, []),
        ("cut call", {"raised": "APIError: The model server broke off.", "called": ["Ro"]}, []),
        ("429", {"answers": [""]}, []),
    ],
)
def test_a_judge_notices_what_is_missing(name: str, seen: Json, last_prompt: list[Json]) -> None:
    assert BY_NAME[name].judge(Outcome({**SEEN, **seen}, [{"messages": last_prompt}]))


@pytest.mark.parametrize(
    ("name", "seen", "last_prompt"),
    [
        ("plain", {"answers": [" Hello there.\n"]}, []),
        ("streamed", {"answers": ["Hello there."], "pieces": ["", "Hello", " there", "."]}, []),
        ("schema", {"reading": READING}, []),
        ("reasoning shown", {**DONE, "reasoning": ["I should", " ask.", "They said so."]}, []),
        ("reasoning replayed", DONE, [USER, CALLING]),
        ("PDF", {"answers": ["Hello there."]}, [{"role": "user", "content": f"<document>{PDF_TEXT}</document>"}]),
        ("two turns", {"answers": ["Answer 1.", "Answer 2."]}, [USER, {"role": "assistant", "content": "Answer 1."}]),
        ("429", {"raised": "RateLimitError: 429 This API key's limit of 1 requests a minute is reached."}, []),
    ],
)
def test_a_judge_has_nothing_to_say_where_all_is_there(name: str, seen: Json, last_prompt: list[Json]) -> None:
    assert BY_NAME[name].judge(Outcome({**SEEN, **seen}, [{"messages": last_prompt}])) == ""
