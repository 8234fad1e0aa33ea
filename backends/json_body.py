"""JSON bodies over aiohttp's client: sent in one piece, read up to a limit, or given up.

For the backends that speak HTTP. The bodies are in memory anyway, because they were translated there.
"""

from __future__ import annotations

import aiohttp
from aiohttp.payload import BytesPayload, Payload


class JsonBody(BytesPayload):
    """Bytes as they are, in one write; aiohttp's own class warns about large ones."""

    def __init__(self, value: bytes) -> None:
        Payload.__init__(self, value, content_type="application/json")
        self._size = len(value)


async def read_bounded(response: aiohttp.ClientResponse, most: int) -> bytes:
    """The body, or its beginning once that is `most` bytes long."""
    body = bytearray()
    while len(body) < most and (data := await response.content.readany()):
        body += data
    return bytes(body)


def abort(response: aiohttp.ClientResponse) -> bool:
    """Drops the connection of a body that was not read to its end: now, not when the pool gets to it. False where the
    connection had gone already."""
    connection = response.connection
    transport = None if connection is None else connection.transport
    response.close()
    if transport is None:
        return False
    transport.abort()
    return True
