"""The phases of a call: who walks which, in which order, and what is made once."""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from dragoman.backends.base import Prepared
from dragoman.gateway.calls.phases import Phases
from dragoman.translators.ir import Request
from dragoman.translators.protocol import Context, Json, Turn
from tests.gateway_fakes import PLAIN, FakeBackend, running
from tests.scripted import Script, text_stream
from tests.serving_gateway import PATHS, asking, served

WALK = ("authorize", "route", "inline", "prepare", "fit", "place", "answer")
COUNT = ("authorize", "route", "inline", "prepare", "count")
COUNTS = {"messages": "/v1/messages/count_tokens", "responses": "/v1/responses/input_tokens"}


@pytest.fixture
def walked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The phases that ran, by name."""
    seen: list[str] = []

    def noted(name: str, phase: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(phase)
        def run(*args: Any, **options: Any) -> Any:
            seen.append(name)
            return phase(*args, **options)

        return run

    for name in {*WALK, *COUNT}:
        monkeypatch.setattr(Phases, name, noted(name, getattr(Phases, name)))
    return seen


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("protocol", PATHS)
async def test_a_call_walks_them_in_order(protocol: str, stream: bool, walked: list[str]) -> None:
    async with (
        served(Script(text_stream("hi"))) as it,
        it.session.post(it.url + PATHS[protocol], json=asking(protocol, "hi", stream=stream)) as answer,
    ):
        assert answer.status == 200
        await answer.read()
    assert tuple(walked) == WALK


@pytest.mark.parametrize("protocol", COUNTS)
async def test_a_count_walks_the_same_ones_and_is_not_fitted(protocol: str, walked: list[str]) -> None:
    body = asking(protocol, "hi")
    body.pop("max_tokens", None)
    async with served() as it, it.session.post(it.url + COUNTS[protocol], json=body) as answer:
        assert answer.status == 200
    assert tuple(walked) == COUNT


async def test_a_call_that_no_model_answers_stops_before_a_backend_is_chosen(walked: list[str]) -> None:
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 1}
    choice = {"type": "tool", "name": "web_search"}
    body = asking("messages", "Perform a web search for: x", tools=[search], tool_choice=choice)
    async with served() as it, it.session.post(it.url + PATHS["messages"], json=body) as answer:
        assert answer.status == 200
    assert tuple(walked) == ("authorize",)


async def test_a_call_is_prepared_once_and_what_was_prepared_is_asked() -> None:
    class Backend(FakeBackend):
        async def prepare(self, request: Request) -> Prepared:
            made.append(prepared := await super().prepare(request))
            requests.append(prepared.request)
            return prepared

        async def count(self, prepared: Prepared) -> int | None:
            counted.append(prepared)
            return 4

    made: list[Prepared] = []
    requests: list[Request] = []
    counted: list[Prepared] = []
    backend = Backend()
    async with running(backend) as it, it.post({"model": "only", "input": "x" * 8000}) as answer:
        assert answer.status == 200
    assert len(made) == 1
    assert len(counted) == 1  # it may have been too long for the window
    assert made[0].tokens == 4
    assert requests == backend.requests


async def test_others_have_their_turn_between_the_phases_of_a_long_conversation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Backend(FakeBackend):
        async def prepare(self, request: Request) -> Prepared:
            waited.append(next(turns) - begun.pop())
            return await super().prepare(request)

    async def others() -> None:
        while True:
            next(turns)
            await asyncio.sleep(0)

    def parse(body: Json, context: Context) -> Turn:
        turn = PLAIN.parse(body, context)
        begun.append(next(turns))
        return replace(turn, request=replace(turn.request, messages=turn.request.messages * sizes.pop()))

    turns, begun, waited = itertools.count(), list[int](), list[int]()
    sizes = [3, 1, 1]  # of the conversations, from the last on: for the first, the backend's models are asked for
    monkeypatch.setattr("dragoman.gateway.calls.phases.LONG", 2)
    async with running(Backend(), protocols=[replace(PLAIN, parse=parse)]) as it:
        task = asyncio.create_task(others())
        while sizes:
            async with it.post({"model": "only", "input": "x"}) as answer:
                assert answer.status == 200
        task.cancel()
    _, short, long = waited
    assert long > short
