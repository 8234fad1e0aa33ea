"""llm-comply, a conformance suite for several protocols, run against a gateway; it answers in JSON."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

from tests.scripted import Json

# The suite skips its tests of reasoning unless the model is called like one of OpenAI's that reason.
REASONS = "gpt-5"
SUITE_SECONDS = 300.0


async def run(suite: Path, url: str, home: Path, protocol: str, model: str = REASONS) -> dict[str, Json]:
    """The results by test, `url` without a path. The suite's exit status must agree with them."""
    child = await asyncio.create_subprocess_exec(
        *(str(suite), "--format", protocol, "--json", "--timeout", "120"),
        *("--base-url", f"{url}/v1", "--api-key", "dummy", "--model", model),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "HOME": str(home)},
    )
    try:
        output, errors = await asyncio.wait_for(child.communicate(), SUITE_SECONDS)
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    assert output, errors.decode()
    results = {result["id"]: result for result in json.loads(output)["results"]}
    assert child.returncode == (0 if all(result["status"] == "passed" for result in results.values()) else 1)
    return results


def failures(results: dict[str, Json]) -> dict[str, list[str]]:
    """What did not pass, skips included, and why."""
    return {name: result.get("errors", []) for name, result in results.items() if result["status"] != "passed"}


def warned(results: dict[str, Json]) -> dict[str, list[str]]:
    return {name: result["warnings"] for name, result in results.items() if result.get("warnings")}
