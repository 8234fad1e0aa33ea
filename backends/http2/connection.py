"""One connection to a server and the exchanges on it: requests out, their responses pushed to whoever reads them.

The state machine is h2, which does no I/O. Rules:

* `data_received` is where a response's life begins and, through its receiver, where it ends up at the client's socket:
  no task runs in between. What one read of the socket holds for an exchange is one `data` of its receiver, unless the
  read is longer than `PIECE`: then the rest waits for the loop's next turn.
* The connection takes whatever comes; an exchange only as much as its receiver has taken, and `WINDOW` bytes more. So
  one whose client is slow holds up no other one, and nothing is kept without bound.
* A server that says GOAWAY gets no further request and goes on with those that it has taken. h2 takes it for the end
  of everything, so it is taken out of what h2 gets to see.
* What is not HTTP/2 ends the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, cast

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)
from h2.exceptions import H2Error, StreamClosedError
from h2.settings import SettingCodes, Settings

from dragoman.backends.base import MORE, Flow

PIECE = 16 * 1024  # bytes of a read that are handed on in one turn of the loop
WINDOW = 256 * 1024  # bytes that a server may send to an exchange beyond what its receiver has taken
SHARED_WINDOW = 4 * 1024 * 1024  # the same for the connection, which takes all that comes
MAX_FRAME = 16 * 1024  # bytes of a frame's payload; we allow no more
MAX_HEAD = 64 * 1024  # bytes of a response's fields
HEADER = 9  # bytes of a frame's own header
GOAWAY = 7  # its type

Fields = Sequence[tuple[bytes, bytes]]


class Reset(ConnectionError):
    """The server ended one exchange; `code` as HTTP/2 numbers it."""

    def __init__(self, code: int) -> None:
        super().__init__(f"the server reset the stream with code {code}")
        self.code = code


class ExchangeReceiver(Protocol):
    def fields(self, fields: Fields) -> None:
        """Those of the head, and those at the end."""
        ...

    def data(self, data: bytes) -> Flow:
        """After anything but `MORE` nothing comes until `resume`."""
        ...

    def closed(self, error: Exception | None) -> None:
        """The last that comes: the response is whole, or what broke it, which may be a bug of its own."""
        ...


class Exchange:
    """One request and its response."""

    __slots__ = ("data", "error", "id", "over", "paused", "receiver", "sent", "taken", "unsent")

    def __init__(self, id: int, receiver: ExchangeReceiver, body: bytes) -> None:
        self.id = id
        self.receiver = receiver
        self.unsent = memoryview(body)
        self.data: list[bytes] = []  # that the receiver does not have yet
        self.taken = 0  # bytes that the server may send again
        self.paused = False
        self.over = False  # the server sends no more
        self.error: Exception | None = None


class SharedConnection(asyncio.Protocol):
    """`greeted` is done when the server has said what it allows, before which nothing is to be asked of it. `on_closed`
    is called when there will be no further exchange, once."""

    def __init__(self) -> None:
        self.on_closed: Callable[[SharedConnection], None] = lambda connection: None
        self.heard = 0.0  # when the server last sent anything, on the loop's clock
        self._loop = asyncio.get_running_loop()
        self.greeted: asyncio.Future[None] = self._loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._usable = False
        self._exchanges: dict[int, Exchange] = {}
        self._touched: dict[int, Exchange] = {}  # in the read that is being read
        self._received = 0  # bytes that the server may send again on the connection
        self._rest = b""  # of a long read
        self._tail = b""  # the beginning of a frame
        self._h2 = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self._h2.local_settings = Settings(
            client=True,
            initial_values={
                SettingCodes.ENABLE_PUSH: 0,
                SettingCodes.INITIAL_WINDOW_SIZE: WINDOW,
                SettingCodes.MAX_FRAME_SIZE: MAX_FRAME,
                SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEAD,
            },
        )
        self._on: dict[type, Callable[[Any], None]] = {
            DataReceived: self._on_data,
            ResponseReceived: self._on_fields,
            TrailersReceived: self._on_fields,
            StreamEnded: self._on_end,
            StreamReset: self._on_reset,
            WindowUpdated: self._on_window,
            RemoteSettingsChanged: self._on_settings,
        }

    @property
    def usable(self) -> bool:
        """Whether another exchange can begin."""
        most = self._h2.remote_settings.max_concurrent_streams
        return self._usable and len(self._exchanges) < most and self._h2.highest_outbound_stream_id < 2**31 - 3

    # -------------------------------------------------------------------------------------------------------- exchanges

    def begin(self, fields: Fields, body: bytes, receiver: ExchangeReceiver) -> Exchange:
        """Sends a request as far as the server takes it; the rest follows by itself."""
        exchange = Exchange(self._h2.get_next_available_stream_id(), receiver, body)
        self._h2.send_headers(exchange.id, fields)
        self._exchanges[exchange.id] = exchange
        self._send(exchange)
        self._flush()
        return exchange

    def resume(self, exchange: Exchange) -> None:
        """The receiver can take more."""
        if exchange.paused:
            exchange.paused = False
            self._hand_on(exchange)
            self._flush()

    def drop(self, exchange: Exchange) -> None:
        """Nothing more of it is wanted; its receiver hears nothing more."""
        if self._exchanges.pop(exchange.id, None) is None:
            return
        if not exchange.over:
            self._reset(exchange)
            self._flush()
        self._end_when_left()

    def retire(self) -> None:
        """No further exchange begins; those that are open go on, and the last one ends the connection."""
        self._take_no_more()
        self._end_when_left()

    def abort(self, error: Exception | None = None) -> None:
        self._fail(error or ConnectionAbortedError("the connection was closed"))

    def _send(self, exchange: Exchange) -> None:
        while exchange.unsent:
            room = min(self._h2.local_flow_control_window(exchange.id), self._h2.max_outbound_frame_size)
            if room <= 0:
                return
            part, exchange.unsent = exchange.unsent[:room], exchange.unsent[room:]
            self._h2.send_data(exchange.id, part.tobytes(), end_stream=not exchange.unsent)

    def _reset(self, exchange: Exchange) -> None:
        with contextlib.suppress(StreamClosedError):
            self._h2.reset_stream(exchange.id, ErrorCodes.CANCEL)

    def _flush(self) -> None:
        if self._transport is not None and (data := self._h2.data_to_send()):
            self._transport.write(data)

    def _take_no_more(self) -> None:
        if self._usable:
            self._usable = False
            self.on_closed(self)

    def _end_when_left(self) -> None:
        if not self._usable and not self._exchanges and self._transport is not None:
            self._transport.close()

    # ------------------------------------------------------------------------------------------------------- the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._usable = True
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(SHARED_WINDOW)
        self._flush()

    def data_received(self, data: bytes) -> None:
        self.heard = self._loop.time()
        if self._rest:
            self._rest += data
        elif len(data) > PIECE:
            self._rest = data
            self._next()
        else:
            self._read(data)

    def _next(self) -> None:
        piece, self._rest = self._rest[:PIECE], self._rest[PIECE:]
        self._read(piece)
        if self._transport is None or self._transport.is_closing():
            self._rest = b""
        elif self._rest:
            self._transport.pause_reading()
            self._loop.call_soon(self._next)
        else:
            self._transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._fail(ConnectionResetError(str(error or "") or "the server closed the connection"))

    def _read(self, data: bytes) -> None:
        try:
            for event in self._h2.receive_data(self._frames(data)):
                if (react := self._on.get(type(event))) is not None:
                    react(event)
        except (H2Error, ConnectionError) as error:
            self._flush()
            self._fail(ConnectionResetError(f"this is not HTTP/2 as it should be: {error}"))
            return
        touched, self._touched = self._touched, {}
        for exchange in touched.values():
            self._hand_on(exchange)
        if self._received > SHARED_WINDOW // 2:
            self._h2.increment_flow_control_window(self._received)
            self._received = 0
        self._flush()
        self._end_when_left()

    def _frames(self, data: bytes) -> bytes:
        """The whole frames that have come, but for GOAWAY."""
        data = self._tail + data if self._tail else data
        at = 0
        while len(data) - at >= HEADER:
            size = int.from_bytes(data[at : at + 3])
            if size > MAX_FRAME:
                raise ConnectionResetError("a frame is too long")
            end = at + HEADER + size
            if end > len(data):
                break
            if data[at + 3] == GOAWAY:
                self._on_goaway(data[at + HEADER : end])
                data = data[:at] + data[end:]
            else:
                at = end
        self._tail = data[at:]
        return data[:at]

    def _hand_on(self, exchange: Exchange) -> None:
        try:
            while exchange.data and not exchange.paused and exchange.id in self._exchanges:
                data = exchange.data[0] if len(exchange.data) == 1 else b"".join(exchange.data)
                exchange.data.clear()
                exchange.taken += len(data)
                exchange.paused = exchange.receiver.data(data) is not MORE
        except Exception as bug:
            receiver = exchange.receiver
            self.drop(exchange)
            receiver.closed(bug)
            return
        if exchange.over and not exchange.data and self._exchanges.pop(exchange.id, None) is not None:
            if exchange.unsent and exchange.error is None:  # it was answered before it was out
                self._reset(exchange)
            exchange.receiver.closed(exchange.error)
        elif not exchange.over and not exchange.paused and exchange.taken > WINDOW // 2:
            self._h2.increment_flow_control_window(exchange.taken, exchange.id)
            exchange.taken = 0

    def _fail(self, error: Exception) -> None:
        """The connection is at its end, and with it all that is open; what came before goes to the receivers first."""
        self._take_no_more()
        if not self.greeted.done():
            self.greeted.set_exception(error)
            self.greeted.exception()  # perhaps nobody waits for it any longer
        if self._transport is not None:
            self._transport.abort()
        self._touched = {}
        for exchange in [*self._exchanges.values()]:
            self._break(exchange, error)
            self._hand_on(exchange)

    @staticmethod
    def _break(exchange: Exchange, error: Exception) -> None:
        if not exchange.over:
            exchange.over, exchange.error = True, error

    # ------------------------------------------------------------------------------------------------------- the events

    def _on_data(self, event: DataReceived) -> None:
        size = event.flow_controlled_length or 0
        self._received += size
        if (exchange := self._exchanges.get(event.stream_id)) is not None and event.data:
            exchange.data.append(event.data)
            exchange.taken += size - len(event.data)  # padding
            self._touched[exchange.id] = exchange

    def _on_fields(self, event: ResponseReceived | TrailersReceived) -> None:
        if (exchange := self._exchanges.get(event.stream_id)) is not None:
            exchange.receiver.fields(cast(Fields, event.headers or ()))

    def _on_end(self, event: StreamEnded) -> None:
        if (exchange := self._exchanges.get(event.stream_id)) is not None:
            exchange.over = True
            self._touched[exchange.id] = exchange

    def _on_reset(self, event: StreamReset) -> None:
        if (exchange := self._exchanges.get(event.stream_id)) is not None:
            self._break(exchange, Reset(int(event.error_code or 0)))
            self._touched[exchange.id] = exchange

    def _on_settings(self, event: RemoteSettingsChanged) -> None:
        if not self.greeted.done():
            self.greeted.set_result(None)
        self._send_more(self._exchanges.values())  # the windows may have grown

    def _on_window(self, event: WindowUpdated) -> None:
        if not event.stream_id:
            self._send_more(self._exchanges.values())
        elif (exchange := self._exchanges.get(event.stream_id)) is not None:
            self._send_more([exchange])

    def _send_more(self, exchanges: Iterable[Exchange]) -> None:
        for exchange in exchanges:
            if exchange.unsent and not exchange.over:
                self._send(exchange)

    def _on_goaway(self, payload: bytes) -> None:
        last = int.from_bytes(payload[:4]) & (2**31 - 1)
        for exchange in self._exchanges.values():
            if exchange.id > last:
                self._break(exchange, Reset(ErrorCodes.REFUSED_STREAM))
                self._touched[exchange.id] = exchange
        self._take_no_more()
