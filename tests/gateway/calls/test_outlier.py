"""Readiness by what becomes of real calls: a backend whose own probe says ready may still hang or fail."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dragoman.backends.base import Sink
from dragoman.gateway.calls.outlier import FAILURES, MEMORY
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Delta, Finished, PartEnded, PartStarted, Request, Started, StopReason
from tests.gateway_fakes import FakeBackend, Running, hello, running
from tests.waiting import until

ASK = {"model": "m", "input": "x"}


async def readiness(served: Running) -> tuple[int, Any]:
    async with served.session.get(served.url + "/readyz") as answer:
        return answer.status, (await answer.json())["backends"]["fake"]


async def fail(request: Request, sink: Sink) -> None:
    raise GatewayError(Kind.BACKEND_FAILED, "the engine is gone", source="backend")


async def test_failures_in_a_row_end_readiness_and_an_answer_brings_it_back() -> None:
    backend = FakeBackend(fail)
    async with running(backend) as served:
        for number in range(FAILURES):
            assert await readiness(served) == (200, "ready"), number
            async with served.post(ASK) as answer:
                assert answer.status == 502
        assert await readiness(served) == (503, "fails")
        backend.play = hello
        async with served.post(ASK) as answer:  # requests are tried all the same
            assert answer.status == 200
        assert await readiness(served) == (200, "ready")


async def test_a_doubt_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(FakeBackend(fail)) as served:
        for _ in range(FAILURES):
            async with served.post(ASK) as answer:
                await answer.read()
        assert await readiness(served) == (503, "fails")
        monkeypatch.setattr("dragoman.gateway.calls.outlier.MEMORY", 0.0)
        assert MEMORY > 0
        assert await readiness(served) == (200, "ready")


async def test_what_clients_do_wrong_says_nothing_of_the_backend() -> None:
    async def refuse(request: Request, sink: Sink) -> None:
        raise GatewayError(Kind.INVALID, "no", source="backend")

    async with running(FakeBackend(refuse)) as served:
        for _ in range(FAILURES + 1):
            async with served.post(ASK) as answer:
                assert answer.status == 400
        assert await readiness(served) == (200, "ready")


async def hangs(served: Running) -> bool:
    return await readiness(served) == (503, "hangs")


async def test_a_backend_that_gives_no_token_while_calls_wait_is_not_ready() -> None:
    gate = asyncio.Event()

    async def hang(request: Request, sink: Sink) -> None:
        await gate.wait()
        await hello(request, sink)

    backend = FakeBackend(hang)
    async with running(backend, pool={"slow": 0.2}) as served:
        waiting = asyncio.create_task(served.session.post(served.url + "/v1/plain", json=ASK))
        await until(lambda: backend.running == 1)
        assert await readiness(served) == (200, "ready")
        await until(lambda: hangs(served))
        gate.set()
        (await waiting).release()
        assert await readiness(served) == (200, "ready")


async def test_a_long_prefill_beside_a_stream_that_runs_is_no_hang() -> None:
    stop = asyncio.Event()

    async def talk(request: Request, sink: Sink) -> None:
        sink.feed([Started(), PartStarted("text")])
        while not stop.is_set():
            sink.feed([Delta("a")])
            await asyncio.sleep(0.02)
        sink.feed([PartEnded(), Finished(StopReason.STOP)])

    async def play(request: Request, sink: Sink) -> None:
        if len(backend.requests) == 2:
            await stop.wait()
        await talk(request, sink)

    backend = FakeBackend(play)
    async with running(backend, pool={"slow": 0.2}) as served:
        calls = [asyncio.create_task(served.session.post(served.url + "/v1/plain", json=ASK)) for _ in range(2)]
        await until(lambda: backend.running == 2)
        await asyncio.sleep(0.4)
        assert await readiness(served) == (200, "ready")
        stop.set()
        for call in calls:
            (await call).release()
