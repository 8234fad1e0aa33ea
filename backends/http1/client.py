"""`backends.http1` as a transport of the chat backend: the pool of connections to one address, and its requests."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import Coroutine, Mapping
from typing import Any

from multidict import CIMultiDict
from yarl import URL

from dragoman.backends.connect_limit import ConnectLimit
from dragoman.backends.dial import CannotConnect, Dialer
from dragoman.backends.http1.connection import Connection
from dragoman.backends.http1.pool import ConnectionPool
from dragoman.backends.transport import BytesReader, NoAnswer, Unreachable
from dragoman.backends.watch import Watch

_READ: CIMultiDict[str] = CIMultiDict()  # in place of headers that were read: a stream may be long


class Http1Reply:
    def __init__(self, connection: Connection, pool: ConnectionPool, keep: bool) -> None:
        self.status = connection.status
        self._connection = connection
        self._pool = pool
        self._keep = keep
        self._closed = False

    @property
    def headers(self) -> Mapping[str, str]:
        """Until the body is read into a reader."""
        return self._connection.headers

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "application/octet-stream").partition(";")[0].strip().lower()

    async def read(self, most: int) -> bytes:
        return await self._connection.read(most)

    def into(self, reader: BytesReader, watch: Watch) -> Coroutine[Any, Any, None]:
        self._connection.headers = _READ
        return self._connection.into(reader, watch)

    async def close(self) -> None:
        if self._closed:  # the connection may serve another call by now
            return
        self._closed = True
        if not self._pool.give_back(self._connection, keep=self._keep):
            await asyncio.sleep(0)  # the socket is closed in the loop's next turn


class Http1Transport:
    """`url` is where every body goes, at the one `address` of its host if that is given; `headers` go with each.
    Proxies from the environment are not asked."""

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        tls: ssl.SSLContext | None,
        connect: ConnectLimit,
        address: str | None = None,
    ) -> None:
        target = URL(url)
        assert target.raw_host is not None, "the URL names a server"
        secure = target.scheme == "https"
        context = (tls or ssl.create_default_context()) if secure else None
        port = target.port or (443 if secure else 80)
        self._pool = ConnectionPool(Dialer(target.raw_host, port, limit=connect, tls=context, address=address))
        host = target.host_port_subcomponent or target.raw_host
        own = {"Host": host, "Accept": "*/*", **_credentials(target), **headers, "Content-Type": "application/json"}
        self._head = f"POST {target.raw_path_qs} HTTP/1.1\r\n".encode() + _lines(own)

    async def post(self, body: bytes, headers: Mapping[str, str], *, fresh: bool) -> Http1Reply:
        try:
            connection = await self._pool.take(fresh=fresh)
        except CannotConnect as error:
            raise Unreachable(str(error)) from None
        own = {**headers, "Connection": "close"} if fresh else headers
        head = b"%b%bContent-Length: %d\r\n\r\n" % (self._head, _lines(own), len(body))
        try:
            await connection.ask(head, body)
        except ConnectionError as error:
            self._pool.give_back(connection, keep=False)
            raise NoAnswer(repr(error), stale=connection.used and connection.silent) from None
        except BaseException:
            self._pool.give_back(connection, keep=False)
            raise
        return Http1Reply(connection, self._pool, keep=not fresh)

    async def close(self) -> None:
        await self._pool.close()


def _credentials(address: URL) -> Mapping[str, str]:
    """Those of the address, which a key of the settings replaces."""
    if address.user is None and address.password is None:
        return {}
    both = f"{address.user or ''}:{address.password or ''}"
    return {"Authorization": f"Basic {base64.b64encode(both.encode()).decode()}"}


def _lines(headers: Mapping[str, str]) -> bytes:
    """Header lines. A value that would end its line is refused: none of ours does."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    if lines.count("\r") + lines.count("\n") != 2 * len(headers) or "\0" in lines:
        raise ValueError("a header holds a line break")
    return lines.encode("utf-8", "surrogateescape")
