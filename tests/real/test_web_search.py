"""Web search with real clients: the SDKs, Claude Code and Codex, over a SearXNG that is scripted.

What the later turn sends is compared with what the model had read: its prompt begins with the earlier one's.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import RealComponent
from tests.real import program
from tests.real.claude import EACH_CLAUDE_CODE, Claude
from tests.real.codex import Codex, configuration
from tests.real.scripted_model import calls, function_names, results, says
from tests.real.serving import serving
from tests.scripted import Json, Script, ScriptedServer
from tests.scripted_search import searching

pytestmark = pytest.mark.real
DRIVER = Path(__file__).with_name("search_driver.py")
PAGES = "Page 1\nhttps://example.org/1\nWords of page 1.\n\nPage 2\nhttps://example.org/2\nWords of page 2."


def prompts(server: ScriptedServer) -> list[list[Json]]:
    return [seen.body["messages"] for seen in server.chats if seen.body is not None]


def searches_once(asked: Json) -> Script:
    """A model that searches when a user has asked, and then answers."""
    last = asked["messages"][-1]
    if last["role"] == "tool":
        return says("See https://example.org/1.")
    return calls(("web_search", {"query": "news"})) if last["content"] == "What is new?" else says("Later.")


@pytest.mark.parametrize("version", ["sdk-openai-2", "sdk-openai-3", "sdk-anthropic-0", "sdk-anthropic-2"])
async def test_an_sdk_reads_a_search_and_sends_it_back(version: str, real_component: RealComponent) -> None:
    maker = version.split("-")[1]
    async with (
        searching() as service,
        ScriptedServer(default=searches_once) as server,
        serving("--backend", server.url, search__url=service.url, store__url="off") as url,
    ):
        report: Any = await program.report(real_component(version), DRIVER, maker, url)
        first, again, later = prompts(server)[0], prompts(server)[1], prompts(server)[-1]
    assert report["invalid"] == []
    assert (report["text"], report["later"]) == ("See https://example.org/1.", "Later.")
    assert again[: len(first)] == first
    assert later[: len(again)] == again
    assert again[-1]["content"] == PAGES
    if maker == "openai":
        assert report["kinds"] == ["web_search_call", "message"]
        assert report["cited"] == ["https://example.org/1"]
        assert "response.web_search_call.completed" in report["events"]
    else:
        assert report["kinds"] == ["server_tool_use", "web_search_tool_result", "text"]
        assert report["cited"] == ["https://example.org/1", "https://example.org/2"]


@EACH_CLAUDE_CODE
async def test_claude_code_searches(claude: Claude) -> None:
    def answer(asked: Json) -> Script:
        assert asked.get("tools"), "the search itself reached the model"
        return says(f"told: {results(asked)[0]}") if results(asked) else calls(("WebSearch", {"query": "dragoman"}))

    async with (
        searching() as service,
        ScriptedServer(default=answer) as server,
        serving("--backend", server.url, search__url=service.url) as url,
    ):
        turn = await claude.ask(url, "Search.", "--allowedTools", "WebSearch")
    assert turn.status == 0
    assert service.queries == ["dragoman"]
    assert 'told: Web search results for query: "dragoman"' in turn.answer
    assert "https://example.org/1" in turn.answer
    assert "Words of page 2." in turn.answer
    assert "rror" not in turn.answer
    assert len(server.chats) == 2


async def test_codex_searches_and_goes_on_with_what_was_found(codex: Codex) -> None:
    """Codex sends an earlier search back without its results; the sealed item after it has them."""

    def answer(asked: Json) -> Script:
        assert "web_search" in function_names(asked)
        told = [message["content"] for message in asked["messages"] if message["role"] == "tool"]
        if len(told) < 2:
            return calls(("exec_command", {"cmd": "echo done"}) if told else ("web_search", {"query": "news"}))
        return says("See https://example.org/1." if told[0] == PAGES else f"Forgotten: {told}")

    async with (
        searching() as service,
        ScriptedServer(default=answer) as server,
        serving("--backend", server.url, search__url=service.url) as url,
    ):
        codex.configure(configuration(url, 'web_search = "live"'))
        turn = await codex.exec("What is new?")
        sent = prompts(server)
    assert (turn.status, turn.complaints) == (0, [])
    assert turn.answers == ["See https://example.org/1."]
    assert [item["query"] for item in turn.items("web_search")] == ["news"]
    assert service.queries == ["news"]
    for before, after in pairwise(sent):
        assert after[: len(before)] == before
