"""Who waits for a model, in which order, what they get meanwhile, and that no place is ever lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientPayloadError, ServerDisconnectedError

from dragoman.gateway.calls.admission import Admission, cost
from dragoman.gateway.config import AdmissionConfig
from dragoman.gateway.telemetry.metrics import Metrics
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Message, Request, Text
from tests.gateway_fakes import FakeBackend, Running, hello, post_bytes, running
from tests.waiting import LIMIT, until

ASK = Request("r", "m", (Message("user", (Text("hi"),)),))


class Bench:
    """Callers of one `Admission`; `order` is who got a place, each holds it until `free` is called."""

    def __init__(self, **settings: Any) -> None:
        self.metrics = Metrics()
        self.admission = Admission(AdmissionConfig(**settings), self.metrics)
        self.order: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def call(self, client: str, name: str | None = None, request: Request = ASK, model: str = "m") -> None:
        name = name or client
        self.gates[name] = asyncio.Event()

        async def work() -> None:
            async with self.admission.place("b", model, client, request):
                self.order.append(name)
                await self.gates[name].wait()

        self.tasks[name] = asyncio.create_task(work())
        await self.turn()

    async def turn(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def free(self, name: str) -> None:
        self.gates[name].set()
        await self.turn()

    async def end(self) -> None:
        for _ in self.tasks:
            for gate in self.gates.values():
                gate.set()
            await self.turn()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        assert not self.admission._lines, "a line was left behind"
        assert self.depth == 0

    @property
    def depth(self) -> float:
        return self.metrics.registry.get_sample_value("dragoman_queue_depth", {"backend": "b"}) or 0.0

    def refused(self, name: str) -> GatewayError:
        error = self.tasks[name].exception()
        assert isinstance(error, GatewayError)
        return error


@contextlib.asynccontextmanager
async def bench(**settings: Any) -> AsyncIterator[Bench]:
    it = Bench(**settings)
    yield it
    await it.end()


async def test_without_limits_nothing_waits() -> None:
    async with bench() as it:
        for number in range(50):
            await it.call("a", str(number))
        assert len(it.order) == 50


async def test_a_limit_of_requests_holds_for_each_model_alone() -> None:
    async with bench(requests=2) as it:
        for name in ("1", "2", "3"):
            await it.call("a", name)
        await it.call("a", "other", model="other")
        assert it.order == ["1", "2", "other"]
        assert it.depth == 1
        await it.free("1")
        assert it.order == ["1", "2", "other", "3"]


async def test_clients_take_turns_and_each_keeps_its_own_order() -> None:
    async with bench(requests=1) as it:
        await it.call("a", "running")
        for name in ("a1", "a2", "a3", "b1", "b2", "c1"):
            await it.call(name[0], name)
        for _ in range(6):
            await it.free(it.order[-1])
        assert it.order == ["running", "a1", "b1", "c1", "a2", "b2", "a3"]


async def test_tokens_in_flight_are_limited_and_the_large_one_is_not_overtaken_for_ever() -> None:
    small, large = ASK, Request("r", "m", (Message("user", (Text("x" * 30_000),)),))
    assert cost(large) > 3 * cost(small)
    async with bench(tokens=cost(large) + cost(small) // 2) as it:
        await it.call("a", "small", small)
        await it.call("a", "large", large)
        await it.call("b", "later", small)
        assert it.order == ["small"]
        await it.free("small")
        assert it.order == ["small", "large"]
        await it.free("large")
        assert it.order == ["small", "large", "later"]


async def test_what_is_larger_than_the_limit_runs_alone() -> None:
    async with bench(tokens=10) as it:
        await it.call("a", "1")
        await it.call("a", "2")
        assert it.order == ["1"]
        await it.free("1")
        assert it.order == ["1", "2"]


async def test_a_full_queue_refuses_with_a_time() -> None:
    async with bench(requests=1, queue=1) as it:
        for name in ("1", "2", "3"):
            await it.call("a", name)
        error = it.refused("3")
        assert (error.kind, error.source) == (Kind.BUSY, "gateway")
        assert error.retry_after is not None
        assert 1 <= error.retry_after <= 60


async def test_a_full_queue_sends_away_the_last_of_who_holds_most() -> None:
    async with bench(requests=1, queue=3) as it:
        await it.call("greedy", "running")
        for name in ("g1", "g2", "g3"):
            await it.call("greedy", name)
        await it.call("modest", "m1")
        assert it.refused("g3").kind is Kind.BUSY
        await it.call("greedy", "g4")
        assert it.refused("g4").kind is Kind.BUSY
        for _ in range(3):
            await it.free(it.order[-1])
        assert it.order == ["running", "g1", "m1", "g2"]


async def test_no_queue_at_all() -> None:
    async with bench(requests=1, queue=0) as it:
        await it.call("a", "1")
        await it.call("b", "2")
        assert it.refused("2").kind is Kind.BUSY


async def test_who_leaves_the_queue_or_the_model_frees_the_place() -> None:
    async with bench(requests=1) as it:
        for name in ("1", "2", "3"):
            await it.call("a", name)
        it.tasks["2"].cancel()
        await it.turn()
        assert it.depth == 1
        it.tasks["1"].cancel()
        await it.turn()
        assert it.order == ["1", "3"]


async def test_a_place_given_to_who_leaves_in_the_same_moment_is_given_on() -> None:
    async with bench(requests=1) as it:
        for name in ("1", "2", "3"):
            await it.call("a", name)
        it.gates["1"].set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        it.tasks["2"].cancel()
        await it.turn()
        assert it.order[-1] == "3"


async def test_waiting_is_bounded() -> None:
    async with bench(requests=1, wait=0.05) as it:
        await it.call("a", "1")
        await it.call("a", "2")
        await asyncio.wait([it.tasks["2"]], timeout=LIMIT)
        assert it.refused("2").kind is Kind.BUSY
        assert it.metrics.registry.get_sample_value(
            "dragoman_queue_refused_total", {"backend": "b", "reason": "waited"}
        )


async def test_with_workers_each_takes_its_share() -> None:
    metrics = Metrics()
    assert Admission(AdmissionConfig(requests=5), metrics, workers=2)._requests == 3
    assert Admission(AdmissionConfig(requests=1), metrics, workers=4)._requests == 1


# -------------------------------------------------------------------------------------------- through the gateway


class Held:
    """A backend's play that answers when the test lets it."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()

    async def __call__(self, request: Request, sink: Any) -> None:
        await self.gate.wait()
        await hello(request, sink)


async def ask(it: Running, stream: bool = False) -> tuple[int, str]:
    async with it.post({"input": "x", "stream": stream}) as answer:
        return answer.status, await answer.text()


async def test_a_stream_that_waits_gets_its_head_and_keepalives_and_then_its_answer() -> None:
    held = Held()
    timeouts = {"head_after": 0.05, "keepalive": 0.05}
    async with running(FakeBackend(held), admission={"requests": 1}, timeouts=timeouts) as it:
        first = asyncio.create_task(ask(it))
        await until(lambda: it.backend.running)
        second = asyncio.create_task(ask(it, stream=True))
        await until(lambda: it.metric("dragoman_queue_depth", backend="fake") == 1)
        await asyncio.sleep(0.2)
        assert it.backend.running == 1
        held.gate.set()
        assert (await first)[0] == 200
        _, text = await second
        assert text.startswith("created\nkeepalive\n")
        assert text.endswith("finished=stop\n")
        assert it.metric("dragoman_queue_wait_seconds_count", backend="fake") == 2
        assert it.metric("dragoman_queue_depth", backend="fake") == 0


@pytest.mark.parametrize("path", ["/v1/plain", "/v1/plain/other"])
async def test_when_the_queue_is_full_the_answer_says_when_to_come_back_and_who_refused(path: str) -> None:
    held = Held()
    async with running(FakeBackend(held), admission={"requests": 1, "queue": 0}) as it:
        first = asyncio.create_task(ask(it))
        await until(lambda: it.backend.running)
        async with it.post({"input": "x"}, path) as answer:
            assert answer.status == 503
            assert (await answer.json())["plain"] == "BUSY"
            assert int(answer.headers["Retry-After"]) >= 1
            assert answer.headers["x-dragoman-error-source"] == "gateway"
        held.gate.set()
        await first
        assert it.metric("dragoman_queue_refused_total", backend="fake", reason="full") == 1


async def test_a_refusal_after_the_head_is_the_protocols_failure_event() -> None:
    held = Held()
    settings: dict[str, Any] = {"admission": {"requests": 1, "wait": 0.3}, "timeouts": {"head_after": 0.05}}
    async with running(FakeBackend(held), **settings) as it:
        first = asyncio.create_task(ask(it))
        await until(lambda: it.backend.running)
        status, text = await ask(it, stream=True)
        assert status == 200
        assert text.endswith("failed=BUSY\n")
        held.gate.set()
        await first


async def test_an_invalid_request_is_refused_without_waiting() -> None:
    held = Held()
    async with running(FakeBackend(held), admission={"requests": 1}) as it:
        first = asyncio.create_task(ask(it))
        await until(lambda: it.backend.running)
        async with it.post({"no": "input"}) as answer:
            assert answer.status == 400
        held.gate.set()
        await first


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_the_queue_never_reaches_the_model(stream: bool) -> None:
    held = Held()
    async with running(FakeBackend(held), admission={"requests": 1}) as it:
        first = asyncio.create_task(ask(it))
        await until(lambda: it.backend.running)
        _, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(post_bytes({"input": "x", "stream": stream}))
        await until(lambda: it.metric("dragoman_queue_depth", backend="fake") == 1)
        writer.transport.abort()
        await until(lambda: it.metric("dragoman_queue_depth", backend="fake") == 0)
        held.gate.set()
        assert (await first)[0] == 200
        assert len(it.backend.requests) == 1


async def test_what_waits_at_the_drain_limit_ends_with_a_retryable_error() -> None:
    from dragoman.gateway.serve.server import drain

    held = Held()
    async with running(FakeBackend(held), admission={"requests": 1}, timeouts={"drain": 0.1}) as it:
        tasks = [asyncio.create_task(ask(it)) for _ in range(3)]
        await until(lambda: it.metric("dragoman_queue_depth", backend="fake") == 2)
        await drain(it.gateway, it.runner)
        for task in tasks:
            with contextlib.suppress(ClientPayloadError, ServerDisconnectedError):
                status, text = await task
                assert status == 503
                assert "DRAINING" in text
        assert it.metric("dragoman_queue_depth", backend="fake") == 0
