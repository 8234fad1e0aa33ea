"""`dragoman launch` with the real clients: an answer, in a home whose settings say otherwise, and no file changed."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import RealComponent
from tests.real.claude import CLAUDE_CODE_VERSIONS
from tests.real.codex import CODEX_VERSIONS
from tests.real.components import ROOT
from tests.real.program import run
from tests.real.scripted_model import calls, function_names, results, says
from tests.real.serving import announced
from tests.scripted import Json, Script, ScriptedServer
from tests.scripted_search import searching

pytestmark = pytest.mark.real

SECONDS = 120.0
KEY = "canary-key"
WINDOW = 65_536
PROGRAMS = (*CODEX_VERSIONS, *CLAUDE_CODE_VERSIONS, "opencode")
ASK = {
    "codex": ("exec", "--skip-git-repo-check", "Say hello."),
    "claude": ("-p", "Say hello."),
    "opencode": ("run", "Say hello."),
}
# Each names another server, which would not answer, and nothing that its client would rewrite by itself at its first
# start (Claude Code drops the model `opus`, opencode adds `$schema`).
MINE = {
    ".codex/config.toml": "# mine\nmodel = 'gpt-5'\nmodel_provider = 'other'\n[model_providers.other]\nname = 'other'\n"
    "base_url = 'http://127.0.0.1:9/v1'\n",
    ".claude/settings.json": '{"env": {"ANTHROPIC_BASE_URL": "http://127.0.0.1:9", "ANTHROPIC_AUTH_TOKEN": "x", '
    '"CLAUDE_CODE_USE_MANTLE": "1"}, "apiKeyHelper": "touch ../helped; echo mine", "model": "sonnet"}',
    ".config/opencode/opencode.json": '{"$schema": "https://opencode.ai/config.json", "model": "other/model"}',
}
# What a shell may hold that leads Claude Code elsewhere, or gives it another key.
ELSEWHERE = {
    "ANTHROPIC_API_KEY": "mine",
    "ANTHROPIC_AUTH_TOKEN": "mine",
    "CLAUDE_CODE_OAUTH_TOKEN": "mine",
    "CLAUDE_CODE_USE_BEDROCK": "1",
}


@dataclass
class Home:
    """A home with the user's own settings, in which a client is launched."""

    path: Path
    program: Path

    def __post_init__(self) -> None:
        for name, text in MINE.items():
            (self.path / name).parent.mkdir(parents=True)
            (self.path / name).write_text(text, encoding="utf-8")
        (self.path / "work").mkdir()

    async def launch(self, *words: str, **environment: str) -> tuple[int, str, str]:
        command = (sys.executable, "-m", "dragoman", "launch", self.program.name, *words)
        return await self.run(*command, PYTHONPATH=str(ROOT / ".dev"), **environment)

    async def run(self, *command: str, **environment: str) -> tuple[int, str, str]:
        nobody = "http://127.0.0.1:9"  # nothing beside the gateway is asked
        variables = {
            "PATH": f"{self.program.parent}:{os.environ['PATH']}",
            "HOME": str(self.path),
            "HTTPS_PROXY": nobody,
            "HTTP_PROXY": nobody,
            **ELSEWHERE,
            **environment,
        }
        status, output, errors = await run(command, self.path / "work", variables, SECONDS)
        return status, output.decode(), errors.decode()

    def is_as_it_was(self) -> bool:
        helped = self.path / "helped"  # what the user's own helper leaves, which is not to be asked
        kept = all((self.path / name).read_text(encoding="utf-8") == text for name, text in MINE.items())
        return kept and not helped.exists()


@pytest.fixture(params=PROGRAMS)
def home(request: pytest.FixtureRequest, real_component: RealComponent, tmp_path: Path) -> Home:
    return Home(tmp_path, real_component(request.param))


@pytest.mark.parametrize("keys", [{}, {"api_keys": KEY}], ids=["open", "with keys"])
async def test_a_launched_client_gets_its_answer_and_changes_no_settings(home: Home, keys: dict[str, str]) -> None:
    given = {"DRAGOMAN_CLIENT_KEY": KEY} if keys else {}
    # two models, so that a name of nobody's would be 404
    async with ScriptedServer(default=says("Hello."), models=("first", "second")) as server:
        async with announced("--backend", server.url, **keys) as (url, _):
            words = ("--url", url, "--model", "second", "--window", str(WINDOW), "--", *ASK[home.program.name])
            status, output, errors = await home.launch(*words, **given)
        asked = {str(seen.body["model"]) for seen in server.chats if seen.body}
    assert (status, "Hello." in output) == (0, True), (output, errors)
    assert asked == {"second"}
    assert home.is_as_it_was()
    assert KEY not in output + errors


async def test_without_a_gateway_one_serves_the_client_and_ends_with_it(home: Home) -> None:
    async with ScriptedServer(default=says("Hello.")) as server:
        status, output, errors = await home.launch("--backend", server.url, "--", *ASK[home.program.name])
    assert (status, "Hello." in output) == (0, True), (output, errors)
    assert home.is_as_it_was()


async def test_what_is_printed_and_what_is_written_do_the_same(home: Home) -> None:
    name, ask = home.program.name, ASK[home.program.name]
    async with (
        ScriptedServer(default=says("Hello."), models=("only",)) as server,
        announced("--backend", server.url, api_keys=KEY) as (url, _),
    ):
        given = ("--url", url, "--window", str(WINDOW))
        status, printed, errors = await home.launch(*given, "--print", "--", *ask, DRAGOMAN_CLIENT_KEY=KEY)
        assert (status, KEY in printed) == (0, False), errors
        key = {"DRAGOMAN_CLIENT_KEY": KEY, "NO_PROXY": "127.0.0.1"}
        status, output, errors = await home.run("sh", "-c", printed, **key)
        assert (status, "Hello." in output) == (0, True), (output, errors)
        status, _, errors = await home.launch(*given, "--write", DRAGOMAN_CLIENT_KEY=KEY)
        assert (status, home.is_as_it_was()) == (0, False), errors
        status, output, errors = await home.run(name, *ask, **key)
        assert (status, "Hello." in output) == (0, True), (output, errors)
    status, _, errors = await home.launch("--undo")
    assert (status, home.is_as_it_was()) == (0, True), errors


async def test_the_status_of_the_client_is_passed_on(home: Home) -> None:
    async with ScriptedServer() as server, announced("--backend", server.url) as (url, _):
        status, _, _ = await home.launch("--url", url, "--", "--no-such-option")
    assert status not in (0, 127)


@pytest.mark.parametrize("version", CODEX_VERSIONS)
async def test_codex_searches_where_the_gateway_does(
    version: str, real_component: RealComponent, tmp_path: Path
) -> None:
    """With the catalogue, which names no kind of search by itself."""

    def answer(asked: Json) -> Script:
        assert "web_search" in function_names(asked)
        return says(f"told: {results(asked)[0]}") if results(asked) else calls(("web_search", {"query": "news"}))

    home = Home(tmp_path, real_component(version))
    async with (
        searching() as service,
        ScriptedServer(default=answer) as server,
        announced("--backend", server.url, search__url=service.url) as (url, _),
    ):
        status, output, errors = await home.launch("--url", url, "--window", str(WINDOW), "--", *ASK["codex"])
    assert (status, service.queries) == (0, ["news"]), errors
    assert "Words of page 2." in output
