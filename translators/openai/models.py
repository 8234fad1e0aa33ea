"""Models and refusals as OpenAI's clients and Codex read them, on the paths that all protocols share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dragoman.translators.protocol import Json, ListedModel, ModelBodies, PlainError


def model(listed: ListedModel) -> Json:
    entry: Json = {"id": listed.id, "object": "model", "created": listed.created, "owned_by": listed.owned_by}
    if listed.window is not None:
        entry["context_window"] = entry["max_model_len"] = listed.window
    return entry


def models(listed: Sequence[ListedModel], _query: Mapping[str, str]) -> Json:
    """`models` is Codex's key. Its entries would need instructions, which then replace Codex's own; an empty list is
    valid and leaves Codex with what it knows."""
    return {"object": "list", "data": [model(each) for each in listed], "models": []}


def refusal(refused: PlainError) -> Json:
    return {"error": refused.fields()}


MODELS = ModelBodies(many=models, one=model)
