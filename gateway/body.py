"""A request's body: from whatever arrives on the socket to one JSON object, within the limits.

Any content type is read, because clients send JSON under many names. `Content-Encoding` gzip, deflate and zstd are
undone here, not by the HTTP library, so that the limit holds for the decompressed size and a bomb costs no more than
the limit. Every refusal is a `GatewayError`; the asking protocol words it.
"""

from __future__ import annotations

import asyncio
import zlib
from typing import Any

import orjson
import zstandard
from aiohttp import web

from gateway.config import Limits
from translators.errors import GatewayError, Kind, invalid

OFF_THE_LOOP = 256 * 1024  # compressed bytes from which decoding would be felt by the streams beside it
ZSTD_WINDOW = 8 * 1024 * 1024  # RFC 9659: what a content encoding may ask of its reader
MOST_ENCODINGS = 3


async def read_object(request: web.Request, limits: Limits, within: float | None = None) -> dict[str, Any]:
    """`within` so many seconds the body must have arrived."""
    try:
        async with asyncio.timeout(within):
            raw = await _read(request, limits.body_bytes)
    except TimeoutError:
        raise invalid(f"The request body did not arrive within {within:g} seconds.", code="request_timeout") from None
    encodings = [name.strip().lower() for name in ",".join(request.headers.getall("Content-Encoding", [])).split(",")]
    encodings = [name for name in encodings if name and name != "identity"]
    if encodings:
        if len(raw) > OFF_THE_LOOP:
            raw = await asyncio.to_thread(decode, raw, encodings, limits.body_bytes)
        else:
            raw = decode(raw, encodings, limits.body_bytes)
    return parse_object(raw, limits.json_depth)


async def _read(request: web.Request, limit: int) -> bytes:
    length = request.content_length
    if length is not None and length > limit:
        raise _too_large(limit)
    pieces: list[bytes] = []
    size = 0
    try:
        async for piece in request.content.iter_any():
            size += len(piece)
            if size > limit:
                raise _too_large(limit)
            pieces.append(piece)
    except web.RequestPayloadError:
        raise invalid("The request body is not framed as its headers say.", code="invalid_body") from None
    return b"".join(pieces)


def decode(data: bytes, encodings: list[str], limit: int) -> bytes:
    """Undoes the encodings, last first; never holds more than `limit` bytes and one of the output."""
    if len(encodings) > MOST_ENCODINGS:
        raise _unsupported(f"{len(encodings)} content encodings on one body are too many.")
    for encoding in reversed(encodings):
        if encoding in ("gzip", "x-gzip"):
            data = _inflate(data, 31, limit, encoding)
        elif encoding == "deflate":
            data = _deflated(data, limit)
        elif encoding == "zstd":
            data = _unzstd(data, limit)
        else:
            shown = encoding if encoding.isascii() and encoding.isalnum() else "given"
            raise _unsupported(f"The content encoding {shown} is not supported; gzip, deflate, zstd and identity are.")
    return data


def _deflated(data: bytes, limit: int) -> bytes:
    """ "deflate" is zlib's format; some clients send the bare stream under the same name (RFC 9110, 8.4.1.2)."""
    try:
        return _inflate(data, 15, limit, "deflate")
    except GatewayError as error:
        if error.kind is Kind.TOO_LARGE:
            raise
        return _inflate(data, -15, limit, "deflate")


def _inflate(data: bytes, wbits: int, limit: int, encoding: str) -> bytes:
    pieces: list[bytes] = []
    room = limit + 1
    try:
        while data:
            member = zlib.decompressobj(wbits)
            piece = member.decompress(data, room)
            pieces.append(piece)
            room -= len(piece)
            if room <= 0:
                raise _too_large(limit)
            if not member.eof:
                raise _broken(encoding)
            data = member.unused_data if wbits == 31 else b""
    except zlib.error:
        raise _broken(encoding) from None
    return b"".join(pieces)


def _unzstd(data: bytes, limit: int) -> bytes:
    pieces: list[bytes] = []
    room = limit + 1
    try:
        reader = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW).stream_reader(data, read_across_frames=True)
        while room > 0 and (piece := reader.read(min(room, 1 << 20))):
            pieces.append(piece)
            room -= len(piece)
    except zstandard.ZstdError:
        raise _broken("zstd") from None
    if room <= 0:
        raise _too_large(limit)
    return b"".join(pieces)


def parse_object(raw: bytes, depth: int) -> dict[str, Any]:
    if not raw.strip():
        raise invalid("The request body is empty; a JSON object is expected.", code="invalid_json")
    try:
        value = orjson.loads(raw.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as error:
        if "ecursion" in error.msg:
            raise _too_deep(depth) from None
        raise invalid(f"The request body is not valid JSON: {_where(error)}.", code="invalid_json") from None
    if not isinstance(value, dict):
        raise invalid("The request body must be a JSON object.", code="invalid_json")
    if deeper_than(value, depth):
        raise _too_deep(depth)
    return value


def deeper_than(value: Any, depth: int) -> bool:
    """Level by level and over containers only: a fraction of the cost of the parse, and no recursion."""
    level = [value]
    for _ in range(depth):
        level = [
            child
            for container in level
            for child in (container.values() if type(container) is dict else container)
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return False
    return True


def _where(error: orjson.JSONDecodeError) -> str:
    # the parser's own words, without the document that the exception carries
    return f"{error.msg.split(':')[0]} at line {error.lineno} column {error.colno}"


def _too_large(limit: int) -> GatewayError:
    return GatewayError(Kind.TOO_LARGE, f"The request body is larger than {limit} bytes.", code="request_too_large")


def _too_deep(depth: int) -> GatewayError:
    return invalid(f"The request body is nested deeper than {depth} levels.", code="invalid_json")


def _broken(encoding: str) -> GatewayError:
    return invalid(f"The request body is not valid {encoding} data.", code="invalid_body")


def _unsupported(message: str) -> GatewayError:
    return GatewayError(Kind.UNSUPPORTED, message, code="unsupported_content_encoding")
