"""The connections to one server, over real sockets: made, kept, used again, closed."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from dragoman.backends.connect_limit import ConnectLimit
from dragoman.backends.http1 import pool as pool_module
from dragoman.backends.http1.connection import Connection
from dragoman.backends.http1.pool import CannotConnect, ConnectionPool
from tests.backends.http1.raw_server import RawServer
from tests.certificates import Authority, trusting
from tests.waiting import LIMIT, until

REQUEST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n"


@contextlib.asynccontextmanager
async def pool_to(
    port: int, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None, connect: float = LIMIT
) -> AsyncIterator[ConnectionPool]:
    pool = ConnectionPool(host, port, tls=tls, connect=ConnectLimit(connect))
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
    """A resolver: `answers` are the ports behind every name, or an error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: int, error: Exception | None = None) -> None:
        self.asked: list[tuple[str, int]] = []
        self.error = error
        self.answers = answers
        monkeypatch.setattr(pool_module, "addresses", self.resolve)

    async def resolve(self, host: str, port: int) -> list[Any]:
        self.asked.append((host, port))
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return [
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port)) for port in self.answers
        ]


# ------------------------------------------------------------------------------------------------------------- keeping


async def test_a_connection_is_used_again_the_last_one_first() -> None:
    async with RawServer() as server, pool_to(server.port) as pool:
        first, second = await asked(pool), await asked(pool)
        assert first is not second
        assert pool.give_back(first)
        assert pool.give_back(second)
        assert [await pool.take(), await pool.take()] == [second, first]
        assert server.connections == 2


async def test_a_new_connection_is_made_where_one_is_asked_for() -> None:
    async with RawServer() as server, pool_to(server.port) as pool:
        first = await asked(pool)
        assert pool.give_back(first)
        second = await asked(pool, fresh=True)
        assert second is not first
        assert not second.used
        assert not pool.give_back(second, keep=False)
        assert await pool.take() is first
        await until(lambda: len(server.open) == 1)


async def test_old_connections_are_closed_and_those_in_use_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "KEEPALIVE", 0.1)
    async with RawServer() as server, pool_to(server.port) as pool:
        old, busy, used = await asked(pool), await asked(pool), await asked(pool)
        for connection in (old, busy, used):
            pool.give_back(connection)
        assert await pool.take() is used
        assert await pool.take() is busy
        pool.give_back(busy)
        await until(lambda: len(server.open) == 1)
        pool.give_back(used)  # the timer is set again
        await until(lambda: not server.open)
        assert not old.usable


async def test_a_connection_that_the_server_has_closed_is_not_taken() -> None:
    async with RawServer() as server, pool_to(server.port) as pool:
        connections = [await asked(pool) for _ in range(3)]
        for connection in connections:
            pool.give_back(connection)
        server.drop()
        await until(lambda: not any(connection.usable for connection in connections))
        assert await asked(pool) not in connections


async def test_a_server_that_closes_after_each_answer() -> None:
    close = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"
    async with RawServer(close, closes=True) as server, pool_to(server.port) as pool:
        for _ in range(3):
            assert not pool.give_back(await asked(pool))
        assert server.connections == 3


async def test_closing_leaves_no_socket() -> None:
    async with RawServer() as server, pool_to(server.port) as pool:
        kept, _, _ = await asked(pool), await asked(pool), await pool.take()
        pool.give_back(kept)
        await pool.close()
        await until(lambda: not server.open)
        assert not pool._all
        await pool.close()


# ---------------------------------------------------------------------------------------------------------- connecting


async def test_connecting_has_a_limit() -> None:
    with deaf() as port:
        async with pool_to(port, connect=0.3) as pool:
            begun = time.monotonic()
            with pytest.raises(CannotConnect, match=r"^not within 0\.3 s$"):
                await pool.take()
            assert 0.2 < time.monotonic() - begun < 1.5


async def test_a_server_that_does_not_listen_is_named_in_the_words() -> None:
    async with pool_to(port := refusing()) as pool:
        with pytest.raises(CannotConnect, match=str(port)):
            await pool.take()


async def test_of_a_names_addresses_the_first_that_answers_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with deaf() as silent:
        async with RawServer() as server, pool_to(80, "two.example") as pool:
            for other in (refusing(), silent):
                names = Names(monkeypatch, other, server.port)
                pool._resolved_until = 0
                pool.give_back(await asked(pool, fresh=True), keep=False)
                assert names.asked == [("two.example", 80)]


async def test_a_names_addresses_are_asked_for_once_and_again_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    async with RawServer() as server, pool_to(80, "one.example") as pool:
        names = Names(monkeypatch, server.port)
        await asyncio.gather(*(pool.take() for _ in range(5)))
        assert len(names.asked) == 1
        pool._addresses = [(*pool._addresses[0][:4], ("127.0.0.1", refusing()))]
        with pytest.raises(CannotConnect):
            await pool.take()
        await pool.take()
        assert len(names.asked) == 2


@pytest.mark.parametrize(
    "error", [socket.gaierror(-2, "Name or service not known"), UnicodeError("label too long"), OSError("")]
)
async def test_a_name_without_an_address(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    async with pool_to(80, "none.example") as pool:
        Names(monkeypatch, error=error)
        with pytest.raises(CannotConnect, match=r"not known|too long|OSError"):
            await pool.take()


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)])
async def test_an_address_is_no_name_that_is_asked_for(
    host: str, family: socket.AddressFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pool_to(port := refusing(), host) as pool:
        monkeypatch.setattr(pool_module, "addresses", None)
        with pytest.raises(CannotConnect):
            await pool.take()
        assert [(each[0], each[4][:2]) for each in pool._addresses] == [(family, (host, port))]


async def test_whoever_gives_up_while_connecting_leaves_nothing() -> None:
    with deaf() as port:
        async with pool_to(port) as pool:
            taking = asyncio.create_task(pool.take())
            await asyncio.sleep(0.05)
            taking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await taking
            assert not pool._all


async def test_a_server_that_hangs_up_at_once_gives_no_answer() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    listening = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with listening, pool_to(listening.sockets[0].getsockname()[1]) as pool:
        for pause in (0, 0.05):
            connection = await pool.take()
            await asyncio.sleep(pause)
            with pytest.raises(ConnectionError):
                await connection.ask(REQUEST, b"{}")
            assert not connection.used
            pool.give_back(connection)


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
async def test_an_address_of_ipv6() -> None:
    try:
        async with RawServer(host="::1") as server, pool_to(server.port, "::1") as pool:
            await asked(pool)
    except OSError:
        pytest.skip("no IPv6 loopback here")


# ----------------------------------------------------------------------------------------------------------------- TLS


def serving_context(authority: Authority, *, asks: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.make("server"))
    if asks:
        context.load_verify_locations(authority.ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


async def test_tls_with_a_certificate_of_ones_own(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = trusting(authority, authority.make("gateway"))
    async with (
        RawServer(tls=serving_context(authority, asks=True)) as server,
        pool_to(server.port, tls=tls) as pool,
    ):
        for _ in range(3):
            assert pool.give_back(await asked(pool))
        assert server.connections == 1


async def test_tls_without_the_certificate_that_the_server_asks_for(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with (
        RawServer(tls=serving_context(authority, asks=True)) as server,
        pool_to(server.port, tls=trusting(authority)) as pool,
    ):
        connection = await pool.take()  # TLS 1.3 says so only after the handshake
        with pytest.raises(ConnectionError):
            await connection.ask(REQUEST, b"{}")


async def test_a_server_whose_certificate_is_not_trusted_or_for_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    async with RawServer(tls=serving_context(authority)) as server:
        async with pool_to(server.port, tls=ssl.create_default_context()) as pool:
            with pytest.raises(CannotConnect, match="certificate verify failed"):
                await pool.take()
        async with pool_to(443, "other.example.", tls=trusting(authority)) as pool:
            Names(monkeypatch, server.port)
            with pytest.raises(CannotConnect, match=r"not valid for 'other\.example'"):
                await pool.take()
        await until(lambda: not server.open)


async def test_a_tls_handshake_counts_for_the_limit() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    listening = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    async with listening, pool_to(port, tls=ssl.create_default_context(), connect=0.3) as pool:
        with pytest.raises(CannotConnect, match="not within"):
            await pool.take()
        await asyncio.sleep(0.05)
