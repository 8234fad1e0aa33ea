"""Web search in the Responses API, where the gateway runs it: its declaration, and earlier searches in the history.

A finished `web_search_call` has what was found as `results`, so that the next turn shows the model what this one did.
Codex sends it back without fields that it does not know. So clients that carry sealed reasoning also get an item of
that kind after each search, which has what the model read of it. From a client that sends back neither, the model reads
that the results are gone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import islice

from dragoman.translators.fields import Given
from dragoman.translators.ir import SearchEnded, SearchResult, WebSearch
from dragoman.translators.openai.reading import given_object
from dragoman.translators.openai.refusals import wrong_type, wrong_value
from dragoman.translators.protocol import Json
from dragoman.translators.web_search import FORGOTTEN, MOST_DOMAINS, are_domains, known_error, plain, shown

_MOST_CITATIONS = 200  # addresses in one text that are looked at
_CARRIED = "\0dragoman:web_search\0"  # before what a sealed item carries; no reasoning begins like this
_SIZES = {"low": 3, "medium": 6, "high": None}  # results; None is as many as the operator allows


def is_live_search(tool: Given) -> bool:
    """False for one that must not reach the web (a cache of OpenAI's answers it)."""
    return tool.peek("external_web_access") is not False


def read_search(tool: Given, name: str, path: str) -> WebSearch:
    tool.pass_over("external_web_access", "indexed_web_access")
    allowed: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()
    if tool.get("filters") is not None:
        filters, place = given_object(tool, "filters", path), f"{path}.filters"
        allowed, blocked = _domains(filters, "allowed_domains", place), _domains(filters, "blocked_domains", place)
        filters.close()
    size = tool.get("search_context_size")
    if size is not None and size not in _SIZES:
        raise wrong_value(f"{path}.search_context_size", size, "'low', 'medium' and 'high'")
    return WebSearch(name, results=_SIZES.get(size), allowed=allowed, blocked=blocked)


def _domains(filters: Given, key: str, path: str) -> tuple[str, ...]:
    given = filters.get(key)
    if given is None:
        return ()
    if not are_domains(given):
        raise wrong_type(f"{path}.{key}", f"an array of at most {MOST_DOMAINS} domains", given)
    return tuple(map(plain, given))


# ----------------------------------------------------------------------------------------------------------- the item


def result_shown(result: SearchResult) -> Json:
    age = {} if result.age is None else {"page_age": result.age}
    return {"url": result.url, "title": result.title, "text": result.text, **age}


def earlier_query(item: Given) -> str | None:
    """The query of a `web_search_call`; None for one that opened a page or looked for something in it."""
    action = item.get("action")
    if not isinstance(action, dict) or action.get("type", "search") != "search":
        return None
    queries = action.get("queries")
    query = action.get("query") or (queries[0] if isinstance(queries, list) and queries else "")
    return plain(query) if isinstance(query, str) else ""


def earlier_result(item: Given, path: str) -> str:
    """What the model reads of it. Nothing is refused but too much: whoever wrote it is not there to mend it."""
    results, error = item.get("results"), item.get("error")
    if isinstance(results, list):
        given = [item.inner(each, f"{path}.results") for each in results if isinstance(each, dict)]
        return shown(SearchEnded(tuple(map(_result, given))))
    if isinstance(error, dict) or item.get("status") == "failed":
        return shown(SearchEnded(error=known_error(error.get("code") if isinstance(error, dict) else None)))
    return FORGOTTEN


def is_stripped(item: Given) -> bool:
    """Whether the client has left out what the search found."""
    return item.get("results") is None and item.get("error") is None


def carried_text(ended: SearchEnded) -> str:
    return _CARRIED + shown(ended)


def read_carried(text: str) -> str | None:
    """What the model had read of a search, if `text` carries that."""
    return text.removeprefix(_CARRIED) if text.startswith(_CARRIED) else None


def _result(given: Given) -> SearchResult:
    url, title, text, age = (_text(given.get(key)) for key in ("url", "title", "text", "page_age"))
    given.close()
    return SearchResult(url, title, text, age or None)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


# ----------------------------------------------------------------------------------------------------------- citations

_MORE = re.compile(r"[A-Za-z0-9/_%#?=&~+@-]|[.:,;][A-Za-z0-9/]")  # the address goes on


def citations(text: str, titles: Mapping[str, str]) -> list[Json]:
    """Where `text` names the address of a page that was found, and nothing longer. Places are in characters."""
    found: list[Json] = []
    for begin in (match.start() for match in islice(re.finditer("https?://", text), _MOST_CITATIONS)):
        url = max((url for url in titles if text.startswith(url, begin)), key=len, default=None)
        if url is None or _MORE.match(text, end := begin + len(url)):
            continue
        place = {"start_index": begin, "end_index": end}
        found.append({"type": "url_citation", **place, "url": url, "title": titles[url]})
    return found
