"""Calls over a WebSocket: several on one connection, one after another, each event of an answer a text message.

A connection remembers the last answer of each lane, also one that nobody stores: the next call can continue it
(`gateway.calls.lanes`). Rules: a message is bounded and read as a request's body is; every call obeys what calls over
HTTP obey (the key is checked again for each, and one that is no longer valid ends the connection); a refusal leaves the
connection open; a continuation that failed is forgotten, so that its client starts over. Some messages may wait for
their turn. A client that leaves ends its call. A gateway that leaves lets the call end and then closes the connection.
What is remembered is bounded in bytes, for a connection and for all of them: the connection that has rested longest
forgets first.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import orjson
from aiohttp import WSCloseCode, WSMsgType, web

from dragoman.backends.background import end, in_background
from dragoman.backends.base import nothing
from dragoman.gateway.calls.arrivals import Arrivals
from dragoman.gateway.calls.body import Body, BodyReader
from dragoman.gateway.calls.call import Call
from dragoman.gateway.calls.delivery import ConnectionDelivery, connection
from dragoman.gateway.calls.exchange import Headers, Remembered
from dragoman.gateway.calls.handler import CLIENT, REQUEST_ID, Handler, new_call
from dragoman.gateway.calls.lanes import Lanes
from dragoman.gateway.calls.replies import error_reply
from dragoman.gateway.config import Config
from dragoman.gateway.telemetry.logs import log
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.framing import BARE
from dragoman.translators.protocol import Json, Protocol, Socket

CLOSING = 5.0  # seconds that a client has for its side of the end
WAITING = 64  # messages that may wait for their turn: with as many lanes as OpenAI has, one or two for each
REMEMBERED = 256 * 1024 * 1024  # bytes of JSON, of all connections
LEAVING = b"The gateway is shutting down."

Identify = Callable[[web.Request], None]


def asks_for_socket(request: web.Request) -> bool:
    """Also where a proxy has left out what it does not pass on, which is `Upgrade` and `Connection`."""
    return _upgrades(request) or "Sec-WebSocket-Key" in request.headers


def _upgrades(request: web.Request) -> bool:
    return request.headers.get("Upgrade", "").strip().lower() == "websocket"


class Sockets:
    """The WebSocket connections of a gateway. `identify` checks a request's key and leaves its client in the
    request."""

    def __init__(self, handler: Handler, config: Config, identify: Identify) -> None:
        self.handler = handler
        self.identify = identify
        self.leaving = False
        self.most = config.limits.body_bytes
        self._each = config.limits.sockets
        self._keepalive = config.timeouts.keepalive
        self._patience = config.timeouts.client
        self.within = config.timeouts.body
        self._open: dict[OpenSocket, None] = {}  # that which has rested longest comes first

    async def serve(self, protocol: Protocol, request: web.Request) -> web.StreamResponse:
        """For the request that opens the connection; returns when it has ended. After a reload some still come over
        connections that an older generation has accepted, as those that a proxy keeps: they get one answer each."""
        assert protocol.socket is not None
        if self.handler.draining:
            raise GatewayError(Kind.DRAINING, "The gateway is shutting down; try again.", retry_after=1)
        _check_handshake(request)
        self._admit(request)
        socket = web.WebSocketResponse(compress=False, max_msg_size=self.most, autoping=False, timeout=CLOSING)
        it = OpenSocket(self, socket, request, protocol, protocol.socket)
        try:
            await socket.prepare(request)
            self._open[it] = None
            beating = in_background(it.beat(self._keepalive, self._patience), "socket")
            try:
                await it.run()
            finally:
                del self._open[it]
                await end(beating)
        finally:
            await it.end()
        return socket

    def _admit(self, request: web.Request) -> None:
        """A page in a browser may connect to any address, and nothing asks the gateway first as for other requests:
        only one that the gateway itself has served would be let in."""
        if _from_a_foreign_page(request):
            raise GatewayError(Kind.FORBIDDEN, "Pages of other sites may not connect here.", code="foreign_origin")
        client = request[CLIENT]
        if sum(each.request[CLIENT] is client for each in self._open) >= self._each:
            message = f"There are {self._each} WebSocket connections of this client already; close one."
            raise GatewayError(Kind.RATE_LIMITED, message, code="websocket_connection_limit_reached", retry_after=5)

    def rest(self, it: OpenSocket) -> None:
        """It has remembered something; others forget if that is too much."""
        if it in self._open:
            self._open[it] = self._open.pop(it)
        size = sum(each.lanes.size for each in self._open)
        for each in self._open:
            if size <= REMEMBERED:
                return
            size -= each.lanes.size
            each.lanes.forget()

    async def leave(self) -> None:
        """Connections end once they are idle."""
        self.leaving = True
        await asyncio.gather(*(each.end_if_idle() for each in list(self._open)))


class OpenSocket:
    """One connection: its messages, and the conversation that it remembers."""

    def __init__(
        self, sockets: Sockets, socket: web.WebSocketResponse, request: web.Request, protocol: Protocol, words: Socket
    ) -> None:
        self.protocol = protocol
        self.words = words
        self.request = request
        self.on_closed: Callable[[], object] = nothing
        self.lanes = Lanes(sockets.most)
        self._sockets = sockets
        self._socket = socket
        self._loop = asyncio.get_running_loop()
        self._busy = False
        self._heard = self._loop.time()
        self._messages: deque[bytes] = deque()
        self._waiting = 0  # bytes in `_messages`
        self._arrived = asyncio.Event()  # a message, or the end
        memory = sockets.handler.bodies.memory
        self._arrivals = Arrivals(connection(request), memory, sockets.within, self._give_up)
        self._giving_up: asyncio.Task[None] | None = None

    async def run(self) -> None:
        receiving = asyncio.create_task(self._receive(), name="socket")
        try:
            if self._sockets.handler.draining:  # since a moment ago
                await self.end_if_idle()
            while (message := await self._next()) is not None:
                self._busy = True
                try:
                    await self._answer(message)
                finally:
                    self._busy = False
                if self._sockets.leaving:
                    await self._close(WSCloseCode.GOING_AWAY, LEAVING)
        finally:
            await end(receiving)

    async def end_if_idle(self) -> None:
        if not self._busy:
            await self._close(WSCloseCode.GOING_AWAY, LEAVING)

    async def beat(self, every: float, patience: float) -> None:
        """A ping now and then keeps proxies from ending a connection, and finds out that the client has vanished. While
        the client does not read what it was sent, the answer is what waits for it."""
        while True:
            await asyncio.sleep(every)
            if self._loop.time() - self._heard > patience + every and self.request.transport is not None:
                self.request.transport.abort()
            elif connection(self.request).keeps_up:
                with contextlib.suppress(ConnectionError):
                    await self._socket.ping()

    async def end(self) -> None:
        await end(self._giving_up)
        await self._arrivals.close()

    def _give_up(self, code: WSCloseCode, words: bytes) -> None:
        self._giving_up = self._giving_up or in_background(self._close(code, words), "socket")

    async def _close(self, code: WSCloseCode, words: bytes) -> None:
        """What waits for its turn is not answered."""
        self._forget_messages()
        if not self._socket.closed:
            await self._socket.close(code=code, message=words)

    async def _next(self) -> bytes | None:
        """None when the connection has ended."""
        while not self._messages:
            if self._socket.closed:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        message = self._messages.popleft()
        self._waiting -= len(message)
        self._arrivals.wait(self._waiting)
        return message

    def _forget_messages(self) -> None:
        self._messages.clear()
        self._waiting = 0
        self._arrivals.wait(0)

    async def _receive(self) -> None:
        """Reads all the time, since only a connection that is read answers pings and notices its end."""
        try:
            async for message in self._socket:
                self._heard = self._loop.time()
                match message.type:
                    case WSMsgType.TEXT:
                        await self._take(message.data.encode("utf-8", "surrogatepass"))
                    case WSMsgType.BINARY:
                        await self._close(WSCloseCode.UNSUPPORTED_DATA, b"Messages are JSON text.")
                    case WSMsgType.PING:
                        with contextlib.suppress(ConnectionError):
                            await self._socket.pong(message.data)
                    case _:
                        pass
        finally:
            self._forget_messages()
            self.on_closed()
            self._arrived.set()

    async def _take(self, message: bytes) -> None:
        if len(self._messages) >= WAITING or self._waiting + len(message) > self._sockets.most:
            await self._close(WSCloseCode.POLICY_VIOLATION, b"Too many messages wait for their turn.")
            return
        self._messages.append(message)
        self._waiting += len(message)
        self._arrivals.wait(self._waiting)
        self._arrived.set()

    async def _answer(self, message: bytes) -> None:
        try:
            self._sockets.identify(self.request)
        except GatewayError as error:
            reply = error_reply(self.protocol, error, self.request[REQUEST_ID])
            refusal = self.words.error(reply.status, reply.body, reply.headers, {})
            TextMessages(self.request, "").write([orjson.dumps(refusal)])
            await self._close(WSCloseCode.POLICY_VIOLATION, b"The key is no longer valid.")
            return
        try:
            await self._sockets.handler.serve(SocketExchange(self, new_call(self.protocol, self.request), message))
        except Exception:
            log.exception("a connection is ended whose answer could not be")
            await self._close(WSCloseCode.INTERNAL_ERROR, b"Internal error.")

    def remember(self, lane: str, answer: Remembered) -> None:
        self.lanes.remember(lane, answer)
        self._sockets.rest(self)


class SocketExchange:
    """One message and its answer."""

    framing = BARE

    def __init__(self, socket: OpenSocket, call: Call, message: bytes) -> None:
        self.call = call
        self.protocol = socket.protocol
        self.remembers = True
        self.last: Remembered | None = None
        self._socket = socket
        self._message = message
        self._asked: Json = {}  # while it may turn out to ask for no call
        self._lane = ""

    async def body(self, bodies: BodyReader) -> Body:
        message, notes = await bodies.parse(self._message, self.call.share, self.call.client.owner)
        self._message = b""
        words = self._socket.words
        self._lane = words.lane(message) or ""
        self._asked = message
        body = words.request(message)
        self._asked = {}
        state = self.protocol.state
        self.last = self._socket.lanes.taken(self._lane, None if state is None else state.previous(body))
        return body, notes

    def when_lost(self, callback: Callable[[], object]) -> None:
        connection(self._socket.request).on_lost = callback
        self._socket.on_closed = callback
        if self._socket.request.transport is None:
            callback()

    def delivery(self, headers: Headers) -> TextMessages:
        return TextMessages(self._socket.request, self._lane)

    async def streamed(self) -> None:
        """The connection goes on."""

    def remember(self, answer: Remembered) -> None:
        self._socket.remember(self._lane, answer)

    async def whole(self, status: int, body: Json, headers: Mapping[str, str]) -> None:
        delivery = TextMessages(self._socket.request, self._lane)
        delivery.write([orjson.dumps(self._socket.words.error(status, body, headers, self._asked))])
        await delivery.end()


class TextMessages(ConnectionDelivery):
    """Frames as text messages, written as those of an event stream are: at once, and for as long as the client keeps
    up. The connection goes on after an answer."""

    def __init__(self, request: web.Request, lane: str) -> None:
        super().__init__(request)
        self._lane = b'{"stream_id":%b,' % orjson.dumps(lane) if lane else b""

    def write(self, frames: Sequence[bytes]) -> bool:
        transport = self._request.transport
        if self.gone or transport is None or transport.is_closing():
            self.gone = True
        else:
            lane = self._lane
            transport.write(b"".join(_text(lane + frame[1:] if lane else frame) for frame in frames))
        return self.writable

    async def end(self) -> None:
        """Returns when the client has taken nearly all of it."""
        if self.writable or self.gone:
            return
        writable = asyncio.Event()
        before, self.on_writable = self.on_writable, writable.set
        try:
            await writable.wait()
        finally:
            self.on_writable = before


def _from_a_foreign_page(request: web.Request) -> bool:
    """A page cannot add a header to its handshake. Some programs send an `Origin` too (websocket-client, Go's x/net),
    which a proxy that changes `Host` makes foreign: their key tells them from pages."""
    origin, authorization = request.headers.get("Origin"), request.headers.get("Authorization", "")
    if origin is None or "x-api-key" in request.headers or authorization.lower().startswith("bearer "):
        return False
    return origin.partition("://")[2] != request.host


def _check_handshake(request: web.Request) -> None:
    """After a 426 Codex goes on over HTTP at once; after another status it first tries again, or ends the turn."""
    if not _upgrades(request) or "upgrade" not in request.headers.get("Connection", "").lower():
        message = (
            "The request to open a WebSocket came without its headers 'Upgrade: websocket' and 'Connection: Upgrade', "
            "which a proxy has left out (nginx needs proxy_http_version 1.1 and a proxy_set_header for each)."
        )
        raise GatewayError(Kind.UPGRADE, message, code="upgrade_required")


def _text(payload: bytes) -> bytes:
    """A text message in one frame, as a server sends it (RFC 6455, section 5.2): not masked."""
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", 0x81, size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", 0x81, 126, size)
    else:
        head = struct.pack("!BBQ", 0x81, 127, size)
    return head + payload
