"""What the finish reasons of chat-completions servers mean."""

from __future__ import annotations

import re

from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import StopReason

OF_CALLS = ("tool_calls", "function_call")
_KNOWN = {
    "stop": StopReason.STOP,
    "tool_calls": StopReason.STOP,
    "function_call": StopReason.STOP,
    "eos": StopReason.STOP,
    "eos_token": StopReason.STOP,
    "end_turn": StopReason.STOP,
    "stop_sequence": StopReason.STOP,
    "length": StopReason.LENGTH,
    "max_tokens": StopReason.LENGTH,
    "model_length": StopReason.LENGTH,  # Mistral: the window, not the request's limit
    "repetition": StopReason.LENGTH,  # vLLM: the server cut a text that repeated itself
    "content_filter": StopReason.CONTENT_FILTER,
    "sensitive": StopReason.CONTENT_FILTER,  # GLM
}
_FAILURES = {  # trtllm-serve and SGLang end streams with these words
    "timeout": (Kind.TIMEOUT, "The model server gave up on the answer after its own time limit."),
    "cancelled": (Kind.BACKEND_FAILED, "The model server cancelled the answer."),
    "abort": (Kind.BACKEND_FAILED, "The model server aborted the answer."),
    "error": (Kind.BACKEND_FAILED, "The model server failed during the answer."),
    "network_error": (Kind.BACKEND_FAILED, "The model server failed during the answer."),  # GLM
    "insufficient_system_resource": (Kind.BUSY, "The model server ran out of resources during the answer."),  # DeepSeek
}
# What a word that is in neither table means, by what is in it; it ends a whole answer where that says nothing.
_FAILED = re.compile("error|fail|abort|cancel|exception|timed?_?out|disconnect|interrupt|malformed")
_OTHERS = (
    (re.compile("length|limit|max_|truncat|exceeded"), StopReason.LENGTH),  # GLM: model_context_window_exceeded
    (
        re.compile("filter|safety|blocklist|prohibited|recitation|guardrail|moderation|refusal"),
        StopReason.CONTENT_FILTER,
    ),
)
_NO_REASON = ("null", "none")  # DashScope, in each chunk


def finish_word(reason: object) -> str:
    """In small letters, empty where there is none."""
    word = str(reason).lower() if reason else ""
    return "" if word in _NO_REASON else word


def stop_reason(word: str) -> tuple[StopReason, bool]:
    """Why the answer has ended, and whether the word is known. Raises `GatewayError` where the word says that it
    failed."""
    if (known := _KNOWN.get(word)) is not None:
        return known, True
    if word in _FAILURES or _FAILED.search(word):
        kind, message = _FAILURES.get(word, _FAILURES["error"])
        raise GatewayError(kind, message, source="backend")
    return next((meant for says, meant in _OTHERS if says.search(word)), StopReason.STOP), False
