"""The one way in which tests start a gateway in their own process: the production runner with its options, on a port
that the kernel chose.

`listening` serves any application; `over` builds one from a configuration over servers that a test has started;
`served` starts the scripted server too. `tests/real/serving.py` runs the command in a process of its own instead.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web

from dragoman.backends.pool.pool import Pool
from dragoman.gateway.config import Config
from dragoman.gateway.keys.secrets import Secrets, read
from dragoman.gateway.serve.app import GATEWAY, RUNNER_OPTIONS, Gateway, build
from dragoman.gateway.serve.connection import Runner
from tests.scripted import Play, ScriptedServer

# The smallest request of the Responses API, and where it goes.
ASK = {"model": "m", "input": "hi"}
RESPONSES = "/v1/responses"
# Where each protocol takes its requests.
PATHS = {"responses": RESPONSES, "messages": "/v1/messages", "chat_completions": "/v1/chat/completions"}


def asking(protocol: str, text: str, model: str = "m", **more: Any) -> dict[str, Any]:
    """The smallest request of a protocol for a text."""
    if protocol == "responses":
        return {"model": model, "input": text, **more}
    return {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 64, **more}


@dataclass
class Serving:
    """A gateway that listens, and a client session to ask it with."""

    runner: web.AppRunner
    session: aiohttp.ClientSession
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def gateway(self) -> Gateway:
        return self.runner.app[GATEWAY]

    @property
    def pool(self) -> Pool:
        """The pool of a gateway `over` several servers."""
        return self.gateway.gate.groups["p"]

    def metric(self, sample: str, /, **labels: str) -> float:
        """The sum of what a name has counted under these labels, whatever its other labels are."""
        families = self.gateway.metrics.registry.collect()
        found = (each for family in families for each in family.samples if each.name == sample)
        return sum(each.value for each in found if labels.items() <= each.labels.items())

    def ask(self, headers: Mapping[str, str] | None = None, /, **more: Any) -> Any:
        return self.session.post(self.url + RESPONSES, json={**ASK, **more}, headers=headers)

    async def answer(self, headers: Mapping[str, str] | None = None, /, **more: Any) -> tuple[int, str]:
        """Status and body of the answer to `ask`."""
        async with self.ask(headers, **more) as answer:
            return answer.status, await answer.text()


@dataclass
class Served(Serving):
    """A gateway over one scripted server."""

    server: ScriptedServer


@contextlib.asynccontextmanager
async def listening(app: web.Application, *, auto_decompress: bool = True) -> AsyncIterator[Serving]:
    runner = Runner(app, shutdown_timeout=0.2, **RUNNER_OPTIONS)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession(auto_decompress=auto_decompress) as session:
        try:
            yield Serving(runner, session, runner.addresses[0][1])
        finally:
            await runner.cleanup()


@contextlib.asynccontextmanager
async def over(*urls: str, secrets: Secrets | None = None, **settings: Any) -> AsyncIterator[Serving]:
    """Several addresses are the pool `p` of backends `b0`, `b1` …; one is the backend `b0`. `backend` holds what the
    configuration says of each."""
    options = settings.pop("backend", {})
    settings.setdefault("store", {"url": "off"})
    pool = {"pool": "p"} if len(urls) > 1 else {}
    config = Config(
        backends=[{"url": url, "name": f"b{place}", **pool, **options} for place, url in enumerate(urls)], **settings
    )
    async with listening(build(config, secrets=secrets if secrets is not None else read(config, {}))) as it:
        yield it


@contextlib.asynccontextmanager
async def served(*scripts: Play, secrets: Secrets | None = None, **settings: Any) -> AsyncIterator[Served]:
    """The backend is called `gpu` and is of the preset `generic`, unless `backend` says otherwise."""
    backend = {"preset": "generic", "name": "gpu", **settings.pop("backend", {})}
    async with (
        ScriptedServer(*scripts) as server,
        over(server.url, secrets=secrets, backend=backend, **settings) as it,
    ):
        yield Served(it.runner, it.session, it.port, server)
