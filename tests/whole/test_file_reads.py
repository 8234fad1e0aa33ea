"""The event loop of a gateway that serves touches no file: not for a request, a changed key or a reload.

The gateway is a child of the test, with an audit hook that notes in its log which file was touched in a thread that
runs an event loop, and where. Imports count: while a request reads a module that it is the first to need, all streams
wait.
"""

from __future__ import annotations

import os
import signal
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.certificates import Authority
from tests.scripted import Script, ScriptedServer, call_delta, chunk, model_list, sse, text_stream
from tests.serving_command import Process, serving
from tests.serving_gateway import PATHS, asking
from tests.waiting import until

pytestmark = pytest.mark.slow

TOUCHED = "touched on the event loop:"
# Imported by the child's interpreter before anything else. `os.stat` is the one call without an audit event.
WATCH = f"""
import asyncio, os, sys, traceback
TOUCHES = {{"open", "os.listdir", "os.scandir", "os.mkdir", "os.remove", "os.rename", "os.link", "os.truncate"}}

def note(event, arguments):
    if event in TOUCHES and asyncio._get_running_loop() is not None:
        frames = traceback.walk_stack(sys._getframe(2))
        where = " < ".join(f"{{frame.f_code.co_filename}}:{{line}}" for frame, line in list(frames)[:12])
        os.write(2, f"{TOUCHED} {{event}} {{arguments[:1]}} {{where}}\\n".encode())

stat = os.stat

def watched(*arguments, **options):
    note("open", arguments)
    return stat(*arguments, **options)

sys.addaudithook(note)
os.stat = watched
"""
IMAGE = "data:image/png;base64,iVBORw0KGgo="


def touched(process: Process) -> list[str]:
    """Without the files in which a worker counts: `prometheus_client` makes one for each kind of metric when it first
    counts something, and from then on only writes to memory."""
    lines = process.errors().splitlines()
    return [line for line in lines if line.startswith(TOUCHED) and "prometheus_client/values.py" not in line]


def play(body: dict[str, Any]) -> Script:
    if body.get("tools"):
        return Script(sse(chunk(call_delta(0, "f", '{"a":1}', "c1")), chunk({}, "tool_calls")))
    if body.get("response_format"):
        return Script(text_stream('{"n": 42}'))
    return Script(text_stream("a", "b"))


def bodies() -> list[tuple[str, dict[str, Any]]]:
    found = [
        (path, asking(protocol, "hi", stream=stream)) for protocol, path in PATHS.items() for stream in (False, True)
    ]
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    tool = {"type": "function", "name": "f", "parameters": {"type": "object"}}
    content = [{"type": "input_text", "text": "x"}, {"type": "input_image", "image_url": IMAGE}]
    responses = (
        {"text": {"format": {"type": "json_schema", "name": "n", "schema": schema}}},
        {"tools": [tool], "tool_choice": "required", "parallel_tool_calls": False},
        {"input": [{"type": "message", "role": "user", "content": content}]},
        {"input": 7},
    )
    found += [(PATHS["responses"], asking("responses", "hi") | more) for more in responses]
    found.append(("/v1/messages/count_tokens", asking("messages", "hi")))
    return found


async def ask_everything(session: aiohttp.ClientSession, url: str) -> None:
    for path, body in bodies():
        async with session.post(url + path, json=body) as answer:
            await answer.read()
            assert answer.status == (400 if body.get("input") == 7 else 200), (path, await answer.text())
    for path in ("/", "/healthz", "/readyz", "/metrics", "/openapi.json", "/v1/models", "/v1/models/m", "/nowhere"):
        async with session.get(url + path) as answer:
            await answer.read()
            assert answer.status == (404 if path == "/nowhere" else 200), path


async def known(url: str, key: str, trust: ssl.SSLContext) -> bool:
    connector = aiohttp.TCPConnector(ssl=trust)
    headers = {"Authorization": f"Bearer {key}"}
    async with (
        aiohttp.ClientSession(headers=headers, connector=connector) as session,
        session.get(f"{url}/v1/models") as answer,
    ):
        return answer.status == 200


def settle(folder: Path, url: str, workers: int, more: str = "") -> Path:
    """Writes the configuration."""
    lines = [
        f"workers: {workers}",
        f"api_keys_file: {folder}/keys",
        f"state_dir: {folder}",
        f"tls: {{certificate: {folder}/gateway.crt, key: {folder}/gateway.key}}",
        "models: [{name: m, backend: gpu}]",
        "timeouts: {grace: 0}",
        f"backends:\n  - {{url: '{url}', name: gpu, settings: {{images: true}}}}",
    ]
    (folder / "gateway.yaml").write_text("\n".join(lines) + "\n" + more)
    return folder / "gateway.yaml"


@pytest.mark.parametrize("workers", [1, 2])
async def test_the_event_loop_touches_no_file(tmp_path: Path, workers: int) -> None:
    authority = Authority(tmp_path)
    authority.make("gateway")
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    (tmp_path / "keys").write_text("one\n")
    (tmp_path / "tokenizer.json").write_text("{}")
    trust = ssl.create_default_context(cafile=str(authority.ca))
    async with ScriptedServer(default=play) as server:
        server.on("GET", "/v1/models", model_list("m"))
        path = settle(tmp_path, server.url, workers)
        search = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
        async with serving("--config", str(path), PYTHONPATH=search) as process:
            url = await process.ready()
            started = len(touched(process))
            connector = aiohttp.TCPConnector(ssl=trust, force_close=True)
            async with aiohttp.ClientSession(headers={"x-api-key": "one"}, connector=connector) as session:
                for _ in range(workers * 2):
                    await ask_everything(session, url)
            (tmp_path / "keys").write_text("two\n")
            await until(lambda: known(url, "two", trust))
            triton = f"  - {{url: 'triton+grpc://127.0.0.1:1/m?tokenizer={tmp_path}', name: other}}\n"
            settle(tmp_path, server.url, workers, triton)
            await process.reload(workers=workers)
            await until(lambda: known(url, "two", trust))
            process.child.send_signal(signal.SIGTERM)
            assert await process.ended() == 0
            assert touched(process)[started:] == []
