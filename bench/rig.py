"""The rig of a run: the scripted server and the clients on one CPU, what is measured on another.

Where the machine has one CPU only, all share it and the delays mean little. CPU is that of a whole process with its
children, from the kernel's clocks in nanoseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from bench import turns
from bench.children import Broken, Child, bound_to, free_port, started
from bench.native import Programs
from bench.scripts import MODELS, WARM_UP, Script
from bench.systems import Launch, Process, System

SAMPLE_SECONDS = 0.1
AWAKE_SECONDS = 3600
SEVERAL = 4


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds."""

    p50: float
    p99: float
    most: float

    @classmethod
    def read(cls, given: dict[str, float]) -> Times:
        return cls(*(given[name] / 1e6 for name in ("p50", "p99", "most")))


@dataclass(frozen=True, slots=True)
class Load:
    """What the clients saw, and the CPU seconds and the most memory in bytes of the process meanwhile."""

    answered: int
    marks: int
    seconds: float
    first: Times
    delay: Times
    steady: Times
    cpu: float
    peak: float

    @property
    def rate(self) -> float:
        return self.answered / self.seconds


@dataclass(slots=True)
class Rig:
    """`pace` are the seconds that a delta took each system when it was warmed up, in bursts;
    `without` is what a delta takes without a gateway at its 99th percentile, by the number of streams."""

    programs: Programs
    folder: Path
    gateway_cpu: int | None
    load_cpu: int | None
    server: Child
    running: dict[str, Child] = field(default_factory=dict)
    pace: dict[str, float] = field(default_factory=dict)
    without: dict[int, float] = field(default_factory=dict)

    def child(self, system: System) -> Child:
        return self.server if system.process is None else self.running[system.process.name]

    @contextlib.asynccontextmanager
    async def start(self, process: Process) -> AsyncIterator[Child]:
        """A fresh process; the loads go to it as long as it runs."""
        folder = self.folder / f"{process.name}-{time.monotonic_ns()}"
        folder.mkdir()
        launch = Launch(f"{self.server.url}/v1", free_port(), folder)
        command, environment = process.command(launch), process.environment(launch)
        port = None if process.announces else launch.port
        async with started(
            process.name, command, environment, cpu=self.gateway_cpu, port=port, seconds=process.start_seconds
        ) as child:
            before = self.running.get(process.name)
            self.running[process.name] = child
            try:
                yield child
            finally:
                if before is not None:
                    self.running[process.name] = before

    async def warm_up(self, system: System) -> None:
        loads = [await self.load(system, WARM_UP, SEVERAL, SEVERAL * 2) for _ in range(2)]
        self.pace[system.key] = loads[-1].seconds / (SEVERAL * 2 * WARM_UP.deltas)

    def body(self, system: System, script: Script, *, stream: bool = True) -> Path:
        """The file with a short request."""
        name = f"short-{system.protocol}-{script.model}-{stream}"
        return self.file(name, lambda: turns.encode(system.protocol, script.model, turns.short(), stream=stream))

    def file(self, name: str, content: Any) -> Path:
        """A file of that name, with what `content()` returns."""
        path = self.folder / f"{name}.json"
        if not path.exists():
            path.write_bytes(content())
        return path

    async def load(
        self,
        system: System,
        script: Script,
        connections: int,
        requests: int,
        *,
        ramp: float = 0.0,
        whole: bool = False,
        bodies: Sequence[Path] = (),
        seconds: int = 60,
        failing: bool = False,
    ) -> Load:
        """Runs the clients to the end. Raises `Broken` for an answer that failed, unless that may be (`failing`)."""
        child = self.child(system)
        files = bodies or [self.body(system, script, stream=not whole)]
        words = [str(self.programs.load), *(["-w"] if whole else []), *_headers(system), child.url.rpartition(":")[2]]
        words += [system.path, system.protocol, str(connections), str(requests), str(int(ramp * 1e3)), str(seconds)]
        words += map(str, files)
        before = cpu_of(child.pid)
        said, most = await self._clients(words, child, seconds)
        cpu = cpu_of(child.pid) - before
        missing = said["failed"] + said["missing"]
        if missing and not failing:
            raise Broken(f"{system.title}, {script.model}: {missing} of {requests} answers failed: {said['error']}")
        first, delay, steady = (Times.read(said[name]) for name in ("first", "delay", "steady"))
        return Load(said["answered"], said["marks"], said["seconds"], first, delay, steady, cpu, most)

    async def _clients(self, words: Sequence[str], child: Child, seconds: int) -> tuple[dict[str, Any], float]:
        """What the clients print at their end, and the most memory that the child had meanwhile."""
        client = await asyncio.create_subprocess_exec(
            *words,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            preexec_fn=functools.partial(bound_to, self.load_cpu),
        )
        peak = asyncio.create_task(_peak(child))
        try:
            async with asyncio.timeout(seconds + 10):
                output, errors = await client.communicate()
        finally:
            peak.cancel()
            if client.returncode is None:
                client.kill()
        if not output:
            raise Broken(f"the clients of {child.name} ended with {client.returncode}: {errors[-500:]!r}")
        return orjson.loads(output), await _ended(peak)


def _headers(system: System) -> Iterator[str]:
    if system.protocol == "messages":
        yield from ("-H", "anthropic-version: 2023-06-01")
    for header in system.headers:
        yield from ("-H", header)


async def _peak(child: Child) -> float:
    most = 0.0
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            most = max(most, rss_of(child.pid))
            await asyncio.sleep(SAMPLE_SECONDS)
    return most


async def _ended(task: asyncio.Task[float]) -> float:
    try:
        return await task
    except asyncio.CancelledError:  # it had not begun
        return 0.0


def family(pid: int) -> list[int]:
    """The process and all that it has started."""
    found, asked = [], [pid]
    while asked:
        found.append(asked.pop())
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{found[-1]}/task"):
                children = Path(f"/proc/{found[-1]}/task/{thread}/children").read_text("ascii")
                asked += map(int, children.split())
    return found


def cpu_of(pid: int) -> float:
    """Seconds of CPU of a process and of its children."""
    return sum(Child("", each, "").cpu() for each in _alive(pid))


def rss_of(pid: int) -> float:
    """Bytes of memory of a process and of its children."""
    return sum(Child("", each, "").rss() for each in _alive(pid))


def _alive(pid: int) -> list[int]:
    return [each for each in family(pid) if each == pid or Path(f"/proc/{each}/statm").exists()]


@contextlib.asynccontextmanager
async def rig(programs: Programs, folder: Path) -> AsyncIterator[Rig]:
    """The rig with its server. The gateway's CPU is the first that this process may use, the load's the second."""
    cpus = sorted(os.sched_getaffinity(0))
    gateway_cpu, load_cpu = (cpus[0], cpus[1]) if len(cpus) > 1 else (None, None)
    if load_cpu is not None:
        os.sched_setaffinity(0, {load_cpu})
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(os.sched_setaffinity, 0, set(cpus))
        for cpu in (gateway_cpu, load_cpu):
            await stack.enter_async_context(_awake(programs, cpu))
        server = await stack.enter_async_context(started("server", [str(programs.server), *MODELS], cpu=load_cpu))
        yield Rig(programs, folder, gateway_cpu, load_cpu, server)


@contextlib.asynccontextmanager
async def _awake(programs: Programs, cpu: int | None) -> AsyncIterator[None]:
    """In a session of its own: kernels that schedule by session would otherwise give it as much as all of ours."""
    process = await asyncio.create_subprocess_exec(
        str(programs.awake), str(AWAKE_SECONDS), preexec_fn=functools.partial(bound_to, cpu), start_new_session=True
    )
    _weigh(process.pid, "19")
    try:
        yield
    finally:
        process.kill()
        await process.wait()


def _weigh(process: int | str, nice: str) -> None:
    """How much the session of a process weighs against others, where the kernel schedules by session."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{process}/autogroup").write_text(nice)


@contextlib.contextmanager
def preferred() -> Iterator[None]:
    """Where it is allowed, this process and what it starts come before all others on the machine."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -15)
    _weigh("self", "-15")
    try:
        yield
    finally:
        _weigh("self", "0")
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, 0)
