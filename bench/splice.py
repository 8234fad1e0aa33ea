"""The limit: two TCP connections joined in `asyncio.Protocol`, with no HTTP at all.

`python -m bench.splice URL` joins every client with a connection of its own to that server, and prints "ready on
http://HOST:PORT". It runs on asyncio's own loop. What is left of a gateway's cost at this point is the kernel's, the
loop's, and two calls of Python.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast
from urllib.parse import urlsplit

from bench.loop import serve_until_stopped


class Side(asyncio.Protocol):
    """One of the two connections; what it reads goes to `other`."""

    def __init__(self, other: Side | None = None) -> None:
        self.other = other
        self.early: list[bytes] = []  # what came before the other side was there
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self.other is not None:
            self.other.other = self
            self.transport.writelines(self.other.early)

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self.early.append(data)
        else:
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None:
            self.other.transport.close()


async def main(upstream: str) -> None:
    loop = asyncio.get_running_loop()
    host, _, port = urlsplit(upstream).netloc.partition(":")
    joining: set[asyncio.Task[object]] = set()

    def client() -> Side:
        side = Side()
        task = asyncio.ensure_future(loop.create_connection(lambda: Side(side), host, int(port)))
        joining.add(task)
        task.add_done_callback(joining.discard)
        return side

    server = await loop.create_server(client, "127.0.0.1", 0, backlog=1024)
    async with server:
        await serve_until_stopped(server.sockets[0].getsockname()[1])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
