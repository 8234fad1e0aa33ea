"""The parts of the bench that must cost next to nothing, in C: the scripted server, the clients, and what keeps a CPU
awake.

A load generator in Python takes more CPU than the gateways that it measures, so there is none: without a C compiler
there are no figures. They are compiled for each run, in about two seconds, into a folder of its own.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.children import Broken

SOURCES = Path(__file__).parent
COMPILE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Programs:
    server: Path
    load: Path
    awake: Path


def compiler() -> list[str] | None:
    """The command of the C compiler: `$CC`, else `cc`."""
    words = shlex.split(os.environ.get("CC") or "cc")
    return words if shutil.which(words[0]) else None


def build(folder: Path) -> Programs:
    """Compiles them into `folder`. Raises `Broken` with what is missing."""
    command = compiler()
    if command is None:
        raise Broken(
            "no C compiler: `make bench` compiles its clients and its server (bench/native). Install gcc or set CC"
        )
    if not sys.platform.startswith("linux"):
        raise Broken("`make bench` runs on Linux only: it waits with epoll and reads /proc")
    return Programs(*(_compiled(command, name, folder) for name in ("server", "load", "awake")))


def _compiled(command: list[str], name: str, folder: Path) -> Path:
    program = folder / name
    words = [*command, "-O2", "-std=gnu11", "-o", str(program), str(SOURCES / f"{name}.c")]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=COMPILE_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Broken(f"bench/native/{name}.c was not compiled: {error}") from error
    if done.returncode:
        raise Broken(f"bench/native/{name}.c was not compiled:\n{done.stderr[-2000:]}")
    return program
