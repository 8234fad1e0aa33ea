"""The files in which several workers keep their figures, with room that the disk has promised.

`prometheus_client` maps files with holes. On a full disk the first write to a hole ends the process (SIGBUS), and so it
does the one in its place, until there is room. Here a file's room is allocated before it is mapped. Where there is
none, the figures go on in memory that no other worker sees: in `/metrics` they stand still.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
from pathlib import Path
from typing import IO, Any

from prometheus_client import mmap_dict, values

from dragoman.gateway.telemetry.logs import log

MAPPED: Any = mmap_dict.MmapedDict  # the library leaves it without types
LONGEST_ROW = 64  # bytes beside the key: lengths, padding, a value and its time


class FigureFile(MAPPED):  # type: ignore[misc]
    """Of one kind of metrics of one worker."""

    _f: IO[bytes]
    _m: mmap.mmap
    _capacity: int

    def __init__(self, filename: str, read_mode: bool = False) -> None:
        if read_mode or os.path.exists(filename) or _made(filename):
            super().__init__(filename, read_mode)
            return
        memory = os.memfd_create("figures")
        super().__init__(f"/proc/self/fd/{memory}")
        os.close(memory)

    def _init_value(self, key: str) -> None:
        more = 2 * self._capacity
        full = self._used + len(key.encode()) + LONGEST_ROW > self._capacity
        if full and not _allocated(self._f.fileno(), more):
            held = bytes(self._m)
            self._f.close()
            self._f = open(os.memfd_create("figures"), "w+b")  # noqa: SIM115
            self._f.write(held)
            self._f.truncate(more)
            self._capacity, self._m = more, mmap.mmap(self._f.fileno(), more)
        super()._init_value(key)


def _made(filename: str) -> bool:
    """Under its name only with its room: whoever adds the figures up cannot read an empty one."""
    new = f"{filename}.new"
    try:
        with open(new, "wb") as file:
            allocated = _allocated(file.fileno(), mmap_dict._INITIAL_MMAP_SIZE)
        os.replace(new, filename) if allocated else os.unlink(new)
    except OSError as error:
        _tell(error)
        return False
    return allocated


def _allocated(file: int, size: int) -> bool:
    """Whether the disk has room for so many bytes of the file, which is made as long where it is shorter."""
    try:
        os.posix_fallocate(file, 0, size)
    except OSError as error:
        _tell(error)
        return False
    return True


def _tell(error: OSError) -> None:
    log.error("the figures of this worker are no longer seen by others: %s", error.strerror)


def use() -> None:
    """For all metrics that this process makes from now on, where the system can do it (macOS cannot)."""
    if hasattr(os, "posix_fallocate") and hasattr(os, "memfd_create"):
        library: Any = values  # which has a name for its own alone
        library.MmapedDict = FigureFile


def forget(directory: str, worker: int) -> None:
    """Removes the files of a worker that has ended before it counted anything: one that cannot run may be replaced
    every few seconds, for days."""
    for path in Path(directory).glob(f"*_{worker}.db"):
        with contextlib.suppress(OSError, ValueError, struct.error):
            if not any(value for _, value, _, _ in MAPPED.read_all_values_from_file(path)):
                path.unlink()
