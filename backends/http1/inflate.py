"""Bodies that a server compressed although it was asked not to: `gzip` and `deflate`, in pieces of bounded size.

A few bytes can become gigabytes, so nothing is inflated before whoever reads it asks for it.
"""

from __future__ import annotations

import zlib

INFLATED = 256 * 1024  # bytes of a piece
GIVEN = 16 * 1024  # bytes that zlib is given at once: it copies what it leaves, and a member may be twenty


class Inflater:
    """`more`: there may be another piece of what was given. Raises zlib.error for what is not `encoding`, and for every
    other encoding."""

    def __init__(self, encoding: str) -> None:
        self.more = False
        self._encoding = encoding
        self._member: zlib._Decompress | None = None  # gzip may be several, one after the other
        self._rest = b""

    @property
    def whole(self) -> bool:
        """Whether the body may end here."""
        return not self.more and (self._member is None or self._member.eof)

    def piece(self, data: bytes) -> bytes:
        """The next piece of what was given until now; empty where more has to come."""
        data = self._rest + data
        at, piece = 0, b""
        while not piece and (at < len(data) or self.more):
            given = data[at : at + GIVEN]
            if self._member is None or self._member.eof:
                self._member = zlib.decompressobj(self._window(given))
            piece = self._member.decompress(given, INFLATED)
            left = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            at += len(given) - len(left)
            # what fills a piece may leave something in zlib, without any input left for it
            self.more = at < len(data) or (len(piece) == INFLATED and not self._member.eof)
        self._rest = data[at:]
        return piece

    def _window(self, data: bytes) -> int:
        if self._encoding in ("gzip", "x-gzip"):
            return zlib.MAX_WBITS | 16
        if self._encoding == "deflate":  # by the standard with zlib's head, by some servers without
            return zlib.MAX_WBITS if data[0] & 0x0F == zlib.DEFLATED else -zlib.MAX_WBITS
        raise zlib.error(f"unknown content encoding {self._encoding}")
