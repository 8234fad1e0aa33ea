"""Decodes the content encodings of a request's body in steps: gzip, deflate and zstd, also several in a row.

Done here and not by the HTTP library, so that the limit holds for the output and a decompression bomb costs no more
than the limit. A step reads one block of input or writes one block of output, so the total is linear in both, whatever
the data is. Members of a gzip archive cost more than their bytes, so their number is limited. Every refusal is a
`GatewayError`.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from typing import Any

import zstandard

from dragoman.translators.errors import GatewayError, Kind, invalid
from dragoman.translators.steps import Steps

MOST_ENCODINGS = 3
MOST_MEMBERS = 1024  # of a gzip archive; compressors write one, parallel ones write one for each megabyte
ZSTD_WINDOW = 8 * 1024 * 1024  # RFC 9659: the largest window that a content encoding may need
TAKEN = 16 * 1024  # bytes of input in one step
GIVEN = 256 * 1024  # bytes of output in one step


def decode(data: bytes, encodings: Sequence[str], limit: int) -> Steps[bytes]:
    """Undoes the encodings, last first; the output is never larger than `limit` bytes. Each step yields its size."""
    if len(encodings) > MOST_ENCODINGS:
        raise _unsupported(f"{len(encodings)} content encodings on one body are too many.")
    for encoding in reversed(encodings):
        if encoding in ("gzip", "x-gzip"):
            data = yield from _inflate(data, 31, limit, encoding)
        elif encoding == "deflate":
            data = yield from _deflated(data, limit)
        elif encoding == "zstd":
            data = yield from _unzstd(data, limit)
        else:
            shown = encoding if encoding.isascii() and encoding.isalnum() else "given"
            raise _unsupported(f"The content encoding {shown} is not supported; gzip, deflate, zstd and identity are.")
    return data


class _Output(io.BytesIO):
    """The output so far; refuses to grow beyond the limit."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def write(self, piece: Any) -> int:
        written = super().write(piece)
        if self.tell() > self._limit:
            raise too_large(self._limit)
        return written


def _deflated(data: bytes, limit: int) -> Steps[bytes]:
    """ "deflate" is zlib's format; some clients send the bare stream under the same name (RFC 9110, 8.4.1.2)."""
    try:
        return (yield from _inflate(data, 15, limit, "deflate"))
    except GatewayError as error:
        if error.kind is Kind.TOO_LARGE:
            raise
    return (yield from _inflate(data, -15, limit, "deflate"))


def _inflate(data: bytes, wbits: int, limit: int, encoding: str) -> Steps[bytes]:
    output, at, members = _Output(limit), 0, 0
    while at < len(data):
        if members == MOST_MEMBERS:
            raise invalid(f"The request body has more than {MOST_MEMBERS} {encoding} members.", code="invalid_body")
        members += 1
        at = yield from _inflate_member(data, at, wbits, output, encoding)
        if wbits != 31:
            break
    return output.getvalue()


def _inflate_member(data: bytes, at: int, wbits: int, output: _Output, encoding: str) -> Steps[int]:
    """The position in `data` where the member that begins at `at` ends."""
    member = zlib.decompressobj(wbits)
    held, full = b"", False
    while not member.eof:
        if not held:
            held = data[at : at + TAKEN]
            at += len(held)
            if not held and not full:
                raise _broken(encoding)
        try:
            piece = member.decompress(held, GIVEN)
        except zlib.error:
            raise _broken(encoding) from None
        output.write(piece)
        held, full = member.unconsumed_tail, len(piece) == GIVEN
        yield output.tell()
    return at - len(member.unused_data)


def _unzstd(data: bytes, limit: int) -> Steps[bytes]:
    output = _Output(limit)
    # frames, even empty ones, cost no more than their bytes
    writer = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW).stream_writer(output)
    for at in range(0, len(data), TAKEN):
        try:
            writer.write(data[at : at + TAKEN])
        except zstandard.ZstdError:
            raise _broken("zstd") from None
        yield output.tell()
    return output.getvalue()


def too_large(limit: int) -> GatewayError:
    return GatewayError(Kind.TOO_LARGE, f"The request body is larger than {limit} bytes.", code="request_too_large")


def _broken(encoding: str) -> GatewayError:
    return invalid(f"The request body is not valid {encoding} data.", code="invalid_body")


def _unsupported(message: str) -> GatewayError:
    return GatewayError(Kind.UNSUPPORTED, message, code="unsupported_content_encoding")
