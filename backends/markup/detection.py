"""Which family a model is of: from its chat template, from its name where it has none, or not known."""

from __future__ import annotations

from collections.abc import Mapping

from dragoman.backends.markup.families import (
    apertus,
    apriel,
    command,
    command_r,
    deepseek,
    dots,
    ernie45,
    functionary,
    functiongemma,
    gemma4,
    gigachat,
    glm,
    granite,
    harmony,
    hermes,
    hunyuan,
    hy3,
    inkling,
    internlm2,
    iquest,
    jamba,
    k2_horizon,
    kimi_k2,
    kimi_k3,
    lfm2,
    llama3,
    longcat,
    minicpm5,
    minimax_m2,
    minimax_m3,
    mirothinker,
    mistral,
    muse_glimmer,
    nemotron,
    olmo3,
    phi4_mini,
    plain,
    plamo3,
    pythonic,
    qwen3_coder,
    seed_oss,
    solar,
    solar_open2,
    step3,
    telechat4,
    xlam,
)
from dragoman.backends.markup.family import Family

# The last is looked for first: several share <tool_call>, which by itself is the sign of the first alone.
_MODULES = (
    hermes,
    ernie45,
    xlam,
    llama3,
    pythonic,
    jamba,
    granite,
    mistral,
    nemotron,
    qwen3_coder,
    glm,
    deepseek,
    kimi_k2,
    harmony,
    phi4_mini,
    seed_oss,
    minimax_m2,
    minimax_m3,
    gemma4,
    kimi_k3,
    olmo3,
    lfm2,
    command_r,
    command,
    apriel,
    hunyuan,
    hy3,
    step3,
    internlm2,
    inkling,
    telechat4,
    apertus,
    gigachat,
    functiongemma,
    solar,
    solar_open2,
    minicpm5,
    longcat,
    dots,
    iquest,
    k2_horizon,
    muse_glimmer,
    plamo3,
    mirothinker,
    functionary,
    plain,
)
FAMILIES: Mapping[str, Family] = {module.FAMILY.name: module.FAMILY for module in _MODULES}


def detect(template_text: str, *, model: str = "") -> str | None:
    """The family whose markers the chat template holds; None where it holds none, because then nothing tells how the
    model writes calls. The model's name is used only where there is no template at all."""
    if not template_text.strip():
        return by_name(model)
    for name in reversed([*FAMILIES]):
        if any(all(marker in template_text for marker in markers) for markers in FAMILIES[name].signs):
            return name
    return None


def by_name(model: str) -> str | None:
    """The family by the longest part of a published name that the model's name holds."""
    name = model.lower().replace("_", "-")
    found = [(len(part), family.name) for family in FAMILIES.values() for part in family.names if part in name]
    return max(found)[1] if found else None
