"""Clients' API keys: who may ask.

Keys are kept as hashes and compared in constant time, every one of them on every request, so that the time tells
nothing. There is one generic 401, whatever was wrong. A key comes as `Authorization: Bearer …` or as `x-api-key`,
because both are in use by the same SDKs. The decision is made on the parsed path only; the Host header is never
looked at.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping

from translators.errors import GatewayError, Kind

OPEN_PATHS = frozenset({"/healthz", "/readyz"})


class Keys:
    def __init__(self, keys: Iterable[str], metrics_public: bool = False) -> None:
        self._digests = [_digest(key) for key in keys]
        self._open = OPEN_PATHS | {"/metrics"} if metrics_public else OPEN_PATHS

    def check(self, path: str, headers: Mapping[str, str]) -> None:
        """Raises `GatewayError` UNAUTHENTICATED; without any key configured everybody on this machine may ask."""
        if not self._digests or path in self._open:
            return
        offered = _digest(_offered(headers))
        matches = 0
        for digest in self._digests:
            matches += hmac.compare_digest(digest, offered)
        if not matches:
            raise GatewayError(Kind.UNAUTHENTICATED, "A valid API key is needed.", code="invalid_api_key")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _offered(headers: Mapping[str, str]) -> str:
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return headers.get("x-api-key", "").strip()
