"""Stored answers: `GET` and `DELETE` of one below its protocol's endpoint, and the items that were asked with it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from aiohttp import web

from dragoman.gateway.calls.body import BodyReader
from dragoman.gateway.calls.body_memory import Share
from dragoman.gateway.calls.handler import CLIENT
from dragoman.gateway.calls.replies import json_response
from dragoman.gateway.store.kept import Kept
from dragoman.gateway.store.lazy import LazyStore
from dragoman.translators.protocol import Protocol, StoredAnswers


class StoredRoutes:
    """`store`: None where nothing is kept; then every id is unknown. `bodies` has the memory for what is found."""

    def __init__(self, protocol: Protocol, words: StoredAnswers, store: LazyStore | None, bodies: BodyReader) -> None:
        self._path = f"/v1/{protocol.path}"
        self._words = words
        self._store = store
        self._bodies = bodies

    def add_to(self, router: web.UrlDispatcher) -> None:
        one = f"{self._path}/{{id:[^/]+}}"
        router.add_get(one, self._get)
        router.add_delete(one, self._delete)
        router.add_post(one, self._nothing)
        router.add_get(f"{one}/input_items", self._input_items)
        router.add_post(f"{one}/cancel", self._cancel)

    async def _get(self, request: web.Request) -> web.Response:
        self._words.refused(request.query)
        async with self._kept(request) as kept:
            return json_response(200, self._words.shown(kept.answer, kept.answered), {})

    async def _delete(self, request: web.Request) -> web.Response:
        id = request.match_info["id"]
        if self._store is None or not await self._store.delete(request[CLIENT].owner, id):
            raise self._words.unknown(id)
        return json_response(200, self._words.deleted(id), {})

    async def _input_items(self, request: web.Request) -> web.Response:
        async with self._kept(request) as kept:
            return json_response(200, self._words.page(kept.asked, request.query), {})

    async def _nothing(self, _request: web.Request) -> web.Response:
        """Clients tell by a 404 that an endpoint of this name (`compact`) is not served."""
        raise web.HTTPNotFound

    async def _cancel(self, request: web.Request) -> web.Response:
        async with self._kept(request) as kept:
            raise self._words.cancelled(kept.id)

    @contextlib.asynccontextmanager
    async def _kept(self, request: web.Request) -> AsyncIterator[Kept]:
        """With room for it, until it is let go."""
        id, share, kept = request.match_info["id"], Share(), None
        try:
            if self._store is not None:
                kept = await self._store.get(request[CLIENT].owner, id, self._bodies.room(share))
            if kept is None:
                raise self._words.unknown(id)
            yield kept
        finally:
            share.free()
