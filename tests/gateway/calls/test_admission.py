"""Who waits for a model, in which order, what they get meanwhile, and that no place is ever lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import ClientPayloadError, ServerDisconnectedError

from dragoman.gateway.calls.admission import Admission, cost, share
from dragoman.gateway.config import AdmissionConfig
from dragoman.gateway.telemetry.metrics import Metrics
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Message, Request, Text
from tests.gateway_fakes import FakeBackend, Running, hello, post_bytes, running
from tests.waiting import LIMIT, until

ASK = Request("r", "m", (Message("user", (Text("hi"),)),))


class Bench:
    """Callers of one `Admission`; `order` is who got a place, each holds it until `free` is called."""

    def __init__(self, workers: int = 1, **settings: Any) -> None:
        self.metrics = Metrics()
        self.admission = Admission(AdmissionConfig(**settings), self.metrics, workers)
        self.order: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def call(self, client: str, name: str | None = None, request: Request = ASK, model: str = "m") -> None:
        self.begin(client, name or client, request, model)
        await self.turn()

    def begin(self, client: str, name: str, request: Request = ASK, model: str = "m") -> None:
        """Its task has not run yet."""
        self.gates[name] = asyncio.Event()

        async def work() -> None:
            async with self.admission.place("b", model, client, request):
                self.order.append(name)
                await self.gates[name].wait()

        self.tasks[name] = asyncio.create_task(work())

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
        stuck = [name for name, task in self.tasks.items() if not task.done()]
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        assert not stuck, "calls wait although every place is free"
        assert not self.admission._lines, "a line was left behind"
        assert self.depth == 0

    @property
    def depth(self) -> float:
        return self.metrics.registry.get_sample_value("dragoman_queue_depth", {"backend": "b"}) or 0.0

    def refused(self, name: str) -> GatewayError:
        error = self.tasks[name].exception()
        assert isinstance(error, GatewayError)
        return error


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The loop's time, which stands still until the test moves it."""
    clock = Clock()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", clock)
    return clock


@contextlib.asynccontextmanager
async def bench(workers: int = 1, **settings: Any) -> AsyncIterator[Bench]:
    it = Bench(workers, **settings)
    try:
        yield it
    finally:
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


async def test_a_large_call_that_ends_makes_room_for_as_many_small_ones_as_fit() -> None:
    large = Request("r", "m", (Message("user", (Text("x" * 10_000),)),))
    assert 2 * cost(ASK) <= cost(large) < 3 * cost(ASK)
    async with bench(tokens=cost(large)) as it:
        await it.call("a", "large", large)
        for client in ("b", "c", "d"):
            await it.call(client)
        await it.free("large")
        assert it.order == ["large", "b", "c"]


async def test_what_is_larger_than_the_limit_runs_alone() -> None:
    async with bench(tokens=10) as it:
        await it.call("a", "1")
        await it.call("a", "2")
        assert it.order == ["1"]
        await it.free("1")
        assert it.order == ["1", "2"]


async def test_the_tokens_of_a_call_that_ends_are_free_for_the_next() -> None:
    async with bench(tokens=2 * cost(ASK)) as it:
        for name in ("1", "2", "3", "4"):
            await it.call("a", name)
        assert it.order == ["1", "2"]
        await it.free("1")
        assert it.order == ["1", "2", "3"]
        await it.free("3")
        assert it.order == ["1", "2", "3", "4"]


def test_an_answer_counts_with_its_limit_and_without_a_large_one_with_what_is_usual() -> None:
    def answer(limit: int | None) -> int:
        return cost(replace(ASK, max_tokens=limit)) - cost(replace(ASK, max_tokens=1)) + 1

    assert [answer(limit) for limit in (10, 2048, 32_000, None)] == [10, 2048, 2048, 2048]


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


async def test_the_last_call_of_the_client_with_the_most_places_leaves_a_full_queue() -> None:
    async with bench(requests=1, queue=4) as it:
        await it.call("a", "running")
        for name in ("a1", "a2", "a3", "b1"):
            await it.call(name[0], name)
        left = []
        for name in ("b2", "b3", "c1", "c2", "d1", "e1"):
            await it.call(name[0], name)
            left += [each for each, task in it.tasks.items() if task.done() and each not in left]
        # those with as many places as anybody are refused themselves: b3, c2, e1
        assert left == ["a3", "b3", "a2", "c2", "b2", "e1"]
        assert it.depth == 4
        for _ in range(4):
            await it.free(it.order[-1])
        assert it.order == ["running", "a1", "b1", "c1", "d1"]


async def test_a_refusal_says_when_a_place_will_come_by_what_calls_have_taken(clock: Clock) -> None:
    async with bench(requests=2, queue=3) as it:
        for name in ("1", "2", "w1", "w2", "w3", "full"):
            await it.call("a", name)
        assert it.refused("full").retry_after == 4  # four calls of two seconds, on two places
        clock.now += 42
        await it.free("1")  # the average is 2 + (42 - 2) / 8 now
        await it.call("a", "w4")
        await it.call("a", "full again")
        assert it.refused("full again").retry_after == 14
        clock.now += 82
        await it.free("w1")  # it took 82 seconds, though it was asked for before: 7 + (82 - 7) / 8
        await it.call("a", "w5")
        await it.call("a", "full for long")
        assert it.refused("full for long").retry_after == pytest.approx(2 * 16.375)


@pytest.mark.parametrize(("seconds", "hint"), [(0, 1), (10_000, 60)])
async def test_a_time_to_come_back_is_a_second_at_least_and_a_minute_at_most(
    clock: Clock, seconds: float, hint: float
) -> None:
    async with bench(requests=3, queue=0) as it:
        for name in ("1", "2", "3"):
            await it.call("a", name)
        clock.now += seconds
        await it.free("1")
        await it.call("a", "next")
        await it.call("a", "full")
        assert it.refused("full").retry_after == hint


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


@pytest.mark.parametrize("limits", [{"requests": 2}, {"tokens": 2 * cost(ASK)}], ids=["requests", "tokens"])
@pytest.mark.parametrize("turns", range(5))
async def test_a_call_cancelled_as_its_place_comes_takes_nothing_with_it(turns: int, limits: dict[str, int]) -> None:
    async with bench(**limits) as it:
        for name in ("1", "2", "3", "4"):
            await it.call("a", name)
        it.gates["1"].set()
        for _ in range(turns):
            await asyncio.sleep(0)
        it.tasks["3"].cancel()
        await it.turn()
        assert it.order[-1] == "4"
        await it.call("a", "5")
        assert it.order[-1] == "4"
        await it.free("4")
        assert it.order[-1] == "5"


@pytest.mark.parametrize("turns", range(4))
async def test_a_call_cancelled_as_it_is_refused_frees_no_place_that_it_did_not_have(turns: int) -> None:
    async with bench(requests=1, queue=2) as it:
        for name in ("running", "g1", "g2"):
            await it.call("greedy", name)
        it.begin("modest", "m1")
        for _ in range(turns):
            await asyncio.sleep(0)
        it.tasks["g2"].cancel()
        await it.turn()
        assert it.order == ["running"]
        assert it.depth == 2
        await it.free("running")
        assert it.order == ["running", "g1"]
        await it.free("g1")
        assert it.order == ["running", "g1", "m1"]


@pytest.mark.parametrize("late", [False, True])
async def test_a_place_that_comes_as_the_wait_ends_is_not_lost(clock: Clock, late: bool) -> None:
    async with bench(requests=1, wait=5) as it:
        await it.call("a", "1")
        await it.call("a", "2")
        clock.now += 5.5
        if late:
            await asyncio.sleep(0)
        it.gates["1"].set()
        await it.turn()
        await it.call("a", "3")
        assert it.order[1:] == ["3" if it.tasks["2"].done() else "2"]


async def test_a_call_that_leaves_late_takes_no_line_with_it_that_is_not_its_own() -> None:
    """The last one that runs ends, a new one comes, and one that has left the queue notices it: in one turn."""
    async with bench(requests=1) as it:
        await it.call("a")
        await it.call("b")
        it.gates["a"].set()
        it.begin("c", "c")
        it.tasks["b"].cancel()
        await it.turn()
        await it.call("d")
        assert it.order == ["a", "c"]


async def test_waiting_is_bounded() -> None:
    async with bench(requests=1, wait=0.05) as it:
        await it.call("a", "1")
        await it.call("a", "2")
        await asyncio.wait([it.tasks["2"]], timeout=LIMIT)
        assert it.refused("2").kind is Kind.BUSY
        assert it.metrics.registry.get_sample_value(
            "dragoman_queue_refused_total", {"backend": "b", "reason": "waited"}
        )


@pytest.mark.parametrize(
    ("requests", "queue", "workers", "runs", "waits"), [(5, 3, 2, 3, 2), (1, 1, 4, 1, 1), (4, 0, 2, 2, 0)]
)
async def test_with_workers_each_takes_its_share(
    requests: int, queue: int, workers: int, runs: int, waits: int
) -> None:
    async with bench(workers, requests=requests, queue=queue) as it:
        for number in range(8):
            await it.call("a", str(number))
        assert (len(it.order), it.depth) == (runs, waits)


@pytest.mark.parametrize(("limit", "workers"), [(10, 4), (5, 2), (7, 3), (8, 4), (3, 5), (0, 2)])
def test_the_shares_of_all_workers_add_up_to_the_limit(limit: int, workers: int) -> None:
    shares = [share(limit, workers, number) for number in range(workers)]
    assert sum(shares) == limit
    assert max(shares) - min(shares) <= 1


async def test_the_time_in_the_queue_is_measured(clock: Clock) -> None:
    async with bench(requests=1) as it:
        await it.call("a", "1")
        await it.call("a", "2")
        clock.now += 7
        await it.free("1")
        assert it.metrics.registry.get_sample_value("dragoman_queue_wait_seconds_sum", {"backend": "b"}) == 7


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
