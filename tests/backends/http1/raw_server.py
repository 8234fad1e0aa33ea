"""A server that answers with bytes as they are given to it, over real sockets, and remembers what it was sent."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Self

from tests.waiting import until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


class RawServer:
    """Each request takes the next of `answers`, the last one stays. With `closes`, a connection ends after one."""

    def __init__(
        self,
        *answers: bytes,
        closes: bool = False,
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.host = host
        self.port = 0
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.connections = 0
        self.open: list[asyncio.StreamWriter] = []
        self._answers = list(answers or [OK])
        self._closes = closes
        self._tls = tls

    def address(self, path: str = "/v1", scheme: str = "http") -> str:
        return f"{scheme}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}{path}"

    def drop(self) -> None:
        """Closes every connection."""
        for writer in self.open:
            writer.close()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self.host, 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self.open:
            writer.transport.abort()
        await until(lambda: not self.open)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open.append(writer)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
                while True:
                    await self._answer(reader, writer)
                    if self._closes:
                        break
        finally:
            writer.close()
            self.open.remove(writer)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        self.bodies.append(await reader.readexactly(length))
        writer.write(self._answers.pop(0) if len(self._answers) > 1 else self._answers[0])
        await writer.drain()


def headers(head: bytes) -> dict[str, str]:
    """By name in lower case; each comes once."""
    lines = head.decode().split("\r\n")[1:-2]
    pairs = [(name.lower(), value) for name, _, value in (line.partition(": ") for line in lines)]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)
