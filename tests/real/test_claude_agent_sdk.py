"""claude-agent-sdk against the gateway: two turns of one session, with a tool that lives in the user's own program.

The SDK runs in an environment of its own (`claude_agent_sdk_driver.py`) and starts the Claude Code that it brings
along.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from tests.conftest import RealComponent
from tests.real.program import report
from tests.real.scripted_model import calls, function_names, results, says
from tests.real.serving import serving
from tests.scripted import Json, Script, ScriptedServer

DRIVER = Path(__file__).with_name("claude_agent_sdk_driver.py")
WEATHER = "mcp__sky__weather"


def model(asked: Json) -> Script:
    """Looks for the tool, calls it, and says what it returned."""
    if len(found := results(asked)) == 2:
        return says("It is ", f"{found[-1]}.") if asked["messages"][-1]["role"] == "tool" else says("Quite.")
    if WEATHER in function_names(asked):
        return calls((WEATHER, {"city": "Rome"}))
    return calls(("ToolSearch", {"query": f"select:{WEATHER}", "max_results": 1}))


async def test_a_session_finds_and_runs_a_tool_of_its_program(real_component: RealComponent, tmp_path: Path) -> None:
    python = real_component("claude-agent-sdk")
    async with ScriptedServer(default=model) as server, serving("--backend", server.url) as url:
        told = await report(python, DRIVER, url, str(tmp_path), home=tmp_path)
        prompts = [seen.body["messages"] for seen in server.chats if seen.body]
    first, second = told["turns"]
    assert told["called"] == ["Rome"]
    assert (first["failed"], first["result"], first["said"][-1]) == (False, *["It is sunny in Rome."] * 2)
    assert (second["failed"], second["result"], second["said"]) == (False, "Quite.", ["Quite."])
    assert "".join(first["deltas"]) == "It is sunny in Rome."
    assert len(prompts) == 4  # none was refused and asked again
    for before, after in pairwise(prompts):
        assert after[: len(before)] == before
