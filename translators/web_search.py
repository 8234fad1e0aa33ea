"""The web search that the gateway runs for a model: the function that the model sees, what it reads of the results, and
how a search stands in a conversation.

A search is a call and its result in turns of their own, whether it was made a moment ago or comes back in the history:
the same words, the same id (the number of the search in the conversation) and the arguments in one form. So the prompt
of an answer's second turn begins the prompt of every later one. Results are text alone; nothing here opens them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

import orjson

from dragoman.translators.ir import Message, SearchEnded, SearchError, SearchResult, Text, Tool, ToolCall, ToolResult

NAME = "web_search"
MOST_DOMAINS = 100
MOST_DOMAIN = 253  # characters
MOST_QUERY = 400  # characters, as the large services have it
_ID = re.compile(r"search(\d{3,9})")  # some templates demand nine letters or digits
_DESCRIPTION = (
    "Searches the web and returns the titles, addresses and excerpts of the pages that were found. Use it for what may "
    "have changed, or what you do not know for certain. Name the addresses of the pages that you rely on."
)
_PARAMETERS = {
    "type": "object",
    "properties": {"query": {"type": "string", "description": "What to search for, in a few words."}},
    "required": ["query"],
    "additionalProperties": False,
}
_FAILURES: dict[SearchError, str] = {
    "invalid_tool_input": "there was no query.",
    "max_uses_exceeded": "no more searches are allowed in this answer.",
    "query_too_long": f"the query is longer than {MOST_QUERY} characters.",
    "request_too_large": "the query is too large.",
    "too_many_requests": "there are too many searches at the moment.",
    "unavailable": "web search is not available at the moment.",
}
FORGOTTEN = "[What this search found is no longer part of the conversation.]"


def function(name: str = NAME) -> Tool:
    """What the model sees of it."""
    return Tool(name, _DESCRIPTION, _PARAMETERS)


def query_of(arguments: str) -> str:
    """The query of a call, "" where there is none. Half of a surrogate pair cannot be sent."""
    try:
        given = orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return ""
    query = given.get("query") if isinstance(given, dict) else None
    return plain(query) if isinstance(query, str) else ""


def plain(text: str) -> str:
    return text.strip().encode("utf-8", "replace").decode()


def known_error(code: object) -> SearchError:
    return next((error for error in _FAILURES if error == code), "unavailable")


def shown(ended: SearchEnded) -> str:
    """What the model reads of a search."""
    if ended.error is not None:
        return f"The search failed: {_FAILURES[ended.error]}"
    if not ended.results:
        return "Nothing was found."
    return "\n\n".join(map(_shown, ended.results))


def _shown(result: SearchResult) -> str:
    title = f"{result.title} ({result.age})" if result.age else result.title
    return "\n".join(line for line in (title, result.url, result.text) if line)


# ------------------------------------------------------------------------------------------------- in a conversation


class SearchCount:
    """Gives each search of a conversation the id of its call."""

    def __init__(self, messages: Iterable[Message] = ()) -> None:
        calls = (part for message in messages for part in message.parts if isinstance(part, ToolCall))
        numbers = [int(match[1]) for call in calls if (match := _ID.fullmatch(call.id))]
        self._last = max(numbers, default=0)

    def next(self) -> str:
        self._last += 1
        return f"search{self._last:03d}"


def call_of(id: str, tool: str, query: str) -> ToolCall:
    return ToolCall(id, tool, orjson.dumps({"query": query}).decode())


def result_of(id: str, text: str) -> Message:
    return Message("tool", (ToolResult(id, (Text(text),)),))


# ------------------------------------------------------------------------------------------------------------ domains


def are_domains(given: object) -> bool:
    """Whether a client's list can be one of domains, and no longer than it may be."""
    if not isinstance(given, list) or len(given) > MOST_DOMAINS:
        return False
    return all(isinstance(each, str) and 0 < len(each) <= MOST_DOMAIN for each in given)


def admitted(results: Iterable[SearchResult], allowed: Sequence[str], blocked: Sequence[str]) -> list[SearchResult]:
    """The results whose pages are in one of the `allowed` domains, where there are any, and in none of the `blocked`
    ones."""
    return [
        each
        for each in results
        if (not allowed or any(_within(each.url, domain) for domain in allowed))
        and not any(_within(each.url, domain) for domain in blocked)
    ]


def _within(url: str, domain: str) -> bool:
    parts = urlsplit(url)
    named = domain.lower().removeprefix("https://").removeprefix("http://").removeprefix("*.")
    host, _, path = named.partition("/")
    asked, host = (parts.hostname or "").rstrip("."), host.rstrip(".")
    if asked != host and not asked.endswith(f".{host}"):
        return False
    path = path.strip("/")
    place = parts.path.strip("/").lower()
    return not path or place == path or place.startswith(f"{path}/")
