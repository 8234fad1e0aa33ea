"""How a streamed answer reaches its client: in which packets, to which version of HTTP, and for how long it waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from dragoman.backends.base import Flow, Sink
from dragoman.gateway.calls.delivery import at_once
from dragoman.translators.ir import Delta, Finished, PartEnded, PartStarted, Request, Started, StopReason
from tests.gateway_fakes import FakeBackend, Running, post_bytes, running
from tests.recording import feed
from tests.waiting import LIMIT, until

STREAM = {"model": "only", "input": "hi", "stream": True}


async def asked(served: Running, version: bytes = b"HTTP/1.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(post_bytes(STREAM).replace(b"HTTP/1.1", version))
    return reader, writer


async def test_the_head_leaves_with_the_first_frames() -> None:
    async with running() as served:
        reader, writer = await asked(served)
        first = await asyncio.wait_for(reader.read(65_536), LIMIT)
        head, _, body = first.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"created\npart=text\ntext=hel\n" in body
        writer.close()


async def test_a_client_of_http_1_0_gets_the_frames_without_chunks_and_the_end_of_the_connection() -> None:
    async with running() as served:
        reader, writer = await asked(served, b"HTTP/1.0")
        head, _, body = (await asyncio.wait_for(reader.read(), LIMIT)).partition(b"\r\n\r\n")
        assert b"chunked" not in head
        assert body == b"created\npart=text\ntext=hel\ntext=lo\nfinished=stop\n"
        writer.close()


async def test_a_client_that_catches_up_is_sent_the_rest() -> None:
    pieces = 60
    flows: list[Flow] = []

    async def play(request: Request, sink: Sink) -> None:
        sink.feed([Started(), PartStarted("text")])
        for _ in range(pieces):
            flows.append(await feed(sink, [Delta("x" * 100_000)]))
        sink.feed([PartEnded(), Finished(StopReason.STOP)])

    async with running(FakeBackend(play)) as served:
        reader, writer = await asked(served)
        await asyncio.sleep(0.1)
        body = b""
        while not body.endswith(b"\r\n0\r\n\r\n"):
            body += await asyncio.wait_for(reader.read(1_000_000), LIMIT)
        assert body.count(b"x" * 100_000) == pieces
        assert Flow.WAIT in flows
        writer.close()


async def test_a_receiver_that_has_gone_has_enough() -> None:
    go_on, told = asyncio.Event(), asyncio.Event()
    flows: list[Flow] = []

    async def play(request: Request, sink: Sink) -> None:
        sink.on_left = told.set
        sink.feed([Started(), PartStarted("text"), Delta("a")])
        await go_on.wait()
        flows.append(sink.feed([Delta("b")]))

    backend = FakeBackend(play)
    async with running(backend) as served:
        reader, writer = await asked(served)
        await asyncio.wait_for(reader.readuntil(b"text=a"), LIMIT)
        writer.transport.abort()
        await asyncio.wait_for(told.wait(), LIMIT)
        go_on.set()
        await until(lambda: not served.gateway.handler.calls)
        assert flows == [Flow.ENOUGH]
        assert backend.cancelled == 0  # who reads the answer ends the work: nothing else is cut off
        gone = {"route": "plain", "client_kind": "other", "status": "499", "outcome": "disconnected"}
        assert served.metric("dragoman_requests_total", **gone) == 1


def test_at_once_gives_the_result_and_passes_on_what_is_raised() -> None:
    async def result() -> int:
        return 3

    async def broken() -> int:
        raise ConnectionResetError

    assert at_once(result()) == 3
    with pytest.raises(ConnectionResetError):
        at_once(broken())


async def test_a_write_that_would_have_to_wait_is_a_bug() -> None:
    closed: list[bool] = []

    async def waits(done: Callable[[], None]) -> None:
        try:
            await asyncio.sleep(1)
        finally:
            done()

    with pytest.raises(asyncio.InvalidStateError):
        at_once(waits(lambda: closed.append(True)))
    assert closed
