"""The load generator's end of a connection: HTTP/1.1 by callback, requests one after the other on a kept connection.

It must cost less than what it measures, so bodies are not parsed and mostly not kept: it finds the head, the first
token (by `FIRST_WORD`), the end of the body, and whether the bytes that mean success (`marker`) came by.
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

from bench.upstream import FIRST_WORD

_WORD = FIRST_WORD.encode()
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:\s*chunked", re.IGNORECASE)
_LAST_CHUNK = b"\r\n0\r\n\r\n"
_TAIL = 64


def post(url: str, path: str, body: bytes, key: str = "") -> bytes:
    """The bytes of a POST."""
    lines = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return f"POST {path} HTTP/1.1\r\n{_to(url, key)}{lines}\r\n".encode() + body


def get(url: str, path: str, key: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\n{_to(url, key)}\r\n".encode()


def _to(url: str, key: str) -> str:
    return f"host: {urlsplit(url).netloc}\r\n" + (f"authorization: Bearer {key}\r\n" if key else "")


@dataclass(slots=True)
class Reply:
    """Times are `time.perf_counter()`. `arrivals` holds the time of every read when asked for, `body` the raw bytes."""

    asked: float
    status: int = 0
    first: float = 0.0
    ended: float = 0.0
    size: int = 0
    tail: bytes = b""
    whole: bool = False
    completed: bool = False
    marker: bytes = b""
    arrivals: list[float] | None = None
    kept: list[bytes] | None = None
    early: list[bytes] = field(default_factory=list)

    def content(self) -> bytes:
        """The body without its chunk framing; only when it was kept."""
        raw = b"".join(self.kept or ())
        if not raw.endswith(_LAST_CHUNK):
            return raw
        pieces, place = [], 0
        while size := int(raw[place : (line := raw.index(b"\r\n", place))], 16):
            pieces.append(raw[line + 2 : line + 2 + size])
            place = line + 2 + size + 2
        return b"".join(pieces)


class Line(asyncio.Protocol):
    """One connection. `ask` sends and waits for the end; `begin` and `token` serve streams that never end."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._head = b""
        self._left = -1  # bytes of a body with a length; -1: chunked
        self._reply: Reply | None = None
        self._done: asyncio.Future[Reply] | None = None
        self._token: asyncio.Future[Reply] | None = None

    @classmethod
    async def open(cls, url: str) -> Line:
        host, _, port = urlsplit(url).netloc.rpartition(":")
        _, line = await asyncio.get_running_loop().create_connection(cls, host, int(port))
        return line

    @property
    def open_still(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    @property
    def answering(self) -> bool:
        """Whether the head of the answer has come."""
        return self._reply is not None and self._reply.status != 0

    def begin(
        self, request: bytes, marker: bytes = b"", *, arrivals: bool = False, keep: bool = False
    ) -> asyncio.Future[Reply]:
        if self._transport is None or self._reply is not None:
            raise RuntimeError("the connection is closed or busy")
        self._reply = Reply(
            time.perf_counter(), marker=marker, arrivals=[] if arrivals else None, kept=[] if keep else None
        )
        self._head = b""
        self._done = self._loop.create_future()
        self._token = self._loop.create_future()
        self._transport.write(request)
        return self._done

    async def ask(self, request: bytes, marker: bytes = b"", *, arrivals: bool = False, keep: bool = False) -> Reply:
        return await self.begin(request, marker, arrivals=arrivals, keep=keep)

    @property
    def token(self) -> asyncio.Future[Reply]:
        """Done with the first token of what was asked last, or with its end."""
        assert self._token is not None
        return self._token

    def leave(self) -> None:
        """As a client that is killed: the connection is reset."""
        if self._transport is not None:
            self._transport.abort()

    # ------------------------------------------------------------------------------------------------- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but inheritance

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._reply is not None:
            self._end(self._reply, whole=False)

    def data_received(self, data: bytes) -> None:
        reply = self._reply
        if reply is None:
            return  # nothing was asked: bytes after an answer are the server's fault and change no figure
        if reply.status == 0:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            data = self._head[end + 4 :]
            self._read_head(reply, self._head[: end + 2])
        if not data and self._left != 0:
            return
        if reply.first == 0.0:
            self._look_for_token(reply, data)
        if reply.arrivals is not None:
            reply.arrivals.append(time.perf_counter())
        if reply.kept is not None:
            reply.kept.append(data)
        if not reply.completed:
            reply.completed = reply.marker in data or reply.marker in reply.tail + data[:_TAIL]
        reply.size += len(data)
        reply.tail = data[-_TAIL:] if len(data) >= _TAIL else (reply.tail + data)[-_TAIL:]
        if self._left < 0:
            if reply.tail.endswith(_LAST_CHUNK):
                self._end(reply, whole=True)
        elif reply.size >= self._left:
            self._end(reply, whole=True)

    def _read_head(self, reply: Reply, head: bytes) -> None:
        reply.status = int(head[9:12])
        found = _LENGTH.search(head)
        self._left = int(found.group(1)) if found else -1
        if found is None and not _CHUNKED.search(head):
            self.leave()

    def _look_for_token(self, reply: Reply, data: bytes) -> None:
        reply.early.append(data)
        if _WORD in data or (len(reply.early) > 1 and _WORD in b"".join(reply.early)):
            reply.first = time.perf_counter()
            reply.early.clear()
            if self._token is not None and not self._token.done():
                self._token.set_result(reply)

    def _end(self, reply: Reply, *, whole: bool) -> None:
        reply.ended = time.perf_counter()
        reply.whole = whole
        self._reply = None
        for future in (self._done, self._token):
            if future is not None and not future.done():
                future.set_result(reply)


async def fetch(url: str, path: str) -> bytes:
    """The body of one GET on a connection of its own."""
    line = await Line.open(url)
    try:
        async with asyncio.timeout(10):
            return (await line.ask(get(url, path), keep=True)).content()
    finally:
        line.leave()
