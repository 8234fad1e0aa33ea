"""A gateway that goes: what still runs is finished or fails in a way that clients retry, and no connection is lost
without a warning."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from dragoman.backends.base import Sink
from dragoman.gateway.serve.server import drain
from dragoman.translators.ir import Delta, Finished, PartEnded, PartStarted, Request, Started, StopReason
from tests.gateway.calls.test_handler import ASK, STREAM, begin_then_hang, forever
from tests.gateway_fakes import FakeBackend, Play, Running, running
from tests.waiting import LIMIT, until


async def test_drain_lets_streams_finish_and_refuses_new_calls() -> None:
    release = asyncio.Event()

    async def play(request: Request, sink: Sink) -> None:
        sink.feed([Started(), PartStarted("text"), Delta("a")])
        await release.wait()
        sink.feed([PartEnded(), Finished(StopReason.STOP)])

    async with running(FakeBackend(play)) as served, served.post(STREAM) as answer:
        health = [served.session.get(served.url + "/healthz") for _ in range(2)]
        for alive in await asyncio.gather(*health):  # two connections that stay open
            assert alive.status == 200
            alive.release()
        draining = asyncio.create_task(drain(served.gateway, served.runner))
        await until(lambda: served.gateway.handler.draining)
        async with served.session.get(served.url + "/readyz") as ready:
            assert ready.status == 503
            assert ready.headers["Connection"] == "close"
        async with served.post(STREAM) as refused:
            assert (refused.status, (await refused.json())["plain"]) == (503, "DRAINING")
        release.set()
        assert (await answer.read()).endswith(b"finished=stop\n")
        await asyncio.wait_for(draining, LIMIT)


@pytest.mark.parametrize("state", ["leaving", "draining"])
@pytest.mark.parametrize(
    ("body", "path"), [(STREAM, "/v1/plain"), (ASK, "/v1/plain"), ({}, "/v1/plain"), ({}, "/v1/no")]
)
async def test_every_answer_of_a_gateway_that_goes_says_that_its_connection_ends(
    state: str, body: object, path: str
) -> None:
    async with running() as served:
        setattr(served.gateway.handler, state, True)
        async with served.post(body, path) as answer:
            assert answer.headers["Connection"] == "close"
            await answer.read()


@pytest.mark.parametrize("play", [forever, begin_then_hang])
async def test_what_is_cut_by_the_drain_limit_ends_with_a_retryable_failure(play: Play) -> None:
    backend = FakeBackend(play)
    async with running(backend, timeouts={"drain": 0.1}) as served:
        streamed, whole = await asyncio.gather(begun(served, STREAM), begun(served, ASK))
        await until(lambda: backend.running == 2)
        await drain(served.gateway, served.runner)
        assert backend.running == 0
        first, second = await streamed, await whole
        assert first[1].endswith(b"failed=DRAINING\n") if play is begin_then_hang else refuses(first)
        assert refuses(second)


def refuses(answer: tuple[int, bytes]) -> bool:
    return answer[0] == 503 and b"DRAINING" in answer[1]


async def begun(served: Running, body: object) -> asyncio.Task[tuple[int, bytes]]:
    async def exchange() -> tuple[int, bytes]:
        async with served.post(body, timeout=aiohttp.ClientTimeout(5)) as answer:
            return answer.status, await answer.read()

    return asyncio.create_task(exchange())
