"""A command line of somebody else's, run without a terminal: bounded in time, in a session of its own, ended whole."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path


async def run(
    command: Sequence[str], work: Path, environment: Mapping[str, str], within: float
) -> tuple[int, bytes, bytes]:
    """Exit status, output and errors. The environment is what is given and the path of programs, nothing else."""
    child = await asyncio.create_subprocess_exec(
        *command,
        cwd=work,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], **environment},
        start_new_session=True,
    )
    try:
        output, errors = await asyncio.wait_for(child.communicate(), within)
    except TimeoutError:
        raise AssertionError(f"`{' '.join(command)[:160]}` took longer than {within} s") from None
    finally:
        # the program may be a launcher, and what it runs is in the same group
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        await child.wait()
    assert child.returncode is not None
    return child.returncode, output, errors
