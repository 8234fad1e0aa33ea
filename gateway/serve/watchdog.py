"""The watchdog: a process whose event loop stands still writes its stacks to standard error and ends.

What stands still may hold the interpreter (a C function that never returns), so no Python thread could notice it. The
library's `faulthandler` waits in a thread of its own that needs no interpreter; the loop puts it off again and again.
The supervisor, or whatever started the process, starts another one. It begins when the gateway serves and ends with
that, so that neither a slow start nor a slow exit counts; a reload works in a thread beside the loop.

A machine that sleeps does not count: the thread waits by a clock that stands still meanwhile, and where Python was
built without that, there is no watchdog. A process that is stopped counts; a terminal's ^Z is therefore waited out.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import os
import signal
import sysconfig
from collections.abc import Callable, Iterator

from dragoman.gateway.telemetry.logs import log

OFTEN = 1.0  # seconds between two times that it is put off, each of which starts a thread
SHARE = 4  # of a short limit
STOP = getattr(signal, "SIGTSTP", None)  # not everywhere


class Watchdog:
    """`limit` gives the seconds for which the loop may stand still, 0 for any time; it may change."""

    def __init__(self, limit: Callable[[], float]) -> None:
        self._limit = limit
        self._timer: asyncio.TimerHandle | None = None

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watches the running loop while the body runs."""
        if not sysconfig.get_config_var("HAVE_SEM_CLOCKWAIT"):
            log.debug("there is no watchdog: this Python cannot wait by a clock that stands still with the machine")
            yield
            return
        loop = asyncio.get_running_loop()
        if STOP is not None and signal.getsignal(STOP) is signal.SIG_DFL:
            loop.add_signal_handler(STOP, self._stopped)
        self._put_off()
        try:
            yield
        finally:
            self._end()
            if STOP is not None:
                loop.remove_signal_handler(STOP)

    def _put_off(self) -> None:
        limit = self._limit()
        if limit:
            faulthandler.dump_traceback_later(limit, exit=True)
        else:
            faulthandler.cancel_dump_traceback_later()
        often = min(OFTEN, limit / SHARE) if limit else OFTEN
        self._timer = asyncio.get_running_loop().call_later(often, self._put_off)

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        faulthandler.cancel_dump_traceback_later()

    def _stopped(self) -> None:
        """^Z: the process stops here, and goes on here."""
        self._end()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._put_off()
