"""`GET /v1/models` and `GET /v1/models/{id}`, in the words of the protocol whose client asks.

The list says in a header which tools the gateway itself runs, whatever the model. `dragoman launch` reads it.
"""

from __future__ import annotations

from aiohttp import web

from dragoman.gateway.calls.handler import CLIENT
from dragoman.gateway.calls.health import Gate
from dragoman.gateway.calls.model_table import Models
from dragoman.gateway.calls.replies import json_response
from dragoman.translators.registry import claimant

RUNS = "x-dragoman-runs"  # names of tools, with commas between them; only where there is one
WEB_SEARCH = "web_search"


class ModelRoutes:
    """`start`: seconds to wait for backends that are still starting; `searches`: whether the gateway searches."""

    def __init__(self, models: Models, gate: Gate, start: float, searches: bool) -> None:
        self._models = models
        self._gate = gate
        self._start = start
        self._headers = {RUNS: WEB_SEARCH} if searches else {}

    def add_to(self, router: web.UrlDispatcher) -> None:
        router.add_get("/v1/models", self._many)
        router.add_get("/v1/models/{id:.+}", self._one)

    async def _many(self, request: web.Request) -> web.Response:
        await self._started()
        models = await self._models.listed(request[CLIENT])
        bodies = claimant(request.path, request.headers).models
        return json_response(200, bodies.many(models, request.query), self._headers)

    async def _one(self, request: web.Request) -> web.Response:
        await self._started()
        model = await self._models.one(request.match_info["id"], request[CLIENT])
        return json_response(200, claimant(request.path, request.headers).models.one(model), {})

    async def _started(self) -> None:
        for group in self._gate.groups.values():
            await group.started(self._start)
