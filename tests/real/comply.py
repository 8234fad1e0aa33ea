"""llm-comply, a conformance suite for several protocols, run against a gateway; it answers in JSON."""

from __future__ import annotations

import json
from pathlib import Path

from tests.real import program
from tests.real.scripted_model import calls, function_names
from tests.scripted import Json, Script, text_stream

# The suite skips its tests of reasoning unless the model is called like one of OpenAI's that reason.
REASONS = "gpt-5"
SUITE_SECONDS = 600.0
# The local model now and then rambles until it meets a limit, and the suite asks for thousands of tokens or says none:
# minutes, after which the suite gives up and can use its connection no more. To llama.cpp `n_predict` comes first.
LOCAL = json.dumps([{"url": "local:", "settings": {"extra_body": {"n_predict": 256}}}])
RAMBLED = {
    "expected status='completed', got 'incomplete'",
    "finish_reason: expected 'stop', got 'length'",
    "stop_reason: expected 'end_turn', got 'max_tokens'",
}


async def run(suite: Path, url: str, home: Path, protocol: str, model: str = REASONS) -> dict[str, Json]:
    """The results by test, `url` without a path. The suite's exit status must agree with them."""
    command = (
        *(str(suite), "--format", protocol, "--json", "--timeout", "120"),
        *("--base-url", f"{url}/v1", "--api-key", "dummy", "--model", model),
    )
    status, output, errors = await program.run(command, home, {"HOME": str(home)}, SUITE_SECONDS)
    assert output, errors.decode()
    results = {result["id"]: result for result in json.loads(output)["results"]}
    assert status == (0 if all(result["status"] == "passed" for result in results.values()) else 1)
    return results


def capable(asked: Json, counts: Json | None = None) -> Script:
    """A model that calls the tool when there is one, and else thinks before it speaks."""
    if names := function_names(asked):
        return calls((names[0], {"location": "San Francisco"}))
    return Script(text_stream("Hello", " there.", reasoning=["Let me ", "think."], counts=counts))


def failures(results: dict[str, Json]) -> dict[str, list[str]]:
    """What did not pass, skips included, and why."""
    return {name: result.get("errors", []) for name, result in results.items() if result["status"] != "passed"}


def failures_of_a_small_model(results: dict[str, Json]) -> dict[str, list[str]]:
    """The failures but for those whose only fault is that a sampled model talked until its limit and was cut there."""
    return {name: errors for name, errors in failures(results).items() if not errors or set(errors) - RAMBLED}


def warned(results: dict[str, Json]) -> dict[str, list[str]]:
    return {name: result["warnings"] for name, result in results.items() if result.get("warnings")}
