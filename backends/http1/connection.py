"""One connection to a server: a request out, its response in, pushed to whoever reads it.

The parser is llhttp (`httptools`). Rules:

* `data_received` is where a response's life begins and, through its reader, where it ends up at the client's socket:
  no task runs in between. One read of the socket is one `received` of the reader, however many chunks it holds, unless
  it is longer than `PIECE`: then the rest waits for the loop's next turn, so that a server in a hurry holds up nobody.
* A connection carries one exchange at a time. It can carry another one after a response that has ended as its framing
  says, if both sides want that and the request is out; otherwise it is aborted, at once and for good.
* A response without a length ends with the connection, orderly: whatever ends otherwise is lost.
* Interim responses (1xx) are passed over. What nobody asked for, and what is not HTTP, ends the connection.
* Nothing a server sends is kept without bound: a head, and what is not body inside of one, has `MAX_HEAD` bytes; a body
  that nobody reads yet stops the reading of the socket; a compressed one is inflated piece by piece, one in each turn.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from enum import Enum
from typing import Final, cast

from httptools import HttpParserError, HttpResponseParser
from httptools.parser.errors import HttpParserUpgrade
from multidict import CIMultiDict

from dragoman.backends.base import ENOUGH, MORE, WAIT, Flow
from dragoman.backends.http1.inflate import Inflater
from dragoman.backends.transport import BytesReader
from dragoman.backends.watch import Watch

MAX_HEAD = 64 * 1024  # bytes of a response's head, and of what else is no body
FIELD = 32  # bytes that a field costs beside its name and its value
MAX_HELD = 256 * 1024  # bytes of a body that nobody reads yet
PIECE = 16 * 1024  # bytes handed on in one turn of the loop; some eighty tokens


class Stage(Enum):
    IDLE = "idle"
    HEAD = "head"  # a request is out, its response's head is awaited
    BODY = "body"
    ENDED = "ended"  # the response is whole; whoever reads it has not let go yet
    CLOSED = "closed"


HEAD: Final = Stage.HEAD  # named for the hot path, as those of `Flow`
BODY: Final = Stage.BODY
ENDED: Final = Stage.ENDED


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
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None  # with which it ended: a ConnectionError, or a bug of the reader's
        self._bodies: list[bytes] = []  # of this read; before there is a reader, all that came; always this list
        self._taken = 0  # bytes of `_bodies` that were handed on: a long read is not copied for each piece of it
        self._inflater: Inflater | None = None
        self._head = 0  # bytes of fields
        self._framing = 0  # bytes since the last ones of a body
        self._until_close = False  # the end of the connection is the end of the body
        self._keeps = False  # the server would take another request
        self._reader: BytesReader | None = None
        self._watch: Watch | None = None
        self._paused = False

    @property
    def usable(self) -> bool:
        transport = self._transport
        return self._stage is Stage.IDLE and transport is not None and not transport.is_closing()

    # -------------------------------------------------------------------------------------------------------- exchanges

    async def ask(self, request: bytes, body: bytes) -> None:
        """Sends a request and returns with the head of its response; raises ConnectionError where there is none."""
        if not self.usable or self._transport is None:
            raise ConnectionResetError("the server closed the connection at once")
        self._stage, self.silent, self.status = HEAD, True, 0
        self._head = self._framing = 0
        self._transport.writelines([request, body])
        while self._stage is HEAD:
            await self._wait()
        if self.status == 0:
            raise self._broken()

    async def read(self, most: int) -> bytes:
        """The rest of the body, or its beginning once that is `most` bytes long."""
        body = bytearray()
        while True:
            try:
                while len(body) < most and (piece := self._piece()):
                    body += piece
                if self._stage is ENDED and len(body) < most:
                    self._end()
            except zlib.error as error:
                raise ConnectionResetError(f"the body is not what it is called: {error}") from None
            if self._stage is ENDED or len(body) >= most:
                return bytes(body)
            if self._stage is not BODY or self._transport is None:
                raise self._broken()
            self._resume()
            await self._wait()

    async def into(self, reader: BytesReader, watch: Watch) -> None:
        """Returns when the reader is over; raises ConnectionError when the connection broke first."""
        self._reader, self._watch = reader, watch
        watch.on_writable = self._resume
        try:
            self._resume()
            self._proceed()
            while not reader.over and self._stage is not Stage.CLOSED:
                await self._wait()
            if not reader.over or not isinstance(self._error, ConnectionError | None):
                raise self._broken()
        finally:
            self._reader = self._watch = None

    def release(self) -> bool:
        """Whether the connection can carry another exchange; otherwise it is aborted."""
        transport = self._transport
        whole = self._stage is ENDED and self._keeps
        if whole and transport is not None and not transport.is_closing() and transport.get_write_buffer_size() == 0:
            self._stage, self.used = Stage.IDLE, True
            self._drop()
            self._inflater = None
            self._resume()
            return True
        self.abort()
        return False

    def abort(self, error: Exception | None = None) -> None:
        self._stage = Stage.CLOSED
        self._error = self._error or error
        self._wake()
        if self._transport is not None:
            self._transport.abort()

    def _broken(self) -> Exception:
        """What there is to raise. It is not kept: it will refer to the frames that it passes, and so to us."""
        error, self._error = self._error, None
        return error or ConnectionResetError()

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # ------------------------------------------------------------------------------------------------------- the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its type
        self.on_body = self._bodies.append  # no method of ours: it is called for each chunk, of which a read holds many
        self._parser = HttpResponseParser(self)
        self._stage = Stage.IDLE

    def data_received(self, data: bytes) -> None:
        stage = self._stage
        if stage is not BODY:
            if stage is not HEAD:
                self._unasked()
                return
            self.silent = False
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self._keeps = False
            if self._stage is not ENDED:
                self._break(ConnectionResetError(f"the response is not HTTP/1.1: {error}"))
                return
        if self._bodies:
            self._framing = 0
        elif self._stage is not ENDED:
            self._framing += len(data)
            if self._framing > MAX_HEAD:
                self.abort(ConnectionResetError("the response's head or framing is too long"))
                return
        if self._reader is not None:
            self._proceed()
        elif self._stage is not HEAD:
            self._wake()
            if sum(map(len, self._bodies)) > MAX_HELD:
                self._pause()

    def eof_received(self) -> None:
        if self._stage is BODY and self._until_close:
            self._stage = ENDED
            self._proceed()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        del self._parser  # it refers to its connection, which is freed at once without a cycle
        if self._stage is not ENDED:
            words = str(error or "") or "the server closed the connection"
            reason = error if isinstance(error, ConnectionError) and error.args else ConnectionResetError(words)
            self._error = self._error or reason
            if self._stage is not BODY or self._drained:  # else once the rest is taken
                self._lost()
        self.on_closed(self)

    def _break(self, error: ConnectionError) -> None:
        """As if the connection had ended here: what was good before goes to the reader first."""
        self._error = self._error or error
        if self._stage is BODY and self._transport is not None:
            self._transport.abort()
            self._proceed()
            self._wake()
        else:
            self.abort()

    def _lost(self) -> None:
        self._stage = Stage.CLOSED
        self._wake()

    def _unasked(self) -> None:
        """Takes nothing from a response that is whole, but there will be no other one on this connection."""
        if self._stage is ENDED and self._transport is not None:
            self._keeps = False
            self._transport.abort()
        else:
            self.abort()

    def _proceed(self) -> None:
        """Hands on what came: one read of the socket. A bug on the way belongs to the task that waits."""
        reader, watch, bodies = self._reader, self._watch, self._bodies
        try:
            if not self._paused and reader is not None and watch is not None:
                token = len(bodies) == 1 and len(bodies[0]) <= PIECE and self._inflater is None
                if data := bodies.pop() if token else self._piece():
                    flow = reader.received(data)
                    if flow is not MORE or bodies or self._inflater is not None:
                        self._after(flow)
                    watch.follow()
            if self._stage is BODY and self._transport is not None:
                return
            if self._drained:
                if self._stage is ENDED:
                    self._end()
                elif self._transport is None:
                    self._lost()
        except zlib.error as error:
            self._give_up(ConnectionResetError(f"the response's body is not what it is called: {error}"))
        except Exception as bug:
            self._give_up(bug)

    def _give_up(self, error: Exception) -> None:
        self._drop()
        self.abort(error)

    def _drop(self) -> None:
        self._bodies.clear()
        self._taken = 0

    def _after(self, flow: Flow) -> None:
        if flow is WAIT:
            self._pause()
        elif flow is ENOUGH:
            self._pause()  # the socket may give megabytes more before the task that waits has its turn
            self._wake()
        elif not self._drained:
            self._pause()
            self._loop.call_soon(self._resume)

    def _piece(self) -> bytes:
        """What has come of the body; of a compressed one the next piece. Empty where more has to come."""
        bodies, taken = self._bodies, self._taken
        data = bodies[0] if len(bodies) == 1 else b"".join(bodies)
        bodies.clear()
        if taken or len(data) > PIECE:
            piece = data[taken : taken + PIECE]
            self._taken = taken + PIECE if len(data) > taken + PIECE else 0
            if self._taken:
                bodies.append(data)
            data = piece
        return data if self._inflater is None else self._inflater.piece(data)

    @property
    def _drained(self) -> bool:
        """Whether all that came was handed on."""
        return not self._bodies and (self._inflater is None or not self._inflater.more)

    def _end(self) -> None:
        if self._inflater is not None and not self._inflater.whole:
            raise zlib.error("it is cut off")
        if self._reader is not None and not self._reader.over:
            self._reader.ended()
        self._wake()

    def _pause(self) -> None:
        self._paused = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def _resume(self) -> None:
        if not self._paused:
            return
        self._paused = False
        self._proceed()
        if not self._paused and self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    # ------------------------------------------------------------------------------------------------------- the parser

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._stage is not HEAD:  # a trailer
            return
        self._head += len(name) + len(value) + FIELD
        if self._head > MAX_HEAD:
            raise ValueError("the head is too long")
        self.headers.add(name.decode("latin-1"), value.decode("utf-8", "surrogateescape"))

    def on_message_begin(self) -> None:
        if self._stage is not HEAD:
            raise ValueError("nobody has asked for a second response")  # so that the parser goes no further
        self.headers = CIMultiDict()

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self._stage is not HEAD or status < 200:
            return
        self.status = status
        codings = self.headers.get("transfer-encoding", "").lower()
        self._until_close = "content-length" not in self.headers and not codings.endswith("chunked")
        encoding = self.headers.get("content-encoding", "").strip().lower()
        # it was asked not to
        self._inflater = None if encoding in ("", "identity") else Inflater(encoding)
        self._stage = BODY

    def on_message_complete(self) -> None:
        if self._stage is BODY:  # else it is an interim response
            self._stage, self._keeps = ENDED, self._parser.should_keep_alive()
