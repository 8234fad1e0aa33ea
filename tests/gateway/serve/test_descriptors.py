"""As many connections as the system allows, whatever it allows at first."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import subprocess
import sys
from urllib.parse import urlsplit

import pytest

from dragoman.gateway.serve.descriptors import ENOUGH, allow_many_connections
from tests.scripted import ScriptedServer
from tests.serving_command import Process, serving
from tests.waiting import LIMIT

FEW = 128
RAISED = "from dragoman.gateway.serve.descriptors import allow_many_connections as a; a(); import resource as r; \
print(*r.getrlimit(r.RLIMIT_NOFILE))"


@pytest.mark.parametrize(("soft", "hard", "after"), [(64, 256, "256 256"), (256, 256, "256 256")])
def test_the_limit_is_raised_as_far_as_may_be(soft: int, hard: int, after: str) -> None:
    command = f"ulimit -Sn {soft}; ulimit -Hn {hard}; exec {sys.executable} -c '{RAISED}'"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == after


@pytest.mark.parametrize(
    ("limits", "after"),
    [
        ((200, 100_000), (ENOUGH, 100_000)),
        ((200, resource.RLIM_INFINITY), (ENOUGH, resource.RLIM_INFINITY)),
        ((ENOUGH + 1, 100_000), None),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), None),
    ],
)
def test_no_more_is_asked_for_than_is_enough(
    limits: tuple[int, int], after: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[tuple[int, int]]()
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _, given: asked.append(given))
    allow_many_connections()
    assert asked == ([after] if after else [])


@pytest.mark.parametrize("workers", [1, 2])
async def test_more_connections_are_served_than_the_limit_at_the_start(workers: int) -> None:
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with ScriptedServer(models=("m",)) as server, contextlib.AsyncExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (FEW, hard))
        try:
            process: Process = await stack.enter_async_context(
                serving("--backend", server.url, "--workers", str(workers))
            )
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (before, hard))
        port = urlsplit(await process.ready()).port
        clients = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3 * FEW)]
        for reader, writer in clients:
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await asyncio.wait_for(reader.readline(), LIMIT)).startswith(b"HTTP/1.1 200 ")
        for _, writer in clients:
            writer.close()
