"""Large blocks go back to the system, however many were freed before. Each case is a process of its own."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Mapping

import pytest

pytestmark = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="needs glibc 2.33 or newer")

# Prints how many bytes lie in mappings of their own while a block of 4 MiB is in use, after one of 8 MiB was freed.
MEASURE = """
import ctypes
from dragoman.gateway.serve.allocator import return_large_blocks

class Mallinfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks",
                                                     "fsmblks", "uordblks", "fordblks", "keepcost")]

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.restype, libc.free.argtypes = None, [ctypes.c_void_p]
libc.mallinfo2.restype = Mallinfo
{call}
libc.free(libc.malloc(8 << 20))
before = libc.mallinfo2().hblkhd
block = libc.malloc({size})
print(libc.mallinfo2().hblkhd - before)
"""
CALL = "return_large_blocks()"
LARGE, AGENTS_REQUEST = 4 << 20, 256 * 1024


def mapped(call: str, size: int, environment: Mapping[str, str] | None = None) -> int:
    # an interpreter with nothing in its environment but what the case sets
    run = subprocess.run(
        [sys.executable, "-c", MEASURE.format(call=call, size=size)],
        env={"PYTHONPATH": ":".join(sys.path), **(environment or {})},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return int(run.stdout)


def test_a_large_block_has_a_mapping_of_its_own() -> None:
    assert mapped(CALL, LARGE) >= LARGE


def test_the_c_library_alone_forgets_that() -> None:
    """What the call is for; when this fails, glibc has changed and the module can go."""
    assert mapped("", LARGE) == 0


def test_a_request_of_an_agent_comes_from_the_heap() -> None:
    assert mapped(CALL, AGENTS_REQUEST) == 0


@pytest.mark.parametrize(
    "environment",
    [
        {"MALLOC_MMAP_THRESHOLD_": str(16 << 20)},
        {"GLIBC_TUNABLES": f"glibc.malloc.mmap_threshold={16 << 20}"},
    ],
    ids=["variable", "tunable"],
)
def test_a_size_in_the_environment_stays(environment: Mapping[str, str]) -> None:
    assert mapped(CALL, LARGE, environment) == 0
