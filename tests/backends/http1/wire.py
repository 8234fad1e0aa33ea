"""A connection without a socket: what a server sends is said in bytes, and what became of it is seen."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import cast

from dragoman.backends.base import Flow, nothing
from dragoman.backends.http1.connection import Connection
from dragoman.backends.watch import Watch
from tests.waiting import LIMIT

ASKED = b"POST / HTTP/1.1\r\n\r\n"
# How a server's connection ends: orderly, without a word, with an error, or not at all.
End = str | Exception | None
EOF, LOST = "eof", "lost"


class Wire(asyncio.Transport):
    """The transport: as asyncio's, it reports its end in the loop's next turn."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self.sent = bytearray()
        self.unsent = 0  # bytes that the socket did not take yet
        self.paused = False
        self.aborted = False
        self._connection = connection

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return self.aborted

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def abort(self) -> None:
        if not self.aborted:
            self.aborted = True
            asyncio.get_running_loop().call_soon(self._connection.connection_lost, None)


@dataclass
class Collector:
    """A reader that keeps what it is given, and answers with `flows` as long as there are some."""

    flows: deque[Flow] = field(default_factory=deque)
    reads: list[bytes] = field(default_factory=list)
    over: bool = False
    ends: int = 0
    deadline: float = math.inf

    def received(self, data: bytes) -> Flow:
        self.reads.append(data)
        flow = self.flows.popleft() if self.flows else Flow.MORE
        self.over = self.over or flow is Flow.ENOUGH
        return flow

    def ended(self) -> None:
        self.ends += 1
        self.over = True

    @property
    def body(self) -> bytes:
        return b"".join(self.reads)


class Clock:
    """The watch over a reader, which never ends anything."""

    def __init__(self) -> None:
        self.followed = 0
        self.on_writable = nothing

    def follow(self) -> None:
        self.followed += 1


class Exchange:
    """One connection, over which a request may be asked and its answer read."""

    def __init__(self, *flows: Flow) -> None:
        self.connection = Connection()
        self.wire = Wire(self.connection)
        self.closed: list[Connection] = []
        self.connection.on_closed = self.closed.append
        self.connection.connection_made(self.wire)
        self.reader = Collector(deque(flows))
        self.clock = Clock()
        self.task: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Asks; the answer goes into the reader."""
        self.task = asyncio.create_task(self._read())
        await asyncio.sleep(0)

    async def _read(self) -> None:
        await self.connection.ask(ASKED, b"{}")
        await self.connection.into(self.reader, cast(Watch, self.clock))

    async def sent(self, *pieces: bytes) -> None:
        """The server sends these, each a read of the socket, with time for every task in between."""
        for piece in pieces:
            if self.wire.aborted:
                break
            self.connection.data_received(piece)
            await turns()

    async def ends(self, end: End) -> None:
        if end is None or self.wire.aborted:
            return
        if end == EOF:
            self.connection.eof_received()
        if not self.wire.aborted:
            self.wire.aborted = True
            self.connection.connection_lost(end if isinstance(end, Exception) else None)
        await turns()

    async def done(self) -> None:
        """Raises what reading the answer raised."""
        assert self.task is not None
        await asyncio.wait_for(self.task, LIMIT)


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@dataclass
class Outcome:
    status: int
    headers: dict[str, str]
    reads: list[bytes]
    ended: bool
    error: Exception | None
    kept: bool

    @property
    def body(self) -> bytes:
        return b"".join(self.reads)


def play(pieces: Iterable[bytes], end: End = None, *flows: Flow) -> Outcome:
    """What becomes of one exchange whose answer comes in these pieces."""

    async def run() -> Outcome:
        exchange, error = Exchange(*flows), None
        await exchange.begin()
        await exchange.sent(*pieces)
        await exchange.ends(end)
        try:
            await exchange.done()
        except Exception as raised:
            error = raised
        kept = exchange.connection.release()
        await turns()
        connection, reader = exchange.connection, exchange.reader
        headers = {name.lower(): value for name, value in connection.headers.items()}
        assert len(exchange.closed) == (0 if kept else 1)
        return Outcome(connection.status, headers, reader.reads, reader.ends == 1, error, kept)

    return asyncio.run(run())


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]
