"""How long a server may take to accept a connection, for all who ask it at once.

One call asks a server several things, one after the other: its health, its models, the answer. Where the server takes
no connection (its queue is full, its machine is gone), each would wait for the whole limit, and the client for all of
them together. So those who begin while another waits, or soon after it has given up, wait no longer than until its
limit. A refused connection ends no wait: the server may be back with the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver
from aiohttp.client_proto import ResponseHandler

from dragoman.backends.name_lookup import Resolver

REST = 1.0  # seconds after the limit in which nobody waits anew


class ConnectLimit:
    """`seconds` from the first attempt that is still without an answer."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._until = 0.0  # the limit of those who wait now
        self._given_up = -REST  # when the last of them did
        self._waiting = 0

    @contextlib.asynccontextmanager
    async def attempt(self) -> AsyncIterator[None]:
        """A connection is made in the block. Raises TimeoutError there at the limit."""
        loop = asyncio.get_running_loop()
        if not self._waiting and loop.time() >= self._given_up + REST:
            self._until = loop.time() + self.seconds
        if loop.time() >= self._until:  # else a connection would be begun and be cut off in the same moment
            raise TimeoutError
        self._waiting += 1
        answered = True
        try:
            async with asyncio.timeout_at(self._until):
                yield
        except (TimeoutError, asyncio.CancelledError):
            answered = False
            raise
        finally:
            self._waiting -= 1
            if answered:
                self._until, self._given_up = loop.time() + self.seconds, -REST
            else:
                self._given_up = max(self._given_up, min(loop.time(), self._until))


class Connector(aiohttp.TCPConnector):
    """aiohttp's connections within that limit."""

    def __init__(self, limit: ConnectLimit, *, resolver: AbstractResolver | None = None, **options: Any) -> None:
        super().__init__(limit=0, resolver=resolver or Resolver(), **options)
        self._limit_of_server = limit

    async def _create_connection(self, *request: Any) -> ResponseHandler:
        async with self._limit_of_server.attempt():
            return await super()._create_connection(*request)
