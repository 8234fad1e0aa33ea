"""llm-comply's suite for chat completions, whole against the gateway: nothing fails, is skipped or warned of.

Once with a scripted model that reasons, sees and calls tools, once with the local model, which has no eyes, need not
call a tool and counts no thoughts.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import RealComponent
from tests.real.comply import LOCAL, capable, failures, failures_of_a_small_model, run, warned
from tests.real.serving import serving
from tests.scripted import Json, Script, ScriptedServer, usage

pytestmark = pytest.mark.real

TESTS = {
    "chat-basic-response",
    "chat-system-prompt",
    "chat-multi-turn",
    "chat-tool-calling",
    "chat-streaming-response",
    "chat-streaming-usage",
    "chat-image-input",
    "chat-reasoning-summary",
    "chat-error-handling",
}


def counting(asked: Json) -> Script:
    """The capable model, counting its thoughts."""
    return capable(asked, usage() | {"completion_tokens_details": {"reasoning_tokens": 2}})


async def test_a_capable_model_passes_whole(suite: Path, tmp_path: Path) -> None:
    async with ScriptedServer(default=counting) as server, serving("--backend", server.url) as url:
        results = await run(suite, url, tmp_path, "openai-chat")
        asked = [str(seen.body) for seen in server.chats]
    assert set(results) == TESTS
    assert failures(results) == {}
    assert warned(results) == {}
    assert any("data:image/jpeg;base64," in body for body in asked)


async def test_the_local_model_passes_but_for_its_eyes(
    suite: Path, real_component: RealComponent, tmp_path: Path
) -> None:
    real_component("local-model")
    async with serving(backends=LOCAL) as url:
        results = await run(suite, url, tmp_path, "openai-chat")
    failed = failures_of_a_small_model(results)
    assert set(failed) == {"chat-image-input"}
    assert "400" in " ".join(failed["chat-image-input"])
    assert set(warned(results)) == {"chat-reasoning-summary"}
