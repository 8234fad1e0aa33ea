"""What a gateway and the model servers have open, counted over all of the gateway's processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
from dataclasses import dataclass

from bench.children import Broken, Child
from bench.client import fetch

# Threads of asyncio's executor, which start as they are needed and stay, and a few of the store.
THREADS = min(32, (os.cpu_count() or 1) + 4) + 4
_LISTENS = "0A"
CHECKERS = 2  # child processes that check schemas, for each worker


@dataclass(frozen=True)
class Servers:
    """`upstream` is the scripted model server, `hostile` the one that means harm."""

    gateway: Child
    upstream: Child
    hostile: Child


@dataclass(frozen=True)
class Resting:
    """What is open at rest. Sockets are the TCP connections of the gateway without those to the model servers."""

    sockets: int
    streams: int
    calls: int
    threads: int
    processes: int

    def failures(self, before: Resting, workers: int) -> list[str]:
        left = (
            ("sockets", self.sockets - before.sockets),
            ("upstream streams", self.streams),
            ("calls in flight", self.calls - before.calls),
        )
        found = [f"{count} {what} are left open" for what, count in left if count > 0]
        for what, grown, most in (
            ("threads", self.threads - before.threads, (THREADS + CHECKERS) * workers),
            ("child processes", self.processes - before.processes, CHECKERS * workers),
        ):
            if grown > most:
                found.append(f"{grown} more {what} than before (at most {most})")
        return found


def family(child: Child) -> list[Child]:
    """The process and all that descend from it."""
    found, pids = [], [child.pid]
    while pids:
        pid = pids.pop()
        with contextlib.suppress(OSError, Broken):  # it ended while we looked
            pids += children(pid)
            found.append(Child(child.name, pid, child.url))
    return found


def children(pid: int) -> list[int]:
    found: list[int] = []
    for thread in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as line:
            found += map(int, line.read().split())
    return found


def connections(pid: int) -> int:
    """TCP sockets that do not listen; the pipes to a child process may be sockets too, and are none of these."""
    inodes: set[str] = set()
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(FileNotFoundError), open(f"/proc/{pid}/net/{name}", encoding="ascii") as lines:
            rows = [line.split() for line in lines][1:]
            inodes |= {f"socket:[{row[9]}]" for row in rows if row[3] != _LISTENS}
    count = 0
    with os.scandir(f"/proc/{pid}/fd") as entries:
        for entry in entries:
            with contextlib.suppress(OSError):  # closed while we looked
                count += os.readlink(entry.path) in inodes
    return count


def memory(gateway: Child) -> float:
    """Resident bytes of all its processes."""
    total = 0.0
    for each in family(gateway):
        with contextlib.suppress(OSError, Broken):
            total += each.rss()
    return total


async def rest(servers: Servers) -> Resting:
    calls = in_flight(await fetch(servers.gateway.url, "/metrics"))
    counts = json.loads(await fetch(servers.upstream.url, "/counts"))
    own = 1  # the connection that asked for the counts
    upstream = counts["connections"] - own + connections(servers.hostile.pid)
    members = family(servers.gateway)
    sockets = threads = 0
    for each in members:
        with contextlib.suppress(OSError, Broken):
            sockets += connections(each.pid)
            threads += each.threads()
    return Resting(sockets - upstream, counts["streams"], calls, threads, len(members))


async def settled(servers: Servers, before: Resting) -> Resting:
    """The state at rest: as soon as nothing more is open than before, or else after 20 s."""
    for _ in range(40):
        await asyncio.sleep(0.5)
        after = await rest(servers)
        if after.sockets <= before.sockets and after.streams == 0 and after.calls <= before.calls:
            break
    return after


def in_flight(metrics: bytes) -> int:
    values = re.findall(rb"^dragoman_\w*in_flight\w*(?:\{[^}]*\})? ([0-9.e+]+)$", metrics, re.MULTILINE)
    return int(sum(float(value) for value in values))
