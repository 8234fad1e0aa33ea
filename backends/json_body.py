"""JSON bodies over aiohttp's client: sent in one piece, read with a bound.

Used by the backends that speak HTTP. Bodies are in memory anyway, because they were translated there.
"""

from __future__ import annotations

import aiohttp
from aiohttp.payload import BytesPayload, Payload


class JsonBody(BytesPayload):
    """Bytes as they are, in one write; aiohttp's own class warns of large ones."""

    def __init__(self, value: bytes) -> None:
        Payload.__init__(self, value, content_type="application/json")
        self._size = len(value)


async def read_bounded(response: aiohttp.ClientResponse, most: int) -> bytes:
    """The body, or what of it came until it was `most` bytes long."""
    body = bytearray()
    while len(body) < most and (data := await response.content.readany()):
        body += data
    return bytes(body)
