"""Runs pip with these arguments. In a terminal one line shows what it downloads and installs; elsewhere it is quiet.

    python requirements/pip_progress.py install --require-hashes --requirement requirements/core.txt

The environment is the one of the Python that runs it. Warnings and errors of pip are shown as they come. The exit
status is pip's. It uses the standard library only, since it installs everything else.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from typing import TextIO

PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input")
FOUND = re.compile(r"(?:Collecting|Requirement already satisfied:) ([\w.-]+)")
FETCHED = re.compile(r"\s*(?:Downloading|Using cached) (?:\S*/)?([A-Za-z0-9_.]+)-\d\S* \((\d\S* \wB)\)")
UNPACKING = re.compile(r"Installing collected packages: (.*)")
# What pip says of its own steps; anything else is for the person who waits.
STEP = re.compile(
    r"\s*(?:Attempting|Building|Created|Found existing|Getting|Installing|Looking in|Obtaining|Preparing|Running|Stored"
    r"|Successfully|Uninstalling|Checking|Requirement|Processing)\b|\s*[━╸╺]|\s*$"
)
CLEAR = "\r\x1b[K"


class Progress:
    """The one line, which is written over until `finish`."""

    def __init__(self, out: TextIO, width: int) -> None:
        self._out = out
        self._width = width

    def read(self, line: str) -> None:
        if match := FETCHED.match(line):
            self._show(f"downloading {match[1]} ({match[2]})")
        elif match := FOUND.match(line):
            self._show(f"looking for {match[1]}")
        elif match := UNPACKING.match(line):
            self._show(f"unpacking {match[1].count(',') + 1} packages")
        elif not STEP.match(line):
            self._out.write(f"{CLEAR}{line.rstrip()}\n")

    def finish(self, said: str) -> None:
        self._out.write(f"{CLEAR}{said}\n" if said else CLEAR)
        self._out.flush()

    def _show(self, text: str) -> None:
        self._out.write(f"{CLEAR}  {text}"[: self._width + len(CLEAR)])
        self._out.flush()


def show(lines: Iterable[str], out: TextIO, width: int) -> Progress:
    progress = Progress(out, width)
    for line in lines:
        progress.read(line)
    return progress


def main(arguments: list[str]) -> int:
    if not sys.stdout.isatty():
        return subprocess.call([*PIP, "--quiet", *arguments])
    begun = time.monotonic()
    pip = subprocess.Popen([*PIP, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert pip.stdout is not None
    progress = show(pip.stdout, sys.stdout, shutil.get_terminal_size().columns - 1)
    status = pip.wait()
    progress.finish(f"  done in {time.monotonic() - begun:.0f} s" if status == 0 else "")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
