"""aiohttp's client as a transport: the reference."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from dragoman.backends.base import Flow
from dragoman.backends.connect_limit import ConnectLimit, Connector
from dragoman.backends.json_body import JsonBody, abort, read_bounded
from dragoman.backends.transport import BytesReader, NoAnswer, Unreachable
from dragoman.backends.watch import Watch

READ_BUFFER = 256 * 1024  # bytes; at the default of 64 kB a burst pauses and resumes the transport with every read


class AiohttpReply:
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self.content_type = response.content_type

    async def read(self, most: int) -> bytes:
        try:
            return await read_bounded(self._response, most)
        except aiohttp.ClientError as error:
            raise ConnectionResetError(str(error)) from None

    async def into(self, reader: BytesReader, watch: Watch) -> None:
        content = self._response.content
        try:
            while data := await content.readany():
                flow = reader.received(data)
                if flow is Flow.ENOUGH:
                    return
                await watch.after(flow)
        except aiohttp.ClientError as error:
            raise ConnectionResetError(str(error)) from None
        reader.ended()

    async def close(self) -> None:
        response = self._response
        if response.content.is_eof():
            response.release()
        elif abort(response):
            await asyncio.sleep(0)  # the socket is closed in the loop's next turn


class AiohttpTransport:
    """`url` is where every body goes, at the one `address` of its host if that is given; `headers` go with each."""

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        tls: ssl.SSLContext | None,
        connect: ConnectLimit,
        address: str | None = None,
    ) -> None:
        self._address = address
        self._url = url
        self._headers = headers
        self._tls: ssl.SSLContext | bool = tls or True
        self._connect = connect
        self._kept: aiohttp.ClientSession | None = None
        self._fresh: aiohttp.ClientSession | None = None

    async def post(self, body: bytes, headers: Mapping[str, str], *, fresh: bool) -> AiohttpReply:
        connection = {"reused": False}
        try:
            response = await self._session(fresh).post(
                self._url,
                data=JsonBody(body),
                headers=headers,
                allow_redirects=False,
                trace_request_ctx=connection,
            )
        except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError) as error:
            raise Unreachable(str(error)) from None
        except (aiohttp.ClientError, ConnectionError) as error:
            raise NoAnswer(repr(error), stale=connection["reused"] and not fresh) from None
        return AiohttpReply(response)

    async def close(self) -> None:
        for session in (self._kept, self._fresh):
            if session is not None:
                await session.close()
        self._kept = self._fresh = None

    def _session(self, fresh: bool) -> aiohttp.ClientSession:
        if self._kept is None or self._fresh is None:
            # No limit on connections: admission limits the requests, and could not see a queue in here.
            self._kept = self._opened(connector(self._connect, self._tls, self._address, keepalive_timeout=15.0))
            self._fresh = self._opened(connector(self._connect, self._tls, self._address, force_close=True))
        return self._fresh if fresh else self._kept

    def _opened(self, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector,
            headers=self._headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            trace_configs=[_reuse_trace()],
            read_bufsize=READ_BUFFER,
        )


def connector(
    limit: ConnectLimit, tls: ssl.SSLContext | bool, address: str | None, **options: Any
) -> aiohttp.TCPConnector:
    """To whatever addresses a name has, or to the one that is given, with the name in TLS and in `Host`."""
    resolver = None if address is None else _OneAddress(address)
    return Connector(limit, ssl=tls, resolver=resolver, **options)


class _OneAddress(AbstractResolver):
    def __init__(self, address: str) -> None:
        self._address = address

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        family = socket.AF_INET6 if ":" in self._address else socket.AF_INET
        return [ResolveResult(hostname=host, host=self._address, port=port, family=family, proto=0, flags=0)]

    async def close(self) -> None:
        """There is nothing to be closed."""


def _reuse_trace() -> aiohttp.TraceConfig:
    """Marks a request that went out on a pooled connection."""

    async def reused(
        _session: aiohttp.ClientSession, context: Any, _params: aiohttp.TraceConnectionReuseconnParams
    ) -> None:
        if context.trace_request_ctx is not None:
            context.trace_request_ctx["reused"] = True

    trace = aiohttp.TraceConfig()
    trace.on_connection_reuseconn.append(reused)
    return trace
