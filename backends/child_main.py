"""What a child process of `child_process` runs: it answers one question after the other, until its input ends.

It is run as a script, isolated from the environment (`-I`), with the paths to import from, the name of the function
that answers (`module:function`, bytes to bytes) and its memory in bytes. It bounds itself, since nobody may be left to
do so: its address space, the files that it may write (none), and the time of each answer, by an alarm that kills it.

A question is `QUESTION` (length, seconds) and that many bytes, a reply `REPLY` (length, whether it is an answer) and
that many bytes; what is no answer is the name of the exception. One empty reply says that it is ready.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import struct
import sys
from collections.abc import Callable
from typing import BinaryIO

QUESTION = struct.Struct(">Id")
REPLY = struct.Struct(">I?")


def main(paths: str, function: str, memory: str) -> None:
    questions = os.fdopen(os.dup(0), "rb")
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a library prints is no reply
    sys.dont_write_bytecode = True
    sys.path[:] = json.loads(paths)
    _bound(int(memory))
    module, _, name = function.partition(":")
    answer: Callable[[bytes], bytes] = getattr(importlib.import_module(module), name)
    _reply(replies, True, b"")
    while len(head := questions.read(QUESTION.size)) == QUESTION.size:
        size, seconds = QUESTION.unpack(head)
        if len(question := questions.read(size)) < size:
            return
        _alarm(seconds)
        try:
            answered, reply = True, answer(question)
        except Exception as error:
            answered, reply = False, type(error).__name__.encode()
        _alarm(0)
        _reply(replies, answered, reply)


def _reply(replies: BinaryIO, answered: bool, reply: bytes) -> None:
    replies.write(REPLY.pack(len(reply), answered) + reply)
    replies.flush()


def _bound(memory: int) -> None:
    with contextlib.suppress(ImportError):  # there are no such limits on Windows
        import resource

        for limit, most in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
            with contextlib.suppress(ValueError, OSError):  # a system may know a smaller one, or none
                resource.setrlimit(limit, (most, most))


def _alarm(seconds: float) -> None:
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


if __name__ == "__main__":
    main(*sys.argv[1:])
