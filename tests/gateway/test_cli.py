"""The command: what it prints, how it ends, and its life between a start and a signal, as a process of its own."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import aiohttp
import orjson
import pytest
import yaml

from dragoman.backends.base import Health, ModelInfo
from dragoman.gateway import __version__
from dragoman.gateway.cli import FILES, main
from dragoman.gateway.config import load
from dragoman.gateway.serve.client_setup import ClientSetup
from dragoman.gateway.serve.server import announce
from dragoman.gateway.serve.sockets import CannotListen, listen
from tests.gateway_fakes import FakeBackend, running
from tests.scripted import Script, ScriptedServer, text_stream
from tests.serving_command import serving
from tests.waiting import LIMIT, until

CONFIGS = Path(__file__).parents[2] / "configs"
ASK = {"model": "m", "input": "hi", "stream": True}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("DRAGOMAN_"):
            monkeypatch.delenv(name)


# -------------------------------------------------------------------------------------------------------------- check


def test_check_prints_a_configuration_that_gives_itself_again_with_secrets_masked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key_file = tmp_path / "key"
    key_file.write_text("sk-canary-file\n")
    path = tmp_path / "gateway.yaml"
    path.write_text(
        f"port: 9001\nbackends:\n- url: http://gpu:8000/v1\n  name: gpu\n  preset: vllm\n  api_key_file: {key_file}\n"
        "  settings: {extra_body: {api_key: sk-canary-body, n: 1}}\n"
        "store: postgresql://me:canary@db:5432/answers?password=canary\n"
    )
    monkeypatch.setenv("DRAGOMAN_API_KEYS", "sk-canary-client")
    assert main(["check", "--config", str(path), "--host", "0.0.0.0"]) == 0
    printed = capsys.readouterr().out
    assert "canary" not in printed
    assert "# client keys: 1 (****)" in printed
    assert "# key sent to gpu: ****" in printed
    again = tmp_path / "again.yaml"
    again.write_text(printed)
    config = load(again)
    assert (config.port, config.host, config.backends[0].name) == (9001, "0.0.0.0", "gpu")


@pytest.mark.parametrize(
    "url",
    [
        "http://h/v1?api_key=canary",
        "http://h/v1#canary",
        "ftp://h/v1?api_key=canary",
        "http://h:port/v1?api_key=canary",
        "http://me:canary@h/v1",
        "http://me:can?ary@h/v1",
        "http://me:canary/x@h/v1",
        "local:x?api_key=canary",
        "triton+http://h/m?tokenizer=/nowhere&api_key=canary",
        "triton+http://h/m?canary",
        "triton+http://h/m?tokenizer=/nowhere&metrics=http://me:canary@h/",
    ],
)
def test_an_address_that_cannot_be_used_is_not_quoted_with_a_key(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--backend", url]) == 2
    told = capsys.readouterr()
    assert "cannot be used" in told.err
    assert not re.search("canary|can[?]|ary@", told.out + told.err)


@pytest.mark.parametrize("path", sorted(CONFIGS.rglob("gateway.yaml")), ids=lambda path: path.parent.name)
def test_what_is_shipped_is_valid_where_its_secrets_are_not(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--no-secrets", "--config", str(path)]) == 0
    told = capsys.readouterr()
    assert told.err == f"{path} is valid\n"
    assert told.out.endswith("# keys, certificates and model folders were not read\n")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "backends:\n- url: http://a/v1\n  name: gpu\n  api_key_env: A_KEY\n",
            "4:3: backends.0.api_key_env: the variable A_KEY",
        ),
        ("port: 1\nhost: 0.0.0.0\n", "2:1: host: without client keys only a loopback"),
        ("api_keys_file: /nowhere/keys\n", "1:1: api_keys_file: /nowhere/keys cannot be read"),
        ("backends:\n- url: http://u:p@a/v1\n", "2:3: backends.0: backend '…@a/v1' cannot be used"),
        ("tls: {certificate: /nowhere/c.pem}\n", "1:1: tls: /nowhere/c.pem cannot be used"),
        (
            "backends:\n- {url: 'http://a/v1', tls: {ca: /nowhere/ca.pem}}\n",
            "2:30: backends.0.tls.ca: /nowhere/ca.pem cannot be used",
        ),
    ],
)
def test_what_only_opening_shows_has_its_place_in_the_file_too(
    text: str, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(text)
    assert main(["check", "--config", str(path)]) == 2
    assert capsys.readouterr().err.startswith(f"dragoman: {path}:{line}")


@pytest.mark.parametrize("command", ["check", "serve"])
def test_what_is_wrong_with_secrets_and_with_servers_is_reported_at_once(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text("api_keys_file: /nowhere\nbackends:\n- url: ftp://a\n- url: http://u:p@b\n")
    assert main([command, "--config", str(path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.removeprefix(f"dragoman: {path}:").split(": ")[:2] for line in lines] == [
        ["1:1", "api_keys_file"], ["3:3", "backends.0"], ["4:3", "backends.1"]
    ]  # fmt: skip


@pytest.mark.parametrize(("word", "name"), FILES.items())
def test_what_is_shipped_is_printed(word: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", word]) == 0
    assert capsys.readouterr().out == (CONFIGS / name).read_text(encoding="utf-8")


def test_check_prints_the_defaults_as_yaml(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"]) == 0
    content = yaml.safe_load(capsys.readouterr().out)
    assert content["backends"][0]["url"] == "local:"
    assert content["timeouts"]["drain"] == 600


def test_what_all_backends_are_told_holds_where_it_has_a_meaning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    url = f"triton+http://host/m?tokenizer={tmp_path}"
    told = tmp_path / "gateway.yaml"
    told.write_text(f"preset: vllm\nsystem_messages: user\nbackends: [{{url: '{url}'}}]\n", encoding="utf-8")
    assert main(["check", "--config", str(told)]) == 0
    told.write_text(f"backends: [{{url: '{url}', settings: {{force_tool: schema}}}}]\n", encoding="utf-8")
    assert main(["check", "--config", str(told)]) == 2
    assert ": backends.0.settings.force_tool: has no meaning for a Triton backend" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["check", "--config", "nowhere.yaml"], "nowhere.yaml: cannot be read"),
        (["check", "--backend", "ftp://x"], "--backend: backend 'ftp://x' cannot be used"),
        (
            ["check", "--preset", "vlm", "--backend", "http://x/v1"],
            "--preset: unknown preset 'vlm'; did you mean `vllm`?",
        ),
        (["check", "--host", "0.0.0.0"], "--host: without client keys only a loopback"),
        (["serve", "--workers", "2"], "--workers: the local model belongs to one process"),
        (["serve", "--backend", "http://u:p@x/v1"], "keys belong into the environment"),
        (["serve", "--api-keys-file", "nowhere"], "--api-keys-file: nowhere cannot be read"),
    ],
)
def test_what_cannot_work_ends_with_status_2_and_one_line(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert told in output.err
    assert output.err.startswith("dragoman: ")
    assert output.err.count("\n") == 1
    assert "u:p" not in output.err


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_configuration_is_validated_before_a_port_is_bound(
    workers: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", "--backend", "http://u:p@x/v1", "--port", port, "--workers", workers]) == 2
    assert "keys belong into the environment" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "COMMAND"),
        (["serve", "--prot", "1"], "serve takes no --prot; did you mean --port?"),
        (["serve", "--port", "high"], "'high' is no port"),
        (["dance"], "there is no command 'dance'\n"),
        (["chekc"], "there is no command 'chekc'; did you mean `check`?"),
        (["doctor", "--port", "1"], "doctor takes no --port; serve and check do"),
        (["config", "exmple"], "'exmple' is none of example, schema, "),
        (["config", "exmple"], "; did you mean `example`?"),
        (["launch", "codx"], "; did you mean `codex`?"),
        (["completion"], "SHELL"),
    ],
)
def test_wrong_arguments_are_explained(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


@pytest.mark.slow
def test_a_reader_that_has_enough_is_no_error() -> None:
    command = f"{sys.executable} -m dragoman.gateway.cli config schema | head -c 1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("{", "")


@pytest.mark.slow
@pytest.mark.parametrize("words", ["check", "config example", "--help", "--version", "launch codex --undo"])
def test_output_that_cannot_be_written_is_one_line(words: str, tmp_path: Path) -> None:
    (record := tmp_path / "dragoman/launch/codex.json").parent.mkdir(parents=True)
    record.write_text('{"files": [{"path": "/nowhere", "before": null}]}')
    command = f"exec {sys.executable} -m dragoman.gateway.cli {words} >/dev/full"
    env = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    done = subprocess.run(command, shell=True, env=env, capture_output=True, text=True, timeout=60, check=False)
    told = "dragoman: what was to be written is lost: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, told)


def test_what_is_printed_into_a_file_can_be_read_as_a_configuration_whatever_the_locale(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    with path.open("wb") as file:
        command = [sys.executable, "-m", "dragoman.gateway.cli", "config", "example"]
        environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}  # as a locale of that encoding
        subprocess.run(command, stdout=file, env=environment, timeout=60, check=True)
    assert main(["check", "--no-secrets", "--config", str(path)]) == 0


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"dragoman {__version__}\n"


# -------------------------------------------------------------------------------------------------------------- serve


async def test_serve_says_ready_answers_and_ends_at_once_on_a_signal_when_idle() -> None:
    async with (
        ScriptedServer(Script(text_stream("hel", "lo"))) as server,
        serving("--backend", server.url) as process,
        aiohttp.ClientSession() as session,
    ):
        url = await process.ready()
        async with session.post(f"{url}/v1/responses", json=ASK) as answer:
            text = await answer.text()
            assert "response.completed" in text
        process.child.send_signal(signal.SIGTERM)
        assert await process.ended() == 0
        lines = [orjson.loads(line) for line in process.errors().splitlines()]
        (logged,) = [line for line in lines if line["message"] == "request"]
        assert (logged["route"], logged["status"], logged["outcome"]) == ("responses", 200, "completed")
        assert logged["tokens_in"] == 11
        assert not server.chats[0].headers.get("Authorization")


async def test_a_line_says_that_a_server_is_asked_where_that_is_wanted() -> None:
    async with (
        ScriptedServer(Script(text_stream("a"))) as server,
        serving("--backend", server.url, DRAGOMAN_LOG__BEGINS="true") as process,
        aiohttp.ClientSession() as session,
    ):
        async with session.post(f"{await process.ready()}/v1/responses", json=ASK) as answer:
            await answer.read()
        await process.logged('"message":"request"')
        lines = {(line := orjson.loads(each))["message"]: line for each in process.errors().splitlines()}
        asked, ended = lines["asked"], lines["request"]
    assert (asked["route"], asked["backend"]) == ("responses", "chat")
    assert asked["request_id"] == ended["request_id"]


async def test_a_signal_lets_a_running_stream_finish() -> None:
    body = text_stream("a", "b", "c", "d")
    async with (
        ScriptedServer(Script(body, split="frames", gap=0.15)) as server,
        serving("--backend", server.url) as process,
        aiohttp.ClientSession() as session,
    ):
        url = await process.ready()
        async with session.post(f"{url}/v1/responses", json=ASK) as answer:
            await answer.content.readany()
            process.child.send_signal(signal.SIGTERM)
            assert b"response.completed" in await answer.content.read()
        assert await process.ended() == 0


@pytest.mark.parametrize("signals", [1, 2])
async def test_what_the_drain_limit_or_a_second_signal_cuts_ends_with_a_retryable_error(signals: int) -> None:
    body = text_stream("a", "b")
    drain = "0.3" if signals == 1 else "60"
    async with (
        ScriptedServer(Script(body, hang_at=len(body) // 2)) as server,
        serving("--backend", server.url, DRAGOMAN_TIMEOUTS__DRAIN=drain) as process,
    ):
        url = await process.ready()
        async with aiohttp.ClientSession() as session, session.post(f"{url}/v1/responses", json=ASK) as answer:
            await answer.content.readany()
            for _ in range(signals):
                process.child.send_signal(signal.SIGTERM)
                await asyncio.sleep(0.2)  # two at once may be taken for one
            rest = await asyncio.wait_for(answer.content.read(), LIMIT)
        assert "draining; ^C again or a second SIGTERM ends the running answers now" in process.errors()
        assert b"response.failed" in rest
        assert b"rate_limit_exceeded" in rest
        assert b"try again in" in rest
        assert await process.ended() == 0
        await server.until(lambda: server.chats[0].outcome == "client_gone")


async def test_keys_of_the_environment_open_the_gateway_and_never_go_upstream_or_into_the_log() -> None:
    environment = {"DRAGOMAN_API_KEYS": "canary-one,canary-two", "DRAGOMAN_BACKEND_API_KEY": "canary-upstream"}
    async with ScriptedServer(Script(text_stream("x")), Script.json({"error": "canary-upstream"}, 500)) as server:
        async with serving(DRAGOMAN_BACKEND=server.url, **environment) as process, aiohttp.ClientSession() as session:
            url = f"{await process.ready()}/v1/responses"
            async with session.post(url, json=ASK) as answer:
                assert answer.status == 401
            key = {"Authorization": "Bearer canary-two"}
            for status in (200, 502):
                async with session.post(url, json=ASK, headers=key) as answer:
                    assert answer.status == status
                    assert "canary" not in await answer.text()
            process.child.send_signal(signal.SIGINT)
            assert await process.ended() == 0
            assert "canary" not in process.errors()
        assert server.chats[0].headers["Authorization"] == "Bearer canary-upstream"
        assert "canary-two" not in str(server.chats[0].headers)


async def test_a_port_in_use_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        async with serving("--backend", "http://127.0.0.1:9/v1", "--port", port) as process:
            assert await process.ended() == 1
            told = process.errors()
    assert told.startswith(f"dragoman: cannot listen on 127.0.0.1 port {port}: Address already in use")
    assert told.count("\n") == 1


async def test_an_address_that_is_not_ours_cannot_be_listened_on() -> None:
    with pytest.raises(CannotListen, match=r"cannot listen on 192\.0\.2\.1"):
        await listen("192.0.2.1", 0)


async def test_a_missing_backend_is_announced_and_so_is_its_arrival(
    capsys: pytest.CaptureFixture[str],
) -> None:
    backend = FakeBackend(state=Health("down", "refused"))
    async with running(backend, timeouts={"start": 0.3}) as served:
        told = asyncio.create_task(announce(served.gateway, "http://here"))
        waits = "listens on http://here and waits for its backend: fake is down (refused)"
        await until(lambda: waits in capsys.readouterr().out)
        backend.state = Health("ready")
        assert await asyncio.wait_for(told, LIMIT) is None
        ready, *lines = capsys.readouterr().out.splitlines()
        assert ready == "dragoman is ready on http://here (backend: fake). Paste a line to point a client at it:"
        assert lines == [f"  {line}" for line in ClientSetup("http://here").lines("only")]


async def test_the_ready_lines_name_a_model_that_is_served(capsys: pytest.CaptureFixture[str]) -> None:
    several = FakeBackend(served=[ModelInfo("bad\nname"), ModelInfo("org/a b"), ModelInfo("c")])
    table = [{"prefixes": ["claude-"]}, {"prefixes": ["claude-opus-"]}]
    for backend, settings, named in (
        (several, {}, "'org/a b'"),
        (FakeBackend(served=None), {}, "any"),
        (FakeBackend(), {"model": "fixed"}, "fixed"),
        (several, {"models": [{"name": "qwen"}, *table]}, "qwen"),
        (several, {"models": table}, "claude-opus-any"),
    ):
        async with running(backend, **settings) as served:
            assert await announce(served.gateway, "http://here") is None
            assert f" ANTHROPIC_MODEL={named}\n  codex -m {named} " in capsys.readouterr().out


async def test_a_list_that_hangs_does_not_keep_the_ready_lines_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    backend, end = FakeBackend(), asyncio.Event()

    async def hang() -> list[ModelInfo]:
        await end.wait()
        return []

    monkeypatch.setattr(backend, "models", hang)
    monkeypatch.setattr("dragoman.gateway.calls.model_table.FIRST_PATIENCE", 0.05)
    async with running(backend) as served:
        assert await asyncio.wait_for(announce(served.gateway, "http://here"), LIMIT) is None
        assert "codex -m any " in capsys.readouterr().out
        end.set()


async def test_a_backend_that_cannot_be_started_ends_the_start_with_its_reason() -> None:
    async with running(FakeBackend(start_error=RuntimeError("no weights;\ninstall them"))) as served:
        assert (
            await announce(served.gateway, "http://here") == "the backend cannot be started: no weights; install them"
        )


# ------------------------------------------------------------------------------------------------- its standard streams


@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "<&- 1>&- 2>&-", "1>/dev/full"])
@pytest.mark.parametrize("workers", [1, 2])
async def test_the_gateway_serves_whatever_became_of_its_standard_streams(
    closed: str, workers: int, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with ScriptedServer(models=("m",)) as server, aiohttp.ClientSession() as session:
        serve = f"serve --port {port} --workers {workers} --backend {server.url}"
        child = await asyncio.create_subprocess_shell(
            f"exec {sys.executable} -m dragoman.gateway.cli {serve} {closed}",
            env={**os.environ, "DRAGOMAN_STORE__URL": "off"},
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(LIMIT):
                while not await is_ready(session, port):
                    assert child.returncode is None
                    await asyncio.sleep(0.05)
            await asyncio.sleep(0.3)  # it has told so since
            assert await is_ready(session, port)
            child.send_signal(signal.SIGINT)
            assert await asyncio.wait_for(child.wait(), LIMIT) == 0
        finally:
            if child.returncode is None:
                child.kill()
            await child.wait()


async def is_ready(session: aiohttp.ClientSession, port: int) -> bool:
    try:
        async with session.get(f"http://127.0.0.1:{port}/readyz") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


async def test_nobody_need_read_further_than_that_it_is_ready() -> None:
    async with ScriptedServer(models=("m",)) as server, serving("--backend", server.url) as process:
        assert process.child.stdout is not None
        process.child.stdout._transport.close()  # type: ignore[attr-defined]
        await process.logged('"state":"ready"')
        await asyncio.sleep(0.5)
        process.child.send_signal(signal.SIGINT)
        assert await process.ended() == 0


def test_a_command_whose_output_is_closed_ends_as_otherwise() -> None:
    command = f"{sys.executable} -m dragoman.gateway.cli check --backend http://127.0.0.1:9/v1 1>&-"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "the configuration is valid\n")
