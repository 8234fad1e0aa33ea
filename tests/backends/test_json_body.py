"""JSON bodies over a real socket: sent as they are, read up to a bound."""

from __future__ import annotations

import aiohttp
import pytest

from dragoman.backends.json_body import JsonBody, read_bounded
from tests.scripted import Script, ScriptedServer


@pytest.mark.parametrize("size", [1, 3 * 2**20])
async def test_a_body_is_sent_as_it_is_with_its_length(size: int) -> None:
    body = b'{"model": "' + b"x" * size + b'"}'
    async with ScriptedServer(default=Script(b"{}")) as server, aiohttp.ClientSession() as session:
        async with session.post(f"{server.url}/chat/completions", data=JsonBody(body)) as answer:
            assert answer.status == 200
        (seen,) = server.chats
        assert seen.body == {"model": "x" * size}
        assert (seen.headers["Content-Type"], seen.headers["Content-Length"]) == ("application/json", str(len(body)))


async def test_reading_ends_at_the_bound() -> None:
    async with ScriptedServer() as server, aiohttp.ClientSession() as session:
        server.on("GET", "/any", Script(b"x" * 500_000))
        async with session.get(f"{server.root}/any") as answer:
            assert 1000 <= len(await read_bounded(answer, 1000)) < 500_000
        async with session.get(f"{server.root}/any") as answer:
            assert len(await read_bounded(answer, 2**20)) == 500_000
