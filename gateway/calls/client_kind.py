"""Which kind of client makes a request: one of a closed set of words, for the metrics and the log.

Recognised by what the real programs send (Codex's `originator`, the `user-agent` of the others); never used for a
decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

ClientKind = Literal["codex", "claude-code", "openai-python", "anthropic-python", "other"]

_AGENTS: tuple[tuple[str, ClientKind], ...] = (
    ("codex", "codex"),
    ("claude-cli/", "claude-code"),
    ("claude-code/", "claude-code"),
    ("openai/python", "openai-python"),
    ("asyncopenai/python", "openai-python"),
    ("anthropic/python", "anthropic-python"),
    ("asyncanthropic/python", "anthropic-python"),
)


def client_kind(headers: Mapping[str, str]) -> ClientKind:
    if headers.get("originator", "")[:5].lower() == "codex":
        return "codex"
    agent = headers.get("user-agent", "")[:32].lower()
    for beginning, kind in _AGENTS:
        if agent.startswith(beginning):
            return kind
    return "other"
