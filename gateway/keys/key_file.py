"""The file of clients' keys, watched while the gateway runs, so that a changed key needs neither reload nor restart.

The disk is touched in threads only. A file that is rewritten in place is never taken half-written: what it says counts
once the file has not changed for a moment and did not change while it was read. If it cannot be used, that is logged
once, and the keys stay as they were until the next change.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

from dragoman.gateway.config import ConfigError
from dragoman.gateway.keys.secrets import Grant
from dragoman.gateway.telemetry.logs import log

# Seconds between two looks at the file, and for which a changed one must be at rest: together less than the second
# within which a change is to count.
LOOK_EVERY = 0.7
AT_REST = 0.2

Grants = Mapping[str, Grant]  # all keys, with what each may do
Stamp = tuple[int, int, int]  # values that change when the file does; None where there is no file
NEVER_SEEN: Stamp = (0, 0, 0)  # no file's: the first look reads it, in case it has changed since the start


class KeyFile:
    """`read` reads all keys, also those that are not in the file; it raises `ConfigError`."""

    def __init__(self, path: Path, read: Callable[[], Grants]) -> None:
        self._path = path
        self._read = read
        self._seen: Stamp | None = NEVER_SEEN

    async def follow(self, take: Callable[[Grants], None]) -> None:
        """Calls `take` in the event loop with what the file says, after the first look and after each change."""
        if await asyncio.to_thread(self._path.is_fifo):
            return  # a shell's `<(…)`, which can be read only once
        while True:
            stamp = await asyncio.to_thread(self._look)
            if stamp != self._seen:
                await self._follow_change(stamp, take)
            await asyncio.sleep(LOOK_EVERY)

    async def _follow_change(self, stamp: Stamp | None, take: Callable[[Grants], None]) -> None:
        first = self._seen == NEVER_SEEN
        found: Grants | Exception | None = None
        while found is None:
            await asyncio.sleep(AT_REST)
            stamp, found = await asyncio.to_thread(self._read_at_rest, stamp)
        self._seen = stamp
        match found:
            case ConfigError():
                log.error("the keys stay as they were: %s", found)
            case Exception():
                log.error("the keys stay as they were", exc_info=found)
            case _:
                take(found)
                if not first:
                    log.info("the keys were read again", extra={"fields": {"keys": len(found)}})

    def _read_at_rest(self, stamp: Stamp | None) -> tuple[Stamp | None, Grants | Exception | None]:
        """The file's stamp now, and what it says or why it cannot be used; None if it is no longer that of `stamp`."""
        if (now := self._look()) != stamp:
            return now, None
        found: Grants | Exception
        try:
            found = self._read()
        except Exception as error:
            found = error
        now = self._look()
        return now, found if now == stamp else None

    def _look(self) -> Stamp | None:
        """Of the file that a link points to: a Kubernetes secret is a link that is moved to another file."""
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino
