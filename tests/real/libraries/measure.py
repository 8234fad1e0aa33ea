"""Runs scenarios through the real gateway with one client: a client's driver in a process, or an agent's own program.

The model is scripted. The gateway keeps no conversations, and who can be told not to try again does not, so that what
holds here holds by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import aiohttp

from tests.real.libraries.clients import Agent, Client, Row
from tests.real.libraries.scenarios import SCENARIOS, Outcome, Scenario, Way
from tests.real.serving import serving
from tests.scripted import Json, ScriptedServer

KEY, LIMITED = "any-key", "limited"
KEYS = f"{KEY}\n{LIMITED} rpm=1\n"
SCENARIO_SECONDS = 120.0
NOWHERE = "http://127.0.0.1:9"
QUIET = {
    "HTTP_PROXY": NOWHERE,
    "HTTPS_PROXY": NOWHERE,
    "NO_PROXY": "127.0.0.1",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it asks for prices when it is imported
    "PYTHONDONTWRITEBYTECODE": "1",
}


@dataclass(frozen=True, slots=True)
class Result:
    """`missing` is empty where the scenario holds."""

    row: Row
    scenario: str
    way: Way
    missing: str

    @property
    def excuse(self) -> str:
        """Why it is known not to hold; empty where it should."""
        return self.row.lacks.get(self.scenario) or self.row.lacks.get(f"{self.scenario}/{self.way}", "")


Ask = Callable[[Json], Awaitable[Json]]


class Driver:
    """A client's driver, which takes one scenario after another."""

    def __init__(self, child: asyncio.subprocess.Process, log: IO[bytes]) -> None:
        self._child = child
        self._log = log

    async def ask(self, scenario: Json) -> Json:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(json.dumps(scenario).encode() + b"\n")
        async with asyncio.timeout(SCENARIO_SECONDS):
            line = await self._child.stdout.readline()
        if not line:
            self._log.seek(0)
            raise AssertionError(f"the driver ended: {self._log.read().decode(errors='replace')[-4000:]}")
        seen: Json = json.loads(line)
        return seen


@contextlib.asynccontextmanager
async def asking(client: Client) -> AsyncIterator[Ask]:
    """Who takes scenarios and says what the client's user saw."""
    if isinstance(client, Agent):
        yield partial(in_a_new_home, client)
    else:
        async with driving(client) as driver:
            yield driver.ask


async def in_a_new_home(agent: Agent, scenario: Json) -> Json:
    with tempfile.TemporaryDirectory(prefix="dragoman-agent-", ignore_cleanup_errors=True) as home:
        return await agent.played(Path(home), scenario)


@contextlib.asynccontextmanager
async def driving(client: Client) -> AsyncIterator[Driver]:
    with tempfile.TemporaryDirectory(prefix="dragoman-client-") as home, tempfile.TemporaryFile() as log:
        child = await asyncio.create_subprocess_exec(
            *client.command(),
            cwd=home,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env={"PATH": os.environ["PATH"], "HOME": home, "TMPDIR": home, **QUIET},
            start_new_session=True,
            limit=2**24,
        )
        try:
            yield Driver(child, log)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            await child.wait()


@contextlib.contextmanager
def key_file() -> Iterator[str]:
    with tempfile.NamedTemporaryFile("w", encoding="utf-8") as file:
        file.write(KEYS)
        file.flush()
        yield file.name


async def measure(client: Client, scenarios: Sequence[Scenario] = SCENARIOS, **changed: str) -> list[Result]:
    """What came of every scenario, for each protocol of the client and each way of asking. `changed` are settings of
    the gateway, as its environment variables are called."""
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(ScriptedServer())
        settings = {"api_keys_file": stack.enter_context(key_file()), "store__url": "off", **changed}
        url = await stack.enter_async_context(serving("--backend", server.url, "--preset", "vllm", **settings))
        ask = await stack.enter_async_context(asking(client))
        results = []
        for row in client.rows:
            for scenario in scenarios:
                if scenario.name in row.cannot:
                    continue
                for way in client.ways(scenario):
                    missing = await run(row, scenario, way, url, server, ask)
                    results.append(Result(row, scenario.name, way, missing))
        return results


async def run(row: Row, scenario: Scenario, way: Way, url: str, server: ScriptedServer, ask: Ask) -> str:
    server.default = scenario.play
    if scenario.limited:
        await spend(url)
    before = len(server.chats)
    common = {"url": url, "model": row.model, "protocol": row.protocol, "settings": row.settings}
    key = LIMITED if scenario.limited else KEY
    seen = await ask({**common, "key": key, "streamed": way == "streamed", **scenario.asked()})
    prompts = [each.body for each in server.chats[before:] if each.body is not None]
    return scenario.judge(Outcome(seen, prompts))


async def spend(url: str) -> None:
    """All that the limited key may ask in a minute."""
    body = {"model": "any", "messages": [{"role": "user", "content": "Say hello."}]}
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {LIMITED}"}) as session:
        statuses: list[int] = []
        while 429 not in statuses:
            async with session.post(f"{url}/v1/chat/completions", json=body) as answer:
                statuses.append(answer.status)
            assert len(statuses) < 5, statuses


def surprises(results: Collection[Result]) -> list[Result]:
    """What does not hold and should, or holds although the client is said not to manage it."""
    return [each for each in results if bool(each.missing) != bool(each.excuse)]
