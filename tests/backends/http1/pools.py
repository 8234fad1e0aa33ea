"""Pools of connections for tests, names of servers, and servers that cannot be reached."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from dragoman.backends import dial
from dragoman.backends.connect_limit import ConnectLimit
from dragoman.backends.dial import Dialer
from dragoman.backends.http1.connection import Connection
from dragoman.backends.http1.pool import ConnectionPool
from tests.waiting import LIMIT

REQUEST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n"


@contextlib.asynccontextmanager
async def pool_to(
    port: int, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None, connect: float = LIMIT
) -> AsyncIterator[ConnectionPool]:
    pool = ConnectionPool(Dialer(host, port, limit=ConnectLimit(connect), tls=tls))
    try:
        yield pool
    finally:
        await pool.close()


async def asked(pool: ConnectionPool, *, fresh: bool = False) -> Connection:
    """A connection that has carried one exchange."""
    connection = await pool.take(fresh=fresh)
    await connection.ask(REQUEST, b"{}")
    assert await connection.read(100) == b"hello"
    return connection


@contextlib.contextmanager
def deaf() -> Iterator[int]:
    """The port of a listener whose queue is full: it answers no SYN, as a dead host does not."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    fillers = []
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(listener.getsockname())
        fillers.append(filler)
    try:
        yield listener.getsockname()[1]
    finally:
        for each in (listener, *fillers):
            each.close()


def refusing() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


class Names:
    """A resolver: `answers` are the ports that every name leads to, or an error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: int, error: Exception | None = None) -> None:
        self.asked: list[tuple[str, int]] = []
        self.error = error
        self.answers = answers
        monkeypatch.setattr(dial, "addresses", self.resolve)

    async def resolve(self, host: str, port: int) -> list[Any]:
        self.asked.append((host, port))
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return [
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port)) for port in self.answers
        ]
