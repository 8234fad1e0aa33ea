"""`dragoman launch` with a client that only reports how it was started; the real ones are in `tests/real`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dragoman.gateway.launch.gateway import Offer, choose
from tests.real.scripted_model import says
from tests.scripted import ScriptedServer
from tests.serving_command import serving
from tests.waiting import LIMIT, until

pytestmark = pytest.mark.slow  # each test is several processes

ROOT = Path(__file__).parents[3]
CLIENTS = ("codex", "claude", "opencode")
PROGRAM = f"""#!{sys.executable}
import json, os, sys, time
if "--version" in sys.argv:
    sys.exit(print(os.environ.get("FAKE_VERSION", "")))
settings = [open(each).read() for each in sys.argv if each.endswith("settings.json")]
print(json.dumps({{"arguments": sys.argv[1:], "environment": dict(os.environ), "settings": settings}}), flush=True)
if "debug" in sys.argv:
    sys.exit(1)
if "sleep" in sys.argv:
    time.sleep(60)
sys.exit(7)
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with settings of the user's own, and the clients on its path."""
    for name in CLIENTS:
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(PROGRAM)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    for name, text in ((".codex/config.toml", "# mine\n"), (".claude/settings.json", '{"model": "opus"}')):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    return tmp_path


async def launched(home: Path, *words: str, **environment: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "dragoman.gateway.cli", "launch", *words),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={
            "PATH": f"{home / 'bin'}:{os.environ['PATH']}",
            "HOME": str(home),
            "TMPDIR": str(home),
            "PYTHONPATH": str(ROOT / ".dev"),
            **environment,
        },
    )


async def ran(home: Path, *words: str, **environment: str) -> tuple[int | None, str, str]:
    child = await launched(home, *words, **environment)
    output, errors = await asyncio.wait_for(child.communicate(), LIMIT)
    return child.returncode, output.decode(), errors.decode()


def report(output: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def files(home: Path) -> dict[str, bytes]:
    return {str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*") if path.is_file()}


# ------------------------------------------------------------------------------------------------------- how it starts


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_client_gets_the_address_the_model_and_the_window_and_its_status_is_passed_on(
    home: Path, client: str
) -> None:
    before = files(home)
    async with ScriptedServer(models=("first", "second")) as server, serving("--backend", server.url) as process:
        url = await process.ready()
        given = ("--url", f"{url}/v1/", "--model", "second", "--window", "32768")
        status, output, errors = await ran(home, client, *given, "--", "exec", "--flag", "a b")
    assert (status, errors) == (7, "")
    told = report(output)
    assert told["arguments"][-3:] == ["exec", "--flag", "a b"]
    said = json.dumps(told)
    assert all(word in said for word in (url, "second", "32768"))
    assert files(home) == before


ELSEWHERE = ("ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN", "CLAUDE_CODE_USE_MANTLE", "ANTHROPIC_UNIX_SOCKET")


async def test_claude_code_is_told_by_its_settings_too_since_they_beat_its_environment(home: Path) -> None:
    async with ScriptedServer(models=("m",)) as server, serving("--backend", server.url) as process:
        url = await process.ready()
        theirs = {**dict.fromkeys(ELSEWHERE, "mine"), "HTTP_PROXY": "http://p:1"}
        _, output, _ = await ran(home, "claude", "--url", url, "--window", "65536", **theirs)
    told = report(output)
    environment, settings = told["environment"], json.loads(told["settings"][0])
    assert "mine" not in environment.values()
    assert {settings["env"].get(name) for name in ELSEWHERE} == {"", None}
    assert settings["apiKeyHelper"] == ""
    for place in (environment, settings["env"]):
        assert place["ANTHROPIC_BASE_URL"] == url
        assert place["CLAUDE_CODE_MAX_CONTEXT_TOKENS"] == place["CLAUDE_CODE_AUTO_COMPACT_WINDOW"] == "65536"
        assert place["CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"] == "1"
        assert place["ANTHROPIC_AUTH_TOKEN"] == "any"
    assert environment["NO_PROXY"] == "127.0.0.1,localhost"


async def test_hosts_that_no_proxy_is_asked_for_are_named_in_both_spellings(home: Path) -> None:
    async with ScriptedServer(models=("m",)) as server, serving("--backend", server.url) as process:
        url = await process.ready()
        _, output, _ = await ran(home, "claude", "--url", url, HTTP_PROXY="http://p:1", no_proxy="a.corp, .b.corp")
    environment = report(output)["environment"]
    assert environment["NO_PROXY"] == environment["no_proxy"] == "a.corp,.b.corp,127.0.0.1,localhost"


WINDOWS = ("CLAUDE_CODE_MAX_CONTEXT_TOKENS", "CLAUDE_CODE_AUTO_COMPACT_WINDOW")


@pytest.mark.parametrize(
    ("version", "window", "given"),
    [
        ("2.1.197 (Claude Code)", "65536", WINDOWS),
        ("2.1.332 (Claude Code)", "65536", WINDOWS[:1]),
        ("3.0.1 (Claude Code)", "65536", WINDOWS[:1]),
        ("2.1.332 (Claude Code)", "131072", WINDOWS),
        ("of its own kind", "65536", WINDOWS),
        ("2.1.332 (Claude Code)", "8192", ()),
    ],
)
async def test_claude_code_is_told_the_window_in_what_its_version_takes_without_a_warning(
    home: Path, version: str, window: str, given: Sequence[str]
) -> None:
    async with ScriptedServer(models=("m",)) as server, serving("--backend", server.url) as process:
        words = ("--url", await process.ready(), "--window", window)
        _, output, errors = await ran(home, "claude", *words, FAKE_VERSION=version)
    told = report(output)
    for place in (told["environment"], json.loads(told["settings"][0])["env"]):
        assert {name: place[name] for name in WINDOWS if name in place} == dict.fromkeys(given, window)
    assert bool(errors) is not bool(given)


@pytest.mark.parametrize(("client", "needed"), [("codex", "4,600"), ("claude", "19,500")])
async def test_a_window_in_which_the_first_prompt_does_not_fit_is_said(home: Path, client: str, needed: str) -> None:
    async with ScriptedServer(models=("m",)) as server, serving("--backend", server.url) as process:
        status, _, errors = await ran(home, client, "--url", await process.ready(), "--window", "4096")
    (line,) = errors.splitlines()
    assert status == 7  # it is started all the same
    assert line.startswith(f"dragoman: m has a window of 4,096 tokens, and the first prompt of {client} {needed}: ")


@pytest.mark.parametrize("client", CLIENTS)
async def test_a_key_reaches_the_client_and_no_screen_and_no_other_secret_does(home: Path, client: str) -> None:
    keys = {"DRAGOMAN_API_KEYS": "canary-one,canary-two", "DRAGOMAN_BACKEND_API_KEY": "canary-upstream"}
    async with ScriptedServer(models=("m",)) as server, serving("--backend", server.url, **keys) as process:
        url = await process.ready()
        status, output, errors = await ran(home, client, "--url", url)
        assert (status, output) == (1, "")
        assert errors == f"dragoman: the gateway on {url} wants a key, and there is none in DRAGOMAN_CLIENT_KEY\n"
        status, _, errors = await ran(home, client, "--url", url, DRAGOMAN_CLIENT_KEY="wrong")
        assert (status, "does not accept the key" in errors) == (1, True)
        status, output, errors = await ran(home, client, "--url", url, DRAGOMAN_CLIENT_KEY="canary-two", **keys)
        assert status == 7
        assert "canary" not in errors
        told = report(output)
        assert "canary-two" in told["environment"].values()
        assert "canary-one" not in json.dumps(told["environment"])
        assert "canary-upstream" not in json.dumps(told)
        assert "canary" not in str(told["arguments"])
        _, output, errors = await ran(home, client, "--url", url, "--print", DRAGOMAN_CLIENT_KEY="canary-two")
        assert "DRAGOMAN_CLIENT_KEY" in output
        assert "canary" not in output + errors


async def test_without_a_gateway_one_is_started_and_ends_with_the_client(home: Path) -> None:
    async with ScriptedServer(default=says("x"), models=("m",)) as server:
        status, output, errors = await ran(home, "claude", "--backend", server.url)
    assert status == 7
    address = report(output)["environment"]["ANTHROPIC_BASE_URL"]
    assert "one is started" in errors
    assert "the window of m is not known" in errors
    host, port = address.removeprefix("http://").split(":")
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await asyncio.open_connection(host, int(port))


async def test_a_gateway_that_does_not_start_is_explained(home: Path) -> None:
    status, output, errors = await ran(home, "codex", "--backend", "http://u:p@x/v1")
    assert (status, output) == (1, "")
    assert "the gateway did not start" in errors
    assert "keys belong into the environment" in errors


async def test_a_signal_reaches_the_client_and_its_end_is_the_status(home: Path) -> None:
    async with ScriptedServer(models=("m",)) as server, serving("--backend", server.url) as process:
        child = await launched(home, "codex", "--url", await process.ready(), "--window", "4096", "--", "sleep")
        assert child.stdout is not None
        while b"sleep" not in await asyncio.wait_for(child.stdout.readline(), LIMIT):
            pass
        child.send_signal(signal.SIGINT)  # a terminal sends it to both, and the client decides
        child.send_signal(signal.SIGTERM)
        await asyncio.wait_for(child.communicate(), LIMIT)
        await until(lambda: child.returncode == 128 + signal.SIGTERM)


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["codex", "--url", "http://127.0.0.1:9"], 1, "no gateway answers on http://127.0.0.1:9"),
        (["codex", "--url", "http://127.0.0.1:9", "--backend", "http://x/v1"], 2, "--url names a gateway that runs"),
        (["codex", "--print", "--undo"], 2, "exclude each other"),
        (["codex", "--undo"], 1, "there is nothing to undo"),
        (["vim"], 2, "'vim' is none of codex, claude, opencode"),
        (["codex", "--window", "32k"], 2, "'32k' is no window"),
        (
            ["codex", "exec"],
            2,
            "launch takes no exec; what is for the client comes after `--`",
        ),
        (["claude", "-p", "Hi"], 2, "dragoman launch claude -- -p"),
        (["codex", "--url", "127.0.0.1:9"], 1, "no gateway answers on http://127.0.0.1:9"),
        (["codex", "--url", "http://[::1"], 1, "--url: http://[::1 is no address of a gateway"),
        (["codex", "--url", "ftp://h", "--print"], 1, "--url: ftp://h is no address of a gateway"),
    ],
)
async def test_what_cannot_be_launched_is_explained(home: Path, words: Sequence[str], status: int, told: str) -> None:
    found, output, errors = await ran(home, *words)
    assert (found, output) == (status, "")
    assert told in errors


async def test_a_model_server_in_place_of_a_gateway_is_said(home: Path) -> None:
    async with ScriptedServer() as server:
        _, _, errors = await ran(home, "codex", "--url", server.url, "--print")
    assert f"{server.root} does not answer as dragoman does; if it is a model server, name it by --backend" in errors


async def test_a_model_that_the_gateway_does_not_list_is_said(home: Path) -> None:
    async with ScriptedServer(models=("qwen", "glm")) as server, serving("--backend", server.url) as gateway:
        words = ("codex", "--url", address := await gateway.ready(), "--print", "--model")
        _, _, wrong = await ran(home, *words, "qwenn")
        _, _, right = await ran(home, *words, "glm")
    assert f"{address} lists qwen, glm, and not qwenn; did you mean `qwen`?" in wrong
    assert "lists" not in right


async def test_a_client_that_is_not_installed_is_named_with_its_package(home: Path) -> None:
    (home / "bin" / "opencode").unlink()
    status, _, errors = await ran(home, "opencode", PATH=str(home / "bin"))
    assert (status, "npm install --global opencode-ai" in errors) == (127, True)


# ------------------------------------------------------------------------------------------------ what it leaves behind


@pytest.mark.parametrize("client", CLIENTS)
async def test_what_is_written_can_be_undone_to_the_byte(home: Path, client: str) -> None:
    before = files(home)
    async with ScriptedServer(models=("m",)) as server, serving("--backend", server.url) as process:
        url = await process.ready()
        for _ in range(2):  # a second time writes over the first
            status, output, _ = await ran(home, client, "--url", url, "--window", "32768", "--write")
            assert (status, "--undo" in output) == (0, True)
    changed = {name for name, content in files(home).items() if before.get(name) != content}
    assert any(url.encode() in files(home)[name] for name in changed)
    status, output, _ = await ran(home, client, "--undo")
    assert (status, "restored" in output or "removed" in output) == (0, True)
    assert files(home) == before


async def test_claude_code_finds_one_key_in_what_is_written_whatever_was_there(home: Path) -> None:
    """Two are sent both, or one alone when the helper is slow, and the gateway then answers 401."""
    path = home / ".claude" / "settings.json"
    for mine in ({"env": {"ANTHROPIC_AUTH_TOKEN": "mine"}}, {"apiKeyHelper": "echo mine"}):
        for keys, given in (({}, {}), ({"DRAGOMAN_API_KEYS": "canary"}, {"DRAGOMAN_CLIENT_KEY": "canary"})):
            path.write_text(json.dumps(mine), encoding="utf-8")
            async with ScriptedServer(models=("m",)) as server, serving("--backend", server.url, **keys) as process:
                words = ("claude", "--url", await process.ready(), "--write")
                assert (await ran(home, *words, **given))[0] == 0
            settings = json.loads(path.read_text(encoding="utf-8"))
            keys_found = (settings["env"]["ANTHROPIC_AUTH_TOKEN"], settings["apiKeyHelper"])
            assert keys_found == (("", "printenv DRAGOMAN_CLIENT_KEY") if keys else ("any", ""))
            assert (await ran(home, "claude", "--undo"))[0] == 0


async def test_a_key_is_never_written_down(home: Path) -> None:
    async with (
        ScriptedServer(models=("m",)) as server,
        serving("--backend", server.url, DRAGOMAN_API_KEYS="canary") as process,
    ):
        url = await process.ready()
        for client in CLIENTS:
            status, output, _ = await ran(home, client, "--url", url, "--write", DRAGOMAN_CLIENT_KEY="canary")
            assert (status, "canary" in output) == (0, False)
    assert not [name for name, content in files(home).items() if b"canary" in content]


def test_the_first_listed_model_and_its_window_are_taken() -> None:
    offer = Offer([{"id": "a", "context_window": 4096}, {"id": "b"}])
    assert [(each.model, each.window) for each in (
        choose("u", offer, None, None, None), choose("u", offer, None, "b", None), choose("u", Offer(), None, None, 512)
    )] == [("a", 4096), ("b", None), ("any", 512)]  # fmt: skip


@pytest.mark.parametrize(("search", "setting"), [({}, "disabled"), ({"url": "http://127.0.0.1:9"}, "live")])
@pytest.mark.parametrize("own", [False, True], ids=["running", "started"])
async def test_codex_offers_a_web_search_where_the_gateway_has_one(
    home: Path, search: dict[str, str], setting: str, own: bool
) -> None:
    words = {f"DRAGOMAN_SEARCH__{name.upper()}": value for name, value in search.items()}
    async with ScriptedServer(models=("m",)) as server, serving("--backend", server.url, **words) as process:
        url = await process.ready()
        given = ("--backend", server.url) if own else ("--url", url)
        status, output, errors = await ran(home, "codex", *given, **(words if own else {}))
        assert status == 7, errors
        assert f'web_search="{setting}"' in report(output)["arguments"]
        _, printed, _ = await ran(home, "codex", "--url", url, "--print")
        assert f'web_search="{setting}"' in printed
