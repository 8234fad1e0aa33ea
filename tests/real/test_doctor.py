"""The doctor's verdict on the local model, which is too small to be given tools."""

from __future__ import annotations

import pytest

from dragoman.gateway.config import Config
from tests.conftest import RealComponent
from tests.gateway.doctor.asked import ask

pytestmark = pytest.mark.real


async def test_the_local_model_answers_and_calls_nothing(
    real_component: RealComponent, capsys: pytest.CaptureFixture[str]
) -> None:
    real_component("local-model")
    patience = {"first_event": 30}  # a CPU may take minutes for a prompt of 5,000 tokens, and may take none of it
    told = await ask(capsys, Config(backends=[{"url": "local:"}], timeouts=patience))
    assert told.status == 1
    found = told.findings
    for probe in ("health", "text", "usage", "counting", "late system message", "forced tool", "JSON schema"):
        assert found[probe]["verdict"] == "ok", found[probe]
    assert found["tool call"]["result"] == "this model's template has no tools: only forced calls"
    assert found["context window"]["result"] == "8192 tokens, says the server"
    assert told.clients == {"Codex": "does not", "Claude Code": "does not", "plain SDK": "works"}
    assert told.settings == {}
