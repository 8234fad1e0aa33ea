"""Fault runs on real sockets: what breaks, what clients receive, and that the counters agree with what servers saw.

Each run ends with the same questions (`settled`): nothing in flight, nothing waiting, no place held. Tasks and sockets
that are left fail the test by the watch in `conftest`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from dragoman.backends.pool import replica
from tests.backends.pool.test_pool import key_for, refusing_url
from tests.gateway_fakes import post_bytes
from tests.scripted import Script, ScriptedServer, frames, text_stream
from tests.serving_command import serving
from tests.serving_gateway import ASK, RESPONSES, Serving, over
from tests.waiting import LIMIT, until

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("each_http_client")]

BODY = text_stream("hel", "lo", " and", " good", "bye")
COMPLETED = b"event: response.completed"
FAILED = b"event: response.failed"


def total(it: Serving, name: str, **labels: str) -> float:
    """The sum of a metric's samples with these labels, whatever its other labels are."""
    return sum(
        sample.value
        for family in it.gateway.metrics.registry.collect()
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


async def settled(it: Serving) -> None:
    """Nothing is left of what ran."""
    await until(lambda: not it.gateway.handler.calls)
    assert total(it, "dragoman_requests_in_flight") == 0
    assert total(it, "dragoman_queue_depth") == 0
    for group in it.gateway.gate.groups.values():
        for each in group.replicas:
            assert (each.pending, each._silent) == (0, set())
    assert not it.gateway.handler.admission._lines


def all_ended(server: ScriptedServer) -> bool:
    return all(chat.outcome != "open" for chat in server.chats)


async def read_all(answer: aiohttp.ClientResponse) -> bytes:
    return await asyncio.wait_for(answer.read(), LIMIT)


@contextlib.asynccontextmanager
async def child(tmp_path: Path, gap: float = 0.0) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """A scripted server as a process of its own, which can be killed and stopped."""
    transcript = tmp_path / "transcript.sse"
    transcript.write_bytes(BODY)
    arguments = ("-m", "tests.scripted", "--transcript", str(transcript), "--gap", str(gap))
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield process, (await asyncio.wait_for(process.stdout.readline(), LIMIT)).decode().strip()
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


# -------------------------------------------------------------------------------------------------------------- servers


async def test_a_server_killed_in_mid_stream_fails_that_stream_and_no_other(tmp_path: Path) -> None:
    async with (
        child(tmp_path, gap=0.3) as (process, url),
        ScriptedServer(default=Script(BODY)) as good,
        over(url, good.url, pool={"probe": 0.1}) as it,
    ):
        key = key_for(url, [url, good.url])
        async with it.ask(stream=True, prompt_cache_key=key) as answer:
            await answer.content.readuntil(b"response.output_text.delta")
            process.send_signal(signal.SIGKILL)
            text = await read_all(answer)
        assert text.count(FAILED) == 1
        assert COMPLETED not in text
        for _ in range(5):
            assert (await it.answer(prompt_cache_key=key))[0] == 200
        assert len(good.chats) == 5
        assert total(it, "dragoman_requests_total", outcome="failed") == 1
        assert total(it, "dragoman_requests_total", outcome="completed") == 5
        await settled(it)


async def test_a_server_that_hangs_loses_what_has_not_begun_to_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replica, "PROBE_LIMIT", 0.2)
    async with (
        child(tmp_path) as (process, url),
        ScriptedServer(default=Script(BODY)) as good,
        over(url, good.url, pool={"probe": 0.1, "spread": 100}) as it,
    ):
        key = key_for(url, [url, good.url])
        assert (await it.answer(prompt_cache_key=key))[0] == 200
        assert not good.chats
        process.send_signal(signal.SIGSTOP)
        answers = await asyncio.wait_for(
            asyncio.gather(*(it.answer(prompt_cache_key=key, stream=bool(n % 2)) for n in range(6))), 8
        )
        assert [status for status, _ in answers] == [200] * 6
        assert all("completed" in text for _, text in answers)
        assert len(good.chats) == 6
        process.send_signal(signal.SIGCONT)
        await until(lambda: it.pool.replicas[0].state.ready)
        assert (await it.answer(prompt_cache_key=key))[0] == 200
        assert len(good.chats) == 6
        await settled(it)


@pytest.mark.parametrize("bad", ["refused", "no such name"])
async def test_an_address_that_leads_nowhere_is_passed_by(bad: str) -> None:
    url = refusing_url() if bad == "refused" else "http://no-such-host.invalid:8000/v1"
    async with ScriptedServer(default=Script(BODY)) as good, over(url, good.url) as it:
        for number in range(8):
            status, text = await asyncio.wait_for(it.answer(prompt_cache_key=str(number), stream=True), LIMIT)
            assert status == 200
            assert "response.completed" in text
        assert len(good.chats) == 8
        async with it.session.get(it.url + "/readyz") as answer:
            assert answer.status == 200
        await settled(it)


@pytest.mark.parametrize("bad", ["refused", "no such name"])
async def test_when_no_server_can_be_reached_clients_get_a_time_to_come_back(bad: str) -> None:
    urls = [refusing_url() if bad == "refused" else f"http://no-such-host-{n}.invalid/v1" for n in range(2)]
    async with over(*urls) as it:
        for stream in (True, False):
            async with it.ask(stream=stream) as answer:
                assert answer.status == 503
                assert int(answer.headers["Retry-After"]) >= 1
                text = await answer.text()
                assert "no-such-host" not in text
                assert "127.0.0.1" not in text
        await settled(it)


async def test_another_server_is_tried_even_after_keepalives_have_begun() -> None:
    busy = Script(b'{"error": {"message": "overloaded"}}', 503, {"content-type": "application/json"}, head_delay=0.4)
    async with (
        ScriptedServer(default=busy) as full,
        ScriptedServer(default=Script(BODY)) as good,
        over(full.url, good.url, timeouts={"head_after": 0.05, "keepalive": 0.1}) as it,
    ):
        async with it.ask(stream=True, prompt_cache_key=key_for(full.url, [full.url, good.url])) as answer:
            assert (await answer.content.readline()) == b"event: response.created\n"
            assert not good.chats
            text = await read_all(answer)
        assert text.count(b"event: response.in_progress") > 1
        assert text.count(COMPLETED) == 1
        assert (len(full.chats), len(good.chats)) == (1, 1)
        await settled(it)


async def test_a_server_that_comes_back_on_its_address_is_found_again() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with (
        ScriptedServer(default=Script(BODY)) as good,
        over(f"http://127.0.0.1:{port}/v1", good.url, pool={"probe": 0.05}) as it,
    ):
        key = key_for(f"http://127.0.0.1:{port}/v1", [f"http://127.0.0.1:{port}/v1", good.url])
        assert (await it.answer(prompt_cache_key=key))[0] == 200
        async with ScriptedServer(default=Script(BODY), port=port) as late:
            await until(lambda: it.pool.replicas[0].state.ready)
            assert (await it.answer(prompt_cache_key=key))[0] == 200
            assert len(late.chats) == 1
        assert len(good.chats) == 1
        await settled(it)


# -------------------------------------------------------------------------------------------------------------- clients

STAGES = {
    "in the queue": Script(BODY),
    "before the server's head": Script(BODY, head_delay=30),
    "before the first event": Script(BODY, first_delay=30),
    "in the middle": Script(BODY, hang_at=len(BODY) // 2),
    "after the finish reason": Script(BODY, hang_at=BODY.rindex(b"data: {")),
}


@pytest.mark.parametrize("head_after", [0.05, 10])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("stage", STAGES)
async def test_a_client_that_leaves_frees_everything_at_every_stage(
    stage: str, stream: bool, head_after: float
) -> None:
    queued = stage == "in the queue"
    script = Script(BODY, head_delay=0.5) if queued else STAGES[stage]
    async with (
        ScriptedServer(script, default=Script(BODY)) as a,
        over(a.url, a.root + "/v1/", admission={"requests": 1}, timeouts={"head_after": head_after}) as it,
    ):
        first = asyncio.create_task(it.answer()) if queued else None
        if first is not None:
            await a.until(lambda: len(a.chats) == 1)
        _, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(post_bytes({**ASK, "stream": stream}, RESPONSES))
        if queued:
            await until(lambda: total(it, "dragoman_queue_depth") == 1)
        else:
            await a.until(lambda: len(a.chats) == 1 and a.chats[0].sent >= (script.hang_at or 0))
        await asyncio.sleep(0.1)
        writer.transport.abort()
        if first is not None:
            assert (await first)[0] == 200
            assert len(a.chats) == 1
        elif stage != "after the finish reason":
            await a.until(lambda: a.chats[0].outcome == "client_gone")
        await until(lambda: not it.gateway.handler.calls)
        assert (await it.answer())[0] == 200
        await settled(it)
        ended = total(it, "dragoman_requests_total", status="499")
        if stage != "after the finish reason":
            assert ended == total(it, "dragoman_client_disconnects_total") == 1


async def test_a_full_queue_counts_every_refusal_and_serves_every_other() -> None:
    async with (
        ScriptedServer(default=Script(BODY, head_delay=0.1)) as server,
        over(server.url, admission={"requests": 2, "queue": 5}) as it,
    ):
        answers = await asyncio.gather(*(it.answer(stream=bool(n % 2)) for n in range(20)))
        statuses = Counter(status for status, _ in answers)
        assert statuses == {200: 7, 503: 13}
        assert all("server_is_overloaded" in text for status, text in answers if status == 503)
        assert len(server.chats) == 7
        assert total(it, "dragoman_queue_refused_total") == 13
        assert total(it, "dragoman_requests_total", outcome="completed") == 7
        await settled(it)


# ---------------------------------------------------------------------------------------------------------- all at once


def misbehaving(chance: random.Random) -> Any:
    """A server's play: mostly good, sometimes one of everything that goes wrong."""

    def play(_: Any) -> Script:
        dice = chance.random()
        if dice < 0.55:
            return Script(frames(BODY), gap=chance.random() * 0.01)
        if dice < 0.65:
            return Script(BODY, cut_at=chance.randrange(len(BODY)), reset=chance.random() < 0.5)
        if dice < 0.75:
            return Script.json({"error": {"message": "overloaded"}}, 503)
        if dice < 0.8:
            return Script.json({"error": {"message": "boom"}}, 500)
        if dice < 0.9:
            return Script(frames(BODY), head_delay=0.1, gap=0.02)
        return Script(BODY, hang_at=chance.randrange(len(BODY)))

    return play


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_everything_at_once_and_the_counters_agree_with_clients_and_servers(seed: int) -> None:
    chance = random.Random(seed)
    settings: dict[str, Any] = {
        "pool": {"probe": 0.2, "failures": 2, "rest": 0.1, "longest_rest": 0.3},
        "admission": {"requests": 12, "queue": 20},
        "timeouts": {"between_events": 0.5, "first_event": 0.5, "head_after": 0.1},
    }
    seen: Counter[str] = Counter()
    async with contextlib.AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(ScriptedServer(default=misbehaving(random.Random(seed * 10 + n))))
            for n in range(3)
        ]
        it = await stack.enter_async_context(over(*(server.url for server in servers), **settings))
        # a failed stream ends with its connection, which a client might be using again in that moment
        session = await stack.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True))
        )

        async def client(number: int) -> None:
            await asyncio.sleep(chance.random() * 0.5)
            stream, patience = chance.random() < 0.6, 0.15 if chance.random() < 0.15 else 8
            try:
                body = {**ASK, "stream": stream, "prompt_cache_key": str(number % 9)}
                async with asyncio.timeout(patience), session.post(it.url + RESPONSES, json=body) as answer:
                    text = await answer.read()
            except TimeoutError:
                seen["left"] += 1
                return
            if not stream or answer.status != 200:
                seen["completed" if answer.status == 200 else "failed"] += 1
            else:
                ends = (text.count(COMPLETED), text.count(FAILED))
                assert ends in ((1, 0), (0, 1)), text[-300:]
                seen["completed" if ends[0] else "failed"] += 1

        await asyncio.gather(*(client(number) for number in range(90)))
        await settled(it)
        assert sum(seen.values()) == 90
        counted = {
            outcome: total(it, "dragoman_requests_total", outcome=outcome)
            for outcome in ("completed", "failed", "refused", "disconnected")
        }
        assert sum(counted.values()) == 90
        # who left may have done so after the last byte, and then counts as served
        assert seen["completed"] <= counted["completed"] <= seen["completed"] + seen["left"]
        assert counted["disconnected"] <= seen["left"]
        asked = sum(len(server.chats) for server in servers)
        entered = total(it, "dragoman_queue_wait_seconds_count")
        retried = total(it, "dragoman_replica_retries_total")
        # some were given up between admission and the server
        assert entered + retried - counted["disconnected"] <= asked <= entered + retried
        for server in servers:
            await server.until(partial(all_ended, server))


# -------------------------------------------------------------------------------------------------------------- the end


async def test_sigterm_under_load_loses_no_stream_that_had_begun() -> None:
    async with contextlib.AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(ScriptedServer(default=Script(frames(BODY), gap=0.15))) for _ in range(3)
        ]
        arguments = [argument for server in servers for argument in ("--backend", server.url)]
        process = await stack.enter_async_context(serving(*arguments))
        session = await stack.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True))
        )
        url = await process.ready() + RESPONSES
        children = set(os.listdir(f"/proc/{process.child.pid}/task"))
        assert children
        outcomes: Counter[str] = Counter()

        async def client(number: int) -> None:
            await asyncio.sleep(number * 0.02)
            try:
                async with session.post(url, json={**ASK, "stream": True, "prompt_cache_key": str(number)}) as answer:
                    text = await read_all(answer)
            except aiohttp.ClientConnectionError:
                outcomes["not connected"] += 1
                return
            outcomes["completed" if answer.status == 200 and COMPLETED in text else f"other {answer.status}"] += 1

        clients = [asyncio.create_task(client(number)) for number in range(40)]
        await asyncio.sleep(0.4)
        process.child.send_signal(signal.SIGTERM)
        await asyncio.gather(*clients)
        assert await process.ended() == 0
        chats = [chat for server in servers for chat in server.chats]
        assert outcomes["completed"] == len(chats) >= 10
        assert all(chat.outcome == "completed" for chat in chats)
        assert outcomes["completed"] + outcomes["not connected"] + outcomes["other 503"] == 40
        told = [orjson.loads(line) for line in process.errors().splitlines()]
        lines = [line for line in told if line["message"] == "request"]
        assert sum(line["outcome"] == "completed" for line in lines) == len(chats)
