"""Claude Code's own names of models, served by others: the example of configs/claude-code; what usage is good for."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import aiohttp
import pytest

from tests.real.claude import CLAUDE_CODE_VERSIONS, Claude, Turn, environment
from tests.real.components import ROOT
from tests.real.scripted_model import says
from tests.real.serving import serving
from tests.scripted import Json, Script, ScriptedServer, model_list, text_stream, usage

pytestmark = pytest.mark.real

EXAMPLES = ROOT / "configs" / "claude-code"
SERVER = "http://127.0.0.1:8000/v1"
NAMES = {
    "opus": "served-model",
    "sonnet": "served-model",
    "haiku": "small-model",
    "claude-sonnet-4-5-20250929": "served-model",
    "claude-haiku-4-5-20251001": "small-model",
}


def example(server: ScriptedServer, folder: Path) -> Path:
    """The example's file for that server."""
    text = (EXAMPLES / "gateway.yaml").read_text(encoding="utf-8")
    assert text.count(SERVER) == 1
    file = folder / "gateway.yaml"
    file.write_text(text.replace(SERVER, server.url), encoding="utf-8")
    return file


async def test_every_name_that_claude_code_has_is_served(claude: Claude) -> None:
    async with ScriptedServer(default=says("ok"), models=("served-model", "small-model")) as server:
        async with serving("--config", str(example(server, claude.home))) as url:
            for name in NAMES:
                turn = await claude.ask(url, "Say ok.", "--model", name)
                assert (turn.status, turn.answer) == (0, "ok"), name
        asked = [seen.body["model"] for seen in server.chats if seen.body]
    assert asked == list(NAMES.values())


async def test_the_list_has_the_names_in_anthropic_s_shape_with_their_windows(claude: Claude) -> None:
    async with ScriptedServer() as server:
        server.on("GET", "/v1/models", model_list("served-model", "small-model", max_model_len=65536))
        async with serving("--config", str(example(server, claude.home))) as url, aiohttp.ClientSession() as session:
            headers = {"anthropic-version": "2023-06-01"}
            async with session.get(f"{url}/v1/models?limit=1000", headers=headers) as answer:
                listed = await answer.json()
            async with session.get(f"{url}/v1/models/claude-opus", headers=headers) as answer:
                one = await answer.json()
    assert {"opus", "sonnet", "haiku", "claude-opus"} <= {model["id"] for model in listed["data"]}
    assert {(model["type"], model["max_input_tokens"]) for model in listed["data"]} == {("model", 65536)}
    assert one in listed["data"]
    assert listed["has_more"] is False


def test_the_settings_say_what_the_readme_says() -> None:
    settings = json.loads((EXAMPLES / "settings.json").read_text(encoding="utf-8"))["env"]
    shared = set(environment()) & set(settings)
    assert shared >= {"ANTHROPIC_BASE_URL", "ANTHROPIC_AUTH_TOKEN"}
    assert {name: settings[name] for name in shared} == {name: environment()[name] for name in shared}
    assert settings["CLAUDE_CODE_MAX_CONTEXT_TOKENS"] == settings["CLAUDE_CODE_AUTO_COMPACT_WINDOW"]


BOTH = ("CLAUDE_CODE_MAX_CONTEXT_TOKENS", "CLAUDE_CODE_AUTO_COMPACT_WINDOW")
OLDER, NEWEST = CLAUDE_CODE_VERSIONS


@pytest.mark.parametrize(
    ("claude", "names", "tokens"),
    [(OLDER, BOTH, 32_768), (NEWEST, BOTH, 32_768), (NEWEST, BOTH[:1], 32_768), (NEWEST, BOTH[1:], 131_072)],
    indirect=["claude"],
)
async def test_usage_arms_claude_code_s_own_compaction(claude: Claude, names: Sequence[str], tokens: int) -> None:
    """Told the window, Claude Code compacts before it overflows, by the tokens that our answers count. Below 100,000
    tokens 2.1.197 takes both variables, neither of which does anything without the other; 2.1.332 takes the first."""

    def answer(asked: Json) -> Script:
        if "CRITICAL: Respond with TEXT ONLY" in str(asked["messages"][-1]["content"]):
            return says("<summary>A summary.</summary>")
        long = len(asked["messages"]) > 4
        return Script(text_stream("ok", counts=usage(prompt=tokens - 2_000 if long else tokens // 4)))

    async with ScriptedServer(default=answer) as server, serving("--backend", server.url) as url:

        async def turn(ask: Callable[..., Awaitable[Turn]], prompt: str) -> Turn:
            return await ask(url, prompt, **dict.fromkeys(names, str(tokens)))

        first = await turn(claude.ask, "One.")
        second = await turn(claude.go_on, "Two.")
        third = await turn(claude.go_on, "Three.")
        asked = [seen.body for seen in server.chats if seen.body]
    assert [bool(turn.told("compact_boundary")) for turn in (first, second, third)] == [False, False, True]
    assert (third.status, third.answer) == (0, "ok")
    assert "A summary." in str(asked[-1]["messages"])
