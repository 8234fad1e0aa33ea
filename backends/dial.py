"""New connections to one server, by its name or its address."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

import aiohappyeyeballs

from dragoman.backends.connect_limit import ConnectLimit
from dragoman.backends.name_lookup import addresses

RESOLVED = 10.0  # seconds that a name's addresses are remembered
NEXT_ADDRESS = 0.25  # seconds until the next address of a name is tried beside the last one
UNACKNOWLEDGED = 20.0  # seconds that what was sent may be on its way to a host that has vanished, else a quarter hour

Connection = TypeVar("Connection", bound=asyncio.Protocol)


class CannotConnect(ConnectionError):
    """There is no connection to the server, or none in time."""


class Dialer:
    """`limit` is for name, connection and TLS together. With `tls`, the server is `host`. `address`: the one of its
    addresses that is connected to."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        limit: ConnectLimit,
        tls: ssl.SSLContext | None = None,
        address: str | None = None,
    ) -> None:
        self._host = host
        self._address = address or host
        self._port = port
        self._tls = tls
        self.limit = limit
        self._resolving = asyncio.Lock()
        self._addresses: Sequence[aiohappyeyeballs.types.AddrInfoType] = ()
        self._resolved_until = 0.0

    async def dial(self, protocol: Callable[[], Connection]) -> Connection:
        """Raises `CannotConnect`."""
        try:
            async with self.limit.attempt():
                transport, connection = await self._connected(protocol)
        except (OSError, UnicodeError) as error:  # also TimeoutError, ssl.SSLError, and a name that cannot be one
            self._resolved_until = 0.0
            raise CannotConnect(_words(error, self.limit.seconds)) from None
        if sys.platform == "linux":
            found = transport.get_extra_info("socket")
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNACKNOWLEDGED * 1000))
        return connection

    async def _connected(self, protocol: Callable[[], Connection]) -> tuple[asyncio.Transport, Connection]:
        loop = asyncio.get_running_loop()
        if loop.time() >= self._resolved_until:
            await self._resolve(loop)
        name = None if self._tls is None else self._host.rstrip(".")
        if len(self._addresses) == 1 and not any((address := self._addresses[0][4])[3:]):  # no IPv6 scope either
            # There is nothing to choose from, and the loop's own way takes a third of the time.
            return await loop.create_connection(
                protocol, str(address[0]), address[1], ssl=self._tls, server_hostname=name
            )
        connected = await aiohappyeyeballs.start_connection(
            self._addresses, happy_eyeballs_delay=NEXT_ADDRESS, interleave=1, loop=loop
        )
        return await loop.create_connection(protocol, sock=connected, ssl=self._tls, server_hostname=name)

    async def _resolve(self, loop: asyncio.AbstractEventLoop) -> None:
        async with self._resolving:
            if loop.time() >= self._resolved_until:
                self._addresses = _numeric(self._address, self._port) or await addresses(self._address, self._port)
                self._resolved_until = loop.time() + RESOLVED


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
