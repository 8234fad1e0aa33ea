"""One connection to a server: a request out, its response in, pushed to whoever reads it.

The parser is llhttp (`httptools`). Rules:

* `data_received` is where a response's life begins and, through its reader, where it ends up at the client's socket:
  no task runs in between. One read of the socket is one `received` of the reader, however many chunks it holds.
* A connection carries one exchange at a time. It can carry another one after a response that has ended as its framing
  says, if both sides want that; otherwise it is aborted, at once and for good.
* A response without a length ends with the connection, orderly: whatever ends otherwise is lost.
* Interim responses (1xx) are passed over. What nobody asked for, and what is not HTTP, ends the connection.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from enum import Enum
from typing import cast

from httptools import HttpParserError, HttpResponseParser
from httptools.parser.errors import HttpParserUpgrade
from multidict import CIMultiDict

from dragoman.backends.base import Flow
from dragoman.backends.transport import BytesReader
from dragoman.backends.watch import Watch

MAX_HEAD = 64 * 1024  # bytes of a response's head
INFLATED = 256 * 1024  # bytes that a compressed body may become at a time
COMPRESSED = {"gzip": zlib.MAX_WBITS | 32, "x-gzip": zlib.MAX_WBITS | 32, "deflate": zlib.MAX_WBITS | 32}


class Stage(Enum):
    IDLE = "idle"
    HEAD = "head"  # a request is out, its response's head is awaited
    BODY = "body"
    ENDED = "ended"  # the response is whole; whoever reads it has not let go yet
    CLOSED = "closed"


class Connection(asyncio.Protocol):
    """`on_closed` is called when the connection cannot be used again. `silent`: not a byte of the response has come."""

    def __init__(self) -> None:
        self.on_closed: Callable[[Connection], None] = lambda connection: None
        self.used = False  # for an exchange before this one
        self.silent = True
        self.status = 0
        self.headers: CIMultiDict[str] = CIMultiDict()
        self._stage = Stage.CLOSED
        self._transport: asyncio.Transport | None = None
        self._parser = HttpResponseParser(self)
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None  # for the head, or for the end of the body
        self._bodies: list[bytes] = []  # of this read; before there is a reader, all that came
        self._inflate: zlib._Decompress | None = None
        self._head_bytes = 0
        self._until_close = False  # the end of the connection is the end of the body
        self._keeps = False  # the server would take another request
        self._reader: BytesReader | None = None
        self._watch: Watch | None = None
        self._paused = False

    @property
    def usable(self) -> bool:
        return self._stage is Stage.IDLE

    # -------------------------------------------------------------------------------------------------------- exchanges

    async def ask(self, request: bytes, body: bytes) -> None:
        """Sends a request and returns with the head of its response; raises ConnectionError where there is none."""
        assert self._transport is not None
        self._stage, self.silent, self._head_bytes = Stage.HEAD, True, 0
        self._transport.writelines([request, body])
        await self._wait()

    async def read(self, most: int) -> bytes:
        """The rest of the body, or its beginning once that is `most` bytes long."""
        while self._stage is Stage.BODY and sum(map(len, self._bodies)) < most:
            await self._wait()
        data = b"".join(self._bodies)
        self._bodies.clear()
        return data

    async def into(self, reader: BytesReader, watch: Watch) -> None:
        """Returns when the reader is over; raises ConnectionError when the connection broke first."""
        self._reader, self._watch = reader, watch
        watch.on_writable = self._resume
        try:
            self._pass_on()
            if self._stage is Stage.ENDED:
                self._end()
            while not reader.over:
                if self._stage is Stage.CLOSED:
                    raise ConnectionResetError
                await self._wait()
        finally:
            self._reader = self._watch = None

    def release(self) -> bool:
        """Whether the connection can carry another exchange; otherwise it is aborted."""
        transport = self._transport
        if self._stage is Stage.ENDED and self._keeps and transport is not None and not transport.is_closing():
            self._stage, self.used = Stage.IDLE, True
            self._bodies.clear()
            self._resume()
            return True
        self.abort()
        return False

    def abort(self) -> None:
        self._stage = Stage.CLOSED
        if self._transport is not None:
            self._transport.abort()

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self, error: Exception | None = None) -> None:
        if self._waiter is None or self._waiter.done():
            return
        if error is None:
            self._waiter.set_result(None)
        else:
            self._waiter.set_exception(error)

    # ------------------------------------------------------------------------------------------------------- the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its type
        self._stage = Stage.IDLE

    def data_received(self, data: bytes) -> None:
        stage = self._stage
        if stage is Stage.IDLE or stage is Stage.ENDED or stage is Stage.CLOSED:
            self._break()  # more than was asked for
            return
        self.silent = False
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade, zlib.error):
            self._keeps = False
            if self._stage is not Stage.ENDED:
                self._pass_on()
                self._break()
                return
        if self._reader is not None:
            self._pass_on()
            if self._stage is Stage.ENDED:
                self._end()
        elif self._stage is Stage.HEAD:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD:
                self._break()
        else:
            self._wake()

    def eof_received(self) -> None:
        if self._stage is Stage.BODY and self._until_close:
            self._stage = Stage.ENDED
            self._end()

    def connection_lost(self, error: Exception | None) -> None:
        if self._stage is not Stage.ENDED:
            self._stage = Stage.CLOSED
            self._wake(error if isinstance(error, ConnectionError) else ConnectionResetError())
        self._transport = None
        self.on_closed(self)

    def _pass_on(self) -> None:
        """One read of the socket, to the reader."""
        reader, watch = self._reader, self._watch
        if not self._bodies or reader is None or watch is None:
            return
        data = self._bodies[0] if len(self._bodies) == 1 else b"".join(self._bodies)
        self._bodies.clear()
        flow = reader.received(data)
        if flow is Flow.WAIT and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        elif flow is Flow.ENOUGH:
            self._wake()
        if reader.deadline < watch.due:
            watch.follow()

    def _resume(self) -> None:
        if self._paused and self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
        self._paused = False

    def _end(self) -> None:
        if self._reader is not None and not self._reader.over:
            self._reader.ended()
        self._wake()

    def _break(self) -> None:
        self._stage = Stage.CLOSED
        if self._transport is not None:
            self._transport.abort()

    # ------------------------------------------------------------------------------------------------------- the parser

    def on_message_begin(self) -> None:
        self.headers = CIMultiDict()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._stage is Stage.HEAD:  # not a trailer
            self.headers.add(name.decode("latin-1"), value.decode("utf-8", "surrogateescape"))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self._stage is not Stage.HEAD or status < 200:
            return
        self.status = status
        self._until_close = not ("content-length" in self.headers or "transfer-encoding" in self.headers)
        encoding = self.headers.get("content-encoding", "identity").strip().lower()
        # it was asked not to; what is neither gzip nor deflate fails with the first byte
        self._inflate = None if encoding == "identity" else zlib.decompressobj(COMPRESSED.get(encoding, zlib.MAX_WBITS))
        self._stage = Stage.BODY

    def on_body(self, body: bytes) -> None:
        if self._stage is not Stage.BODY:
            return
        if self._inflate is None:
            self._bodies.append(body)
            return
        while body:
            self._bodies.append(self._inflate.decompress(body, INFLATED))
            body = self._inflate.unconsumed_tail

    def on_message_complete(self) -> None:
        if self._stage is Stage.BODY:
            self._stage, self._keeps = Stage.ENDED, self._parser.should_keep_alive()
        else:
            self._keeps = False  # a response that nobody has asked for
