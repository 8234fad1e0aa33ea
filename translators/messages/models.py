"""Models and refusals as Anthropic's clients read them, on the paths that all protocols share.

The version header, which every one of those clients must send, is what they are known by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from dragoman.translators.protocol import Json, ListedModel, ModelBodies, PlainError


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


def models(listed: Sequence[ListedModel]) -> Json:
    """All models on one page."""
    first, last = (listed[0].id, listed[-1].id) if listed else (None, None)
    return {"data": [model(each) for each in listed], "has_more": False, "first_id": first, "last_id": last}


def refusal(refused: PlainError) -> Json:
    return {"type": "error", "error": refused.fields(), "request_id": refused.request_id}


def claims(path: str, headers: Mapping[str, str]) -> bool:
    return "anthropic-version" in headers


MODELS = ModelBodies(many=models, one=model)
