"""A sleeping engine: refused, or woken once while callers wait. On real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from dragoman.backends.pool import replica
from dragoman.gateway.serve.server import announce
from tests.scripted import Script, ScriptedServer, text_stream
from tests.serving_gateway import Serving, over
from tests.waiting import LIMIT

BODY = text_stream("hel", "lo")
CALLS = {"lmdeploy": ("POST", "/wakeup"), "vllm": ("POST", "/wake_up")}


class Sleeper:
    """A server that sleeps until it is called in the right way."""

    def __init__(self, server: ScriptedServer, method: str, path: str, takes: float = 0.0, works: bool = True) -> None:
        self.server = server
        self.works = works
        self.calls: Callable[[], int] = lambda: sum(seen.path == path for seen in server.requests)
        server.on("GET", "/is_sleeping", Script.json({"is_sleeping": True}))
        server.on("GET", "/health", Script())

        def called(_: Any) -> Script:
            if self.works:
                server.on("GET", "/is_sleeping", Script.json({"is_sleeping": False}))
            return Script(b"", 200 if self.works else 500, head_delay=takes)

        server.on(method, path, called)


@contextlib.asynccontextmanager
async def sleeping(
    preset: str = "vllm", wake: str = "wake", takes: float = 0.0, works: bool = True, **settings: Any
) -> AsyncIterator[tuple[Serving, Sleeper]]:
    call = settings.pop("call", None)
    async with ScriptedServer(default=Script(BODY)) as server:
        method, path = call.split(" ") if call else CALLS[preset]
        sleeper = Sleeper(server, method, path, takes, works)
        options = {"preset": preset, "wake": wake, "settings": {"wake_call": call} if call else {}}
        async with over(server.url, backend=options, **settings) as it:
            yield it, sleeper


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("preset", CALLS)
async def test_by_default_a_sleeper_is_refused_with_a_time_and_left_alone(preset: str, stream: bool) -> None:
    async with sleeping(preset, "refuse") as (it, sleeper):
        async with it.ask(stream=stream) as answer:
            assert answer.status == 503
            assert int(answer.headers["Retry-After"]) >= 1
        assert sleeper.calls() == 0
        assert not sleeper.server.chats


@pytest.mark.parametrize("preset", CALLS)
async def test_it_is_woken_once_however_many_wait(preset: str) -> None:
    async with sleeping(preset, takes=0.2) as (it, sleeper):
        answers = await asyncio.gather(*(it.answer(stream=bool(number % 2)) for number in range(8)))
        assert [status for status, _ in answers] == [200] * 8
        assert sleeper.calls() == 1
        assert len(sleeper.server.chats) == 8


@pytest.mark.parametrize(("wake", "status"), [("wake", 200), ("refuse", 503)])
async def test_ready_is_who_can_be_woken_by_a_call(wake: str, status: int) -> None:
    """Kubernetes sends no call to a gateway that is not ready, and so none would ever wake it."""
    async with sleeping(wake=wake) as (it, sleeper):
        async with it.session.get(f"{it.url}/readyz") as answer:
            said = await answer.json()
            assert (answer.status, said["ready"], set(said["backends"].values())) == (
                status,
                wake == "wake",
                {"asleep"},
            )
        assert it.metric("dragoman_backend_ready", backend="b0") == (wake == "wake"), "an alert asks whether calls fail"
        assert sleeper.calls() == 0
        if wake == "wake":
            assert (await it.answer())[0] == 200


async def test_the_start_is_announced_where_a_call_will_wake_the_engine(capsys: pytest.CaptureFixture[str]) -> None:
    async with sleeping() as (it, _):
        assert await asyncio.wait_for(announce(it.gateway, "http://here"), LIMIT) is None
    assert capsys.readouterr().out.startswith("dragoman is ready on http://here (backend: b0). ")


async def test_the_call_can_be_configured() -> None:
    async with sleeping(call="PUT /admin/load") as (it, sleeper):
        assert (await it.answer())[0] == 200
        assert sleeper.calls() == 1


async def test_a_stream_gets_its_head_and_keepalives_while_the_engine_wakes() -> None:
    async with sleeping(takes=0.4, timeouts={"head_after": 0.05, "keepalive": 0.1}) as (it, _):
        _, text = await it.answer(stream=True)
        assert text.index("response.in_progress") < text.index("response.output_text.delta")
        assert text.count("event: response.in_progress") > 1
        assert "response.completed" in text


@pytest.mark.parametrize("stream", [True, False])
async def test_one_that_does_not_wake_is_refused_in_bounded_time_and_not_called_again_at_once(stream: bool) -> None:
    async with sleeping(works=False, timeouts={"wake": 0.5}) as (it, sleeper):
        for _ in range(3):
            status, _ = await asyncio.wait_for(it.answer(stream=stream), LIMIT)
            assert status == 503
        assert sleeper.calls() == 1


async def test_one_that_says_yes_and_goes_on_sleeping_is_refused_in_bounded_time() -> None:
    async with sleeping(timeouts={"wake": 0.5}) as (it, sleeper):
        sleeper.server.on("POST", "/wake_up", Script())
        status, _ = await asyncio.wait_for(it.answer(), LIMIT)
        assert status == 503


async def test_it_is_woken_again_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica, "RETRY_AFTER", 0.05)
    async with sleeping(works=False) as (it, sleeper):
        assert (await it.answer())[0] == 503
        sleeper.works = True
        await asyncio.sleep(0.1)
        assert (await it.answer())[0] == 200


async def test_a_client_that_leaves_does_not_stop_the_waking() -> None:
    async with sleeping(takes=0.3) as (it, sleeper):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(it.answer(), 0.1)
        assert (await it.answer())[0] == 200
        assert sleeper.calls() == 1
        assert len(sleeper.server.chats) == 1


async def test_one_that_fell_asleep_between_the_probe_and_the_request_is_woken() -> None:
    async with ScriptedServer(Script.json({"error": "the engine is sleeping"}, 503), default=Script(BODY)) as server:
        Sleeper(server, "POST", "/wake_up")
        server.on("GET", "/is_sleeping", Script.json({"is_sleeping": False}))
        async with over(server.url, backend={"preset": "vllm", "wake": "wake"}) as it:
            assert (await it.answer())[0] == 200
            assert len(server.chats) == 2


async def test_a_pool_whose_servers_all_sleep_wakes_one() -> None:
    async with ScriptedServer(default=Script(BODY)) as a, ScriptedServer(default=Script(BODY)) as b:
        sleepers = [Sleeper(server, "POST", "/wake_up", takes=0.1) for server in (a, b)]
        async with over(a.url, b.url, backend={"preset": "vllm", "wake": "wake"}) as it:
            answers = await asyncio.gather(*(it.answer() for _ in range(4)))
            assert [status for status, _ in answers] == [200] * 4
            assert sorted(sleeper.calls() for sleeper in sleepers) == [0, 1]


async def test_where_one_of_a_pool_cannot_be_woken_the_next_one_is() -> None:
    async with ScriptedServer(default=Script(BODY)) as a, ScriptedServer(default=Script(BODY)) as b:
        broken, good = (Sleeper(server, "POST", "/wake_up") for server in (a, b))
        a.on("POST", "/wake_up", Script(b"", 500))
        async with over(a.url, b.url, backend={"preset": "vllm", "wake": "wake"}) as it:
            assert (await it.answer())[0] == 200
        assert (broken.calls(), good.calls()) == (1, 1)
        assert (len(a.chats), len(b.chats)) == (0, 1)


async def test_a_pool_with_one_awake_lets_the_others_sleep() -> None:
    async with ScriptedServer(default=Script(BODY)) as a, ScriptedServer(default=Script(BODY)) as b:
        sleeper = Sleeper(a, "POST", "/wake_up")
        async with over(a.url, b.url, backend={"preset": "vllm", "wake": "wake"}) as it:
            for number in range(6):
                assert (await it.answer(prompt_cache_key=str(number)))[0] == 200
        assert sleeper.calls() == 0
        assert len(b.chats) == 6
