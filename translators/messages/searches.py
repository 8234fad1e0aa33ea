"""Web search in the Messages API, where the gateway runs it: its declaration, Claude Code's request for one search, and
earlier searches in the history.

`encrypted_content`, which clients send back unread, holds the excerpt of a result behind a mark of ours. So the next
turn shows the model what this one did; what other systems found has its titles and addresses alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from dragoman.translators.fields import Given
from dragoman.translators.ir import Message, Note, Part, SearchEnded, SearchResult, Text, Tool, WebSearch
from dragoman.translators.messages.reading import refused
from dragoman.translators.protocol import Json
from dragoman.translators.web_search import (
    MOST_DOMAINS,
    NAME,
    SearchCount,
    are_domains,
    call_of,
    function,
    known_error,
    plain,
    result_of,
    shown,
)

ASKED = "Perform a web search for the query: "  # Claude Code's words
_MARK = "dragoman:"
_DIRECT: Json = {"caller": {"type": "direct"}}


# --------------------------------------------------------------------------------------------------------- declaration


def is_search(kind: object) -> bool:
    return isinstance(kind, str) and kind.startswith("web_search_")


def read_search(tool: Given, path: str, name: str) -> tuple[Tool, WebSearch]:
    """The declaration as the function that the model sees, and what the gateway keeps to."""
    allowed, blocked = _domains(tool, "allowed_domains", path), _domains(tool, "blocked_domains", path)
    if allowed and blocked:
        raise refused(f"{path}.blocked_domains", "allowed_domains and blocked_domains exclude each other")
    most = tool.get("max_uses")
    if most is not None and (type(most) is not int or most < 1):
        raise refused(f"{path}.max_uses", "Input should be a valid integer greater than 0")
    return function(name), WebSearch(name, most=most, allowed=allowed, blocked=blocked)


def _domains(tool: Given, key: str, path: str) -> tuple[str, ...]:
    given = tool.get(key)
    if given is None:
        return ()
    if not are_domains(given):
        raise refused(f"{path}.{key}", f"Input should be a valid list of at most {MOST_DOMAINS} domains")
    return tuple(map(plain, given))


def searched(messages: Sequence[Message]) -> str | None:
    """What Claude Code asks to have searched, by a message in its own words; None for any other conversation."""
    last = messages[-1]
    said = [f"{part.text.strip()} " for part in last.parts if isinstance(part, Text)] if last.role == "user" else []
    found = next((text for text in reversed(said) if text.startswith(ASKED)), None)
    return None if found is None else plain(found.removeprefix(ASKED))


# ------------------------------------------------------------------------------------------------------ content blocks


def call_block(id: str, query: str) -> Json:
    return {"type": "server_tool_use", "id": id, "name": NAME, "input": {"query": query} if query else {}, **_DIRECT}


def result_block(id: str, ended: SearchEnded) -> Json:
    content: object = [_shown(each) for each in ended.results]
    if ended.error is not None:
        content = {"type": "web_search_tool_result_error", "error_code": ended.error}
    return {"type": "web_search_tool_result", "tool_use_id": id, "content": content, **_DIRECT}


def _shown(result: SearchResult) -> Json:
    return {
        "type": "web_search_result",
        "url": result.url,
        "title": result.title,
        "encrypted_content": _MARK + result.text,
        "page_age": result.age,
    }


class EarlierSearches:
    """Reads the blocks of searches in a history: the call waits for its result, which follows it."""

    def __init__(self, name: str = NAME) -> None:
        self._name = name
        self._count = SearchCount()
        self._queries: dict[str, str] = {}

    def call(self, block: Given, path: str) -> bool:
        """Takes in a call; False for one of another tool."""
        if block.get("name") != NAME:
            return False
        asked = block.get("input")
        query = asked.get("query") if isinstance(asked, dict) else None
        self._queries[str(block.get("id"))] = plain(query) if isinstance(query, str) else ""
        block.pass_over("caller")
        return True

    def notes(self) -> list[Note]:
        """Calls whose results never came are left out."""
        return [Note("item", "server_tool_use", count)] if (count := len(self._queries)) else []

    def result(self, block: Given, path: str, before: Sequence[Part]) -> list[Message]:
        """The search as turns, its call after the parts `before` it."""
        id = self._count.next()
        query = self._queries.pop(str(block.get("tool_use_id")), "")
        block.pass_over("caller")
        call = Message("assistant", (*before, call_of(id, self._name, query)))
        return [call, result_of(id, shown(_ended(block, path)))]


def _ended(block: Given, path: str) -> SearchEnded:
    """Nothing is refused but too much: whoever wrote this is not there to mend it."""
    content = block.get("content")
    if isinstance(content, list):
        given = [block.inner(each, f"{path}.content") for each in content if isinstance(each, dict)]
        return SearchEnded(tuple(each for each in map(_result, given) if each.url or each.text))
    return SearchEnded(error=known_error(content.get("error_code") if isinstance(content, dict) else None))


def _result(given: Given) -> SearchResult:
    sealed = _text(given, "encrypted_content")
    text = sealed.removeprefix(_MARK) if sealed.startswith(_MARK) else ""
    result = SearchResult(_text(given, "url"), _text(given, "title"), text, _text(given, "page_age") or None)
    given.pass_over("type")
    given.close()
    return result


def _text(given: Given, key: str) -> str:
    value = given.get(key)
    return value if isinstance(value, str) else ""
