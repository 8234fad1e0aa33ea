"""Long work in steps: a generator that yields between them and returns its result.

The caller decides what happens in between: an event loop serves others, a time limit stops taking steps. A step lasts
milliseconds, whatever the input.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeVar

T = TypeVar("T")
Steps = Generator[Any, None, T]  # a caller may give what is yielded a meaning


def at_once(steps: Steps[T]) -> T:
    """The result, without a pause."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
