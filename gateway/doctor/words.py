"""What servers said when they refused, kept from the log in place of being printed.

While the doctor works, nothing is logged: a line of the log among the findings would say a second time, in other words,
what a finding says. The words of a refusal go into the finding, since the doctor is the operator's own.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from dragoman.backends.refusal import cut, read, redact
from dragoman.backends.sensitive import Sensitive


class Words(logging.Handler):
    """`last`: the words of the last refusal since `forget`."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        for each in record.args if isinstance(record.args, tuple) else ():
            if isinstance(each, Sensitive):
                self.last = redact(cut(read(str(each).encode()).words))

    def forget(self) -> None:
        self.last = ""


@contextlib.contextmanager
def quiet() -> Iterator[Words]:
    """Takes over the process's root logger until the end of the block."""
    root, words = logging.getLogger(), Words()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = [words]
    root.setLevel(logging.INFO)
    try:
        yield words
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
