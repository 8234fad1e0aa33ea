"""Runs the cases: each system in a process of its own over one scripted server, case after case."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from bench.children import Child, free_port, started
from bench.systems import Launch, Process, System
from tests.real.comparison.answers import Answer, ask
from tests.real.comparison.cases import CASES, Case
from tests.scripted import Json, ScriptedServer
from tests.waiting import LIMIT

LEFT_WITHIN = 5  # seconds
MODEL = "text-40-0"
"""One of the names that the configurations of the bench list."""

Row = dict[str, str | None]
"""By case: None where it was right, else what was seen."""


@dataclass(frozen=True, slots=True)
class Asking:
    """Where a system takes its requests, and with which headers."""

    url: str
    headers: Mapping[str, str]


async def measured(system: System, folder: Path) -> Row:
    """Every case with one system, in a folder of its own."""
    assert system.process is not None
    async with ScriptedServer(models=(MODEL,)) as server, serving(system.process, server.url, folder) as child:
        asking = Asking(child.url + system.path, dict(each.split(": ", 1) for each in system.headers))
        async with aiohttp.ClientSession(read_bufsize=2**20) as session:
            return {case.name: await judged(case, session, asking, server) for case in CASES}


@contextlib.asynccontextmanager
async def serving(process: Process, upstream: str, folder: Path) -> AsyncIterator[Child]:
    port = None if process.announces else free_port()
    launch = Launch(upstream, port or 0, folder)
    environment = {"HOME": str(folder), **process.environment(launch)}
    command = process.command(launch)
    async with started(process.name, command, environment, port=port, seconds=process.start_seconds) as child:
        yield child


async def judged(case: Case, session: aiohttp.ClientSession, asking: Asking, server: ScriptedServer) -> str | None:
    server.requests.clear()
    server.default = case.plays
    request = {"model": MODEL, "input": "hi", "stream": True, **case.asks}
    if case.leave_after is None:
        return case.judge(await ask(session, asking.url, asking.headers, request), server.chats)
    await leave(case.leave_after, asking, request, server)
    return case.judge(Answer(), server.chats)


async def leave(after: int, asking: Asking, request: Json, server: ScriptedServer) -> None:
    """Closes the connection once the server has the request and so many deltas have come, and gives it some time."""
    async with aiohttp.ClientSession() as session:
        reading = asyncio.create_task(read_deltas(session, asking.url, asking.headers, request, after))
        with contextlib.suppress(TimeoutError):
            await server.until(lambda: bool(server.chats), LIMIT)
        if after:
            await asyncio.wait([reading], timeout=LIMIT)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    with contextlib.suppress(TimeoutError):
        await server.until(lambda: bool(server.chats) and server.chats[-1].outcome != "open", LEFT_WITHIN)


async def read_deltas(
    session: aiohttp.ClientSession, url: str, headers: Mapping[str, str], request: Json, count: int
) -> None:
    """Returns after so many deltas, or at the end; with 0 only at the end."""
    async with session.post(url, json=request, headers=headers) as response:
        seen = 0
        async for line in response.content:
            seen += line.startswith(b"data:") and b'.delta"' in line
            if 0 < count <= seen:
                return
