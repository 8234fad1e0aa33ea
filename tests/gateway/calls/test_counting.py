"""Calls that only count a prompt: they walk the phases of every other call, and no model answers them."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from dragoman.gateway.config import Config, LogConfig
from dragoman.gateway.keys.secrets import read
from dragoman.gateway.serve.app import build
from dragoman.gateway.serve.server import drain
from dragoman.gateway.telemetry.logs import configure
from tests.scripted import Script, ScriptedServer
from tests.serving_gateway import Served, Serving, asking, listening, served
from tests.waiting import until

COUNTS = {"messages": "/v1/messages/count_tokens", "responses": "/v1/responses/input_tokens"}
COUNTED = Script.json({"count": 42, "max_model_len": 50})
HANGS = Script(b"{", hang_at=1)
VLLM = {"preset": "vllm"}

every_protocol = pytest.mark.parametrize("protocol", COUNTS)


async def count(it: Serving, protocol: str, model: str = "m", **more: Any) -> tuple[int, Any]:
    body = asking(protocol, "hi", model)
    if protocol == "messages":
        del body["max_tokens"]
    async with it.session.post(it.url + COUNTS[protocol], json=body, **more) as answer:
        return answer.status, await answer.json()


@contextlib.asynccontextmanager
async def counting(play: Script = COUNTED, **settings: Any) -> AsyncIterator[Served]:
    async with served(backend=VLLM | settings.pop("backend", {}), **settings) as it:
        it.server.on("POST", "/tokenize", play)
        yield it


@pytest.fixture
def log_lines() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    stream = io.StringIO()
    configure(LogConfig(), [], stream)
    yield stream
    root.handlers[:], root.level = before


@every_protocol
async def test_a_count_takes_a_request_from_its_key(protocol: str, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("key name=ann rpm=2 tpm=1000\n")
    secrets = read(Config(api_keys_file=path), {})
    async with counting(secrets=secrets) as it:
        headers = {"authorization": "Bearer key"}
        statuses = [(await count(it, protocol, headers=headers))[0] for _ in range(3)]
    assert statuses == [200, 200, 429]


@every_protocol
async def test_a_count_has_its_line_in_the_log_and_its_figure(protocol: str, log_lines: io.StringIO) -> None:
    async with counting() as it:
        status, body = await count(it, protocol, headers={"x-request-id": "mine"})
        assert (status, body["input_tokens"]) == (200, 42)
        labels = {"route": protocol, "client_kind": "other", "status": "200", "outcome": "counted"}
        assert it.metric("dragoman_requests_total", **labels) == 1
        assert it.metric("dragoman_request_seconds_count", route=protocol) == 0
    (line,) = [json.loads(each) for each in log_lines.getvalue().splitlines() if '"mine"' in each]
    assert (line["route"], line["outcome"], line["status"], line["tokens_in"]) == (protocol, "counted", 200, 42)


@every_protocol
async def test_a_refused_count_is_logged_and_answered_as_any_call(protocol: str) -> None:
    async with counting() as it:
        async with it.session.post(it.url + COUNTS[protocol], json={"model": 5}) as answer:
            assert answer.status == 400
            assert answer.headers["x-dragoman-error-source"] == "gateway"
        labels = {"route": protocol, "client_kind": "other", "status": "400", "outcome": "refused"}
        assert it.metric("dragoman_requests_total", **labels) == 1


@every_protocol
async def test_a_prompt_beyond_the_window_is_counted_all_the_same(protocol: str) -> None:
    async with counting(Script.json({"count": 10_000}), backend={"window": 256}) as it:
        assert await count(it, protocol) == (200, {"input_tokens": 10_000} | _object(protocol))


def _object(protocol: str) -> dict[str, str]:
    return {"object": "response.input_tokens"} if protocol == "responses" else {}


@every_protocol
async def test_a_drain_refuses_new_counts_and_ends_one_that_hangs(protocol: str) -> None:
    async with counting(HANGS, timeouts={"drain": 0.2}) as it:
        running = asyncio.create_task(count(it, protocol))
        await it.server.until(lambda: any(seen.path == "/tokenize" for seen in it.server.requests))
        draining = asyncio.create_task(drain(it.gateway, it.runner))
        await until(lambda: it.gateway.handler.draining)
        assert (await running)[0] in (503, 529)
        await draining
        assert not it.gateway.handler.calls


async def test_a_backend_that_hangs_holds_up_no_count_of_another() -> None:
    async with ScriptedServer(models=["slow"]) as slow, ScriptedServer(models=["fast"]) as fast:
        slow.on("POST", "/tokenize", HANGS)
        fast.on("POST", "/tokenize", COUNTED)
        backends = [{"url": each.url, "name": name, **VLLM} for name, each in (("a", slow), ("b", fast))]
        config = Config(backends=backends, models=[{"name": "slow", "backend": "a"}, {"name": "fast", "backend": "b"}])
        async with listening(build(config, secrets=read(config, {}))) as it:
            waiting = [asyncio.create_task(count(it, "messages", "slow")) for _ in range(8)]
            await slow.until(lambda: sum(seen.path == "/tokenize" for seen in slow.requests) == 4)
            assert await count(it, "messages", "fast") == (200, {"input_tokens": 42})
            assert not any(each.done() for each in waiting)
            for each in waiting:
                each.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
