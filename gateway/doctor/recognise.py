"""Which kind of chat server answered, and so which preset it needs.

A server says so in the `owned_by` of its list of models; a proxy may have rewritten that, so endpoints that only one
kind has are asked then. Both are the servers' own facts: nothing is guessed from a URL or a model's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dragoman.backends.chat.probe import root_of
from dragoman.gateway.doctor.http import Answered, Http


@dataclass(frozen=True, slots=True)
class Kind:
    """`preset` is None where `generic` is right."""

    label: str
    preset: str | None = None
    version: str = ""

    def __str__(self) -> str:
        return f"{self.label} {self.version}".strip()


OWNERS: Mapping[str, Kind] = {
    "vllm": Kind("vLLM", "vllm"),
    "sglang": Kind("SGLang", "sglang"),
    "tensorrt_llm": Kind("trtllm-serve", "trtllm-serve"),
    "llamacpp": Kind("llama.cpp", "llama.cpp"),
    "lmdeploy": Kind("LMDeploy", "lmdeploy"),
    "triton inference server": Kind("Triton's OpenAI frontend", "triton-openai"),
    "library": Kind("Ollama"),
    "dragoman": Kind("dragoman"),
}
# An endpoint that only this kind has, and a key of its answer.
ENDPOINTS = (
    ("/props", "default_generation_settings", Kind("llama.cpp", "llama.cpp")),
    ("/get_model_info", "model_path", Kind("SGLang", "sglang")),
    ("/v2", "extensions", Kind("Triton's OpenAI frontend", "triton-openai")),
)
VERSIONED = frozenset({"vllm", "trtllm-serve"})


async def recognise(http: Http, base: str, listing: Any) -> Kind | None:
    """`listing` is the parsed list of models, None where there is none."""
    root = root_of(base)
    kind = next((OWNERS[owner] for owner in owners(listing) if owner in OWNERS), None)
    for path, key, candidate in ENDPOINTS if kind is None else ():
        answer = _object(await http.get(f"{root}{path}"))
        if key in answer:
            kind = candidate
            break
    if kind is None or kind.preset not in VERSIONED:
        return kind
    version = _object(await http.get(f"{root}/version")).get("version")
    return Kind(kind.label, kind.preset, version[:40]) if isinstance(version, str) else kind


def owners(listing: Any) -> list[str]:
    entries = listing.get("data") if isinstance(listing, dict) else None
    found = [entry.get("owned_by") for entry in entries or () if isinstance(entry, dict)]
    return [each.lower() for each in found if isinstance(each, str)]


def _object(answer: object) -> dict[str, Any]:
    value = answer.json if isinstance(answer, Answered) and answer.status == 200 else None
    return value if isinstance(value, dict) else {}
