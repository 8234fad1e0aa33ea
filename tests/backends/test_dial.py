"""New connections, over real sockets: names and addresses, the limit, TLS."""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
import time
from pathlib import Path

import pytest

from dragoman.backends import dial
from dragoman.backends.dial import CannotConnect
from tests.backends.http1.pools import REQUEST, Names, asked, deaf, pool_to, refusing
from tests.backends.http1.raw_server import RawServer
from tests.certificates import Authority, trusting
from tests.waiting import until

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
                pool._dialer._resolved_until = 0
                pool.give_back(await asked(pool, fresh=True), keep=False)
                assert names.asked == [("two.example", 80)]


async def test_a_names_addresses_are_asked_for_once_and_again_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    async with RawServer() as server, pool_to(80, "one.example") as pool:
        names = Names(monkeypatch, server.port)
        await asyncio.gather(*(pool.take() for _ in range(5)))
        assert len(names.asked) == 1
        pool._dialer._addresses = [(*pool._dialer._addresses[0][:4], ("127.0.0.1", refusing()))]
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
        monkeypatch.setattr(dial, "addresses", None)
        with pytest.raises(CannotConnect):
            await pool.take()
        assert [(each[0], each[4][:2]) for each in pool._dialer._addresses] == [(family, (host, port))]


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
async def test_an_address_of_ipv6() -> None:
    try:
        async with RawServer(host="::1") as server, pool_to(server.port, "::1") as pool:
            await asked(pool)
    except OSError:
        pytest.skip("no IPv6 loopback here")


@pytest.mark.skipif(sys.platform != "linux", reason="TCP_USER_TIMEOUT is Linux's")
async def test_what_a_vanished_host_does_not_acknowledge_ends_the_connection() -> None:
    async with RawServer() as server, pool_to(server.port) as pool:
        connection = await asked(pool)
        assert connection._transport is not None
        found = connection._transport.get_extra_info("socket")
        assert found.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 20_000


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
