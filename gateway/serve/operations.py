"""The routes for operators: liveness, readiness, metrics, the OpenAPI description and the status page."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from dragoman import gateway
from dragoman.gateway.calls.handler import Handler
from dragoman.gateway.calls.health import Gate
from dragoman.gateway.calls.replies import json_response
from dragoman.gateway.serve.endpoints import Endpoints
from dragoman.gateway.serve.openapi import describe
from dragoman.gateway.telemetry.metrics import CONTENT_TYPE, Metrics


class OperationRoutes:
    def __init__(self, endpoints: Endpoints, handler: Handler, gate: Gate, metrics: Metrics) -> None:
        self._endpoints = endpoints
        self._handler = handler
        self._gate = gate
        self._metrics = metrics

    def add_to(self, router: web.UrlDispatcher) -> None:
        router.add_get("/healthz", self._alive)
        router.add_get("/readyz", self._ready)
        router.add_get("/metrics", self._figures)
        router.add_get("/openapi.json", self._description)
        router.add_get("/", self._status_page)

    async def _alive(self, request: web.Request) -> web.Response:
        return json_response(200, {"status": "ok"}, {})

    async def _ready(self, request: web.Request) -> web.Response:
        words = await self._gate.words()
        leaving = self._handler.leaving or self._handler.draining
        ready = bool(self._gate.able()) and not leaving
        body: dict[str, Any] = {"ready": ready, "draining": leaving, "backends": words}
        if replicas := self._gate.replicas():
            ready_ones = {name: list(each.values()).count("ready") for name, each in replicas.items()}
            body["replicas"] = {
                name: {"known": len(each), "ready": ready_ones[name]} for name, each in replicas.items()
            }
        return json_response(200 if ready else 503, body, {} if ready else {"Retry-After": "1"})

    async def _figures(self, request: web.Request) -> web.Response:
        for proven in self._gate.markup():
            self._metrics.proven(*proven)
        figures = await asyncio.to_thread(self._metrics.render)  # the other workers' are in files
        return web.Response(body=figures, headers={"Content-Type": CONTENT_TYPE})

    async def _description(self, request: web.Request) -> web.Response:
        return json_response(200, describe(self._endpoints.protocols.values(), self._endpoints.forwarded.values()), {})

    async def _status_page(self, request: web.Request) -> web.Response:
        words = await self._gate.words()
        lines = [
            f"dragoman {gateway.__version__}" + (", draining" if self._handler.draining else ""),
            "",
            *(f"backend {name}: {word}" for name, word in words.items()),
            *(f"  {name}: {word}" for each in self._gate.replicas().values() for name, word in each.items()),
            *(f"markup of {model} at {name}: {family}, proven" for name, model, family in self._gate.markup()),
            f"model calls in flight: {len(self._handler.calls)}",
            "",
            *(f"POST {path}" for path in self._endpoints.posts),
            "GET  /v1/models",
            "GET  /healthz /readyz /metrics",
        ]
        return web.Response(text="\n".join(lines) + "\n")
