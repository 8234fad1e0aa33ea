"""Models and refusals as Anthropic's clients read them, on the paths that all protocols share.

The version header, which every one of those clients must send, is what they are known by.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from dragoman.translators.errors import invalid
from dragoman.translators.protocol import Json, ListedModel, ModelBodies, PlainError

_COUNT = re.compile("0*[1-9][0-9]{0,5}")


def model(listed: ListedModel) -> Json:
    return {
        "type": "model",
        "id": listed.id,
        "display_name": listed.id,
        "created_at": datetime.fromtimestamp(listed.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "lifecycle": "active",  # a required word in the newest SDK's type; nothing here is ever retired
        "max_input_tokens": listed.window,
        "max_tokens": None,
        "capabilities": None,
    }


def models(listed: Sequence[ListedModel], query: Mapping[str, str]) -> Json:
    """All models on one page, unless the client wants fewer of them (`limit`), or those on one side of a model
    (`after_id`, `before_id`). `has_more` is about that side."""
    after, before, limit = query.get("after_id"), query.get("before_id"), query.get("limit")
    asked = listed[_place(listed, after, "after_id") + 1 if after else 0 :]
    if before:
        asked = asked[: _place(asked, before, "before_id")]
    shown = asked
    if limit:
        if not _COUNT.fullmatch(limit):
            raise invalid("limit: expected an integer of 1 or more", "limit")
        shown = asked[-int(limit) :] if before else asked[: int(limit)]
    first, last = (shown[0].id, shown[-1].id) if shown else (None, None)
    more = len(shown) < len(asked)
    return {"data": [model(each) for each in shown], "has_more": more, "first_id": first, "last_id": last}


def _place(listed: Sequence[ListedModel], id: str, name: str) -> int:
    place = next((place for place, each in enumerate(listed) if each.id == id), None)
    if place is None:
        raise invalid(f"{name}: there is no model '{id[:64]}' on this side", name)
    return place


def refusal(refused: PlainError) -> Json:
    return {"type": "error", "error": refused.fields(), "request_id": refused.request_id}


def claims(path: str, headers: Mapping[str, str]) -> bool:
    return "anthropic-version" in headers


MODELS = ModelBodies(many=models, one=model)
