"""Replicas of one model: where sessions go, what is tried elsewhere, what is passed by. On real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from dragoman.backends.base import Health, ModelInfo
from dragoman.backends.pool import pool as pool_module
from dragoman.backends.pool.breaker import BreakerRules
from dragoman.backends.pool.pool import Pool, rank
from dragoman.backends.pool.replica import PoolSettings, ReplicaState
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Request
from tests.gateway_fakes import FakeBackend
from tests.recording import Recorder, answered
from tests.scripted import Script, ScriptedServer, chunk, frames, model_list, sse, text_stream
from tests.serving_gateway import Serving, over
from tests.waiting import LIMIT, until

BODY = text_stream("hel", "lo")
COMPLETED = '"status":"completed"'


def fine(**how: Any) -> ScriptedServer:
    return ScriptedServer(default=Script(BODY, **how))


def refusing_url() -> str:
    """An address where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/v1"


@contextlib.asynccontextmanager
async def three(**settings: Any) -> AsyncIterator[tuple[Serving, list[ScriptedServer]]]:
    async with fine() as a, fine() as b, fine() as c, over(a.url, b.url, c.url, **settings) as it:
        yield it, [a, b, c]


async def owner(it: Serving, servers: list[ScriptedServer], **more: Any) -> ScriptedServer:
    """The server that a session goes to."""
    before = [len(server.chats) for server in servers]
    status, _ = await it.answer(**more)
    assert status == 200
    (found,) = [server for server, count in zip(servers, before, strict=True) if len(server.chats) > count]
    return found


# ------------------------------------------------------------------------------------------------------------- sessions


async def test_a_session_stays_with_one_server_and_sessions_are_spread() -> None:
    async with three() as (it, servers):
        owners = {}
        for number in range(24):
            owners[number] = await owner(it, servers, prompt_cache_key=f"thread-{number}")
        for number in range(24):
            assert await owner(it, servers, prompt_cache_key=f"thread-{number}") is owners[number]
        assert len(set(map(id, owners.values()))) == 3


async def test_where_the_client_names_no_session_the_first_user_message_does() -> None:
    async with three() as (it, servers):
        for start in ("one", "two", "three", "four"):
            turns: list[dict[str, str]] = [{"role": "user", "content": start}]
            first = await owner(it, servers, input=turns)
            turns += [{"role": "assistant", "content": "hello"}, {"role": "user", "content": "go on"}]
            assert await owner(it, servers, input=turns) is first


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/v1/responses", {"thread-id": "thread-1"}),
        ("/v1/responses", {"thread-id": "child", "x-codex-parent-thread-id": "thread-1"}),
        ("/v1/messages", {"x-claude-code-session-id": "thread-1"}),
    ],
)
async def test_the_session_goes_upstream_as_a_header_and_sub_agents_follow_their_parent(
    path: str, headers: dict[str, str]
) -> None:
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    if path == "/v1/responses":
        body = {"model": "m", "input": "hi", "prompt_cache_key": headers["thread-id"]}
        if "x-codex-parent-thread-id" not in headers:
            del body["prompt_cache_key"]
    async with three() as (it, servers):
        async with it.session.post(it.url + path, json=body, headers=headers) as answer:
            assert answer.status == 200
        (seen,) = [seen for server in servers for seen in server.chats]
        assert seen.headers["x-session-affinity"] == "thread-1"


async def test_the_header_can_be_named_or_left_out_and_never_breaks_a_request() -> None:
    async with fine() as server:
        async with over(server.url, backend={"settings": {"affinity_header": "x-router-key"}}) as it:
            await it.answer(prompt_cache_key="k")
            await it.answer(prompt_cache_key="zwölf\r\nx-evil: 1")
        async with over(server.url, backend={"settings": {"affinity_header": None}}) as it:
            await it.answer(prompt_cache_key="k")
        first, second, third = server.chats
        assert first.headers["x-router-key"] == "k"
        assert len(second.headers["x-router-key"]) == 64
        assert "x-evil" not in second.headers
        assert "x-session-affinity" not in third.headers
        assert "x-router-key" not in third.headers


def test_only_the_sessions_of_a_server_that_goes_move() -> None:
    servers = ["http://a", "http://b", "http://c", "http://d"]
    moved = 0
    for number in range(400):
        first = min(servers, key=lambda each: rank(f"s{number}", each))
        then = min(servers[:3], key=lambda each: rank(f"s{number}", each))
        if first != "http://d":
            assert then == first
        moved += then != first
    assert 50 < moved < 150


def test_sessions_that_begin_alike_are_not_the_same() -> None:
    assert rank("session-1", "2a") != rank("session-12", "a")


async def test_a_session_with_far_more_than_its_share_goes_to_other_servers_too() -> None:
    """Sixty agents of one session: bounded loads keep each server near a third."""
    async with fine(head_delay=0.5) as a, fine(head_delay=0.5) as b, fine(head_delay=0.5) as c:
        servers = [a, b, c]
        async with over(*(server.url for server in servers)) as it:
            await asyncio.gather(*(it.answer(prompt_cache_key="one") for _ in range(30)))
        counts = [len(server.chats) for server in servers]
        assert sum(counts) == 30
        assert max(counts) <= 30 / 3 * 1.25 + 1


async def test_a_session_with_a_few_requests_at_once_stays_together() -> None:
    """An agent and its sub-agents, on servers that have nothing else to do."""
    async with fine(head_delay=0.3) as a, fine(head_delay=0.3) as b, over(a.url, b.url) as it:
        await asyncio.gather(*(it.answer(prompt_cache_key="one") for _ in range(4)))
        assert sorted((len(a.chats), len(b.chats))) == [0, 4]


async def test_without_a_session_the_server_with_the_least_to_do_is_asked() -> None:
    gate = asyncio.Event()

    async def waits(request: Request, sink: Any) -> None:
        await gate.wait()

    backends = [FakeBackend(waits, name=name) for name in "abc"]
    pool = Pool("p", backends)
    await pool.start()
    tasks = []
    for number in range(6):
        request = Request(f"r{number}", "m", ())
        tasks.append(asyncio.create_task(answered(pool, request, Recorder())))
        await asyncio.sleep(0)
    await until(lambda: sum(each.running for each in backends) == 6)
    assert [each.running for each in backends] == [2, 2, 2]
    gate.set()
    await asyncio.gather(*tasks)
    await pool.close()


async def test_the_load_that_a_server_reports_counts() -> None:
    busy, idle = FakeBackend(name="busy", load=50.0), FakeBackend(name="idle")
    pool = Pool("p", [busy, idle])
    await pool.start()
    for number in range(4):
        await answered(pool, Request(f"r{number}", "m", ()), Recorder())
    assert (len(busy.requests), len(idle.requests)) == (0, 4)
    await pool.close()


# ------------------------------------------------------------------------------------------------------ another server


async def first_choice(urls: list[str], key: str) -> str:
    return min(urls, key=lambda url: rank(key, url))


def key_for(url: str, urls: list[str]) -> str:
    """A session that ranks `url` first."""
    return next(key for key in map(str, range(1000)) if min(urls, key=lambda each: rank(key, each)) == url)


ELSEWHERE = {
    "busy 503": Script.json({"error": {"message": "server is overloaded"}}, 503),
    "busy 429": Script.json({"error": {"message": "too many requests"}}, 429, {"retry-after": "1"}),
    "asleep": Script.json({"error": {"message": "The model is sleeping"}}, 503),
    "no answer": Script(BODY, cut_at=0),
    "cut before the first event": Script([b": ping\n\n", BODY], cut_at=8),
}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("how", [*ELSEWHERE, "refused"])
async def test_what_a_server_did_nothing_with_is_tried_on_another_one(how: str, stream: bool) -> None:
    async with ScriptedServer(default=ELSEWHERE.get(how)) as bad, fine() as good:
        url = bad.url if how in ELSEWHERE else refusing_url()
        async with over(url, good.url) as it:
            key = key_for(url, [url, good.url])
            status, text = await it.answer(prompt_cache_key=key, stream=stream)
            assert status == 200
            assert "hel" in text
            assert COMPLETED in text
            assert len(good.chats) == 1
            if how in ELSEWHERE:
                assert len(bad.chats) == 1
                assert it.metric("dragoman_replica_retries_total", pool="p", backend="b0") == 1


NOT_ELSEWHERE = {
    "refused for a reason": (Script.json({"error": {"message": "bad temperature"}}, 400), 400),
    "failed": (Script.json({"error": {"message": "CUDA error"}}, 500), 502),
    "cut in the middle": (Script(BODY, cut_at=len(BODY) // 2), 502),
    "an error in the stream": (Script(sse(chunk({"content": "x"}), {"error": {"message": "boom", "code": 500}})), 502),
}


@pytest.mark.parametrize("how", NOT_ELSEWHERE)
async def test_what_may_have_been_worked_on_is_not_tried_again(how: str) -> None:
    script, expected = NOT_ELSEWHERE[how]
    async with ScriptedServer(default=script) as bad, fine() as good, over(bad.url, good.url) as it:
        status, _ = await it.answer(prompt_cache_key=key_for(bad.url, [bad.url, good.url]))
        assert status == expected
        assert not good.chats


async def test_a_request_that_kills_servers_kills_two_at_most() -> None:
    async with contextlib.AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(ScriptedServer(default=Script(b"", cut_at=0))) for _ in range(5)]
        it = await stack.enter_async_context(over(*(server.url for server in servers), pool={"retries": 4}))
        status, _ = await it.answer()
        assert status == 502
        assert sum(len(server.chats) for server in servers) == 2


async def test_when_no_server_is_left_the_last_error_is_sent() -> None:
    async with over(refusing_url(), refusing_url()) as it:
        async with it.ask() as answer:
            assert answer.status == 503
            assert answer.headers["Retry-After"]
            assert answer.headers["x-dragoman-error-source"] == "backend"
        async with it.ask(stream=True) as answer:
            assert answer.status == 503


async def test_retries_are_bounded() -> None:
    async with contextlib.AsyncExitStack() as stack:
        full = ELSEWHERE["busy 503"]
        servers = [await stack.enter_async_context(ScriptedServer(default=full)) for _ in range(5)]
        it = await stack.enter_async_context(over(*(server.url for server in servers), pool={"retries": 1}))
        await it.answer()
        assert sum(len(server.chats) for server in servers) == 2


# --------------------------------------------------------------------------------------------------- health and breaker


async def test_failures_in_a_row_open_the_breaker_and_one_trial_closes_it() -> None:
    failing = Script.json({"error": {"message": "boom"}}, 500)
    async with ScriptedServer(failing, failing, default=Script(BODY)) as bad, fine() as good:
        rules = {"failures": 2, "rest": 0.3, "probe": 600}
        async with over(bad.url, good.url, pool=rules) as it:
            key = key_for(bad.url, [bad.url, good.url])
            for _ in range(2):
                assert (await it.answer(prompt_cache_key=key))[0] == 502
            assert it.metric("dragoman_replica_state", pool="p", backend="b0", state="open") == 1
            for _ in range(3):
                assert (await it.answer(prompt_cache_key=key))[0] == 200
            assert (len(bad.chats), len(good.chats)) == (2, 3)
            await asyncio.sleep(0.35)
            assert (await it.answer(prompt_cache_key=key))[0] == 200
            assert (len(bad.chats), len(good.chats)) == (3, 3)
            assert it.metric("dragoman_replica_state", pool="p", backend="b0", state="ready") == 1


async def test_late_first_events_open_the_breaker_without_ending_the_answer() -> None:
    rules = {"failures": 2, "slow": 0.1, "rest": 60, "probe": 600}
    async with fine(head_delay=0.25) as slow, fine() as good, over(slow.url, good.url, pool=rules) as it:
        key = key_for(slow.url, [slow.url, good.url])
        for _ in range(3):
            assert (await it.answer(prompt_cache_key=key))[0] == 200
        assert (len(slow.chats), len(good.chats)) == (2, 1)


async def test_an_answer_that_is_withheld_for_long_says_nothing_against_its_server() -> None:
    """Not that it hangs, and not that it fails."""
    rules = {"failures": 1, "slow": 0.2, "rest": 60, "probe": 600}
    slow = Script(text_stream('{"a": 1}', reasoning=["hm"] * 40), split="frames", gap=0.02)
    asked = {"text": {"format": {"type": "json_object"}}}
    async with (
        ScriptedServer(default=slow) as server,
        over(server.url, backend={"settings": {"json_schema": "prompt"}}, pool=rules) as it,
    ):
        (replica,) = it.gateway.gate.groups["b0"].replicas
        seen = set[ReplicaState]()
        call = asyncio.create_task(it.answer(**asked))
        while not call.done():
            await asyncio.sleep(0.02)
            seen.add(replica.state)
        status, answer = await call
        assert (status, COMPLETED in answer) == (200, True)
        assert seen <= {ReplicaState.READY, ReplicaState.UNKNOWN}
        assert replica.state in seen


async def test_when_every_breaker_is_open_requests_are_tried_all_the_same() -> None:
    failing = Script.json({"error": {"message": "boom"}}, 500)
    async with (
        ScriptedServer(failing, default=Script(BODY)) as a,
        ScriptedServer(failing, default=Script(BODY)) as b,
        over(a.url, b.url, pool={"failures": 1, "rest": 60, "probe": 600}) as it,
    ):
        for url in (a.url, b.url):
            await it.answer(prompt_cache_key=key_for(url, [a.url, b.url]))
        assert [replica.state for replica in it.pool.replicas] == [ReplicaState.FAILS] * 2
        assert (await it.answer())[0] == 200


async def test_a_server_found_down_gets_no_requests_and_gets_them_again() -> None:
    async with fine() as a, fine() as b, over(a.url, b.url, pool={"probe": 0.05, "down_after": 1}) as it:
        key = key_for(a.url, [a.url, b.url])
        a.on("GET", "/v1/models", Script.json({"error": "gone"}, 500))
        await until(lambda: it.pool.replicas[0].state is ReplicaState.DOWN)
        assert (await it.answer(prompt_cache_key=key))[0] == 200
        assert (len(a.chats), len(b.chats)) == (0, 1)
        async with it.session.get(it.url + "/readyz") as answer:
            assert answer.status == 200
        a.on("GET", "/v1/models", model_list("m"))
        await until(lambda: it.pool.replicas[0].state is ReplicaState.READY)
        assert (await it.answer(prompt_cache_key=key))[0] == 200
        assert len(a.chats) == 1


async def test_requests_that_wait_on_a_server_found_down_go_elsewhere_and_running_ones_stay() -> None:
    begun = frames(BODY)[:2]  # up to the first text
    halves = [b"".join(begun), BODY[len(b"".join(begun)) :]]
    async with (
        ScriptedServer(Script(halves, split="given", gap=1.5), Script(BODY, head_delay=30)) as a,
        fine() as b,
        over(a.url, b.url, pool={"probe": 0.05, "down_after": 1, "spread": 9}) as it,
    ):
        key = key_for(a.url, [a.url, b.url])
        running = asyncio.create_task(it.answer(prompt_cache_key=key, stream=True))
        await until(lambda: any(call.answer and call.answer.touched for call in it.gateway.handler.calls))
        waiting = asyncio.create_task(it.answer(prompt_cache_key=key, stream=True))
        await a.until(lambda: len(a.chats) == 2)
        a.on("GET", "/v1/models", Script.json({"error": "gone"}, 500))
        status, text = await asyncio.wait_for(waiting, LIMIT)
        assert status == 200
        assert COMPLETED in text
        assert len(b.chats) == 1
        await a.until(lambda: a.chats[1].outcome == "client_gone")
        assert COMPLETED in (await running)[1]
        assert a.chats[0].outcome == "completed"


async def test_one_missed_probe_may_be_chance() -> None:
    backend = FakeBackend(name="a")
    pool = Pool("p", [backend, FakeBackend(name="b")], PoolSettings(probe=600))
    await pool.start()
    replica = pool.replicas[0]
    seen = []
    for answer in ("ready", "down", "down", "ready"):
        backend.state = Health(answer)
        await replica.probe()
        seen.append(replica.state.word)
    assert seen == ["ready", "ready", "down", "ready"]
    await pool.close()


async def test_the_pool_is_what_its_best_server_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "FRESH", -1.0)
    a, b = FakeBackend(name="a", state=Health("down", "gone")), FakeBackend(name="b", state=Health("asleep", "zzz"))
    pool = Pool("p", [a, b], PoolSettings(probe=600))
    await pool.start()
    assert (await pool.health()).state == "asleep"
    b.state = Health("ready")
    assert (await pool.health()).state == "ready"
    b.state = Health("down")
    for _ in range(2):
        await pool.replicas[1].probe()
    assert (await pool.health()).state == "down"
    await pool.close()


async def test_one_answer_of_a_probe_counts_once_however_often_the_pool_is_asked() -> None:
    a, b = FakeBackend(name="a"), FakeBackend(name="b", state=Health("down"))
    pool = Pool("p", [a, b], PoolSettings(probe=600))
    await pool.start()
    for _ in range(20):
        assert (await pool.health()).state == "ready"
    assert a.probes <= 2
    assert b.probes <= 2
    await pool.close()


async def test_a_probe_that_hangs_does_not_keep_the_pool_from_being_ready() -> None:
    class Hangs(FakeBackend):
        async def health(self) -> Health:
            await asyncio.sleep(30)
            return Health("ready")

    pool = Pool("p", [Hangs(name="a"), FakeBackend(name="b")], PoolSettings(probe=600))
    await pool.start()
    begun = time.monotonic()
    assert (await pool.health()).state == "ready"
    assert time.monotonic() - begun < 0.5
    await pool.close()


# ------------------------------------------------------------------------------------------------------ starting, lists


async def test_servers_that_cannot_be_started_do_not_stop_the_others() -> None:
    broken, good = FakeBackend(name="a", start_error=RuntimeError("no GPU")), FakeBackend(name="b")
    pool = Pool("p", [broken, good])
    await pool.start()
    await answered(pool, Request("r", "m", ()), Recorder())
    assert len(good.requests) == 1
    await pool.close()
    assert (broken.closed, good.closed) == (1, 1)


@pytest.mark.parametrize("broken", [1, 2])
async def test_every_server_is_closed_and_what_went_wrong_is_raised(broken: int) -> None:
    class Stuck(FakeBackend):
        async def close(self) -> None:
            raise OSError(f"{self.name} is stuck")

    good = FakeBackend(name="good")
    pool = Pool("p", [*(Stuck(name=f"bad{number}") for number in range(broken)), good])
    await pool.start()
    with pytest.raises((OSError, ExceptionGroup)) as raised:
        await pool.close()
    failures = raised.value.exceptions if isinstance(raised.value, ExceptionGroup) else [raised.value]
    assert [str(each) for each in failures] == [f"bad{number} is stuck" for number in range(broken)]
    assert good.closed == 1


async def test_when_none_can_be_started_the_reason_is_raised() -> None:
    pool = Pool("p", [FakeBackend(name=name, start_error=RuntimeError("no GPU")) for name in "ab"])
    with pytest.raises(RuntimeError, match="no GPU"):
        await pool.start()
    await pool.close()


async def test_the_narrowest_window_counts_and_a_list_that_cannot_be_read_is_left_out() -> None:
    backends = [
        FakeBackend(name="a", served=[ModelInfo("m", window=8192)]),
        FakeBackend(name="b", served=[ModelInfo("m", window=4096)]),
        FakeBackend(name="c", served=None),
    ]
    pool = Pool("p", backends)
    await pool.start()
    assert await pool.models() == [ModelInfo("m", window=4096)]
    await pool.close()


async def test_a_bug_in_one_list_does_not_cost_the_others(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(FakeBackend):
        async def models(self) -> list[ModelInfo]:
            raise ZeroDivisionError

    pool = Pool("p", [Broken(name="a"), FakeBackend(name="b")])
    await pool.start()
    assert [info.id for info in await pool.models()] == ["only"]
    assert "a: its models cannot be listed" in caplog.text
    await pool.close()


async def test_a_list_is_waited_for_while_only_others_have_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(FakeBackend):
        async def models(self) -> list[ModelInfo]:
            await asyncio.sleep(0.05)
            return [ModelInfo("x")]

    monkeypatch.setattr(pool_module, "LAGGARDS", 0.0)
    pool = Pool("p", [FakeBackend(name="a", served=None), Slow(name="b")])
    await pool.start()
    await until(lambda: all(each.started for each in pool.replicas))
    assert [each.id for each in await pool.models()] == ["x"]
    await pool.close()


async def test_a_list_that_hangs_does_not_hold_the_others_up() -> None:
    class Hangs(FakeBackend):
        async def models(self) -> list[ModelInfo]:
            await asyncio.sleep(30)
            return []

    pool = Pool("p", [Hangs(name="a"), FakeBackend(name="b")])
    await pool.start()
    begun = time.monotonic()
    assert [info.id for info in await pool.models()] == ["only"]
    assert time.monotonic() - begun < 1
    await pool.close()


async def test_a_server_that_does_not_list_the_model_is_not_asked_for_it() -> None:
    async with fine() as a, fine() as b, over(a.url, b.url) as it:
        a.on("GET", "/v1/models", model_list("one", "both"))
        b.on("GET", "/v1/models", model_list("two", "both"))
        for number in range(8):
            await it.answer(model="two", prompt_cache_key=str(number))
        assert (len(a.chats), len(b.chats)) == (0, 8)


async def test_a_bug_in_a_backend_is_no_reason_to_try_another() -> None:
    async def broken(request: Request, sink: Any) -> None:
        raise ZeroDivisionError

    backends = [FakeBackend(broken, name=name) for name in "ab"]
    pool = Pool("p", backends)
    await pool.start()
    with pytest.raises(ZeroDivisionError):
        await answered(pool, Request("r", "m", ()), Recorder())
    assert sum(len(each.requests) for each in backends) == 1
    assert all(replica.pending == 0 for replica in pool.replicas)
    await pool.close()


async def test_cancelling_frees_the_server_and_the_trial() -> None:
    async def hangs(request: Request, sink: Any) -> None:
        await asyncio.sleep(30)

    async def fails(request: Request, sink: Any) -> None:
        raise GatewayError(Kind.BACKEND_FAILED, "no", source="backend")

    backend = FakeBackend(fails, name="a")
    pool = Pool("p", [backend], PoolSettings(probe=600, breaker=BreakerRules(failures=1, rest=0.01)))
    await pool.start()
    with pytest.raises(GatewayError):
        await answered(pool, Request("r", "m", ()), Recorder())
    await asyncio.sleep(0.02)
    backend.play = hangs
    task = asyncio.create_task(answered(pool, Request("r", "m", ()), Recorder()))
    await until(lambda: backend.running)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (backend.cancelled, pool.replicas[0].pending) == (1, 0)
    assert pool.replicas[0].available("m")
    await pool.close()


async def test_servers_are_spread_over_when_named_by_flags() -> None:
    from dragoman.gateway.config import Config, replicas

    config = Config(backends=replicas(["http://a/v1", "http://b/v1"]))
    assert [(group.name, len(group.members)) for group in config.groups] == [("pool", 2)]
    assert Counter(group.pooled for group in Config(backends=replicas(["http://a/v1"])).groups) == {False: 1}
