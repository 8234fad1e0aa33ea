"""Conversations that clients keep here: what a request continues, what of a call is kept, and how it is shown.

A continued conversation is the items of all earlier requests and answers, in order, before the request's own: then the
prompt is, byte for byte, the one that the client would have had by sending everything again. Instructions are not
carried on; a request that continues another one brings its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from dragoman.translators.errors import GatewayError, Kind, invalid
from dragoman.translators.openai.refusals import unsupported
from dragoman.translators.protocol import Json, Stream
from dragoman.translators.responses.stream import ResponsesStream

PAGE = 20  # items of a list, unless the client says otherwise
MOST = 100
_COUNT = re.compile("[0-9]{1,9}")  # of far more digits Python makes no number
_WITH_STATUS = frozenset(
    {
        "apply_patch_call",
        "computer_call",
        "computer_call_output",
        "custom_tool_call",
        "custom_tool_call_output",
        "function_call",
        "function_call_output",
        "local_shell_call",
        "message",
        "shell_call",
        "shell_call_output",
        "tool_search_call",
        "tool_search_output",
    }
)
_PROSE = ("message", "reasoning")
_SHELL_LIMITS: Json = {"timeout_ms": None, "max_output_length": None}
_OF_ITEMS: dict[str, Json] = {
    "shell_call": {"environment": None},
    "shell_call_output": {"max_output_length": None},
    "tool_search_call": {"call_id": None, "execution": "client"},
    "tool_search_output": {"call_id": None, "execution": "client"},
}
_OF_PARTS: dict[str, Json] = {"input_image": {"detail": "auto"}, "output_text": {"annotations": []}}


def previous(body: Json) -> str | None:
    """The response that a body continues; an empty string is an option that was not set."""
    named = body.get("previous_response_id")
    return named if isinstance(named, str) and named else None


def not_found(id: str) -> GatewayError:
    """Clients that keep conversations here start over when they read this code."""
    message = (
        f"Previous response with id '{id[:64]}' not found. Send the whole conversation in 'input', "
        "with 'store': false if the client would keep it here otherwise."
    )
    return invalid(message, "previous_response_id", "previous_response_not_found")


def unknown_item(id: str) -> GatewayError:
    return GatewayError(Kind.NOT_FOUND, item_words(id), param="input", code="item_not_found")


def item_words(id: str) -> str:
    return (
        f"Item with id '{id[:64]}' not found. Send the item itself, with 'store': false if the client would keep it "
        "here otherwise."
    )


def stores(body: Json) -> bool:
    """OpenAI's default."""
    return body.get("store") is not False


def continued(body: Json, earlier: Sequence[Json]) -> Json:
    """`body` with the `earlier` items before its own. What is no input stays, for `parse` to refuse."""
    if not isinstance(body.get("input"), str | list | None):
        return body
    return {**body, "input": [*earlier, *_input(body)]}


def own_items(body: Json, seed: str) -> list[Json]:
    """The input of a body as items, each with an id of its own. A client may give several the same one, and would be
    sent the same page again and again for what comes after it."""
    items, ids = list[Json](), set[str]()
    for place, item in enumerate(_input(body)):
        if isinstance(item, dict):
            id = item.get("id")
            if not isinstance(id, str) or not id or id in ids:
                item = {**item, "id": f"msg_{seed}i{place:03d}"}
            ids.add(item["id"])
            items.append(item)
    return items


def items(answer: Json) -> list[Json]:
    """Those of an answer that are continued. Where it failed, a call that is not whole has been run by nobody."""
    output: list[Json] = answer["output"]
    if answer["status"] != "failed":
        return output
    return [item for item in output if item["type"] in _PROSE or item.get("status") in ("completed", "failed")]


def _input(body: Json) -> list[Json]:
    given = body.get("input")
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": given}] if given else []
    return list(given) if isinstance(given, list) else []


def references(body: Json) -> list[str]:
    return [item["id"] for item in _input(body) if _is_reference(item)]


def resolved(body: Json, found: Mapping[str, Json]) -> Json:
    """An item that was not found stays a reference, which `parse` refuses by its id. One that is named again is left
    out there: OpenAI refuses that, and a small request could hold a large item very often."""
    items, named = list[Json](), set[str]()
    for item in _input(body):
        if _is_reference(item):
            if (id := item["id"]) in named:
                continue
            named.add(id)
            item = found.get(id, item)
        items.append(item)
    return {**body, "input": items}


def _is_reference(item: object) -> bool:
    return (
        isinstance(item, dict)
        and isinstance(item.get("id"), str)
        and (item.get("type") == "item_reference" or is_bare_reference(item))
    )


def is_bare_reference(item: Mapping[str, Any]) -> bool:
    """Whether it names another item without saying that it does: a reference may omit its type, or have null there."""
    return item.get("type") is None and "id" in item and item.keys() <= {"id", "type"}


def unstored(stream: Stream) -> list[bytes]:
    assert isinstance(stream, ResponsesStream)
    return stream.unstored()


# --------------------------------------------------------------------------------------------------- stored responses


def shown(answer: Json, output: Sequence[Json]) -> Json:
    return {**answer, "output": list(output)}


def page(items: Sequence[Json], query: Mapping[str, str]) -> Json:
    """A list object. Without an `order` the newest items come first."""
    limit = _limit(query.get("limit"))
    if (order := query.get("order", "desc")) not in ("asc", "desc"):
        raise invalid("Invalid 'order': expected 'asc' or 'desc'.", "order", "invalid_value")
    ordered = list(items) if order == "asc" else list(reversed(items))
    if after := query.get("after"):
        places = [place for place, item in enumerate(ordered) if item["id"] == after]
        if not places:
            raise invalid(f"Item with id '{after[:64]}' not found.", "after", "invalid_value")
        ordered = ordered[places[0] + 1 :]
    data = [*map(_listed, ordered[:limit])]
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": len(ordered) > limit,
    }


def _listed(item: Json) -> Json:
    """An item with what a request may omit and the type of its list requires: a message's type, its content as parts,
    what parts have by default, and the status that items have once they are kept."""
    if item.get("type") is None and "role" in item:
        item = {**item, "type": "message"}
    kind = item.get("type")
    if kind not in _WITH_STATUS:
        return item
    if kind == "message" and isinstance(text := item.get("content"), str):
        part = {"type": "output_text" if item.get("role") == "assistant" else "input_text", "text": text}
        item = {**item, "content": [part]}
    for key in ("content", "output"):
        if isinstance(parts := item.get(key), list):
            item = {**item, key: [*map(_listed_part, parts)]}
    if (wanted := _OF_ITEMS.get(str(kind))) is not None:
        item = wanted | {key: value for key, value in item.items() if value is not None}
    if kind == "shell_call" and isinstance(action := item.get("action"), dict):
        item = {**item, "action": _SHELL_LIMITS | action}
    return item if item.get("status") is not None else {**item, "status": "completed"}


def _listed_part(part: Any) -> Any:
    wanted = _OF_PARTS.get(str(part.get("type"))) if isinstance(part, dict) else None
    return part if wanted is None else wanted | {key: value for key, value in part.items() if value is not None}


def _limit(given: str | None) -> int:
    if given is None:
        return PAGE
    if not _COUNT.fullmatch(given) or not 1 <= int(given) <= MOST:
        raise invalid(f"Invalid 'limit': expected an integer from 1 to {MOST}.", "limit", "invalid_value")
    return int(given)


def deleted(id: str) -> Json:
    return {"id": id, "object": "response", "deleted": True}


def unknown(id: str) -> GatewayError:
    return GatewayError(Kind.NOT_FOUND, f"Response with id '{id[:64]}' not found.", code="response_not_found")


def refused(query: Mapping[str, str]) -> None:
    if query.get("stream", "").lower() in ("true", "1"):
        raise unsupported("stream", "A stored response cannot be streamed again.", "unsupported_parameter")


def cancelled(id: str) -> GatewayError:
    return invalid(f"Response '{id[:64]}' does not run in the background.", "background", "invalid_value")
