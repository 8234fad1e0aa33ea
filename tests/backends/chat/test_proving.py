"""`markup: probe`: at start the models are asked how they write calls, and what they prove is used from then on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from dragoman.backends.chat import proving
from dragoman.backends.chat.backend import UNREAD, ChatCompletions
from dragoman.backends.chat.settings import resolve
from dragoman.backends.markup.proof import FIRST, SECOND
from dragoman.translators.ir import Request, Tool
from tests.backends.markup.writers import WRITINGS
from tests.recording import Recorder, answered, ask
from tests.scripted import Script, ScriptedServer, call_delta, chunk, model_list, sse, text_stream
from tests.waiting import until

PARIS: dict[str, Any] = {"city": "Paris"}
ALARM: dict[str, Any] = {"hour": 7, "label": "Train"}
CALL = WRITINGS["hermes"].write(("add", {"a": 1}))
ADD = (Tool("add", "Adds.", {"type": "object"}),)


def writes(family: str) -> Callable[[dict[str, Any]], Script]:
    """A server without a parser, whose model writes as the family does."""

    def play(body: dict[str, Any]) -> Script:
        said = body["messages"][-1]["content"]
        calls = {FIRST.text: ("get_weather", PARIS), SECOND.text: ("set_alarm", ALARM)}
        return Script(text_stream(WRITINGS[family].write(calls.get(said, ("add", {"a": 1})))))

    return play


def parses(body: dict[str, Any]) -> Script:
    return Script(sse(chunk(call_delta(0, "get_weather", '{"city": "Paris"}', "c1")), chunk({}, "tool_calls")))


@asynccontextmanager
async def serving(
    default: Callable[[dict[str, Any]], Script], *models: str, **settings: Any
) -> AsyncIterator[tuple[ScriptedServer, ChatCompletions]]:
    async with ScriptedServer(default=default, models=models or ("m",)) as server:
        backend = ChatCompletions(server.url, settings=resolve("generic", {"markup": "probe", **settings}), name="b")
        try:
            yield server, backend
        finally:
            await backend.close()


async def calls(backend: ChatCompletions, request: Request) -> list[str]:
    sink = Recorder()
    await answered(backend, request, sink)
    return [getattr(event, "name", "") for event in sink.events if getattr(event, "kind", "") == "call"]


async def test_a_proven_family_reads_the_calls_of_its_model(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(writes("hermes")) as (server, backend):
        await backend.start()
        assert len(server.chats) == 2
        assert backend.traits.markup == {"m": "hermes"}
        assert [record.message for record in caplog.records if "markup of m" in record.message] == [
            "b: markup of m: its calls stand in the text, as two of them have proven; they are read as hermes"
        ]
        assert await calls(backend, ask(tools=ADD)) == ["add"]
        assert len(server.chats) == 3


async def test_each_model_has_its_own_family() -> None:
    def play(body: dict[str, Any]) -> Script:
        return {"a": writes("hermes"), "b": writes("glm"), "c": parses}[body["model"]](body)

    async with serving(play, "a", "b", "c") as (_, backend):
        await backend.start()
        assert backend.traits.markup == {"a": "hermes", "b": "glm"}


async def test_the_model_of_the_configuration_alone_is_asked() -> None:
    async with ScriptedServer(default=writes("glm"), models=("a", "b")) as server:
        backend = ChatCompletions(server.url, settings=resolve("generic", {"markup": "probe"}), model="b")
        await backend.start()
        assert {(seen.body or {})["model"] for seen in server.chats} == {"b"}
        assert backend.traits.markup == {"b": "glm"}
        await backend.close()


async def test_a_server_that_cannot_be_asked_is_asked_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proving, "PAUSES", (0.0,))
    async with serving(writes("hermes")) as (server, backend):
        server.on("GET", "/v1/models", Script.json({}, 503))
        server.add(*[Script.json({"error": {"message": "loading"}}, 503)] * 2)
        await backend.start()
        assert not backend.traits.markup
        server.on("GET", "/v1/models", model_list("m"))
        await until(lambda: backend.traits.markup == {"m": "hermes"})


async def test_a_server_that_refuses_tools_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proving, "PAUSES", (0.0,))
    refusal = {"error": {"message": '"auto" tool choice requires --enable-auto-tool-choice', "param": None}}
    async with serving(lambda body: Script.json(refusal, 400)) as (server, backend):
        await backend.start()
        await asyncio.gather(*(task for task in asyncio.all_tasks() if task.get_name() == "markup of b"))
        assert len(server.chats) == 1
        assert not backend.traits.markup


async def test_what_clients_are_answered_switches_nothing_and_is_warned_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving(lambda body: Script(text_stream("It rains."))) as (server, backend):
        await backend.start()
        server.add(*[Script(text_stream(CALL))] * 3)
        for _ in range(3):
            assert await calls(backend, ask(tools=ADD)) == []
        assert not backend.traits.markup
        assert [record.levelno for record in caplog.records if UNREAD in record.message] == [logging.WARNING]


async def test_nobody_is_asked_without_the_setting() -> None:
    async with serving(writes("hermes"), markup=None) as (server, backend):
        await backend.start()
        assert not server.chats
        assert not backend.traits.markup
