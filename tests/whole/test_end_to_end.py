"""The gateway as it is served, from the configuration on, over a scripted chat server."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from tests.gateway_fakes import post_bytes
from tests.scripted import Script, text_stream
from tests.serving_gateway import ASK, RESPONSES, over, served

pytestmark = pytest.mark.usefixtures("each_http_client")


async def test_an_answer_streamed_and_whole() -> None:
    async with served(Script(text_stream("hel", "lo")), Script(text_stream("hel", "lo"))) as it:
        async with it.session.post(it.url + RESPONSES, json={**ASK, "stream": True}) as answer:
            text = await answer.text()
            assert text.count("event: response.completed") == 1
            assert text.endswith("data: [DONE]\n\n")
        async with it.session.post(it.url + RESPONSES, json=ASK) as answer:
            body = await answer.json()
            assert body["status"] == "completed"
            assert body["output"][0]["content"][0]["text"] == "hello"


BODY = text_stream("a", "b")
HANGS = {
    "before the head": Script(BODY, head_delay=30),
    "after the head": Script(BODY, first_delay=30),
    "in the middle": Script(BODY, hang_at=len(BODY) // 2),
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("where", HANGS)
@pytest.mark.parametrize("head_after", [0.05, 10])
async def test_a_client_that_leaves_closes_the_upstream_at_once(where: str, stream: bool, head_after: float) -> None:
    async with served(HANGS[where], timeouts={"head_after": head_after}) as it:
        _, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(post_bytes({**ASK, "stream": stream}, RESPONSES))
        await it.server.until(lambda: bool(it.server.chats))
        await asyncio.sleep(0.15)
        writer.transport.abort()
        await it.server.until(lambda: it.server.chats[0].outcome == "client_gone")
        assert len(it.server.chats) == 1


@pytest.mark.parametrize("where", HANGS)
async def test_a_client_that_ends_its_own_half_of_the_connection_counts_as_one_that_has_left(where: str) -> None:
    async with served(HANGS[where]) as it:
        _, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(post_bytes({**ASK, "stream": True}, RESPONSES))
        await it.server.until(lambda: bool(it.server.chats))
        writer.write_eof()
        await it.server.until(lambda: it.server.chats[0].outcome == "client_gone")
        writer.transport.abort()


@pytest.mark.parametrize("stream", [True, False])
async def test_a_stream_that_the_server_cuts_is_a_failure_and_never_completed(stream: bool) -> None:
    async with (
        served(Script(BODY, cut_at=len(BODY) // 2)) as it,
        it.session.post(it.url + RESPONSES, json={**ASK, "stream": stream}) as answer,
    ):
        text = await answer.text()
        if stream:
            assert text.count("event: response.failed") == 1
            assert "response.completed" not in text
        else:
            assert answer.status == 502


@pytest.mark.parametrize("preset", ["lmdeploy", "vllm"])
@pytest.mark.parametrize("path", [RESPONSES, f"{RESPONSES}/"])
async def test_a_sleeping_engine_is_503_with_a_time_and_is_not_asked(preset: str, path: str) -> None:
    async with served(Script(BODY), backend={"preset": preset}) as it:
        it.server.on("GET", "/is_sleeping", Script.json({"is_sleeping": True}))
        async with it.session.post(it.url + path, json=ASK) as answer:
            assert answer.status == 503
            assert int(answer.headers["Retry-After"]) >= 1
            assert (await answer.json())["error"]["message"]
        assert not it.server.chats
        async with it.session.get(it.url + "/readyz") as answer:
            assert answer.status == 503


async def test_a_silent_server_is_covered_by_keepalives_that_are_events() -> None:
    async with (
        served(Script(BODY, first_delay=0.5), timeouts={"head_after": 0.1, "keepalive": 0.1}) as it,
        it.session.post(it.url + RESPONSES, json={**ASK, "stream": True}) as answer,
    ):
        text = await answer.text()
    events = [line.removeprefix("event: ") for line in text.splitlines() if line.startswith("event: ")]
    assert events[:2] == ["response.created", "response.in_progress"]
    assert events.count("response.in_progress") >= 3
    assert events[-1] == "response.completed"
    numbers = [
        orjson.loads(line.removeprefix("data: "))["sequence_number"]
        for line in text.splitlines()
        if line.startswith("data: {")
    ]
    assert numbers == list(range(len(numbers)))


async def test_a_server_that_is_away_is_503_and_the_clients_name_is_echoed() -> None:
    async with served(Script(BODY)) as it:
        async with it.session.post(it.url + RESPONSES, json={**ASK, "model": "whatever"}) as answer:
            assert (await answer.json())["model"] == "whatever"
        seen = it.server.chats[0].body
        assert seen is not None
        assert seen["model"] == "m"
    async with over("http://127.0.0.1:9/v1") as it:
        status, text = await it.answer()
        assert status == 503
        assert "127.0.0.1" not in text
