"""How much work something is, in calls of functions: the same on every machine, however busy it is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from types import FrameType


def calls_of(work: Callable[[], object]) -> int:
    """Calls of Python's functions and of C's."""
    count = 0

    def look(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def assert_linear(work: Callable[[int], object], size: int) -> None:
    """Four times the input is about four times the work; a square would be sixteen times."""
    work(size)  # what is compiled and cached once
    once, more = calls_of(partial(work, size)), calls_of(partial(work, 4 * size))
    assert more < 6 * once + 1000, f"{once} calls, and {more} for four times as much"
