"""The answer to a request that offers only tools which Anthropic's servers would run: the tool is not available.

The model is not asked: clients would take what it writes without the tool for what the tool found. Claude Code's
WebSearch is such a request and shows any text as search results (2.1.332). The blocks are those in which the API itself
reports that a tool failed; a tool for which the API has no such blocks is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dragoman.translators.ir import Event, Finished, Message, Started, StopReason, Text, Usage
from dragoman.translators.messages.reading import unsupported
from dragoman.translators.messages.searches import ASKED
from dragoman.translators.protocol import Json

EVENTS: tuple[Event, ...] = (Started(), Finished(StopReason.STOP, Usage(0, 0)))  # nothing was read, nothing was made
_FAMILIES = ("web_search", "web_fetch", "code_execution")
_DIRECT: Json = {"caller": {"type": "direct"}}


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A declared tool that cannot be run here."""

    kind: str
    name: str | None
    path: str

    @property
    def family(self) -> str | None:
        return next((family for family in _FAMILIES if self.kind.startswith(f"{family}_")), None)


def answering_family(tools: Sequence[LeftOut], named: str | None) -> str:
    """The family of the tool that the answer is about: the one that `tool_choice` names, else the first that has such
    blocks."""
    asked = [tool for tool in tools if tool.name is not None and tool.name == named] or tools
    family = next((tool.family for tool in asked if tool.family is not None), None)
    if family is None:
        message = f"Tools of type '{asked[0].kind[:64]}' cannot be run through this gateway, and no other was offered."
        raise unsupported(f"{asked[0].path}.type", message)
    return family


def blocks(family: str, id: str, messages: Iterable[Message]) -> tuple[Json, ...]:
    """The call and its result. `id` is the seed of the call's id."""
    query = _query(messages) if family == "web_search" else None
    call = f"srvtoolu_{id[:24]}"
    caller = {} if family == "code_execution" else _DIRECT
    return (
        {
            "type": "server_tool_use",
            "id": call,
            "name": family,
            "input": {} if query is None else {"query": query},
            **_DIRECT,
        },
        {
            "type": f"{family}_tool_result",
            "tool_use_id": call,
            "content": {"type": f"{family}_tool_result_error", "error_code": "unavailable"},
            **caller,
        },
    )


def _query(messages: Iterable[Message]) -> str | None:
    """What to search for, where the request has it in Claude Code's words."""
    parts = [part for message in messages if message.role == "user" for part in message.parts]
    said = [part.text.strip() for part in reversed(parts) if isinstance(part, Text)]
    found = next((text.removeprefix(ASKED).strip() for text in said if text.startswith(ASKED)), None)
    # half of a surrogate pair cannot be sent
    return None if found is None else found.encode("utf-8", "replace").decode()
