"""The scripted server does what its scripts say: every other test that talks to it rests on this."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.scripted import Script, ScriptedServer, call_stream, chunk, frames, model_list, sse, text_stream

Json = dict[str, Any]
BODY = text_stream("Hello", " you \u2028🙂")


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as running:
        yield running


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def ask(client: aiohttp.ClientSession, server: ScriptedServer, body: Json | None = None) -> tuple[int, bytes]:
    async with client.post(f"{server.url}/chat/completions", json=body or {"model": "m"}) as response:
        return response.status, await response.read()


@pytest.mark.parametrize("split", ["given", "bytes", "frames", (1, 50, 51), 7])
async def test_every_split_gives_the_same_bytes(
    server: ScriptedServer, client: aiohttp.ClientSession, split: Any
) -> None:
    server.add(Script(BODY, split=split))
    assert await ask(client, server) == (200, BODY)
    [seen] = server.requests
    assert (seen.outcome, seen.sent, seen.body) == ("completed", len(BODY), {"model": "m"})
    assert seen.chunks == len(Script(BODY, split=split).pieces())


def test_pieces_are_the_body() -> None:
    assert Script(BODY, split="bytes").pieces() == [bytes([byte]) for byte in BODY]
    assert [len(piece) for piece in Script(b"abcdef", split=(4, 1)).pieces()] == [1, 3, 2]
    assert len(Script(BODY, split=3).pieces()) == 9
    assert Script(BODY, split=3).pieces() == Script(BODY, split=3).pieces() != Script(BODY, split=4).pieces()
    assert b"".join(frames(BODY)) == BODY
    assert frames(BODY)[-1] == b"data: [DONE]\n\n"


async def test_scripts_are_played_in_order_and_then_refused(
    server: ScriptedServer, client: aiohttp.ClientSession
) -> None:
    server.add(Script(BODY), Script.json({"error": "asleep"}, 503, {"retry-after": "2"}))
    assert (await ask(client, server))[0] == 200
    async with client.post(f"{server.url}/chat/completions", json={}) as response:
        assert (response.status, response.headers["retry-after"]) == (503, "2")
        assert await response.json() == {"error": "asleep"}
    status, body = await ask(client, server)
    assert status == 500
    assert b"no script left" in body


async def test_a_function_sees_the_request_and_answers(server: ScriptedServer, client: aiohttp.ClientSession) -> None:
    def model(body: Json) -> Script:
        if body["messages"][-1]["role"] == "tool":
            return Script(text_stream("It says " + body["messages"][-1]["content"]))
        return Script(call_stream((body["tools"][0]["function"]["name"], '{"a": 1}')))

    server.default = model
    tools = [{"type": "function", "function": {"name": "look"}}]
    _, first = await ask(client, server, {"messages": [{"role": "user", "content": "?"}], "tools": tools})
    assert b'"name": "look"' in first
    assert b"It says 42" in (await ask(client, server, {"messages": [{"role": "tool", "content": "42"}]}))[1]


@pytest.mark.parametrize("cut", [Script(BODY, cut_at=40), Script(BODY, unterminated=True)])
async def test_a_cut_delivers_its_bytes_and_breaks(
    server: ScriptedServer, client: aiohttp.ClientSession, cut: Script
) -> None:
    server.add(cut)
    received = b""
    async with client.post(f"{server.url}/chat/completions", json={}) as response:
        with contextlib.suppress(aiohttp.ClientPayloadError):
            while data := await response.content.readany():
                received += data
        assert isinstance(response.content.exception(), aiohttp.ClientPayloadError)
    assert received == BODY[: cut.cut_at]
    assert server.requests[0].outcome == "cut"


async def test_a_reset_breaks_the_connection(server: ScriptedServer, client: aiohttp.ClientSession) -> None:
    server.add(Script(BODY, cut_at=0, reset=True, head_delay=0.01))
    with pytest.raises(aiohttp.ClientError):
        await ask(client, server)
    assert server.requests[0].outcome == "cut"


async def test_a_hanging_answer_notices_that_the_client_left(
    server: ScriptedServer, client: aiohttp.ClientSession
) -> None:
    server.add(Script(BODY, split="frames", hang_at=60))
    response = await client.post(f"{server.url}/chat/completions", json={})
    assert (await response.content.readexactly(60)) == BODY[:60]
    [seen] = server.requests
    assert seen.outcome == "open"
    left = asyncio.get_running_loop().time()
    response.close()
    await server.until(lambda: seen.outcome == "client_gone")
    assert seen.ended is not None
    assert seen.ended >= left
    assert (seen.sent, seen.chunks) == (60, 1)


async def test_a_client_that_leaves_during_the_answer_is_noticed(
    server: ScriptedServer, client: aiohttp.ClientSession
) -> None:
    server.add(Script([b"x" * 100] * 1000, gap=0.005))
    response = await client.post(f"{server.url}/chat/completions", json={})
    await response.content.readexactly(200)
    response.close()
    [seen] = server.requests
    await server.until(lambda: seen.outcome == "client_gone")
    assert 2 <= seen.chunks < 1000


async def test_delays_are_kept(server: ScriptedServer, client: aiohttp.ClientSession) -> None:
    loop = asyncio.get_running_loop()
    server.add(Script([b"data: 1\n\n", b"data: 2\n\n"], head_delay=0.05, first_delay=0.05, gap=0.05))
    start = loop.time()
    async with client.post(f"{server.url}/chat/completions", json={}) as response:
        head = loop.time()
        await response.content.readexactly(9)
        first = loop.time()
        await response.content.read()
    assert head - start >= 0.045
    assert first - head >= 0.045
    assert loop.time() - first >= 0.045


async def test_a_stale_connection_is_closed_without_a_byte(
    server: ScriptedServer, client: aiohttp.ClientSession
) -> None:
    server.add(Script(BODY), Script(BODY, drop_reused=True))
    await ask(client, server)
    # POST is not repeated by the client itself, so the drop is seen here
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await ask(client, server)
    assert await ask(client, server) == (200, BODY)
    assert [seen.outcome for seen in server.requests] == ["completed", "dropped", "completed"]
    assert [seen.reused for seen in server.requests] == [False, True, False]
    assert server.connections == 2


async def test_other_paths(server: ScriptedServer, client: aiohttp.ClientSession) -> None:
    server.on("GET", "/v1/models", model_list("a", "b", max_model_len=8192))
    server.on("POST", "/tokenize", lambda body: Script.json({"count": len(body["prompt"])}))
    server.on("GET", "/is_sleeping", Script.json({"is_sleeping": True}))
    async with client.get(f"{server.url}/models") as response:
        models = (await response.json())["data"]
        assert [(entry["id"], entry["max_model_len"]) for entry in models] == [("a", 8192), ("b", 8192)]
    async with client.post(f"{server.root}/tokenize", json={"prompt": "four"}) as response:
        assert await response.json() == {"count": 4}
    async with client.get(f"{server.root}/is_sleeping") as response:
        assert await response.json() == {"is_sleeping": True}
    async with client.get(f"{server.root}/health") as response:
        assert response.status == 200
    async with client.get(f"{server.root}/nothing") as response:
        assert response.status == 404
    assert len(server.requests) == 5
    assert server.chats == []


async def test_a_server_that_stops_lets_go_of_hanging_answers() -> None:
    async with aiohttp.ClientSession() as client:
        async with ScriptedServer(Script(BODY, hang_at=0)) as server:
            response = await client.post(f"{server.url}/chat/completions", json={})
        with pytest.raises(aiohttp.ClientError):
            await response.read()
        assert server.requests[0].outcome == "open"


def test_the_chunks_are_chunks() -> None:
    assert (
        sse(chunk({"content": "é"}, "stop"), "x", done=False)
        == (
            'data: {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000, "model": "m", '
            '"choices": [{"index": 0, "delta": {"content": "é"}, "finish_reason": "stop"}]}\n\ndata: x\n\n'
        ).encode()
    )
    assert chunk(None, usage={"total_tokens": 1})["choices"] == []


async def test_as_a_process_it_plays_a_transcript(client: aiohttp.ClientSession, tmp_path: Path) -> None:
    transcript = tmp_path / "case.sse"
    transcript.write_bytes(BODY)
    command = [sys.executable, "-m", "tests.scripted", "--transcript", str(transcript), "--model", "z"]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parent.parent
    )
    try:
        assert process.stdout is not None
        url = (await asyncio.wait_for(process.stdout.readline(), 20)).decode().strip()
        for _ in range(2):
            async with client.post(f"{url}/chat/completions", json={}) as response:
                assert await response.read() == BODY
        async with client.get(f"{url}/models") as response:
            assert (await response.json())["data"][0]["id"] == "z"
    finally:
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 10) == 0
