"""gRPC as far as Triton needs it: one message out, a stream of messages back, in the turn of the loop in which they
came. `grpc.aio` wakes a thread and two tasks for each message.

One connection carries all calls; another one is made where a server allows no more, or has said that it goes away.
Messages are not compressed, and connections not encrypted.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import unquote_to_bytes

from dragoman.backends.base import ENOUGH, MORE, Flow
from dragoman.backends.dial import CannotConnect, Dialer
from dragoman.backends.http2.connection import Exchange, Fields, Reset, SharedConnection
from dragoman.backends.triton.client import MAX_MESSAGE
from dragoman.backends.triton.errors import RpcError

REFUSED = 7  # the code with which HTTP/2 says that a stream was not looked at
PREFIX = 5  # bytes before a message: whether it is compressed, and its length

_CODES = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
    *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED"),
    *("INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
)
# What an answer without gRPC's status means, by its HTTP status and by the code with which its stream was reset.
_OF_STATUS = {
    b"400": "INTERNAL",
    b"401": "UNAUTHENTICATED",
    b"403": "PERMISSION_DENIED",
    b"404": "UNIMPLEMENTED",
    b"429": "UNAVAILABLE",
    b"502": "UNAVAILABLE",
    b"503": "UNAVAILABLE",
    b"504": "UNAVAILABLE",
}
_OF_RESET = {REFUSED: "UNAVAILABLE", 8: "CANCELLED", 11: "RESOURCE_EXHAUSTED", 12: "PERMISSION_DENIED"}


class Rpc:
    """One call. `take` gets the messages of one read; after `ENOUGH` it gets no more."""

    def __init__(self, take: Callable[[Sequence[bytes]], Flow]) -> None:
        self._take = take
        self._connection: SharedConnection | None = None
        self._exchange: Exchange | None = None
        self._ended = asyncio.get_running_loop().create_future()
        self._status: bytes | None = None
        self._code: bytes | None = None
        self._details = b""
        self._pieces: list[bytes] = []  # of messages that are not whole
        self._have = 0
        self._need = PREFIX

    def begin(self, connection: SharedConnection, fields: Fields, message: bytes) -> None:
        self._connection = connection
        self._exchange = connection.begin(fields, b"\0" + len(message).to_bytes(4) + message, self)

    async def end(self) -> None:
        """Returns when the call has ended well, or its messages are wanted no longer; raises `RpcError`."""
        try:
            await self._ended
        finally:
            self.drop()

    def resume(self) -> None:
        if self._connection is not None and self._exchange is not None:
            self._connection.resume(self._exchange)

    def drop(self) -> None:
        """Lets go of what it refers to, which refers to it: whatever a call held is free at its end."""
        exchange, self._exchange, self._take = self._exchange, None, _nowhere
        if self._connection is not None and exchange is not None:
            self._connection.drop(exchange)

    def doubt(self, since: float) -> None:
        """It did not answer in time: where nothing came on its connection meanwhile, no other call goes there."""
        if self._connection is not None and self._connection.heard < since:
            self._connection.retire()

    # ------------------------------------------------------------------------------------------------------- a receiver

    def fields(self, fields: Fields) -> None:
        for name, value in fields:
            if name == b":status":
                self._status = value
            elif name == b"grpc-status":
                self._code = value
            elif name == b"grpc-message":
                self._details = value

    def data(self, data: bytes) -> Flow:
        if self._status != b"200":  # no gRPC: words for people
            return MORE
        self._pieces.append(data)
        self._have += len(data)
        if self._have < self._need:
            return MORE
        try:
            messages = self._messages()
        except RpcError as error:
            self._close(error)
            return ENOUGH
        flow = self._take(messages) if messages else MORE
        if flow is ENOUGH:
            self._close(None)
        return flow

    def _messages(self) -> list[bytes]:
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        found: list[bytes] = []
        at = 0
        self._need = PREFIX
        while len(data) - at >= PREFIX:
            size = int.from_bytes(data[at + 1 : at + PREFIX])
            if data[at]:
                raise RpcError("INTERNAL", "a message is compressed, which was not asked for")
            if size > MAX_MESSAGE:
                raise RpcError("RESOURCE_EXHAUSTED", f"Received message larger than max ({size} vs. {MAX_MESSAGE})")
            if len(data) - at < PREFIX + size:
                self._need = PREFIX + size
                break
            found.append(data[at + PREFIX : at + PREFIX + size])
            at += PREFIX + size
        self._pieces = [data[at:]] if at < len(data) else []
        self._have = len(data) - at
        return found

    def closed(self, error: Exception | None) -> None:
        if isinstance(error, Reset):
            words = "the server is going away (GOAWAY)" if error.code == REFUSED else str(error)
            self._close(RpcError(_OF_RESET.get(error.code, "INTERNAL"), words))
        elif isinstance(error, ConnectionError):
            self._close(RpcError("UNAVAILABLE", f"connection reset: {error}"))
        else:
            self._close(error or self._refusal())

    def _refusal(self) -> RpcError | None:
        if self._code is None:
            code = "INTERNAL" if self._status == b"200" else _OF_STATUS.get(self._status or b"", "UNKNOWN")
            return RpcError(code, f"an answer without gRPC's status, HTTP status {(self._status or b'').decode()}")
        code = _CODES[int(self._code)] if self._code.isdigit() and int(self._code) < len(_CODES) else "UNKNOWN"
        details = unquote_to_bytes(self._details).decode("utf-8", "replace")
        return None if code == "OK" else RpcError(code, details)

    def _close(self, error: Exception | None) -> None:
        if self._ended.done():
            return
        if error is None:
            self._ended.set_result(None)
        else:
            self._ended.set_exception(error)
            self._ended.exception()  # perhaps nobody waits for it any longer


def _nowhere(messages: Sequence[bytes]) -> Flow:
    return ENOUGH


class Channel:
    """The calls to one server; `authority` names it to the server."""

    def __init__(self, dialer: Dialer, authority: str) -> None:
        self._dialer = dialer
        self._dialing = asyncio.Lock()
        self._connections: list[SharedConnection] = []  # on which calls may begin
        self._all: weakref.WeakSet[SharedConnection] = weakref.WeakSet()  # also those that carry their last calls
        self._head: Fields = (
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":authority", authority.encode()),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            (b"user-agent", b"dragoman"),
        )

    async def call(
        self, path: str, message: bytes, metadata: Mapping[str, str], take: Callable[[Sequence[bytes]], Flow]
    ) -> Rpc:
        """Sends the message and returns at once; raises `CannotConnect`."""
        connection = self._usable()
        if connection is None:
            async with self._dialing:
                connection = self._usable() or await self._dial()
        named = ((name.lower().encode(), value.encode()) for name, value in metadata.items())
        rpc = Rpc(take)
        rpc.begin(connection, [*self._head[:3], (b":path", path.encode()), *self._head[3:], *named], message)
        return rpc

    async def close(self) -> None:
        for connection in [*self._all]:
            connection.abort()
        await asyncio.sleep(0)  # the sockets are closed in the loop's next turn

    def _usable(self) -> SharedConnection | None:
        return next((each for each in self._connections if each.usable), None)

    async def _dial(self) -> SharedConnection:
        connection = await self._dialer.dial(SharedConnection)
        try:
            async with self._dialer.limit.attempt():
                await connection.greeted
        except (ConnectionError, TimeoutError) as error:
            connection.abort()
            raise CannotConnect(str(error) or "the server does not say that it speaks HTTP/2") from None
        self._connections.append(connection)
        self._all.add(connection)
        connection.on_closed = self._connections.remove
        return connection
