"""The gateway as it is served, from the configuration on, over servers that a test has started."""

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

ASK = {"model": "m", "input": "hi"}
RESPONSES = "/v1/responses"


@dataclass
class Over:
    url: str
    port: int
    session: aiohttp.ClientSession
    gateway: Gateway

    @property
    def pool(self) -> Pool:
        pool = self.gateway.gate.watches["p"].backend
        assert isinstance(pool, Pool)
        return pool

    def ask(self, headers: Mapping[str, str] | None = None, /, **more: Any) -> Any:
        return self.session.post(self.url + RESPONSES, json={**ASK, **more}, headers=headers)

    async def told(self, headers: Mapping[str, str] | None = None, /, **more: Any) -> tuple[int, str]:
        async with self.ask(headers, **more) as answer:
            return answer.status, await answer.text()

    def metric(self, sample: str, /, **labels: str) -> float:
        return self.gateway.metrics.registry.get_sample_value(sample, labels) or 0.0


@contextlib.asynccontextmanager
async def over(*urls: str, secrets: Secrets | None = None, **settings: Any) -> AsyncIterator[Over]:
    """Several addresses are the pool `p` of backends `b0`, `b1` …; one is the backend `b0`."""
    options = settings.pop("backend", {})
    pool = {"pool": "p"} if len(urls) > 1 else {}
    config = Config(
        backends=[{"url": url, "name": f"b{place}", **pool, **options} for place, url in enumerate(urls)], **settings
    )
    app = build(config, secrets=secrets if secrets is not None else read(config, {}))
    runner = web.AppRunner(app, shutdown_timeout=0.2, **RUNNER_OPTIONS)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    async with aiohttp.ClientSession() as session:
        try:
            yield Over(f"http://127.0.0.1:{port}", port, session, app[GATEWAY])
        finally:
            await runner.cleanup()
