"""A client that hardly reads: the server is held back, what the gateway holds is bounded, and other streams go on."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from itertools import pairwise

import pytest

from tests.gateway_fakes import post_bytes
from tests.scripted import Script, chunk, sse, usage
from tests.serving_gateway import ASK, RESPONSES, Served, served
from tests.waiting import LIMIT

pytestmark = pytest.mark.usefixtures("each_http_client")

SECONDS = 3
PIECE = 64 * 1024
MANY = 2000  # pieces; far more than what the sockets of the machine hold
HELD = 2 * 1024 * 1024  # bytes that the gateway may hold for one client


def long(text: str, count: int, gap: float = 0.0) -> Script:
    pieces = [sse(chunk({"content": text}), done=False)] * count
    return Script([*pieces, sse(chunk({}, "stop"), chunk(None, usage=usage()))], gap=gap)


async def gaps(it: Served) -> list[float]:
    """Seconds between the reads of a stream, which has to end well."""
    loop, times = asyncio.get_running_loop(), []
    async with it.ask(stream=True) as answer:
        async for _ in answer.content.iter_any():
            times.append(loop.time())
    return [after - before for before, after in pairwise(times)]


def held(it: Served) -> int:
    """Bytes that wait in the gateway for its clients."""
    server = it.runner.server
    assert server is not None
    transports = [connection.transport for connection in server.connections]
    return sum(each.get_write_buffer_size() for each in transports if each is not None)


async def test_a_client_that_reads_one_byte_a_second() -> None:
    async with served(long("x" * PIECE, MANY), *[long("word ", SECONDS * 50, gap=0.02)] * 5) as it:
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(slow, ("127.0.0.1", it.port))
            await loop.sock_sendall(slow, post_bytes({**ASK, "stream": True}, RESPONSES))
            await it.server.until(lambda: bool(it.server.chats) and it.server.chats[0].sent > PIECE)
            others = asyncio.gather(*(gaps(it) for _ in range(5)))
            most, sent = 0, 0
            for second in range(SECONDS):
                assert len(await asyncio.wait_for(loop.sock_recv(slow, 1), LIMIT)) == 1
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(asyncio.shield(others), 1)
                most = max(most, held(it))
                if second == 0:
                    sent = it.server.chats[0].sent
            assert it.server.chats[0].sent == sent, "the server was not held back"
            assert sent < MANY * PIECE / 2
            assert most < HELD
            between = sorted(gap for each in await asyncio.wait_for(others, LIMIT) for gap in each)
            assert between[len(between) * 99 // 100] < 0.2
            assert it.server.chats[0].outcome == "open"
        await it.server.until(lambda: it.server.chats[0].outcome == "client_gone")
