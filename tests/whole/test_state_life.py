"""Conversations that are kept here, through signals, restarts and workers; `dragoman serve` as a child."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.scripted import Script, ScriptedServer, text_stream
from tests.serving_command import Process, serving
from tests.serving_gateway import ASK
from tests.waiting import LIMIT

pytestmark = pytest.mark.slow
Json = dict[str, Any]
SLOW = Script(text_stream("a", "b", "c"), split="frames", gap=0.3)
QUICK = Script(text_stream("a"))


async def say(socket: aiohttp.ClientWebSocketResponse, **more: Any) -> None:
    await socket.send_str(json.dumps({"type": "response.create", **ASK, "store": False, **more}))


async def end_of_turn(socket: aiohttp.ClientWebSocketResponse) -> Json:
    while True:
        message = await socket.receive(LIMIT)
        assert message.type is aiohttp.WSMsgType.TEXT, message
        event: Json = json.loads(message.data)
        if event["type"] in ("response.completed", "response.failed", "error"):
            return event


async def closed(socket: aiohttp.ClientWebSocketResponse) -> int | None:
    message = await socket.receive(LIMIT)
    assert message.type is aiohttp.WSMsgType.CLOSE, message
    return socket.close_code


async def ask(session: aiohttp.ClientSession, url: str, **more: Any) -> Json:
    # each on a connection of its own, so that workers take turns
    async with session.post(f"{url}/v1/responses", json={**ASK, **more}, headers={"Connection": "close"}) as answer:
        assert answer.status == 200, await answer.text()
        whole: Json = await answer.json()
        return whole


async def line_with(process: Process, words: str) -> str:
    assert process.child.stdout is not None
    async with asyncio.timeout(LIMIT):
        while words not in (line := (await process.child.stdout.readline()).decode()):
            assert line
    return line.strip()


async def test_at_sigterm_a_turn_over_a_websocket_ends_and_idle_connections_are_closed() -> None:
    async with (
        ScriptedServer(default=SLOW) as server,
        serving("--backend", server.url) as process,
        aiohttp.ClientSession() as session,
    ):
        url = await process.ready()
        async with (
            session.ws_connect(f"{url}/v1/responses") as busy,
            session.ws_connect(f"{url}/v1/responses") as idle,
        ):
            await say(busy)
            await busy.receive(LIMIT)
            process.child.send_signal(signal.SIGTERM)
            assert await closed(idle) == 1001
            assert (await end_of_turn(busy))["type"] == "response.completed"
            assert await closed(busy) == 1001
        assert await process.ended() == 0


async def test_a_reload_closes_idle_connections_and_busy_ones_after_their_turn(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    async with ScriptedServer(default=SLOW) as server:
        path.write_text(f"backends: [{{url: '{server.url}', preset: generic}}]\n")
        async with serving("--config", str(path)) as process, aiohttp.ClientSession() as session:
            url = await process.ready()
            async with (
                session.ws_connect(f"{url}/v1/responses") as busy,
                session.ws_connect(f"{url}/v1/responses") as idle,
            ):
                await say(busy)
                await busy.receive(LIMIT)
                path.write_text(f"backends: [{{url: '{server.url}', preset: generic}}]\nlimits: {{body_bytes: 2048}}\n")
                reload = asyncio.create_task(process.reload())
                assert await closed(idle) == 1001
                assert (await end_of_turn(busy))["type"] == "response.completed"
                assert await closed(busy) == 1001
                await reload
            async with session.ws_connect(f"{url}/v1/responses") as again:
                await say(again)
                assert (await end_of_turn(again))["type"] == "response.completed"
                await say(again, input="x" * 4096)  # the new limit
                assert await closed(again) == 1009
            process.child.send_signal(signal.SIGTERM)
            assert await process.ended() == 0


async def test_an_upgrade_over_a_connection_from_before_a_reload_is_served_once(tmp_path: Path) -> None:
    async with (
        ScriptedServer(default=SLOW) as server,
        serving("--backend", server.url) as process,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session,
    ):
        url = await process.ready()
        async with session.get(f"{url}/healthz") as answer:  # its connection is kept, as a proxy keeps it
            await answer.read()
        await process.reload()
        async with session.ws_connect(f"{url}/v1/responses") as socket:
            await say(socket)
            assert (await end_of_turn(socket))["type"] == "response.completed"
            assert await closed(socket) == 1001
        process.child.send_signal(signal.SIGTERM)
        assert await process.ended() == 0


@pytest.mark.parametrize("place", ["memory", "sqlite"])
async def test_a_reload_forgets_no_conversation(place: str, tmp_path: Path) -> None:
    store = "memory" if place == "memory" else f"sqlite:{tmp_path / 'answers.db'}"
    path = tmp_path / "gateway.yaml"
    async with ScriptedServer(default=QUICK) as server:
        path.write_text(f"backends: [{{url: '{server.url}', preset: generic}}]\n")
        async with (
            serving("--config", str(path), DRAGOMAN_STORE__URL=store) as process,
            aiohttp.ClientSession() as session,
        ):
            url = await process.ready()
            assert await line_with(process, "What clients keep") == f"What clients keep here is in {store}."
            first = await ask(session, url)
            await process.reload()
            await ask(session, url, previous_response_id=first["id"])


async def test_a_store_that_cannot_be_used_is_not_named_as_the_place_of_what_is_kept(tmp_path: Path) -> None:
    store = tmp_path / "answers.db"
    store.mkdir()
    async with (
        ScriptedServer(default=QUICK) as server,
        serving("--backend", server.url, DRAGOMAN_STORE__URL=f"sqlite:{store}") as process,
    ):
        await process.ready()
        process.child.send_signal(signal.SIGTERM)
        assert await process.ended() == 0
        assert process.child.stdout is not None
        assert b"What clients keep" not in await process.child.stdout.read()
        assert "cannot be used" in process.errors()


async def test_two_workers_share_one_file(tmp_path: Path) -> None:
    async with (
        ScriptedServer(default=QUICK) as server,
        serving(
            *("--backend", server.url, "--workers", "2"), DRAGOMAN_STORE__URL=f"sqlite:{tmp_path / 'answers.db'}"
        ) as process,
        aiohttp.ClientSession() as session,
    ):
        url = await process.ready()
        first = await ask(session, url)
        found = await asyncio.gather(*(ask(session, url, previous_response_id=first["id"]) for _ in range(24)))
        assert {answer["store"] for answer in found} == {True}
        second = await asyncio.gather(*(ask(session, url, previous_response_id=each["id"]) for each in found))
        assert {answer["previous_response_id"] for answer in second} == {answer["id"] for answer in found}


async def test_a_file_that_is_no_database_is_said_at_the_start_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "answers.db"
    path.write_bytes(b"this is no database" * 100)
    async with (
        ScriptedServer(default=QUICK) as server,
        serving("--backend", server.url, DRAGOMAN_STORE__URL=f"sqlite:{path}") as process,
        aiohttp.ClientSession() as session,
    ):
        url = await process.ready()
        await process.logged("cannot be used: file is not a database")
        assert (await ask(session, url))["store"] is False
        process.child.send_signal(signal.SIGTERM)
        assert await process.ended() == 0
    assert path.read_bytes() == b"this is no database" * 100
