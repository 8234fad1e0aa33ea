"""What the C library does with memory that was freed.

Glibc gives a large block a mapping of its own, which goes back to the system as soon as it is freed. But with each
such block that is freed it raises the size from which a block counts as large, up to 32 MiB. From then on, bodies and
answers of megabytes come from the heap and leave holes there, which small blocks that stay keep from being returned:
over hours of mixed requests the process grows, although nothing is leaked. A size that is set stays.
"""

from __future__ import annotations

import ctypes
import os

_M_MMAP_THRESHOLD = -3  # of <malloc.h>
LARGE = 1024 * 1024  # bytes; an agent's request is smaller and comes from the heap, which is faster


def return_large_blocks() -> None:
    """From now on a block of `LARGE` bytes or more is returned to the system when it is freed, unless the environment
    says otherwise. Other C libraries have no such function, and need none."""
    if "MALLOC_MMAP_THRESHOLD_" in os.environ or "mmap_threshold" in os.environ.get("GLIBC_TUNABLES", ""):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGE)
