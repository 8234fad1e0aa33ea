"""llm-comply's suite for Anthropic Messages, whole against the gateway: nothing fails, is skipped or warned of.

Once with a scripted model that reasons, sees and calls tools, once with the local model. The suite skips its test of
thinking unless the model is called like one of Anthropic's that think, so it is told such a name. The local model has
no eyes; that it need not think or call a tool is no fault to the suite.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import RealComponent
from tests.real.comply import LOCAL, capable, failures, failures_of_a_small_model, run, warned
from tests.real.serving import serving
from tests.scripted import ScriptedServer

pytestmark = pytest.mark.real

THINKS = "claude-sonnet-4-5"
TESTS = {
    "anth-basic-response",
    "anth-system-prompt",
    "anth-multi-turn",
    "anth-tool-calling",
    "anth-streaming-response",
    "anth-streaming-usage",
    "anth-image-input",
    "anth-thinking-display",
    "anth-error-handling",
}


async def test_a_capable_model_passes_whole(suite: Path, tmp_path: Path) -> None:
    async with ScriptedServer(default=capable) as server, serving("--backend", server.url) as url:
        results = await run(suite, url, tmp_path, "anthropic", THINKS)
        asked = [str(seen.body) for seen in server.chats]
    assert set(results) == TESTS
    assert failures(results) == {}
    assert warned(results) == {}
    assert any("data:image/" in body for body in asked)


async def test_the_local_model_passes_but_for_its_eyes(
    suite: Path, real_component: RealComponent, tmp_path: Path
) -> None:
    real_component("local-model")
    async with serving(backends=LOCAL) as url:
        results = await run(suite, url, tmp_path, "anthropic", THINKS)
    failed = failures_of_a_small_model(results)
    assert set(failed) == {"anth-image-input"}
    assert "400" in " ".join(failed["anth-image-input"])
