"""openai-agents against the gateway: an agent asks two tools at once, hears their answers and speaks; streamed and not.

The agent runs in an environment of its own (`agents_driver.py`), the gateway in a process, the model is scripted.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import RealComponent
from tests.real.program import report
from tests.real.scripted_model import calls, function_names, results, says
from tests.real.serving import serving
from tests.scripted import Json, Script, ScriptedServer, usage

pytestmark = pytest.mark.real

DRIVER = Path(__file__).with_name("agents_driver.py")
TOOLS_AND_ANSWER = ["ToolCallItem", "ToolCallItem", "ToolCallOutputItem", "ToolCallOutputItem", "MessageOutputItem"]


def model(asked: Json) -> Script:
    """Asks for both cities, then says what the tools returned; a question with a schema gets an object."""
    if '"warm"' in str(asked["messages"][0]["content"]):
        return says('{"warm": true, ', '"why": "sun"}')
    if told := results(asked):
        return says("It is ", " and ".join(told), ".")
    assert function_names(asked) == ["weather"]
    return calls(("weather", {"city": "Rome"}), ("weather", {"city": "Oslo"}))


@pytest.fixture
def python(real_component: RealComponent) -> Path:
    return real_component("agents")


async def drive(python: Path, url: str) -> Json:
    seen: Json = await report(python, DRIVER, f"{url}/v1")
    return seen


async def test_an_agent_runs_its_loop_of_tools_to_the_end(python: Path) -> None:
    server = ScriptedServer(default=model)
    async with server, serving("--backend", server.url, "--preset", "vllm") as url:
        report = await drive(python, url)
        asked = [seen.body for seen in server.chats]
    answer = "It is sunny in Rome and sunny in Oslo."
    for way in ("whole", "streamed"):
        assert report[way]["answer"] == answer
        assert report[way]["called"] == ["Oslo", "Rome"]
        assert report[way]["items"] == TOOLS_AND_ANSWER
    assert "".join(report["streamed"]["deltas"]) == answer
    counts = usage()
    assert report["whole"]["usage"] == [2, 2 * counts["prompt_tokens"], 2 * counts["completion_tokens"]]
    assert report["typed"]["verdict"] == {"warm": True, "why": "sun"}
    assert len(asked) == 7
    first, second, last = asked[0], asked[1], asked[-1]
    assert first is not None
    assert second is not None
    assert last is not None
    assert first["messages"][0] == {"role": "system", "content": "Answer after asking."}
    assert second["messages"][: len(first["messages"])] == first["messages"]
    said = second["messages"][len(first["messages"])]
    assert [call["id"] for call in said["tool_calls"]] == ["call_0", "call_1"]
    assert results(second) == ["sunny in Rome", "sunny in Oslo"]
    assert "response_format" not in last  # it would keep the model from calling the tool
    assert function_names(last) == ["weather"]
