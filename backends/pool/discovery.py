"""The servers of one name: each address that DNS gives for it is a replica, so that scaling needs no reload.

The name is resolved again every few seconds, since the system's resolver does not report how long an answer is valid.
Rules:

* An address that stays keeps its replica, with its connections and all that is known of it; sessions hash to addresses,
  so only those of an address that has gone move.
* An address that has gone gets no more requests. Its replica is closed when the last one that runs has ended; if it
  comes back before, the replica goes on.
* A failure to resolve changes nothing. That there is no such name is believed when it was said `CERTAIN` times in a
  row: the address of a pod that has gone may be another workload's later.
* There are `most` replicas at most; those that are there are kept first.

A replica's name is the backend's with a number (`qwen/1`), used again when it is free: names label metrics, and pods
come and go.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
from collections.abc import Callable, Collection
from dataclasses import dataclass

from dragoman.backends.background import end, in_background
from dragoman.backends.base import Backend
from dragoman.backends.name_lookup import addresses
from dragoman.backends.pool.replica import PoolSettings, Replica

log = logging.getLogger(__name__)

LIMIT = 5.0  # seconds for one answer
CERTAIN = 3
NO_SUCH_NAME = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})  # not in every libc


@dataclass(frozen=True, slots=True)
class Source:
    """`open` makes the backend of an address, under a name. `template` is one without an address: it prepares requests
    while there is none, and is never started. `url` is hashed together with an address, as those of other servers."""

    name: str
    host: str
    port: int
    url: str
    template: Backend
    open: Callable[[str, str], Backend]


async def resolve(host: str, port: int) -> list[str]:
    """Every IPv4 and IPv6 address; raises OSError or UnicodeError."""
    found = await addresses(host, port, flags=socket.AI_ADDRCONFIG)
    return list(dict.fromkeys(str(where[0]) for *_, where in found))


class Discovery:
    """`joined` and `gone` are called with a replica that is there from now on, or no longer."""

    def __init__(
        self,
        source: Source,
        settings: PoolSettings,
        open_replica: Callable[[Backend, str], Replica],
        joined: Callable[[Replica], None],
        gone: Callable[[Replica], None],
    ) -> None:
        self.source = source
        self.reading: asyncio.Task[None] | None = None  # the first time
        self._settings = settings
        self._open = open_replica
        self._joined = joined
        self._gone = gone
        self._here: dict[str, Replica] = {}  # by address
        self._leaving: dict[str, Replica] = {}
        self._ends: dict[str, asyncio.Task[None]] = {}  # of those that leave
        self._unknown = 0  # answers in a row that there is no such name
        self._left_out = 0
        self._following: asyncio.Task[None] | None = None

    def begin(self) -> None:
        self.reading = in_background(self.read(), f"addresses of {self.source.name}")
        self._following = in_background(self._follow(self.reading), f"addresses of {self.source.name}")

    async def close(self) -> None:
        """Those that are here are the pool's to close."""
        await end(self.reading, self._following, *self._ends.values())
        await asyncio.gather(*(each.close() for each in self._leaving.values()))

    async def _follow(self, first: asyncio.Task[None]) -> None:
        await asyncio.wait((first,))
        while True:
            await asyncio.sleep(self._settings.resolve)
            await self.read()

    async def read(self) -> None:
        """Once; whatever goes wrong is logged."""
        source = self.source
        try:
            async with asyncio.timeout(LIMIT):
                addresses = await resolve(source.host, source.port)
        except (OSError, UnicodeError) as error:  # also TimeoutError
            unknown = isinstance(error, socket.gaierror) and error.errno in NO_SUCH_NAME
            self._unknown = self._unknown + 1 if unknown else 0
            log.warning("%s: its name cannot be resolved: %s", source.name, str(error) or "not in time")
            if self._unknown >= CERTAIN:
                self._take([])
            return
        self._unknown = 0
        self._take(addresses)

    def _take(self, addresses: Collection[str]) -> None:
        known = [each for each in self._here if each in addresses]
        wanted = [*known, *sorted(each for each in addresses if each not in self._here)][: self._settings.addresses]
        left_out = len(addresses) - len(wanted)
        if left_out and left_out != self._left_out:
            log.warning("%s: %d addresses are left out: pool.addresses", self.source.name, left_out)
        self._left_out = left_out
        for address in [each for each in self._here if each not in wanted]:
            self._remove(address)
        for address in wanted:
            if address not in self._here:
                self._add(address)

    def _add(self, address: str) -> None:
        replica = self._leaving.pop(address, None)
        if replica is not None:
            self._ends.pop(address).cancel()
        else:
            backend = self.source.open(address, self._free_name())
            replica = self._open(backend, f"{self.source.url} {address}")
            replica.start()
        self._here[address] = replica
        self._log("joined", replica, address)
        self._joined(replica)

    def _remove(self, address: str) -> None:
        replica = self._leaving[address] = self._here.pop(address)
        self._ends[address] = in_background(self._end(address, replica), f"end of {replica.name}")
        self._log("gone", replica, address)
        self._gone(replica)

    async def _end(self, address: str, replica: Replica) -> None:
        await replica.drained()
        del self._leaving[address], self._ends[address]
        await replica.close()

    def _free_name(self) -> str:
        taken = {each.name for each in (*self._here.values(), *self._leaving.values())}
        return next(name for number in itertools.count(1) if (name := f"{self.source.name}/{number}") not in taken)

    def _log(self, change: str, replica: Replica, address: str) -> None:
        log.info("replica", extra={"fields": {"backend": replica.name, "change": change, "address": address}})
