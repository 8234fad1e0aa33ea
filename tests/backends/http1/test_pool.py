"""The connections to one server, over real sockets: kept, used again, closed."""

from __future__ import annotations

import asyncio

import pytest

from dragoman.backends.http1 import pool as pool_module
from tests.backends.http1.pools import REQUEST, asked, deaf, pool_to
from tests.backends.http1.raw_server import RawServer
from tests.waiting import until

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
