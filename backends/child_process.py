"""Work that cannot be bounded, in child processes that can be killed: a question in, an answer out, both as bytes.

Rules of `Children`: a child is started when it is first needed and kept; it answers one question at a time, and `most`
of them run at once. `within` covers the wait for a child and its work, not its start, which happens once. A child that
is late, whose asker has gone, or that broke is killed; the next question starts another. It has none of the gateway's
environment, where keys may be, and it ends by itself when the gateway is gone (`child_main`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
from pathlib import Path

from dragoman.backends.background import in_background
from dragoman.backends.child_main import QUESTION, REPLY

log = logging.getLogger(__name__)

MOST = 2  # at once: one slow question does not stop all others
MEMORY = 1024 * 1024 * 1024  # bytes of address space, of which the interpreter alone takes 200 MB
MAX_REPLY = 1024 * 1024  # bytes
START_SECONDS = 30.0
GRACE = 1.0  # seconds after which a child ends by itself, if nobody has killed it

_MAIN = Path(__file__).with_name("child_main.py")
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "LANG", "LC_ALL", "TZ")


class NoReply(Exception):
    """`late`: the child had its time and needed more; otherwise it was busy, broke, or could not be started."""

    def __init__(self, reason: str, *, late: bool = False) -> None:
        super().__init__(reason)
        self.late = late


class Children:
    """`function` answers in the child, as `package.module:function`."""

    def __init__(self, function: str, *, most: int = MOST, memory: int = MEMORY, max_reply: int = MAX_REPLY) -> None:
        self._function = function
        self._memory = memory
        self._max_reply = max_reply
        self._places = asyncio.Semaphore(most)
        self._running: set[_Child] = set()
        self._idle: list[_Child] = []
        self._ends: set[asyncio.Task[None]] = set()
        self._closed = False

    async def ask(self, question: bytes, within: float) -> bytes:
        """Raises `NoReply`."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + within
        try:
            async with asyncio.timeout_at(deadline):
                await self._places.acquire()
        except TimeoutError:
            raise NoReply(f"no child was free within {within:g} seconds") from None
        try:
            left = max(deadline - clock(), within / 10)
            child = await self._free()
            return await self._asked(child, question, left)
        finally:
            self._places.release()

    async def close(self) -> None:
        """Returns when no child is left; whoever still waits for an answer gets none."""
        self._closed = True
        for child in [*self._running]:
            self._end(child)
        if self._ends:
            await asyncio.wait(self._ends)

    async def _asked(self, child: _Child, question: bytes, seconds: float) -> bytes:
        answered, reply = False, b""
        try:
            async with asyncio.timeout(seconds):
                answered, reply = await child.ask(question, seconds + GRACE, self._max_reply)
        except TimeoutError:
            raise NoReply(f"no answer within {seconds:g} seconds", late=True) from None
        except (OSError, EOFError):
            raise NoReply("the child process has ended") from None
        finally:
            if answered and not self._closed:
                self._idle.append(child)
            else:
                self._end(child)
        if not answered:
            raise NoReply(f"the child process failed: {reply.decode(errors='replace')}")
        return reply

    async def _free(self) -> _Child:
        while self._idle:
            if (child := self._idle.pop()).runs:
                return child
            self._end(child)
        if self._closed:
            raise NoReply("the child processes are closed")
        try:
            child = _Child(await _started(self._function, self._memory))
        except OSError as error:
            raise NoReply(f"a child process cannot be started: {error}") from None
        self._running.add(child)
        ready = False
        try:
            async with asyncio.timeout(START_SECONDS):
                ready, _ = await child.reply(0)
        except (TimeoutError, OSError, EOFError):
            raise NoReply("a child process does not start") from None
        finally:
            if self._closed or not ready:
                self._end(child)
        return child

    def _end(self, child: _Child) -> None:
        if child in self._running:
            self._running.discard(child)
            task = in_background(child.end(), "child-process-end")
            self._ends.add(task)
            task.add_done_callback(self._ends.discard)


class _Child:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._questions = process.stdin
        self._replies = process.stdout

    @property
    def runs(self) -> bool:
        return self._process.returncode is None

    async def ask(self, question: bytes, seconds: float, max_reply: int) -> tuple[bool, bytes]:
        self._questions.write(QUESTION.pack(len(question), seconds) + question)
        await self._questions.drain()
        return await self.reply(max_reply)

    async def reply(self, most: int) -> tuple[bool, bytes]:
        size, answered = REPLY.unpack(await self._replies.readexactly(REPLY.size))
        if size > most:
            raise EOFError
        return answered, await self._replies.readexactly(size)

    async def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has ended, and been seen to
            self._process.kill()
        self._questions.close()
        await self._process.wait()


async def _started(function: str, memory: int) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", str(_MAIN), _paths(), function, str(memory)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
        start_new_session=True,  # signals to the terminal's group are the gateway's
    )


def _paths() -> str:
    """Where this process imports from: an isolated one would not know the folders of a checkout."""
    return json.dumps([os.path.abspath(path) for path in sys.path])
