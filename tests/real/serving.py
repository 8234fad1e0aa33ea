"""The gateway as users run it: `dragoman serve` in a process of its own, on a port that the kernel chose.

The environment of the process is clean, so that no developer's setting reaches a test; its code is this tree's. It
must end by itself, with status 0, after a signal to its id; a traceback in its log fails the test that used it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO

import aiohttp

from tests.real.components import ROOT

DRAGOMAN = Path(sys.executable).with_name("dragoman")
READY = re.compile(r"dragoman is ready on (http://127\.0\.0\.1:\d+) ")
PASTED = 3  # lines below the one that says ready
READY_SECONDS = 180.0  # the local model starts within seconds, but not on a busy machine
END_SECONDS = 60.0


@contextlib.asynccontextmanager
async def serving(*arguments: str, **settings: str) -> AsyncIterator[str]:
    """The URL of the gateway without a path; `settings` are environment variables without their prefix."""
    async with announced(*arguments, **settings) as (url, _):
        yield url


@contextlib.asynccontextmanager
async def announced(*arguments: str, **settings: str) -> AsyncIterator[tuple[str, list[str]]]:
    """The URL, and the lines that are printed for people to paste."""
    with tempfile.TemporaryDirectory(prefix="dragoman-test-") as home, tempfile.TemporaryFile() as log:
        environment = {f"DRAGOMAN_{name.upper()}": value for name, value in settings.items()}
        child = await asyncio.create_subprocess_exec(
            *(str(DRAGOMAN), "serve", "--port", "0", *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT / ".dev"),
                "HOME": home,
                "TMPDIR": home,
                **environment,
            },
        )
        try:
            yield await _ready(child, log)
        finally:
            status = await _end(child)
        told = _read(log)
        assert status == 0, f"dragoman ended with {status}: {told}"
        assert "Traceback" not in told, told


async def _ready(child: asyncio.subprocess.Process, log: IO[bytes]) -> tuple[str, list[str]]:
    assert child.stdout is not None
    lines: list[str] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(READY_SECONDS):
            while line := (await child.stdout.readline()).decode():
                lines.append(line)
                if found := READY.match(line):
                    return found[1], [(await child.stdout.readline()).decode().strip() for _ in range(PASTED)]
    raise AssertionError(f"dragoman did not get ready: {lines}\n{_read(log)}")


async def _end(child: asyncio.subprocess.Process) -> int:
    if child.returncode is None:
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):  # the second one ends a drain
            child.send_signal(number)
            with contextlib.suppress(TimeoutError):
                return await asyncio.wait_for(child.wait(), END_SECONDS / 2)
    return await child.wait()


def _read(log: IO[bytes]) -> str:
    log.seek(0)
    return log.read().decode(errors="replace")


async def until_page(url: str, holds: str) -> None:
    """Waits until the text of a page of the gateway holds that."""
    async with aiohttp.ClientSession() as session, asyncio.timeout(READY_SECONDS):
        while True:
            async with session.get(url) as page:
                if holds in await page.text():
                    return
            await asyncio.sleep(0.1)
