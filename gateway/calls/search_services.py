"""How search services are asked and what of their answers is a result: a row each, and one for any other in JSON.

Nothing here does I/O. Results are cleaned: an address that is not http(s) is left out, markup and control characters
are taken out of titles and excerpts, and everything has a limit.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from dragoman.gateway.config import SearchConfig, SearchShape
from dragoman.translators.ir import SearchResult

MOST_LOOKED_AT = 100  # of the results of one search
MOST_URL = 2048
MOST_TITLE = 300
MOST_TEXT = 4000
MOST_AGE = 40
MOST_SITES = 5  # domains that are named to the service; all of them are looked for in what it answers
_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,200}>")
_BLANK = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]+")
_ADDRESS = re.compile(r"https?://[!-~]+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Service:
    """`url` is None where the operator names it. `count` is the parameter for the number of results, where there is
    one, and `most` the largest number that it takes. The keys are those of a result."""

    url: str | None
    method: Literal["GET", "POST"]
    query: str
    results: tuple[str, ...]
    address: str
    title: str
    text: str
    age: str
    header: str = "Authorization"
    count: str | None = None
    most: int = 50
    path: str = ""
    parameters: Mapping[str, str] | None = None

    def question(self, query: str, config: SearchConfig, wanted: int) -> dict[str, str | int | float | bool]:
        asked: dict[str, str | int | float | bool] = {**(self.parameters or {}), **config.parameters, self.query: query}
        if self.count is not None:
            asked.setdefault(self.count, min(wanted, self.most))
        return asked

    def headers(self, key: str | None) -> dict[str, str]:
        if key is None:
            return {}
        return {self.header: f"Bearer {key}" if self.header.lower() == "authorization" else key}

    def place(self, url: str | None) -> str:
        base = url or self.url or ""
        return base.rstrip("/").removesuffix(self.path) + self.path if self.path else base


_SERVICES = {
    "searxng": Service(
        None, "GET", "q", ("results",), "url", "title", "content", "publishedDate",
        path="/search", parameters={"format": "json"},
    ),
    "brave": Service(
        "https://api.search.brave.com/res/v1/web/search", "GET", "q", ("web", "results"),
        "url", "title", "description", "age", header="X-Subscription-Token", count="count", most=20,
    ),
    "tavily": Service(
        "https://api.tavily.com/search", "POST", "query", ("results",),
        "url", "title", "content", "published_date", count="max_results", most=20,
    ),
    "serper": Service(
        "https://google.serper.dev/search", "POST", "q", ("organic",),
        "link", "title", "snippet", "date", header="X-API-KEY", count="num",
    ),
}  # fmt: skip


def service(config: SearchConfig) -> Service:
    if config.service != "json":
        return _SERVICES[config.service]
    shape = config.shape or SearchShape()
    return Service(
        None,
        shape.method or "GET",
        shape.query or "q",
        tuple((shape.results or "results").split(".")),
        shape.url or "url",
        shape.title or "title",
        shape.text or "content",
        shape.age or "date",
        header=shape.header or "Authorization",
    )


def asked_of(query: str, allowed: Sequence[str]) -> str:
    """The query for a service, which knows best what it has of a few domains."""
    if not 0 < len(allowed) <= MOST_SITES:
        return query
    return f"{query} {' OR '.join(f'site:{domain}' for domain in allowed)}"


# ------------------------------------------------------------------------------------------------------------ results


def results(answer: Any, service: Service) -> list[SearchResult] | None:
    """Each page once, in the service's order and words; None where the answer has no list of results."""
    found = answer
    for key in service.results:
        found = found.get(key) if isinstance(found, dict) else None
    if found is None and isinstance(answer, dict) and service.url is not None:
        found = []  # these services leave the list out where nothing was found
    if not isinstance(found, list):
        return None
    read = (_result(each, service) for each in found[:MOST_LOOKED_AT] if isinstance(each, dict))
    kept: dict[str, SearchResult] = {}
    for each in read:
        if each is not None:
            kept.setdefault(each.url, each)
    return list(kept.values())


def _result(given: Mapping[str, Any], service: Service) -> SearchResult | None:
    url = given.get(service.address)
    if not isinstance(url, str) or len(url) > MOST_URL or not _ADDRESS.fullmatch(url):
        return None
    try:
        host = urlsplit(url).hostname
    except ValueError:
        return None
    if not host:
        return None
    title, text, age = (_string(given.get(key)) for key in (service.title, service.text, service.age))
    return SearchResult(url, title or host, text, age or None)


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""


def _cleaned(result: SearchResult) -> SearchResult:
    title, age = _clean(result.title, MOST_TITLE), _clean(result.age or "", MOST_AGE)
    return SearchResult(result.url, title or result.url, _clean(result.text, MOST_TEXT), age or None)


def _clean(text: str, most: int) -> str:
    """A line of plain text."""
    plain = html.unescape(_TAG.sub("", text[: 2 * most]))
    return _BLANK.sub(" ", plain)[:most].strip().encode("utf-8", "replace").decode()


def within(found: Sequence[SearchResult], results: int, characters: int) -> tuple[SearchResult, ...]:
    """The first results in plain text, with excerpts cut so that all of it is no longer than so many characters."""
    kept: list[SearchResult] = []
    left = characters
    for place, each in enumerate(map(_cleaned, found[:results])):  # no more are cleaned: it costs time
        fixed = len(each.url) + len(each.title) + len(each.age or "")
        if fixed > left:
            break
        share = max(left // (min(results, len(found)) - place) - fixed, 0)
        text = each.text if len(each.text) <= share else each.text[: max(share - 1, 0)].rstrip() + "…" * (share > 0)
        kept.append(SearchResult(each.url, each.title, text, each.age))
        left -= fixed + len(text)
    return tuple(kept)
