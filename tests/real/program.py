"""A command line of somebody else's, run without a terminal: bounded in time, in a session of its own, ended whole."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

DRIVER_SECONDS = 180.0


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


async def report(
    python: Path, driver: Path, *arguments: str, imports: Path | None = None, home: Path | None = None
) -> Any:
    """What a driver prints, as JSON; it runs in an environment of its own, with modules from `imports` too. `home` is
    the home directory that it is shown. A driver in another language comes with its own interpreter."""
    paths = {"PYTHONPATH": imports, "HOME": home, "TMPDIR": home}
    variables = {"PYTHONDONTWRITEBYTECODE": "1", **{name: str(path) for name, path in paths.items() if path}}
    status, output, errors = await run((str(python), str(driver), *arguments), driver.parent, variables, DRIVER_SECONDS)
    assert status == 0, errors.decode()
    return json.loads(output)
