"""The connections to one server: made when they are needed, kept for a while after an exchange.

There is no limit on their number: admission limits the requests, and could not see a queue in here. A connection that
was used last is used again first, so that the others grow old and are closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections import deque
from collections.abc import Sequence

import aiohappyeyeballs

from dragoman.backends.connect_limit import ConnectLimit
from dragoman.backends.http1.connection import Connection
from dragoman.backends.name_lookup import addresses

KEEPALIVE = 15.0  # seconds that an unused connection is kept
RESOLVED = 10.0  # seconds that a name's addresses are remembered
NEXT_ADDRESS = 0.25  # seconds until the next address of a name is tried beside the last one


class CannotConnect(ConnectionError):
    """There is no connection to the server, or none in time."""


class ConnectionPool:
    """`connect` limits name, connection and TLS together. With `tls`, the server is `host`. `address`: the one of
    its addresses that is connected to."""

    def __init__(
        self, host: str, port: int, *, tls: ssl.SSLContext | None, connect: ConnectLimit, address: str | None = None
    ) -> None:
        self._host = host
        self._address = address or host
        self._port = port
        self._tls = tls
        self._connect = connect
        self._idle: deque[tuple[float, Connection]] = deque()  # with the time until which it is kept, the oldest first
        self._all: set[Connection] = set()
        self._closed = False
        self._sweep: asyncio.TimerHandle | None = None
        self._resolving = asyncio.Lock()
        self._addresses: Sequence[aiohappyeyeballs.types.AddrInfoType] = ()
        self._resolved_until = 0.0

    async def take(self, *, fresh: bool = False) -> Connection:
        """A connection for one exchange; raises `CannotConnect`."""
        while self._idle and not fresh:
            _, connection = self._idle.pop()
            if connection.usable:
                return connection
        try:
            async with self._connect.attempt():
                connection = await self._open()
        except (OSError, UnicodeError) as error:  # also TimeoutError, ssl.SSLError, and a name that cannot be one
            self._resolved_until = 0.0
            raise CannotConnect(_words(error, self._connect.seconds)) from None
        self._all.add(connection)
        connection.on_closed = self._all.discard
        return connection

    def give_back(self, connection: Connection, *, keep: bool = True) -> bool:
        """After an exchange, however it ended: whether the connection is kept."""
        if not keep or self._closed:
            connection.abort()
            return False
        if kept := connection.release():
            now = asyncio.get_running_loop().time()
            self._idle.append((now + KEEPALIVE, connection))
            self._sweep_at(now + KEEPALIVE)
        return kept

    async def close(self) -> None:
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        self._idle.clear()
        for connection in list(self._all):
            connection.abort()
        await asyncio.sleep(0)  # the sockets are closed in the loop's next turn

    async def _open(self) -> Connection:
        loop = asyncio.get_running_loop()
        if loop.time() >= self._resolved_until:
            await self._resolve(loop)
        name = None if self._tls is None else self._host.rstrip(".")
        if len(self._addresses) == 1 and not any((address := self._addresses[0][4])[3:]):  # no IPv6 scope either
            # There is nothing to choose from, and the loop's own way takes a third of the time.
            _, connection = await loop.create_connection(
                Connection, str(address[0]), address[1], ssl=self._tls, server_hostname=name
            )
            return connection
        connected = await aiohappyeyeballs.start_connection(
            self._addresses, happy_eyeballs_delay=NEXT_ADDRESS, interleave=1, loop=loop
        )
        _, connection = await loop.create_connection(Connection, sock=connected, ssl=self._tls, server_hostname=name)
        return connection

    async def _resolve(self, loop: asyncio.AbstractEventLoop) -> None:
        async with self._resolving:
            if loop.time() >= self._resolved_until:
                self._addresses = _numeric(self._address, self._port) or await addresses(self._address, self._port)
                self._resolved_until = loop.time() + RESOLVED

    def _sweep_at(self, when: float) -> None:
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_at(when, self._close_old)

    def _close_old(self) -> None:
        self._sweep = None
        now = asyncio.get_running_loop().time()
        while self._idle and (self._idle[0][0] <= now or not self._idle[0][1].usable):
            self._idle.popleft()[1].abort()
        if self._idle:
            self._sweep_at(self._idle[0][0])


def _numeric(host: str, port: int) -> Sequence[aiohappyeyeballs.types.AddrInfoType]:
    """The address that `host` is, without a question to anybody and so without a thread; none where it is a name."""
    kinds = ((socket.AF_INET, (host, port)), (socket.AF_INET6, (host, port, 0, 0)))
    for family, address in kinds:
        with contextlib.suppress(OSError):
            socket.inet_pton(family, host)
            return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address)]
    return ()


def _words(error: OSError | UnicodeError, limit: float) -> str:
    if isinstance(error, TimeoutError) and not error.args:
        return f"not within {limit:g} s"
    return str(error) or repr(error)
