"""The gateway as it is served, from its configuration on, over a scripted chat server; every protocol, real sockets."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web

from dragoman.gateway.config import Config
from dragoman.gateway.keys.secrets import Secrets
from dragoman.gateway.serve.app import GATEWAY, RUNNER_OPTIONS, Gateway, build
from dragoman.gateway.serve.server import Runner
from tests.scripted import Play, ScriptedServer

# The smallest request of each protocol, by path, for a text.
PATHS = {"responses": "/v1/responses", "messages": "/v1/messages", "chat_completions": "/v1/chat/completions"}


@dataclass
class Served:
    url: str
    port: int
    session: aiohttp.ClientSession
    server: ScriptedServer
    gateway: Gateway

    def metric(self, sample: str, /, **labels: str) -> float | None:
        return self.gateway.metrics.registry.get_sample_value(sample, labels)


@contextlib.asynccontextmanager
async def served(*scripts: Play, secrets: Secrets | None = None, **settings: Any) -> AsyncIterator[Served]:
    backend = settings.pop("backend", {})
    async with ScriptedServer(*scripts) as server:
        config = Config(backends=[{"url": server.url, "preset": "generic", "name": "gpu", **backend}], **settings)
        runner = Runner(build(config, secrets=secrets), shutdown_timeout=0.2, **RUNNER_OPTIONS)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        async with aiohttp.ClientSession() as session:
            try:
                yield Served(f"http://127.0.0.1:{port}", port, session, server, runner.app[GATEWAY])
            finally:
                await runner.cleanup()


def asking(protocol: str, text: str, model: str = "m", **more: Any) -> dict[str, Any]:
    if protocol == "responses":
        return {"model": model, "input": text, **more}
    return {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 64, **more}
