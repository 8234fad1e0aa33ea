"""Which family a model is of: from its chat template, from its name where it has none, or not known."""

from __future__ import annotations

from collections.abc import Mapping

from dragoman.backends.markup.families import (
    deepseek,
    glm,
    granite,
    harmony,
    hermes,
    kimi_k2,
    llama3,
    mistral,
    nemotron,
    plain,
    qwen3_coder,
)
from dragoman.backends.markup.family import Family

# The last is looked for first: several share <tool_call>, which by itself is the sign of the first alone.
_MODULES = (
    hermes,
    llama3,
    granite,
    mistral,
    nemotron,
    qwen3_coder,
    glm,
    deepseek,
    kimi_k2,
    harmony,
    plain,
)
FAMILIES: Mapping[str, Family] = {module.FAMILY.name: module.FAMILY for module in _MODULES}


def detect(template_text: str, *, model: str = "") -> str | None:
    """The family whose markers the chat template holds; None where it holds none, because then nothing tells how the
    model writes calls. The model's name is used only where there is no template at all."""
    if not template_text.strip():
        return _by_name(model)
    for name in reversed([*FAMILIES]):
        if any(all(marker in template_text for marker in markers) for markers in FAMILIES[name].signs):
            return name
    return None


def _by_name(model: str) -> str | None:
    """By the longest part of a published name."""
    name = model.lower().replace("_", "-")
    found = [(len(part), family.name) for family in FAMILIES.values() for part in family.names if part in name]
    return max(found)[1] if found else None
