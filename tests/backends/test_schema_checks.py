"""Schemas are checked in child processes: hostile ones cost the loop nothing, and others little."""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dragoman.backends import schema_checks
from dragoman.backends.child_process import Children, NoReply
from dragoman.backends.enforce import Undecided
from dragoman.backends.schema_checks import SchemaChecks
from dragoman.translators.constraints.forced import JsonAnswer
from dragoman.translators.constraints.schema_check import MAX_SCHEMA
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import JsonObject, JsonSchema
from tests.child_questions import noted_questions
from tests.recording import ask

AGE: dict[str, Any] = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
DISTINCT: dict[str, Any] = {"uniqueItems": True}
# Each pair is compared, since neither sorting nor hashing works for mixed values: quadratic.
MIXED = "[" + ",".join(f'{{"a":{n}}},{n}' for n in range(20_000)) + "]"


def plan(schema: dict[str, Any]) -> JsonAnswer:
    return JsonAnswer(ask(), JsonSchema("s", schema))


@pytest.fixture
async def checks() -> AsyncIterator[SchemaChecks]:
    checks = SchemaChecks()
    yield checks
    await checks.close()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The questions that went to a child."""
    return noted_questions(monkeypatch)


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(self: Children, question: bytes, within: float) -> bytes:
        raise NoReply("too slow", late=True)

    monkeypatch.setattr(Children, "ask", never)


async def refusal(checks: SchemaChecks, schema: dict[str, Any]) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        await checks.check(plan(schema))
    assert (caught.value.kind, caught.value.code) == (Kind.INVALID, "invalid_json_schema")
    return caught.value


async def test_a_schema_and_what_must_fit_it(checks: SchemaChecks) -> None:
    await checks.check(plan(AGE))
    assert await checks.faults('{"age": 3}', AGE) is None
    assert await checks.faults('{"age": "3"}', AGE) == "$.age: '3' is not of type 'integer'"
    assert "is not valid under any of the given schemas" in (await refusal(checks, {"type": "nonsense"})).message


async def test_a_schema_is_checked_once(checks: SchemaChecks, asked: list[bytes]) -> None:
    for _ in range(3):
        await checks.check(plan(AGE))
        await refusal(checks, {"type": "nonsense"})
    assert len(asked) == 2


async def test_verdicts_are_remembered_in_bounds(
    checks: SchemaChecks, monkeypatch: pytest.MonkeyPatch, late: None
) -> None:
    monkeypatch.setattr(schema_checks, "REMEMBERED", 3)
    for number in range(9):
        await checks.check(plan({"const": number}))
    assert len(checks._used().verdicts) == 3


async def test_without_a_schema_no_child_is_started(checks: SchemaChecks, asked: list[bytes]) -> None:
    await checks.check(JsonAnswer(ask(), JsonObject()))
    assert asked == []
    assert asyncio.get_running_loop() not in schema_checks._SHARED


async def test_a_schema_that_takes_too_long_passes_and_costs_its_time_once(
    checks: SchemaChecks, asked: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema_checks, "SECONDS", 0.05)
    slow = {"properties": {f"p{n}": {"type": "string"} for n in range(5000)}}
    await checks.check(plan(slow))
    await checks.check(plan(slow))
    assert len(asked) == 1


async def test_an_answer_that_takes_too_long_is_undecided(
    checks: SchemaChecks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema_checks, "SECONDS", 0.2)
    with pytest.raises(Undecided):
        await checks.faults(MIXED, DISTINCT)
    monkeypatch.setattr(schema_checks, "SECONDS", 30.0)
    assert await checks.faults("[1, 1]", DISTINCT) is not None


async def test_what_a_child_cannot_be_given_is_decided_here(checks: SchemaChecks, asked: list[bytes]) -> None:
    assert "larger than" in (await refusal(checks, {"description": "x" * MAX_SCHEMA})).message
    deep: dict[str, Any] = {}
    for _ in range(2000):
        deep = {"not": deep}
    assert "nested too deeply" in (await refusal(checks, deep)).message
    with pytest.raises(Undecided):
        await checks.faults("1", deep)
    assert asked == []


async def test_without_a_child_schemas_pass(checks: SchemaChecks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dragoman.backends.child_process.sys.executable", os.devnull)
    await checks.check(plan({"type": "nonsense"}))
    assert not checks._used().verdicts
    with pytest.raises(Undecided):
        await checks.faults("1", {"type": "string"})


async def test_backends_share_the_children_and_the_last_one_ends_them() -> None:
    first, second = SchemaChecks(), SchemaChecks()
    await asyncio.gather(first.check(plan(AGE)), second.check(plan(AGE)))
    assert schema_checks._SHARED[asyncio.get_running_loop()].users == 2
    await first.close()
    assert await second.faults('{"age": 3}', AGE) is None
    await second.close()
    assert asyncio.get_running_loop() not in schema_checks._SHARED
    await second.check(plan(AGE))  # and it may be used again
    await second.close()
    assert asyncio.get_running_loop() not in schema_checks._SHARED
