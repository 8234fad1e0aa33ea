"""The `usage` object of a chat-completions server, in the words of each kind of server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dragoman.backends.usage import count, measured
from dragoman.translators.ir import Usage

# Of the prompt, what was in the prefix cache: OpenAI's name, also beside the counts (Moonshot), DeepSeek's, LiteLLM's.
_CACHED = ("cached_tokens", "prompt_cache_hit_tokens", "cache_read_input_tokens")
# And what was put into it: OpenAI's name, vLLM's, and LiteLLM's in the details and beside the counts.
_WRITTEN = ("cache_write_tokens", "created_cache_tokens", "cache_creation_tokens", "cache_creation_input_tokens")


def is_counted(usage: object) -> bool:
    """Servers that did not count send zeros: every prompt has tokens."""
    counts = (usage.get("prompt_tokens"), usage.get("completion_tokens")) if isinstance(usage, dict) else ()
    return any(each and count(each) != 0 for each in counts)


def read_usage(usage: object) -> Usage | None:
    """A chat `usage` object; an answer whose count is missing has no tokens. The total is not read: it is the
    sum."""
    if not isinstance(usage, dict) or not is_counted(usage):
        return None
    completion = usage.get("completion_tokens")
    cached = _detail(usage, "prompt_tokens_details", _CACHED)
    reasoning = _detail(usage, "completion_tokens_details", ("reasoning_tokens",))
    written = _detail(usage, "prompt_tokens_details", _WRITTEN)
    return measured(usage.get("prompt_tokens"), 0 if completion is None else completion, cached, reasoning, written)


def _detail(usage: dict[str, Any], details: str, names: Sequence[str]) -> object:
    """The first that is there, in the details or beside the counts."""
    inner = usage.get(details)
    owners = (inner, usage) if isinstance(inner, dict) else (usage,)
    return next((value for owner in owners for name in names if (value := owner.get(name)) is not None), None)
