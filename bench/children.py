"""The processes that a run starts and reads: upstream, pass-through, gateway.

Each is a child that dies with us, is stopped by its own id, and says "ready on http://HOST:PORT" on a line of its
output, or is ready once the port that it was given accepts connections. Figures come from the kernel: CPU from the
process's CPU clock (nanoseconds; user and system, all threads), memory and sockets from /proc. Linux only.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import os
import re
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_READY = re.compile(r"ready on (http://[^\s:/]+:\d+)")
_PR_SET_PDEATHSIG = 1
_START_SECONDS = 30.0
_STOP_SECONDS = 10.0
_libc = ctypes.CDLL(None)
_NO_BYTECODE = ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")
BYTECODE = Path(__file__).parents[1] / "dist" / "bench" / "bytecode"
"""Where children find what Python has compiled, as they would in an installed package: a process that compiles its own
sources is three megabytes larger."""

GATEWAY = (sys.executable, "-c", "import sys; from dragoman.gateway.cli import main; sys.exit(main())")
UPSTREAM = (sys.executable, "-m", "bench.upstream")
PASSTHROUGH = (sys.executable, "-m", "bench.passthrough")


class Broken(Exception):
    """The run cannot go on, or what it measured is not the work that was asked for."""


@dataclass(frozen=True)
class Child:
    name: str
    pid: int
    url: str

    def cpu(self) -> float:
        """Seconds of CPU so far, without those of its own children."""
        # The kernel's encoding of "CPU clock of that process", which clock_getcpuclockid(3) computes as well.
        return time.clock_gettime((~self.pid << 3) | 2)

    def rss(self) -> float:
        """Resident memory in bytes."""
        return _status(self.pid, "VmRSS") * 1024

    def peak_rss(self) -> float:
        """The most that was ever resident, in bytes."""
        return _status(self.pid, "VmHWM") * 1024

    def threads(self) -> int:
        return _status(self.pid, "Threads")

    def sockets(self) -> int:
        count = 0
        with os.scandir(f"/proc/{self.pid}/fd") as entries:
            for entry in entries:
                with contextlib.suppress(OSError):  # closed while we looked
                    count += os.readlink(entry.path).startswith("socket:")
        return count


def _status(pid: int, field: str) -> int:
    with open(f"/proc/{pid}/status", encoding="ascii") as lines:
        for line in lines:
            if line.startswith(field + ":"):
                return int(line.split()[1])
    raise Broken(f"process {pid} has no {field}: it has ended")


@contextlib.asynccontextmanager
async def started(
    name: str,
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    *,
    cpu: int | None = None,
    port: int | None = None,
    seconds: float = _START_SECONDS,
) -> AsyncIterator[Child]:
    """The child, ready; stopped on the way out, however that is. It keeps answers only where `environment` says.

    It runs on `cpu` alone where one is named. `port` is where a child will listen that does not say so itself.
    """
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("DRAGOMAN_", *_NO_BYTECODE))}
    with tempfile.TemporaryFile() as errors:
        process = await asyncio.create_subprocess_exec(
            *command,
            env={
                **inherited,
                "PYTHONPYCACHEPREFIX": str(BYTECODE),
                "DRAGOMAN_STORE__URL": "off",
                **(environment or {}),
            },
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            preexec_fn=functools.partial(bound_to, cpu),
        )
        try:
            url, rest = await (_readiness(process, seconds) if port is None else _connected(process, port, seconds))
            if url is None:
                errors.seek(0)
                told = (rest + errors.read().decode(errors="replace"))[-2000:]
                raise Broken(f"{name} did not become ready within {seconds:.0f} s: {told}")
            drain = asyncio.create_task(_discard(process), name=f"output of {name}")
            try:
                yield Child(name, process.pid, url)
                if process.returncode is not None:
                    errors.seek(0)
                    told = errors.read().decode(errors="replace")[-2000:]
                    raise Broken(f"{name} ended by itself with {process.returncode}: {told}")
            finally:
                drain.cancel()
        finally:
            await _stop(process)


def bound_to(cpu: int | None) -> None:
    """What a child does before its program starts: it dies with its parent, and runs on `cpu` alone."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})


def free_port() -> int:
    """A port that was free a moment ago, for programs that must be given one."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


async def _connected(process: asyncio.subprocess.Process, port: int, seconds: float) -> tuple[str | None, str]:
    for _ in range(int(seconds * 10)):
        if process.returncode is not None:
            break
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return f"http://127.0.0.1:{port}", ""
        await asyncio.sleep(0.1)
    return None, ""


async def _readiness(process: asyncio.subprocess.Process, seconds: float) -> tuple[str | None, str]:
    assert process.stdout is not None
    seen = ""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while line := (await process.stdout.readline()).decode(errors="replace"):
                seen += line
                if found := _READY.search(line):
                    return found.group(1), seen
    return None, seen


async def _discard(process: asyncio.subprocess.Process) -> None:
    assert process.stdout is not None
    while await process.stdout.read(65536):
        pass


async def _stop(process: asyncio.subprocess.Process) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STOP_SECONDS):
                    await process.wait()
