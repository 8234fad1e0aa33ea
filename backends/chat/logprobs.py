"""The log probabilities of a delta's tokens, in OpenAI's form."""

from __future__ import annotations

from typing import Any

from dragoman.backends.chat.errors import nonsense

MAX_WAITING = 1_024  # tokens whose text is still to come
MAX_LOGPROBS = 200_000  # of one delta, with those of the other tokens
IMPOSSIBLE = -9999.0  # a log probability as OpenAI writes "next to impossible"; JSON has no -Infinity


def read_logprobs(logprobs: dict[str, Any]) -> list[dict[str, Any]]:
    entries = logprobs.get("content") or ()
    if sum(1 + len(entry.get("top_logprobs") or ()) for entry in entries) > MAX_LOGPROBS:
        raise nonsense()
    return [
        _token(entry) | {"top_logprobs": [_token(top) for top in entry.get("top_logprobs") or ()]} for entry in entries
    ]


def bounded(tokens: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """None where there are too many to wait for their text."""
    few = len(tokens) <= MAX_WAITING and sum(1 + len(token["top_logprobs"]) for token in tokens) <= MAX_LOGPROBS
    return tokens if few else None


def _token(entry: dict[str, Any]) -> dict[str, Any]:
    token = str(entry.get("token", ""))
    octets, logprob = entry.get("bytes"), entry.get("logprob")
    return {
        "token": token,
        "logprob": logprob if isinstance(logprob, int | float) and IMPOSSIBLE < logprob <= 1 else IMPOSSIBLE,
        "bytes": octets if octets is not None else list(token.encode("utf-8", "replace")),
    }
