"""Tool calls and reasoning as model families write them: raw text into parts, for any backend.

`open_markup` gives the parser of one answer. The family is configured or found by `detect` from the chat template's own
markers. How the parsers work is described in `scanner`; each family is one small module.
"""

from __future__ import annotations

from collections.abc import Mapping

from dragoman.backends.markup.deepseek import CALLS_BEGIN, DSML, DeepSeek
from dragoman.backends.markup.glm import Glm
from dragoman.backends.markup.granite import Granite
from dragoman.backends.markup.harmony import Harmony
from dragoman.backends.markup.hermes import Hermes
from dragoman.backends.markup.kimi_k2 import KimiK2
from dragoman.backends.markup.llama3 import Llama3
from dragoman.backends.markup.mistral import Mistral
from dragoman.backends.markup.nemotron import Nemotron
from dragoman.backends.markup.plain import Plain
from dragoman.backends.markup.qwen3_coder import Qwen3Coder
from dragoman.backends.markup.scanner import Markup
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Request
from dragoman.translators.parts import Parts

FAMILIES: Mapping[str, type[Markup]] = {
    "hermes": Hermes,
    "qwen3_coder": Qwen3Coder,
    "llama3": Llama3,
    "mistral": Mistral,
    "deepseek": DeepSeek,
    "glm": Glm,
    "kimi_k2": KimiK2,
    "granite": Granite,
    "nemotron": Nemotron,
    "harmony": Harmony,
    "plain": Plain,
}

# In this order: every marker of a line must occur. Several families share <tool_call>, so the special ones come first.
_SIGNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("harmony", ("<|channel|>", "<|message|>")),
    ("kimi_k2", ("<|tool_calls_section_begin|>",)),
    ("deepseek", (CALLS_BEGIN,)),
    ("deepseek", (DSML,)),
    ("glm", ("<arg_key>",)),
    ("qwen3_coder", ("<function=", "<parameter=")),
    ("nemotron", ("<TOOLCALL>",)),
    ("mistral", ("[TOOL_CALLS]",)),
    ("mistral", ("[AVAILABLE_TOOLS]",)),
    ("granite", ("<|tool_call|>",)),
    ("granite", ("<|start_of_role|>", "<tool_call>")),
    ("llama3", ("<|python_tag|>",)),
    ("llama3", ("<|start_header_id|>", '"parameters"')),
    ("hermes", ("<tool_call>",)),
)
# Where there is no template: the names under which the families are published.
_NAMES: tuple[tuple[str, str], ...] = (
    ("gpt-oss", "harmony"),
    ("kimi-k2", "kimi_k2"),
    ("deepseek", "deepseek"),
    ("glm-4", "glm"),
    ("glm-5", "glm"),
    ("qwen3-coder", "qwen3_coder"),
    ("nemotron-3", "qwen3_coder"),
    ("nemotron", "nemotron"),
    ("granite", "granite"),
    ("mistral", "mistral"),
    ("devstral", "mistral"),
    ("magistral", "mistral"),
    ("ministral", "mistral"),
    ("hermes", "hermes"),
    ("qwen", "hermes"),
    ("llama-3", "llama3"),
)


def detect(template_text: str, *, model: str = "") -> str:
    """The family whose markers the chat template holds, "plain" where it holds none. The model's name is used only
    where there is no template at all: a template without markers is one that does not teach calls."""
    for family, markers in _SIGNS:
        if all(marker in template_text for marker in markers):
            return family
    if not template_text.strip():
        name = model.lower().replace("_", "-")
        return next((family for part, family in _NAMES if part in name), "plain")
    return "plain"


def open_markup(family: str, parts: Parts, *, prompt: str = "", request: Request | None = None) -> Markup:
    """The parser of one answer. `prompt` is the rendered prompt or its end, which may have opened the reasoning;
    `request` declares the tools. Raises `GatewayError` INVALID for an unknown family."""
    if family not in FAMILIES:
        raise GatewayError(Kind.INVALID, f"unknown markup {family!r}; there are {', '.join(FAMILIES)}", "markup")
    return FAMILIES[family](parts, prompt=prompt, request=request)


__all__ = ["FAMILIES", "Markup", "detect", "open_markup"]
