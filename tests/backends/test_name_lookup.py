"""Names of servers: one that nobody answers for holds up no other one."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from dragoman.backends.connect_limit import ConnectLimit
from dragoman.backends.dial import CannotConnect, Dialer
from dragoman.backends.http1.connection import Connection
from dragoman.backends.name_lookup import Resolver, addresses
from tests.backends.http1.raw_server import RawServer
from tests.waiting import LIMIT, until

SILENT = "silent.example"


class Dns:
    """In place of `socket.getaddrinfo`. Nobody answers for `SILENT` before `answer`, all other names are known."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer = threading.Event()
        self.error: Exception | None = None

    def __call__(self, host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        self.asked.append(host)
        if host == SILENT:
            self.answer.wait()
        if self.error is not None:
            raise self.error
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port))]


@pytest.fixture
def dns(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dns]:
    made = Dns()
    monkeypatch.setattr(socket, "getaddrinfo", made)
    yield made
    made.answer.set()


async def test_a_name_without_an_answer_keeps_no_other_server_from_being_reached(dns: Dns) -> None:
    async with RawServer() as server:
        silent = Dialer(SILENT, 80, limit=ConnectLimit(0.02))
        for _ in range(40):
            silent.limit = ConnectLimit(0.02)  # whoever asks a while later
            with pytest.raises(CannotConnect):
                await silent.dial(Connection)
        known = Dialer("known.example", server.port, limit=ConnectLimit(5.0))
        (await known.dial(Connection)).abort()
        await asyncio.sleep(0)


async def test_a_name_is_asked_for_once_however_often_that_is_given_up(dns: Dns) -> None:
    for _ in range(5):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(addresses(SILENT, 80), 0.01)
    later = asyncio.create_task(addresses(SILENT, 80))
    await asyncio.sleep(0)
    assert dns.asked == [SILENT]
    dns.answer.set()
    assert [each[4] for each in await asyncio.wait_for(later, LIMIT)] == [("127.0.0.1", 80)]
    await addresses(SILENT, 80)
    assert dns.asked == [SILENT, SILENT]


async def test_a_failure_is_told_to_all_who_wait_and_to_nobody_afterwards(dns: Dns) -> None:
    dns.error = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    asking = [asyncio.create_task(addresses(SILENT, 80)) for _ in range(3)]
    await until(lambda: dns.asked == [SILENT])
    asking.pop().cancel()
    dns.answer.set()
    assert [type(each) for each in await asyncio.gather(*asking, return_exceptions=True)] == [socket.gaierror] * 2
    dns.error = None
    assert await addresses(SILENT, 80)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_sessions_are_given_numbers(host: str) -> None:
    found = await Resolver().resolve(host, 8000, socket.AF_INET)
    assert [(each["hostname"], each["host"], each["port"], each["family"]) for each in found] == [
        (host, "127.0.0.1", 8000, socket.AF_INET)
    ]
