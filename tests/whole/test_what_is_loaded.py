"""What a gateway loads that uses nothing but its defaults: no library of a feature that is not used.

Each of them would take memory in every gateway, a sidecar beside a model server too. And what a feature needs is there
when the gateway is ready: no call waits for an import, and with it every stream. Two are loaded later: the store, in a
thread, where nothing has been kept in it yet, and the library of ciphers, with the first thought.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

from tests.scripted import Script, ScriptedServer, text_stream
from tests.serving_gateway import PATHS, asking
from tests.waiting import LIMIT

UNUSED = (
    "aiosqlite",
    "asyncpg",  # PostgreSQL
    "cryptography",  # sealed thoughts
    "difflib",  # words that were misspelt
    "grpc",  # Triton
    "huggingface_hub",
    "jinja2",  # templates of models
    "jsonschema",  # in a child process, once a server cannot enforce a schema
    "numpy",
    "opentelemetry",
    "pypdf",  # in a child process
    "sqlalchemy",  # the store
    "tokenizers",
    "tomlkit",  # clients' own files
    "tritonclient",
    "xllamacpp",  # the local model
    "yaml",  # a file of the configuration
    "dragoman.backends.local.child",
    "dragoman.backends.triton.backend",
    "dragoman.gateway.doctor",
    "dragoman.gateway.launch",
    "dragoman.gateway.store.store",
)
STORE = {"sqlalchemy", "aiosqlite", "dragoman.gateway.store.store"}
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
    """A stream and a whole answer of each protocol, none of which is stored."""
    async with aiohttp.ClientSession() as session:
        for protocol, path in PATHS.items():
            more: dict[str, Any] = {"store": False} if protocol == "responses" else {}
            for stream in (True, False):
                body = asking(protocol, "hi", stream=stream, **more)
                async with session.post(f"http://127.0.0.1:{port.decode()}{path}", json=body) as answer:
                    assert "good" in await answer.text()


async def ask_stored(port: bytes) -> None:
    async with aiohttp.ClientSession() as session:
        body = asking("responses", "hi")
        async with session.post(f"http://127.0.0.1:{port.decode()}/v1/responses", json=body) as answer:
            assert (await answer.json())["store"] is True


@contextlib.asynccontextmanager
async def serving(state: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, bytes]]:
    """A gateway with its defaults, and its port."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DRAGOMAN_")}
    async with ScriptedServer(default=Script(text_stream("good"))) as server:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", SERVE, "serve", "--backend", server.url, "--port", "0"),
            env={**environment, "XDG_STATE_HOME": str(state)},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 20,
        )
        try:
            yield process, (await found(process, READY))[1]
        finally:
            process.terminate()
            await process.communicate()


async def test_a_gateway_with_its_defaults_loads_what_it_uses_and_calls_load_nothing_more(tmp_path: Path) -> None:
    async with serving(tmp_path) as (process, port):
        before = await loaded(process)
        await ask_all(port)
        after = await loaded(process)
    assert [name for name in UNUSED if name in before] == []
    assert sorted(after - before) == []


async def test_the_store_is_loaded_by_the_first_call_that_keeps_something_and_then_at_every_start(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as (process, port):
        await ask_stored(port)
        assert await loaded(process) >= STORE
    async with serving(tmp_path) as (process, port):
        before = await loaded(process)
        assert before >= STORE
        await ask_stored(port)
        assert sorted(await loaded(process) - before) == []
