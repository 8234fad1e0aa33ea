"""A client that hardly reads: the server is held back, what the gateway holds is bounded, and other streams go on.

Nothing is timed. The other streams are played in step with their clients: the server sends a delta when its client has
the one before, so none can be late without being missed, and the turns that the loop takes for one are counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import aiohttp
import pytest

from tests.gateway_fakes import post_bytes
from tests.scripted import Script, Seen, chunk, sse, usage
from tests.serving_gateway import ASK, RESPONSES, Served, served
from tests.waiting import LIMIT

pytestmark = pytest.mark.usefixtures("each_http_client")

SECONDS = 5  # in each of which the slow client reads a byte
DELTAS = 12  # of every other stream in a second
OTHERS = 5
PIECE = 64 * 1024
MANY = 2000  # pieces; far more than what the sockets of the machine hold
HELD = 2 * 1024 * 1024  # bytes that the gateway may hold for one client


def long(text: str, count: int, turns: asyncio.Semaphore | None = None) -> Script:
    """Each piece is numbered where there is a place for it."""
    pieces = [sse(chunk({"content": text.format(place)}), done=False) for place in range(count)]
    return Script([*pieces, sse(chunk({}, "stop"), chunk(None, usage=usage()))], turns=turns)


@dataclass
class InStep:
    """A stream whose next delta leaves the server when its client has read the one before."""

    turns: asyncio.Semaphore
    answer: aiohttp.ClientResponse
    read: int = 0

    async def delta(self) -> None:
        wanted, seen = f'"delta":"word {self.read} "'.encode(), b""
        while wanted not in seen:
            seen += await asyncio.wait_for(self.answer.content.readany(), LIMIT)
        assert f"word {self.read + 1} ".encode() not in seen
        self.read += 1
        self.turns.release()

    async def rest(self) -> bytes:
        for _ in range(SECONDS * DELTAS + DELTAS + 1):
            self.turns.release()
        return await asyncio.wait_for(self.answer.content.read(), LIMIT)


@contextlib.asynccontextmanager
async def in_step(it: Served) -> AsyncIterator[list[InStep]]:
    async with contextlib.AsyncExitStack() as stack:
        streams = []
        for _ in range(OTHERS):
            turns = asyncio.Semaphore(0)
            it.server.add(long("word {} ", (SECONDS + 1) * DELTAS, turns))
            streams.append(InStep(turns, await stack.enter_async_context(it.ask(stream=True))))
        yield streams


@contextlib.contextmanager
def counted_turns() -> Iterator[list[int]]:
    """The turns of the loop: how often it asked the kernel what has come."""
    selector = asyncio.get_running_loop()._selector  # type: ignore[attr-defined]
    turns, select = [0], selector.select

    def counting(timeout: float | None = None) -> object:
        turns[0] += 1
        return select(timeout)

    selector.select = counting
    try:
        yield turns
    finally:
        del selector.select


async def steps(streams: list[InStep]) -> int:
    """So many deltas of every stream; the turns of the loop that they took."""
    with counted_turns() as turns:
        for _ in range(DELTAS):
            await asyncio.gather(*(stream.delta() for stream in streams))
    return turns[0]


def held(it: Served) -> int:
    """Bytes that wait in the gateway for its clients."""
    server = it.runner.server
    assert server is not None
    transports = [connection.transport for connection in server.connections]
    return sum(each.get_write_buffer_size() for each in transports if each is not None)


@contextlib.asynccontextmanager
async def slow_client(it: Served) -> AsyncIterator[tuple[socket.socket, Seen]]:
    """Its socket, and what the server sees of it. It reads nothing yet, and the server can send no more."""
    loop, before = asyncio.get_running_loop(), len(it.server.chats)
    it.server.add(long("x" * PIECE, MANY))
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.setblocking(False)
        await loop.sock_connect(slow, ("127.0.0.1", it.port))
        await loop.sock_sendall(slow, post_bytes({**ASK, "stream": True}, RESPONSES))
        await it.server.until(lambda: len(it.server.chats) > before)
        seen = it.server.chats[before]
        sent = -1
        while sent != seen.sent or not sent:
            sent = seen.sent
            await asyncio.sleep(0.2)  # until the sockets of the machine are full
        yield slow, seen


async def test_a_client_that_reads_one_byte_a_second_holds_up_its_server_and_nobody_else() -> None:
    loop = asyncio.get_running_loop()
    async with served() as it:
        async with in_step(it) as streams:
            await steps(streams)
            alone = await steps(streams)
        async with slow_client(it) as (slow, seen):
            sent = seen.sent
            assert sent < MANY * PIECE / 2
            async with in_step(it) as streams:
                await steps(streams)
                for _ in range(SECONDS):
                    assert len(await asyncio.wait_for(loop.sock_recv(slow, 1), LIMIT)) == 1
                    assert await steps(streams) < 1.5 * alone + DELTAS
                    assert held(it) < HELD
                assert seen.sent == sent, "the server was not held back"
                assert seen.outcome == "open"
                for stream in streams:
                    assert b"response.completed" in await stream.rest()
        await it.server.until(lambda: seen.outcome == "client_gone")
