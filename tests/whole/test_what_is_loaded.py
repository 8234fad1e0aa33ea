"""What a gateway loads that uses nothing but its defaults: no library of a feature that is not used.

Each of them would take memory in every gateway, a sidecar beside a model server too. And what a feature needs is there
when the gateway is ready: no call waits for an import, and with it every stream.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import aiohttp

from tests.scripted import Script, ScriptedServer, text_stream
from tests.serving_gateway import PATHS, asking
from tests.waiting import LIMIT

UNUSED = (
    "asyncpg",  # PostgreSQL
    "difflib",  # words that were misspelt
    "grpc",  # Triton
    "huggingface_hub",
    "jinja2",  # templates of models
    "jsonschema",  # in a child process, once a server cannot enforce a schema
    "numpy",
    "opentelemetry",
    "pydantic_settings",
    "pypdf",  # in a child process
    "sqlalchemy",
    "tokenizers",
    "tomlkit",  # clients' own files
    "tritonclient",
    "xllamacpp",  # the local model
    "yaml",  # a file of the configuration
    "dragoman.backends.local.child",
    "dragoman.backends.triton.backend",
    "dragoman.gateway.doctor",
    "dragoman.gateway.launch",
)
READY = re.compile(rb"is ready on http://127\.0\.0\.1:(\d+)")
# The command, which prints the names of all modules in one line whenever it is sent a line.
SERVE = r"""
import sys, threading
def answer():
    for _ in sys.stdin:
        sys.stdout.write(f"loaded {' '.join(sys.modules)}\n")
        sys.stdout.flush()
threading.Thread(target=answer, daemon=True).start()
from dragoman.gateway.cli import main
sys.exit(main())
"""


async def found(process: asyncio.subprocess.Process, wanted: re.Pattern[bytes]) -> re.Match[bytes]:
    assert process.stdout is not None
    async with asyncio.timeout(LIMIT):
        while line := await process.stdout.readline():
            if match := wanted.search(line):
                return match
    raise AssertionError("the gateway has ended")


async def loaded(process: asyncio.subprocess.Process) -> set[str]:
    assert process.stdin is not None
    process.stdin.write(b"\n")
    return set((await found(process, re.compile(rb"loaded (.*)")))[1].decode().split())


async def ask_all(port: bytes) -> None:
    """A stream and a whole answer of each protocol."""
    async with aiohttp.ClientSession() as session:
        for protocol, path in PATHS.items():
            for stream in (True, False):
                body = asking(protocol, "hi", stream=stream)
                async with session.post(f"http://127.0.0.1:{port.decode()}{path}", json=body) as answer:
                    assert "good" in await answer.text()


async def test_a_gateway_with_its_defaults_loads_what_it_uses_and_calls_load_nothing_more(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DRAGOMAN_")}
    async with ScriptedServer(default=Script(text_stream("good"))) as server:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", SERVE, "serve", "--backend", server.url, "--port", "0"),
            env={**environment, "XDG_STATE_HOME": str(tmp_path)},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 20,
        )
        try:
            port = (await found(process, READY))[1]
            before = await loaded(process)
            await ask_all(port)
            after = await loaded(process)
        finally:
            process.terminate()
            await process.communicate()
    assert [name for name in UNUSED if name in before] == []
    assert sorted(after - before) == []
