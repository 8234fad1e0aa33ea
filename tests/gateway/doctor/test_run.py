"""The command as a person runs it: its lines, its statuses, what a terminal shows while it waits, its JSON."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import pty
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from dragoman.gateway.cli import main
from dragoman.gateway.doctor.finding import Finding
from dragoman.gateway.doctor.terminal import Terminal
from tests.gateway.doctor import servers
from tests.gateway.doctor.asked import backend, printed
from tests.gateway.doctor.servers import able
from tests.scripted import Script, ScriptedServer, model_list

WINDOW = model_list("m", max_model_len=32_768)


async def command(*arguments: str, **variables: str) -> tuple[int, str, str]:
    """The status, the output and what went to standard error."""
    words = (sys.executable, "-m", "dragoman.gateway.cli", "doctor", *arguments)
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(*words, stdout=pipe, stderr=pipe, env={**os.environ, **variables})
    output, errors = await child.communicate()
    assert child.returncode is not None
    return child.returncode, output.decode(), errors.decode()


async def test_an_able_server() -> None:
    async with ScriptedServer(default=able) as server:
        server.on("GET", "/v1/models", WINDOW)
        status, output, errors = await command("--backend", server.url)
    assert status == 0
    assert output.endswith("verdict: it can serve agents\n")
    assert "settings that were tried" not in output
    assert errors == ""


async def test_a_server_that_is_mended_by_what_is_written(tmp_path: Path) -> None:
    """From nothing to a configuration that `check` calls valid and that the doctor finds nothing against."""
    file = tmp_path / "gateway.yaml"
    async with ScriptedServer(default=servers.unparsed("hermes")) as server:
        server.on("GET", "/v1/models", WINDOW)
        status, output, _ = await command("--backend", server.url)
        assert status == 1
        assert "\nbackends:\n- url: " in output
        assert "  settings:\n    markup: hermes\n" in output
        assert output.endswith(
            "verdict: clients will fail here, as it is configured\n"
            "  chat: m: Codex works only with settings that are not configured\n"
        )
        status, output, _ = await command("--backend", server.url, "--write", str(file))
        assert (status, f"wrote {file}\n" in output) == (0, True)
        assert main(["check", "--config", str(file)]) == 0
        status, output, _ = await command("--config", str(file))
    assert status == 0
    assert "FAIL" not in output


async def test_no_line_of_the_log_stands_among_the_findings() -> None:
    """Servers that refuse and fail make the gateway log much; the doctor says it once, as a finding."""
    for play in (
        servers.refuses("top_p: Extra inputs are not permitted", lambda body: "top_p" in body),
        servers.refuses("CUDA out of memory", lambda body: True, 500),
        servers.tools_need_a_flag,
    ):
        async with ScriptedServer(default=play) as server:
            server.on("GET", "/v1/models", WINDOW)
            _, output, errors = await command("--backend", server.url)
        assert errors == ""
        assert '"level"' not in output


async def test_a_missing_key_is_named_and_enough() -> None:
    async with ScriptedServer(default=able) as server:
        server.on("GET", "/v1/models", Script.json({"error": {"message": "No key"}}, 401))
        status, output, _ = await command("--backend", server.url)
        assert status == 1
        assert "→ give the gateway the server's key: export DRAGOMAN_BACKEND_API_KEY=…" in output
        server.on("GET", "/v1/models", WINDOW)
        status, _, _ = await command("--backend", server.url, DRAGOMAN_BACKEND_API_KEY="the-right-one")
        assert {seen.headers.get("Authorization") for seen in server.chats} == {"Bearer the-right-one"}
    assert status == 0


async def test_the_document_of_json_has_its_shape() -> None:
    async with ScriptedServer(default=servers.unparsed("hermes")) as server:
        server.on("GET", "/v1/models", model_list("m", max_model_len=32_768, owned_by="vllm"))
        status, output, errors = await command("--backend", server.url, "--json")
    document = json.loads(output)
    assert (status, document["status"], errors) == (1, 1, "")
    assert list(document) == ["version", "status", "unserved", "gateway", "backends", "settings", "written"]
    (server_report,) = document["backends"]
    assert list(server_report) == ["name", "url", "server", "findings", "models"]
    assert server_report["server"] == "vLLM"
    (model,) = server_report["models"]
    assert list(model) == ["name", "findings", "clients"]
    (call,) = [each for each in model["findings"] if each["probe"] == "tool call"]
    assert call == {
        "verdict": "FAIL",
        "probe": "tool call",
        "result": "none, it stands in the text",
        "advice": call["advice"],
        "settings": [{"key": "backends.0.settings.markup", "value": "hermes"}],
        "tried": 'get_weather({"city": "Paris"})',
    }
    assert model["clients"][0] == {"client": "Codex", "outcome": "works with settings", "reasons": []}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--client", "cladue"], "'cladue' is none of codex, claude, sdk; did you mean `claude`?"),
        (["--backend", "ftp://x"], "a backend's URL begins with one of"),
    ],
)
def test_a_wrong_word_ends_with_status_2(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main(["doctor", *arguments])
    except SystemExit as ended:
        status = int(str(ended.code))
    assert status == 2
    assert told in capsys.readouterr().err


def test_the_help_says_what_the_status_means(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["doctor", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "Exit status: 0 where for each model that was judged an agent works" in told
    assert "with --write, what was written counts as configured; 2 where the configuration is wrong" in told


# -------------------------------------------------------------------------------------------------------- the terminal


def read_all(terminal: int) -> str:
    """Everything that was written to the other end, which is closed."""
    shown = b""
    with contextlib.suppress(OSError):  # the end of a terminal
        while piece := os.read(terminal, 4096):
            shown += piece
    os.close(terminal)
    return shown.decode()


async def test_a_terminal_shows_what_is_waited_for_and_nothing_of_it_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    with os.fdopen(theirs, "w") as screen:
        terminal = Terminal(screen, screen, lambda text: text)
        terminal.waiting("a tool call")
        await asyncio.sleep(0)
        terminal.finding(Finding("FAIL", "tool call", "none"))
        terminal.quiet()
    shown = read_all(ours)
    before, _, after = shown.partition("waiting for a tool call")
    assert before == "\r\x1b[K… "
    assert after == "\r\x1b[K\x1b[31mFAIL\x1b[0m  tool call              none\r\n"


def test_elsewhere_there_is_neither_colour_nor_progress() -> None:
    out = io.StringIO()
    terminal = Terminal(out, out, lambda text: text)
    terminal.waiting("a tool call")
    terminal.finding(
        Finding("weak", "usage", "none\x1b[2J", "do this", {("backends", 0, "settings", "usage"): "always"})
    )
    assert out.getvalue().splitlines() == [
        "weak  usage                  none\\u001b[2J",
        f"{' ' * 29}→ settings.usage: always",
        f"{' ' * 29}  with that: ",
        f"{' ' * 29}or: do this",
    ]


async def test_long_lines_are_wrapped_to_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((80, 24)))
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as screen:
        terminal = Terminal(screen, None, lambda text: text)
        terminal.finding(Finding("ok", "usage", "word " * 40, "advice " * 30))
    lines = read_all(ours).splitlines()
    assert all(len(line) <= 80 + len("\x1b[32m\x1b[0m") for line in lines)
    assert all(line.startswith(" " * 29) for line in lines[1:])


# ------------------------------------------------------------------------------------------------------- missing extras


@pytest.mark.parametrize(
    ("config", "absent", "told"),
    [
        ({}, {"pypdf", "asyncpg", "opentelemetry.sdk"}, None),
        ({"documents": {"pages": 10}}, {"pypdf"}, "pip install 'dragoman[documents]'"),
        ({"documents": {"pages": 0}}, {"pypdf"}, None),
        ({"documents": {"pages": 10}}, set(), None),
        ({"store": {"url": "postgresql://h/d"}}, {"asyncpg"}, "pip install 'dragoman[postgres]'"),
    ],
)
async def test_an_extra_is_missed_only_where_it_is_configured(
    config: Mapping[str, object],
    absent: set[str],
    told: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from importlib.util import find_spec

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in absent else find_spec(name))
    given = backend("http://127.0.0.1:9/v1").model_copy()
    given = type(given)(**{**given.model_dump(exclude_unset=True), **config})
    _, output = await printed(capsys, given)
    assert ("pip install" in output) == (told is not None)
    assert told is None or told in output
