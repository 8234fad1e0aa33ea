"""llm-comply, the conformance suite of Open Responses, whole against the gateway.

Once with a scripted model that reasons, sees and calls tools, once with the local model. The suite skips its test of
reasoning unless the model is called like one of OpenAI's that reason, so it gets such a name; nothing is skipped.

Known and named: the suite warns that there is no `POST /v1/responses/compact`, which it counts as passed; the local
model has no eyes; and Open Responses has other names for the events of reasoning than OpenAI's clients, so that a
stream with reasoning passes under `policy.reasoning_events: open_responses` only.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import RealComponent
from tests.real.comply import LOCAL, capable, failures, failures_of_a_small_model, run, warned
from tests.real.serving import serving
from tests.scripted import ScriptedServer

pytestmark = pytest.mark.real

TESTS = {
    "basic-response",
    "system-prompt",
    "multi-turn",
    "tool-calling",
    "streaming-response",
    "streaming-usage",
    "image-input",
    "assistant-phase",
    "response-output-phase-schema",
    "compact-response",
    "compact-missing-model",
    "reasoning-summary",
    "error-handling",
}


async def test_a_capable_model_passes_whole(suite: Path, tmp_path: Path) -> None:
    server = ScriptedServer(default=capable)
    async with server, serving("--backend", server.url, policy__reasoning_events="open_responses") as url:
        results = await run(suite, url, tmp_path, "open-responses")
        asked = [str(seen.body) for seen in server.chats]
    assert set(results) == TESTS
    assert failures(results) == {}
    assert set(warned(results)) == {"compact-response"}
    assert any("data:image/jpeg;base64," in body for body in asked)


async def test_with_the_names_that_openai_clients_know_only_the_events_of_reasoning_are_missed(
    suite: Path, tmp_path: Path
) -> None:
    async with ScriptedServer(default=capable) as server, serving("--backend", server.url) as url:
        failed = failures(await run(suite, url, tmp_path, "open-responses"))
    assert set(failed) == {"streaming-response", "streaming-usage"}
    for errors in failed.values():
        assert {error.rpartition(".")[0] for error in errors} == {"unknown SSE event type: response.reasoning_text"}


async def test_the_local_model_passes_but_for_its_eyes(
    suite: Path, real_component: RealComponent, tmp_path: Path
) -> None:
    real_component("local-model")
    async with serving(backends=LOCAL) as url:
        results = await run(suite, url, tmp_path, "open-responses")
    failed = failures_of_a_small_model(results)
    assert set(failed) == {"image-input"}
    assert "400" in " ".join(failed["image-input"])
    assert set(warned(results)) == {"compact-response"}
