"""A SearXNG that answers as a test says, on loopback: what it was asked, and what became of each request."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Json = dict[str, Any]
Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]


def page(number: int, host: str = "example.org", **more: Any) -> Json:
    """A result as SearXNG writes it."""
    return {
        "url": f"https://{host}/{number}",
        "title": f"Page {number}",
        "content": f"Words of page {number}.",
        "engine": "test",
        **more,
    }


def found(*results: Json) -> Answering:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"query": request.query.get("q"), "results": list(results), "answers": []})

    return answer


@dataclass
class ScriptedSearch:
    """`asked` are the requests: method, path, query and headers."""

    answer: Answering = field(default_factory=lambda: found(page(1), page(2)))
    asked: list[Json] = field(default_factory=list)
    port: int = 0
    running: int = 0
    left: int = 0  # requests whose client left

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def queries(self) -> list[str]:
        return [str(each["query"].get("q")) for each in self.asked]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.text()
        headers = {name.lower(): value for name, value in request.headers.items()}
        asked = {"method": request.method, "path": request.path, "query": dict(request.query), "headers": headers}
        self.asked.append(asked | ({"body": json.loads(body)} if body else {}))
        self.running += 1
        try:
            return await self.answer(request)
        except asyncio.CancelledError:
            self.left += 1
            raise
        finally:
            self.running -= 1


@contextlib.asynccontextmanager
async def searching(answer: Answering | None = None) -> AsyncIterator[ScriptedSearch]:
    service = ScriptedSearch() if answer is None else ScriptedSearch(answer)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", service.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    service.port = runner.addresses[0][1]
    try:
        yield service
    finally:
        await runner.cleanup()
