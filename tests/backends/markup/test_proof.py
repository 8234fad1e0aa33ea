"""A family is proven by two answers, each to a question that asks for one call."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from dragoman.backends.markup import FAMILIES
from dragoman.backends.markup.proof import FIRST, SECOND, Outcome, Proof, prove
from dragoman.translators.fold import Fold
from dragoman.translators.ir import Request, StopReason, Text
from dragoman.translators.parts import Parts
from tests.backends.markup.writers import WRITINGS

WEATHER: dict[str, Any] = {"city": "Paris"}
ALARM: dict[str, Any] = {"hour": 7, "label": "Train"}
# The same calls in the same tags: the model's name tells them apart, and what else they write.
ALIKE = {"hermes": {"ernie45", "longcat"}, "jamba": {"apriel", "hunyuan"}, "xlam": {"llama3"}}


def server(answer: Callable[[Request], str], *, parses: bool = False) -> Callable[[Request], Any]:
    async def ask(request: Request) -> Fold:
        parts = Parts.of(request)
        if parses:
            call = parts.begin_call(name=request.id.removeprefix("proof_"))
            parts.extend_call(call, answer(request))
            parts.end_call(call)
        else:
            parts.text(answer(request))
        parts.finish(StopReason.STOP, None)
        fold = Fold()
        fold.feed(parts.take())
        return fold

    return ask


def writes(family: str, before: str = "") -> Callable[[Request], str]:
    def answer(request: Request) -> str:
        first = request.messages[0].parts == (Text(FIRST.text),)
        return before + WRITINGS[family].write((FIRST.tool, WEATHER) if first else (SECOND.tool, ALARM))

    return answer


@pytest.mark.parametrize("family", WRITINGS)
async def test_each_family_is_proven_by_what_it_writes(family: str) -> None:
    proof = await prove(server(writes(family)), "m")
    assert proof.outcome is Outcome.PROVEN
    assert proof.family == family or family in ALIKE.get(str(proof.family), ()), proof


@pytest.mark.parametrize(("model", "family"), [("Qwen/Qwen3-8B", "hermes"), ("baidu/ERNIE-4.5-21B", "ernie45")])
async def test_of_families_that_write_alike_the_models_name_tells(model: str, family: str) -> None:
    assert await prove(server(writes("hermes")), model) == Proof(Outcome.PROVEN, family)


async def test_a_name_does_not_beat_what_was_written() -> None:
    assert await prove(server(writes("qwen3_coder")), "Qwen/Qwen3-8B") == Proof(Outcome.PROVEN, "qwen3_coder")


async def test_the_family_that_leaves_the_least_text_is_chosen() -> None:
    thought = "<thinking>\nI look it up.\n</thinking>\n"
    assert (await prove(server(writes("jamba", thought)), "m")).family == "apriel"


async def test_a_server_that_parses_calls_itself_needs_no_family() -> None:
    assert await prove(server(lambda request: json.dumps(WEATHER), parses=True), "m") == Proof(Outcome.SERVER)


@pytest.mark.parametrize(
    ("texts", "outcome"),
    [
        (["It is sunny in Paris."], Outcome.SILENT),
        ([""], Outcome.SILENT),
        (["(call get_weather :city Paris)"], Outcome.UNREAD),
        ([WRITINGS["hermes"].write(("get_weather", {"city": "Rome"}))], Outcome.SILENT),  # not what was asked for
        ([WRITINGS["hermes"].write(("get_weather", WEATHER)), "Done."], Outcome.REFUTED),
        ([WRITINGS["hermes"].write(("get_weather", WEATHER))] * 2, Outcome.REFUTED),  # says the same whatever is asked
        (
            [WRITINGS["hermes"].write(("get_weather", WEATHER)), WRITINGS["glm"].write(("set_alarm", ALARM))],
            Outcome.REFUTED,
        ),
        ([WRITINGS["hermes"].write(("get_weather", WEATHER), ("get_weather", WEATHER))], Outcome.UNREAD),
    ],
)
async def test_nothing_less_than_two_calls_as_asked_for_proves_a_family(texts: list[str], outcome: Outcome) -> None:
    said = iter(texts)
    assert await prove(server(lambda request: next(said)), "m") == Proof(outcome)


def test_every_family_that_reads_calls_can_be_proven() -> None:
    assert WRITINGS.keys() >= FAMILIES.keys() - {"plain"}
