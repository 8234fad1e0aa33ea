"""What clients have spent of their rates: in this process, or in all the workers of one supervisor together.

A rate is a token bucket that holds one minute's worth. All that is kept of one is the time at which it will be full
again, 0 for a full one. So a limit that changes keeps what is owed, in time, and a row that is lost was full or nearly.

Shared rows lie in memory that the supervisor maps before it starts its workers: a worker that dies takes nothing with
it. One look at them costs microseconds, under a lock that the kernel gives back when its holder dies; one that stands
still while it holds the lock is not waited for. Only the beginning of a call looks, never a delta.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

ROW = struct.Struct("=16sdd")  # the beginning of a key's hash; when its requests and its tokens will be full again
ROWS = 8192
NEAR = 16  # rows that one key may have; of those the one that is full first makes room for another key
TRIES = 2000  # at the lock; a few milliseconds
LEAST = 1e-6  # seconds: what is less is the rounding of the clock

Row = list[float]  # the two times of a row


@dataclass(frozen=True, slots=True)
class Rate:
    """So many a minute. `full_at`: when the bucket will be full again."""

    per_minute: float

    def left(self, full_at: float, now: float) -> float:
        """Negative where more was taken than there was: a client waits until that is paid back."""
        return self.per_minute - max(0.0, full_at - now) * self.per_minute / 60

    def wait(self, full_at: float, amount: float, now: float) -> float:
        """Seconds until `amount` can be taken, 0 if it can be now; more than a minute's worth needs a full bucket."""
        seconds = (min(amount, self.per_minute) - self.left(full_at, now)) * 60 / self.per_minute
        return seconds if seconds > LEAST else 0.0

    def taken(self, full_at: float, amount: float, now: float) -> float:
        """When it will be full after `amount` was taken. A negative amount gives back."""
        return max(full_at, now) + amount * 60 / self.per_minute


class Spending:
    """The rows of all clients; `shared` makes those that forked processes have in common."""

    def __init__(self, memory: bytearray | mmap.mmap | None = None, lock: IO[bytes] | None = None) -> None:
        self._memory = bytearray(ROW.size * ROWS) if memory is None else memory
        self._lock = lock

    @classmethod
    def shared(cls) -> Spending:
        """To be called before the processes are forked. Raises `OSError`."""
        return cls(mmap.mmap(-1, ROW.size * ROWS), tempfile.TemporaryFile())

    def close(self) -> None:
        if self._lock is not None:
            self._lock.close()

    @contextlib.contextmanager
    def row(self, owner: bytes) -> Iterator[Row]:
        """The times of the client whose key's hash begins with these 16 bytes; what is put there counts for all."""
        with self._locked():
            place = self._place(owner)
            known, *times = ROW.unpack_from(self._memory, place)
            if known != owner:
                times = [0.0, 0.0]
            yield times
            ROW.pack_into(self._memory, place, owner, *times)

    def look(self, owner: bytes) -> Row:
        """Without the lock: for what is only shown."""
        known, *times = ROW.unpack_from(self._memory, self._place(owner))
        return times if known == owner else [0.0, 0.0]

    def _place(self, owner: bytes) -> int:
        """Where the client's row is, or the one that it takes over from whoever is full first."""
        first = int.from_bytes(owner[:4], "big")
        full_at: dict[int, float] = {}
        for step in range(NEAR):
            place = (first + step) % ROWS * ROW.size
            known, *times = ROW.unpack_from(self._memory, place)
            if known == owner:
                return place
            full_at[place] = max(times)
        return min(full_at, key=full_at.__getitem__)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        if self._lock is None:
            yield
            return
        import fcntl  # there are no workers where there is none

        held = False
        for _ in range(TRIES):
            try:
                fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held = True
                break
            except OSError:
                os.sched_yield()
        try:
            yield
        finally:
            if held:
                fcntl.lockf(self._lock, fcntl.LOCK_UN)
