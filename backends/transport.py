"""What a backend needs of an HTTP client: a request out, the head of its response, and the body into a reader.

There are two. `backends.http1` hands on what a server sends in the turn of the loop in which it arrived; aiohttp's
client (`backends.chat.aiohttp_transport`) does the same through a task, and is the reference that it is compared with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from dragoman.backends.base import Flow
from dragoman.backends.watch import Watch


class BytesReader(Protocol):
    """A `backends.reader.Reader` of bytes."""

    @property
    def over(self) -> bool: ...

    @property
    def deadline(self) -> float: ...

    def received(self, data: bytes) -> Flow: ...

    def ended(self) -> None: ...


class Unreachable(Exception):
    """There is no connection to the server."""


class NoAnswer(Exception):
    """The connection ended before the head of a response. `stale`: it had carried another request before and ended
    without a byte, so the server may never have seen this one."""

    def __init__(self, reason: object, *, stale: bool) -> None:
        super().__init__(str(reason))
        self.stale = stale


class Reply(Protocol):
    """A response of which the head has come. `headers` are found whatever their case is."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def content_type(self) -> str:
        """The media type alone, in lower case."""
        ...

    async def read(self, most: int) -> bytes:
        """The body, or its beginning once that is `most` bytes long; raises ConnectionError if it breaks off."""
        ...

    async def into(self, reader: BytesReader, watch: Watch) -> None:
        """Feeds the body into the reader until that is over; raises ConnectionError if the connection breaks first."""
        ...

    async def close(self) -> None:
        """A body that was not read to its end ends the connection, before this returns."""
        ...


class Transport(Protocol):
    async def post(self, body: bytes, headers: Mapping[str, str], *, fresh: bool) -> Reply:
        """Sends a JSON body to the one address; raises `Unreachable` or `NoAnswer`. `fresh`: on a connection of its
        own, which is closed afterwards."""
        ...

    async def close(self) -> None: ...
