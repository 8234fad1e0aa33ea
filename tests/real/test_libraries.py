"""Clients, one scenario each; `make conformance` runs all and writes the tables of docs/clients.md and README.md."""

from __future__ import annotations

import datetime
from dataclasses import replace

import pytest

from tests.conftest import RealComponent
from tests.real.libraries.clients import CLIENTS, Client, Protocol, Row
from tests.real.libraries.measure import Result, measure, surprises
from tests.real.libraries.scenarios import PDF_TEXT, READING, SCENARIOS, Outcome
from tests.real.libraries.table import PAGE, README, between_the_marks, body, short, written
from tests.scripted import Json

RESPONSES: Protocol = "responses"
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
SEEN: Json = {"answers": [], "pieces": [], "reasoning": [], "called": [], "reading": None, "raised": ""}


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.component)
async def test_a_client_runs_two_tools_at_once_in_a_stream(client: Client, real_component: RealComponent) -> None:
    for name in client.components:
        real_component(name)
    results = await measure(client, [replace(BY_NAME["parallel tools"], ways=("streamed",))])
    assert len(results) == sum("parallel tools" not in row.cannot for row in client.rows)
    assert surprises(results) == []


@pytest.mark.parametrize(
    "client",
    [each for each in CLIENTS if any(row.protocol == RESPONSES for row in each.rows)],
    ids=lambda client: client.component,
)
async def test_no_client_needs_the_tools_of_its_request_in_the_answer(
    client: Client, real_component: RealComponent
) -> None:
    for name in client.components:
        real_component(name)
    client = replace(client, rows=[row for row in client.rows if row.protocol == RESPONSES])
    scenario = replace(BY_NAME["parallel tools"], ways=("streamed",))
    results = await measure(client, [scenario], policy__echo_tools="false")
    assert len(results) == 1
    assert surprises(results) == []


async def test_openai_s_sdk_raises_our_message_where_half_an_object_came(real_component: RealComponent) -> None:
    (client,) = [each for each in CLIENTS if each.component == "sdk-openai-3"]
    real_component(client.component)
    results = await measure(client, [BY_NAME["cut object"]])
    assert [result.missing for result in results] == [""] * len(client.rows)


def test_the_table_is_what_is_declared_with_the_versions_that_are_locked() -> None:
    _, inside, _ = between_the_marks(PAGE.read_text("utf-8"))
    day, _, rest = inside.strip().partition("\n\n")
    measured = datetime.date.fromisoformat(day.removeprefix("Measured on ").removesuffix("."))
    assert rest == body(), "run `make conformance`"
    assert inside == written(measured)


def test_the_readme_has_a_line_for_each_client_of_the_table() -> None:
    _, inside, _ = between_the_marks(README.read_text("utf-8"))
    assert inside.strip() == short(), "run `make conformance`"
    _, _, *lines = inside.strip().splitlines()
    assert all(any(line.startswith(f"| {client.name} ") for line in lines) for client in CLIENTS)
    assert len(lines) <= 23  # it is an overview


def test_whatever_a_client_is_said_to_lack_is_a_scenario_or_one_way_of_it() -> None:
    known = {*BY_NAME, *(f"{each.name}/{way}" for each in SCENARIOS for way in each.ways)}
    assert {name for client in CLIENTS for row in client.rows for name in (*row.lacks, *row.cannot)} <= known


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
AGENTS_WORDS: Json = {"role": "assistant", "content": "Ok."}  # some agents write turns of their own
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
        ("cut object", {"raised": "ValidationError: Invalid JSON: EOF while parsing"}, []),
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
        (
            "two turns",
            {"answers": ["Answer 1.", "Answer 2."]},
            [USER, AGENTS_WORDS, {"role": "assistant", "content": "Answer 1."}],
        ),
        ("429", {"raised": "RateLimitError: 429 This API key's limit of 1 requests a minute is reached."}, []),
    ],
)
def test_a_judge_has_nothing_to_say_where_all_is_there(name: str, seen: Json, last_prompt: list[Json]) -> None:
    assert BY_NAME[name].judge(Outcome({**SEEN, **seen}, [{"messages": last_prompt}])) == ""
