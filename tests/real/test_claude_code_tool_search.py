"""Claude Code's deferred tools, from 2.1.332 on: the model knows their names, searches, and calls what it found.

The tools of every request begin those of the next, and so do the messages: what a model server has cached stays.
"""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from tests.real.claude import Claude
from tests.real.scripted_model import calls, function_names, results, says
from tests.real.serving import serving
from tests.scripted import Json, Play, Script, ScriptedServer

MCP_SERVER = Path(__file__).with_name("mcp_server.py")
ADD = "mcp__demo__add"


def finding(name: str, arguments: Json) -> Play:
    """A model that searches for a tool, calls it, and says what it returned."""

    def play(asked: Json) -> Script:
        found = results(asked)
        if not found:
            assert name not in function_names(asked)
            return calls(("ToolSearch", {"query": f"select:{name}", "max_results": 3}))
        return says(f"told: {found[-1]}") if len(found) > 1 else calls((name, arguments))

    return play


def grows(asked: list[Json]) -> bool:
    """Whether each request begins the next, in its tools as in its messages."""
    return all(
        after[key][: len(before[key])] == before[key]
        for before, after in pairwise(asked)
        for key in ("tools", "messages")
    )


def with_mcp(claude: Claude) -> tuple[str, ...]:
    """The flags for a server with one tool; its script is copied, so that it runs outside the sources."""
    script, config = claude.home / "server.py", claude.home / "mcp.json"
    script.write_bytes(MCP_SERVER.read_bytes())
    demo = {"command": sys.executable, "args": [str(script)]}
    config.write_text(json.dumps({"mcpServers": {"demo": demo}}), encoding="utf-8")
    return ("--mcp-config", str(config), "--strict-mcp-config", "--allowedTools", ADD)


async def test_a_tool_of_an_mcp_server_is_found_called_and_stays_at_the_end(claude: Claude) -> None:
    flags = with_mcp(claude)
    async with ScriptedServer(default=finding(ADD, {"a": 40, "b": 2})) as server:
        async with serving("--backend", server.url) as url:
            turn = await claude.ask(url, "Add.", *flags)
            later = await claude.go_on(url, "And again?", *flags)
        asked = [seen.body for seen in server.chats if seen.body]
    assert [(each.status, each.answer) for each in (turn, later)] == [(0, "told: the sum is 42")] * 2
    assert [function_names(body)[-1] == ADD for body in asked] == [False, True, True, True]
    assert "DeferredToolPlaceholder" not in str(asked)
    assert grows(asked)


async def test_where_a_definition_stands_at_its_reference_the_list_stays_as_it_was(claude: Claude) -> None:
    async with ScriptedServer(default=finding("CronList", {})) as server:
        config = {"backends": [{"name": "a", "url": server.url, "settings": {"deferred_tools": "in_place"}}]}
        file = claude.home / "gateway.json"
        file.write_text(json.dumps(config), encoding="utf-8")
        async with serving("--config", str(file)) as url:
            turn = await claude.ask(url, "What is planned?")
        asked = [seen.body for seen in server.chats if seen.body]
    assert (turn.status, turn.answer) == (0, "told: No scheduled jobs.")
    assert [body["tools"] for body in asked] == [asked[0]["tools"]] * 3
    assert "CronList" in results(asked[1])[0]
    assert "description" in results(asked[1])[0]
    assert grows(asked)


@pytest.mark.parametrize("name", ["cronlist", "Cron_List"])
async def test_a_name_that_is_none_is_the_model_s_error_and_the_turn_goes_on(claude: Claude, name: str) -> None:
    plays = (calls((name, {})), lambda asked: says(f"told: {results(asked)[-1]}"))
    async with ScriptedServer(*plays) as server, serving("--backend", server.url) as url:
        turn = await claude.ask(url, "What is planned?")
    assert turn.status == 0
    assert "No such tool available" in turn.answer
    assert turn.results()[0]["is_error"] is True
