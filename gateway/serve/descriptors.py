"""How many files and connections the process may have open.

A stream takes two, one to its client and one to its server. Most systems allow a process 1,024 at first and many more
where it asks for them; beyond that, the kernel takes new connections and the event loop resets them, without a word.
"""

from __future__ import annotations

import contextlib
import sys

ENOUGH = 65_536


def allow_many_connections() -> None:
    """Raises the limit as far as the system allows it without privileges, up to `ENOUGH`."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # some systems have a lower limit of their own
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
