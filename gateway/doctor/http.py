"""Plain questions to a chat server over HTTP, before any backend is opened: what answers at an address, and how.

Redirects are reported and not followed, as in a backend.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson

from dragoman.backends.refusal import cut, read, redact
from dragoman.backends.unreached import Unreached, unreached

SECONDS = 10.0  # for a question that costs the server nothing
ANSWER_SECONDS = 120.0
MAX_BODY = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answered:
    """`reads` are the sizes of the body's pieces as they came."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    reads: tuple[int, ...] = ()

    @property
    def json(self) -> Any:
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return None

    @property
    def words(self) -> str:
        return redact(cut(read(self.body).words))


class Http:
    """`async with Http(api_key, tls) as http:`"""

    def __init__(self, api_key: str | None = None, tls: ssl.SSLContext | None = None) -> None:
        self._headers = {"Accept-Encoding": "identity", "User-Agent": "dragoman"}
        if api_key and api_key.strip():
            self._headers["Authorization"] = f"Bearer {api_key.strip()}"
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=self._tls or True, force_close=True)
        cookies = aiohttp.DummyCookieJar()
        self._session = aiohttp.ClientSession(connector=connector, headers=self._headers, cookie_jar=cookies)
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        assert self._session is not None
        await self._session.close()

    async def get(self, url: str) -> Answered | Unreached:
        return await self._ask("GET", url, None, SECONDS)

    async def post(self, url: str, body: bytes, seconds: float = ANSWER_SECONDS) -> Answered | Unreached:
        return await self._ask("POST", url, body, seconds)

    async def _ask(self, method: str, url: str, body: bytes | None, seconds: float) -> Answered | Unreached:
        assert self._session is not None
        headers = {"Content-Type": "application/json"} if body is not None else {}
        limit = aiohttp.ClientTimeout(total=seconds)
        try:
            async with self._session.request(
                method, url, data=body, headers=headers, timeout=limit, allow_redirects=False
            ) as response:
                pieces: list[bytes] = []
                size = 0
                async for piece in response.content.iter_any():
                    pieces.append(piece)
                    size += len(piece)
                    if size > MAX_BODY:
                        break
                found = {name.lower(): value for name, value in response.headers.items()}
                return Answered(response.status, b"".join(pieces), found, tuple(map(len, pieces)))
        except (aiohttp.ClientError, OSError, ValueError) as error:  # a TimeoutError is an OSError
            return unreached(error)
