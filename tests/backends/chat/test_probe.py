"""What a chat server is asked about itself: endpoints that are missing, and how fresh its answers are."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dragoman.backends.base import Backend, ModelInfo
from dragoman.backends.chat import probe as chat_probe
from dragoman.backends.chat.backend import ChatCompletions
from dragoman.backends.chat.settings import resolve
from dragoman.backends.reader import Timeouts
from dragoman.translators.errors import GatewayError
from tests.backends.http1.pools import deaf
from tests.certificates import Authority
from tests.recording import ask, counted
from tests.scripted import Script, ScriptedServer
from tests.waiting import until

ASLEEP = Script.json({"is_sleeping": True})


@asynccontextmanager
async def serving(preset: str) -> AsyncIterator[tuple[ScriptedServer, ChatCompletions]]:
    async with ScriptedServer() as server:
        backend = ChatCompletions(server.url, settings=resolve(preset))
        try:
            yield server, backend
        finally:
            await backend.close()


@pytest.mark.parametrize("status", [404, 405, 501])
async def test_a_server_without_a_list_of_models_can_serve_all_the_same(status: int) -> None:
    async with serving("generic") as (server, backend):
        server.on("GET", "/v1/models", Script.json({}, status))
        assert (await backend.health()).state == "ready"


async def test_a_web_page_in_place_of_the_list_of_models_is_no_model_server() -> None:
    async with serving("generic") as (server, backend):
        server.on(
            "GET", "/v1/models", Script(b"\n<!doctype html><title>Chat</title>", headers={"content-type": "text/html"})
        )
        health = await backend.health()
        assert health.state == "down"
        assert "web page" in health.detail


async def test_a_server_that_refuses_the_key_is_down() -> None:
    async with serving("generic") as (server, backend):
        server.on("GET", "/v1/models", Script.json({}, 401))
        assert (await backend.health()).state == "down"


async def test_a_server_that_takes_no_connection_is_known_within_the_limit_for_connecting() -> None:
    with deaf() as port:
        backend = ChatCompletions(f"http://127.0.0.1:{port}/v1", timeouts=Timeouts(connect=0.2))
        try:
            async with asyncio.timeout(1.5):
                assert (await backend.health()).state == "down"
                with pytest.raises(GatewayError):
                    await backend.models()
        finally:
            await backend.close()


async def detail_of(url: str) -> str:
    backend = ChatCompletions(url)
    try:
        health = await backend.health()
        assert health.state == "down"
        return health.detail
    finally:
        await backend.close()


async def test_a_server_that_cannot_be_reached_is_described_by_what_would_have_to_be_mended(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*Authority(tmp_path).make("server"))
    async with ScriptedServer(tls=context) as tls, ScriptedServer() as plain:
        assert "the certificate is not trusted" in await detail_of(tls.url)
        assert "does not speak TLS" in await detail_of(plain.url.replace("http:", "https:"))
    assert "nothing listens there" in await detail_of(plain.url)
    assert "the host's name has no address" in await detail_of("http://nowhere.invalid/v1")


def asleep(backend: Backend) -> Callable[[], Awaitable[bool]]:
    async def happened() -> bool:
        return (await backend.health()).state == "asleep"

    return happened


async def test_a_server_that_falls_asleep_is_known_to_sleep_within_half_a_second() -> None:
    async with serving("vllm") as (server, backend):
        assert (await backend.health()).state == "ready"
        server.on("GET", "/is_sleeping", ASLEEP)
        assert chat_probe.SLEEP_TTL < 0.5
        await until(asleep(backend))


async def test_a_missing_sleep_endpoint_is_looked_for_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_probe, "ABSENT_TTL", 0.2)
    monkeypatch.setattr(chat_probe, "SLEEP_TTL", 0.0)
    async with serving("vllm") as (server, backend):
        server.on("GET", "/is_sleeping", Script.json({}, 404))
        assert (await backend.health()).state == "ready"
        server.on("GET", "/is_sleeping", ASLEEP)
        assert (await backend.health()).state == "ready", "not asked again at once"
        await until(asleep(backend))


@pytest.mark.parametrize("odd", [-1, 1e300, 2**63, True, "many", 11.5, None])
async def test_a_number_that_is_no_count_is_unknown(odd: object) -> None:
    async with serving("vllm") as (server, backend):
        server.on("POST", "/tokenize", Script.json({"count": odd}))
        server.on("GET", "/v1/models", Script.json({"data": [{"id": "m", "created": odd, "max_model_len": odd}]}))
        assert await counted(backend, ask()) is None
        assert await backend.models() == [ModelInfo("m")]


@pytest.mark.parametrize("created", [1_700_000_000, 1_700_000_000_123, 1_700_000_000_123_456])
async def test_the_time_of_a_model_is_in_seconds(created: int) -> None:
    """Anthropic's clients get a date, and none is 50,000 years from now."""
    async with serving("vllm") as (server, backend):
        server.on("GET", "/v1/models", Script.json({"data": [{"id": "m", "created": created}]}))
        assert await backend.models() == [ModelInfo("m", created=1_700_000_000)]


async def test_whole_floats_and_digits_are_counts() -> None:
    async with serving("vllm") as (server, backend):
        server.on("POST", "/tokenize", Script.json({"count": 12.0}))
        server.on("GET", "/v1/models", Script.json({"data": [{"id": "m", "max_model_len": "8192"}]}))
        assert await counted(backend, ask()) == 12
        assert [model.window for model in await backend.models()] == [8192]


async def test_an_adapter_has_the_window_of_its_model() -> None:
    cards = [
        {"id": "m", "parent": None, "max_model_len": 8192},
        {"id": "sql", "parent": "m", "max_model_len": None},  # SGLang; vLLM has no such field
        {"id": "own", "parent": "m", "max_model_len": 4096},
        {"id": "stray", "parent": "gone"},
        {"id": "odd", "parent": ["m"]},
    ]
    async with serving("vllm") as (server, backend):
        server.on("GET", "/v1/models", Script.json({"data": cards}))
        windows = {model.id: model.window for model in await backend.models()}
    assert windows == {"m": 8192, "sql": 8192, "own": 4096, "stray": None, "odd": None}


async def test_a_window_among_the_parameters_of_a_loaded_model_is_its_window() -> None:
    async with serving("generic") as (server, backend):
        card = {"id": "m", "parameters": {"max_seq_len": 8192, "cache_size": 16384}}  # TabbyAPI
        server.on("GET", "/v1/models", Script.json({"data": [card, {"id": "n", "parameters": None}]}))
        assert [model.window for model in await backend.models()] == [8192, None]


@pytest.mark.parametrize("listing", [{"object": "list", "data": []}, {"object": "list", "data": None}, {"models": []}])
async def test_a_server_without_a_model_has_an_empty_list(listing: object) -> None:
    async with serving("generic") as (server, backend):
        server.on("GET", "/v1/models", Script.json(listing))
        assert await backend.models() == []


@pytest.mark.parametrize("listing", [{}, {"data": None}, {"object": "error", "data": None}, "m", None])
async def test_what_is_no_list_of_models_is_a_failure(listing: object) -> None:
    async with serving("generic") as (server, backend):
        server.on("GET", "/v1/models", Script.json(listing))
        with pytest.raises(GatewayError):
            await backend.models()


async def test_a_huge_error_of_a_server_is_reported_in_a_few_words() -> None:
    async with serving("vllm") as (server, backend):
        server.on("GET", "/health", Script(b"\n" * 4_000_000 + b"out of order", 500))
        health = await backend.health()
        assert health.state == "down"
        assert len(health.detail) <= 300
