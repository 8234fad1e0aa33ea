"""What an open stream keeps of its request: from the first event on nothing that only a server reads.

A stream lasts for minutes, and an agent's request has hundreds of kilobytes as bytes, as JSON, as messages and as the
body for the server. Until the first event another server may be tried, so until then all of it is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from pydantic import BaseModel

from dragoman.backends.chat.prepared import PreparedChat
from dragoman.backends.pool.pool import PreparedForPool
from dragoman.translators.ir import Message, Request
from tests.scripted import Script, ScriptedServer, text_stream
from tests.serving_gateway import PATHS, Served, asking, over, served
from tests.waiting import until

STREAMS = 5
BODY = text_stream("hel", "lo", " and", " good", "bye")
FIRST = BODY.index(b"lo")
TOOL = {"name": "look", "description": "Looks.", "parameters": {"type": "object", "properties": {"at": {}}}}
TOOLS: dict[str, Any] = {
    "responses": {"type": "function", **TOOL},
    "messages": {"name": "look", "input_schema": TOOL["parameters"]},
    "chat_completions": {"type": "function", "function": TOOL},
}


def requests_kept() -> Counter[str]:
    """Objects that hold a conversation or what was made of one, by type."""
    gc.collect()
    found: Counter[str] = Counter()
    for each in gc.get_objects():
        kind = type(each)
        if (
            kind is Message
            or (kind is Request and each.messages)
            or (kind is PreparedChat and each.body)
            or (kind is PreparedForPool and each.request.messages)
            or (issubclass(kind, BaseModel) and kind.__module__.startswith("dragoman.translators."))
        ):
            found[kind.__name__] += 1
    return found


@contextlib.asynccontextmanager
async def streams(it: Served, protocol: str, **more: Any) -> AsyncIterator[list[aiohttp.ClientResponse]]:
    body = asking(protocol, "hi", stream=True, tools=[TOOLS[protocol]], **more)
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(it.session.post(it.url + PATHS[protocol], json=body))
            for _ in range(STREAMS)
        ]


@pytest.mark.parametrize("protocol", PATHS)
async def test_a_stream_that_has_begun_keeps_nothing_of_its_request(protocol: str) -> None:
    before = requests_kept()
    async with served(*[Script(BODY, hang_at=FIRST)] * STREAMS) as it, streams(it, protocol) as answers:
        for answer in answers:
            await answer.content.readany()
        await until(lambda: all(call.answer and call.answer.touched for call in it.gateway.handler.calls))
        await until(lambda: requests_kept() == before)


@pytest.mark.parametrize("protocol", PATHS)
async def test_until_then_another_server_is_asked_the_same(protocol: str) -> None:
    """The one that is asked first breaks off before its first event."""
    bodies: list[dict[str, Any]] = []

    def play(body: dict[str, Any]) -> Script:
        bodies.append(body)
        return Script(BODY, cut_at=0 if len(bodies) == 1 else None)

    asked = asking(protocol, "hi", stream=True, tools=[TOOLS[protocol]])
    async with (
        ScriptedServer(default=play) as one,
        ScriptedServer(default=play) as two,
        over(one.url, two.url) as it,
        it.session.post(it.url + PATHS[protocol], json=asked) as answer,
    ):
        assert answer.status == 200
        assert "good" in await answer.text()
    first, second = bodies
    assert first == second
    assert first["tools"]


async def test_of_a_whole_answer_neither() -> None:
    before = requests_kept()
    async with served(Script(BODY, hang_at=FIRST)) as it:
        task = asyncio.create_task(it.answer(stream=False))
        await until(lambda: any(call.answer and call.answer.touched for call in it.gateway.handler.calls))
        await until(lambda: requests_kept() == before)
        task.cancel()
        await asyncio.wait((task,))
