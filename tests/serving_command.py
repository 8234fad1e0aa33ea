"""`dragoman serve` as a child of the test, on a port that the kernel chose, with what it prints and what it logs.

The code is this tree's, and the environment is the test's own. `tests/real/serving.py` runs the installed command for
real clients, in an environment that is empty.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import IO

from tests.waiting import LIMIT, until

READ_AGAIN = "the configuration was read again"
KEPT = "the configuration stays as it was"


@dataclass
class Process:
    """`lines` is what was read of its standard output so far."""

    child: asyncio.subprocess.Process
    log: IO[bytes]
    lines: list[str] = field(default_factory=list)

    async def ready(self) -> str:
        """The URL of the line that says ready."""
        assert self.child.stdout is not None
        async with asyncio.timeout(LIMIT):
            while line := (await self.child.stdout.readline()).decode():
                self.lines.append(line)
                if match := re.match(r"dragoman is ready on (https?://\S+)", line):
                    return match.group(1)
        raise AssertionError(f"never ready: {self.lines}, {self.errors()}")

    def errors(self) -> str:
        """What it has written to standard error, which is its log."""
        self.log.seek(0)
        return self.log.read().decode()

    async def logged(self, words: str, times: int = 1) -> None:
        """Waits until the log holds these words so often."""
        await until(lambda: self.errors().count(words) >= times)

    async def reload(self, outcome: str = READ_AGAIN, workers: int = 1) -> None:
        """Has it read its configuration again, and waits until so many workers have logged the outcome."""
        before = self.errors().count(outcome)
        self.child.send_signal(signal.SIGHUP)
        await self.logged(outcome, before + workers)

    async def ended(self) -> int:
        return await asyncio.wait_for(self.child.wait(), LIMIT)


@contextlib.asynccontextmanager
async def serving(
    *arguments: str, program: Sequence[str] = ("-m", "dragoman.gateway.cli"), **environment: str
) -> AsyncIterator[Process]:
    """`program` is what Python runs, with the command line of `dragoman`."""
    with tempfile.TemporaryFile() as log:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, *program, "serve", "--port", "0", *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env={"DRAGOMAN_STORE__URL": "off", **os.environ, **environment},  # nothing into the home of who runs tests
        )
        try:
            yield Process(child, log)
        finally:
            if child.returncode is None:
                child.kill()
            await child.communicate()
