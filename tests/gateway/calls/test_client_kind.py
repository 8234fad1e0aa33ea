"""Kinds of clients, by the headers that the real programs send."""

from __future__ import annotations

import pytest

from dragoman.gateway.calls.client_kind import client_kind

AGENTS = {
    "codex": {"originator": "codex_exec", "user-agent": "codex_exec/0.169.0 (Debian 12.0.0; x86_64)"},
    "claude-code": {"user-agent": "claude-cli/2.1.197 (external, sdk-cli)"},
    "openai-python": {"user-agent": "AsyncOpenAI/Python 3.54.0"},
    "anthropic-python": {"user-agent": "Anthropic/Python 2.12.0"},
    "other": {"user-agent": "curl/8"},
}


@pytest.mark.parametrize("kind", AGENTS)
def test_the_kind_of_a_client_follows_from_its_headers(kind: str) -> None:
    assert client_kind(AGENTS[kind]) == kind
    assert client_kind({}) == "other"
