"""The search service: asked with a query and nothing else of the call, over one bounded request.

Its own address is the operator's choice, also in a private network. No redirect is followed, so the key goes to no
other host, and no address that it answers is ever opened. Size, time and the number of searches at once are bounded.
What goes wrong becomes an error of the search, never of the call; the service's words are not quoted.
"""

from __future__ import annotations

import asyncio

import aiohttp
import orjson

from dragoman.gateway.calls.search_services import asked_of, results, service, within
from dragoman.gateway.config import SearchConfig
from dragoman.gateway.telemetry.logs import log
from dragoman.translators.ir import SearchEnded, SearchError, SearchResult, WebSearch
from dragoman.translators.web_search import MOST_QUERY, admitted

FORMATS = ": its settings.yml must list json below search.formats"  # as it does not after an installation


class _Failed(Exception):
    def __init__(self, error: SearchError, reason: str) -> None:
        super().__init__(reason)
        self.error = error


class SearchClient:
    """`most` is how many searches one answer may have."""

    def __init__(self, config: SearchConfig, key: str | None = None) -> None:
        self.most = config.most
        self._config = config
        self._key = key
        self._service = service(config)
        self._session: aiohttp.ClientSession | None = None
        self._places = asyncio.Semaphore(config.at_once)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def search(self, query: str, wanted: WebSearch) -> SearchEnded:
        if not query:
            return SearchEnded(error="invalid_tool_input")
        if len(query) > MOST_QUERY:
            return SearchEnded(error="query_too_long")
        try:
            async with asyncio.timeout(self._config.timeout), self._places:
                found = await self._found(query, wanted)
        except _Failed as failed:
            log.warning("a search failed: %s", failed)
            return SearchEnded(error=failed.error)
        except TimeoutError:
            reason = "TimeoutError"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            reason = type(error).__name__
        else:
            return SearchEnded(found)
        log.warning("a search failed: the service cannot be reached: %s", reason)
        return SearchEnded(error="unavailable")

    async def _found(self, query: str, wanted: WebSearch) -> tuple[SearchResult, ...]:
        most = min(self._config.results, wanted.results or self._config.results)
        found = results(await self._asked(asked_of(query, wanted.allowed), most), self._service)
        if found is None:
            raise _Failed("unavailable", "the service's answer has no list of results")
        return within(admitted(found, wanted.allowed, wanted.blocked), most, self._config.text)

    async def _asked(self, query: str, most: int) -> object:
        question = self._service.question(query, self._config, most)
        url = self._service.place(self._config.url)
        if self._service.method == "POST":
            asking = self._opened().post(url, json=question, allow_redirects=False)
        else:
            parameters = {name: _parameter(value) for name, value in question.items()}
            asking = self._opened().get(url, params=parameters, allow_redirects=False)
        async with asking as response:
            if response.status != 200:
                error: SearchError = "too_many_requests" if response.status == 429 else "unavailable"
                hint = FORMATS if self._config.service == "searxng" and response.status == 403 else ""
                raise _Failed(error, f"the service answered with status {response.status}{hint}")
            return await self._read(response)

    async def _read(self, response: aiohttp.ClientResponse) -> object:
        if response.headers.get("Content-Encoding", "identity") not in ("", "identity"):
            raise _Failed("unavailable", "the service compresses its answer, which it was not asked for")
        data, limit = bytearray(), self._config.bytes
        async for piece in response.content.iter_any():
            data += piece
            if len(data) > limit:
                raise _Failed("unavailable", f"the service's answer is larger than {limit} bytes")
        try:
            return orjson.loads(data)
        except orjson.JSONDecodeError:
            raise _Failed("unavailable", "the service's answer is not JSON") from None

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={
                    "User-Agent": "dragoman",
                    "Accept": "application/json",
                    "Accept-Encoding": "identity",
                    **self._service.headers(self._key),
                },
                timeout=aiohttp.ClientTimeout(total=None),
                auto_decompress=False,
            )
        return self._session


def _parameter(value: str | int | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
