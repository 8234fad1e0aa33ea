"""The limit on connecting: together, those who ask one server wait as long as one of them may."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import aiohttp
import pytest

from dragoman.backends import connect_limit
from dragoman.backends.chat.backend import ChatCompletions
from dragoman.backends.connect_limit import ConnectLimit, Connector
from dragoman.backends.http1.client import Http1Transport
from dragoman.backends.reader import Timeouts
from dragoman.translators.errors import GatewayError, Kind
from tests.recording import Recorder, ask

FEW = 3  # turns of the loop until a cancelled task has noticed it


async def turns(limit: ConnectLimit) -> int:
    """For how many turns of the loop an attempt at a silent server goes on."""
    count = 0
    with contextlib.suppress(TimeoutError):
        async with limit.attempt():
            while True:
                count += 1
                await asyncio.sleep(0)
    return count


async def test_who_comes_after_one_that_has_waited_does_not_wait() -> None:
    limit = ConnectLimit(0.05)
    assert await turns(limit) > FEW
    assert [await turns(limit) for _ in range(5)] == [0] * 5  # nor is a connection begun that would be cut off at once


async def test_who_joins_one_that_waits_waits_no_longer() -> None:
    limit = ConnectLimit(0.05)
    first = asyncio.create_task(turns(limit))
    await asyncio.sleep(0.02)
    second = asyncio.create_task(turns(limit))
    await first
    for _ in range(FEW):
        await asyncio.sleep(0)
    assert second.done()
    assert await second > FEW


async def test_after_a_rest_there_is_another_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect_limit, "REST", 0.05)
    limit = ConnectLimit(0.05)
    await turns(limit)
    assert await turns(limit) <= FEW  # which does not prolong the rest
    await asyncio.sleep(0.06)
    assert await turns(limit) > FEW


async def test_one_that_is_cancelled_leaves_its_limit_to_the_next_one_for_a_moment() -> None:
    limit = ConnectLimit(60)
    first = asyncio.create_task(turns(limit))
    await asyncio.sleep(0)
    until = limit._until
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    second = asyncio.create_task(turns(limit))
    await asyncio.sleep(0)
    assert limit._until == until
    second.cancel()


@pytest.mark.parametrize("how", ["taken", "refused"])
async def test_an_answer_of_either_kind_ends_the_wait_of_all(how: str) -> None:
    limit = ConnectLimit(0.05)
    await turns(limit)
    limit._given_up = -connect_limit.REST
    with contextlib.suppress(ConnectionRefusedError):
        async with limit.attempt():
            if how == "refused":
                raise ConnectionRefusedError
    assert await turns(limit) > FEW


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server whose queue is full: it takes no connection and refuses none."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        yield server.getsockname()[1]


@pytest.mark.usefixtures("each_http_client")
async def test_a_question_about_a_silent_server_and_the_call_after_it_wait_once(silent: int) -> None:
    backend = ChatCompletions(f"http://127.0.0.1:{silent}/v1", timeouts=Timeouts(connect=0.5))
    await backend.start()
    try:
        assert (await backend.health()).state == "down"
        prepared = await backend.prepare(ask())
        answering = asyncio.create_task(backend.stream(prepared, Recorder()))
        for _ in range(30):
            await asyncio.sleep(0)
        assert answering.done()
        with pytest.raises(GatewayError) as caught:
            await answering
        assert caught.value.kind is Kind.BACKEND_DOWN
    finally:
        await backend.close()


async def test_questions_and_answers_share_one_limit() -> None:
    backend = ChatCompletions("http://127.0.0.1:1/v1")
    await backend.start()
    assert backend._session is not None
    assert isinstance(backend._transport, Http1Transport)
    assert isinstance(backend._session.connector, Connector)
    assert backend._session.connector._limit_of_server is backend._transport._pool._dialer.limit
    await backend.close()


async def test_aiohttp_says_what_it_says_of_its_own_limit(silent: int) -> None:
    async with aiohttp.ClientSession(connector=Connector(ConnectLimit(0.1))) as session:
        with pytest.raises(aiohttp.ConnectionTimeoutError):
            await session.get(f"http://127.0.0.1:{silent}/")
