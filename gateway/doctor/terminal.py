"""The findings as a person reads them, line by line as they come, and while one is awaited what for.

Lines go to standard output. The line that says what is waited for is written over and over on standard error, and only
where that is a terminal; nothing of it stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import textwrap
import time
from collections.abc import Callable
from typing import Any, TextIO

from dragoman.gateway.doctor.clients import ClientVerdict
from dragoman.gateway.doctor.finding import Finding, Key
from dragoman.gateway.doctor.report import ModelReport, ServerReport
from dragoman.gateway.telemetry.logs import escaped

BOLD, DIM = "1", "2"
COLOURS = {"ok": "32", "weak": "33", "FAIL": "31", "works": "32", "works with settings": "33", "does not": "31"}
VERDICT, PROBE = 6, 23  # widths of columns
INDENT = VERDICT + PROBE
MOST_SHOWN = 70  # characters of a value; the YAML at the end has it whole
TICK = 1.0
CLEAR = "\r\x1b[K"


class Terminal:
    """`progress` is where is shown what is waited for, None for nowhere."""

    def __init__(self, out: TextIO, progress: TextIO | None, redact: Callable[[str], str]) -> None:
        self._out = out
        self._progress = progress if progress is not None and progress.isatty() else None
        self._redact = redact
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        self._coloured = out.isatty() and not plain
        self._width = max(shutil.get_terminal_size().columns, 60) if out.isatty() else 0
        self._ticking: asyncio.Task[None] | None = None
        self._begun = False

    # --------------------------------------------------------------------------------------------------------- findings

    def server(self, report: ServerReport) -> None:
        self.line(("\n" if self._begun else "") + f"{self._colour(BOLD, report.name)}  {report.url}")

    def model(self, report: ModelReport) -> None:
        self.line(f"\nmodel {self._colour(BOLD, self._clean(report.name))}")

    def finding(self, found: Finding) -> None:
        head = found.verdict.ljust(VERDICT) + found.probe.ljust(PROBE)
        lines = self._wrapped(self._clean(found.result))
        verdict = self._colour(COLOURS[found.verdict], found.verdict)
        self.line(f"{verdict}{head[len(found.verdict) :]}{lines[0]}")
        for each in lines[1:]:
            self.line(each)
        for key, value in found.changes.items():
            self.line(f"{' ' * INDENT}→ {setting(key, value)}")
        if found.changes:
            self._hanging(f"with that: {self._clean(found.tried)}", "  ")
        if found.advice:
            self._hanging(f"{'or: ' if found.changes else '→ '}{self._clean(found.advice)}", "")

    def clients(self, report: ModelReport) -> None:
        if report.clients:
            self.line("")
        for each in report.clients:
            self._client(each)

    def _client(self, each: ClientVerdict) -> None:
        lines = self._wrapped(self._clean(str(each)))
        name = self._colour(COLOURS[each.outcome], each.client)
        self.line(f"{' ' * VERDICT}{name}{' ' * (PROBE - len(each.client))}{lines[0]}")
        for line in lines[1:]:
            self.line(line)

    def _hanging(self, text: str, indent: str) -> None:
        first, *rest = self._wrapped(text, len(indent))
        self.line(f"{' ' * INDENT}{indent}{first}")
        for line in rest:
            self.line(f"{indent}{line}")

    def _wrapped(self, text: str, less: int = 0) -> list[str]:
        """The first line bare, the others indented to it; one line where the output is no terminal."""
        if not self._width:
            return [text]
        width = max(self._width - INDENT - less, 30)
        first, *rest = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]
        return [first, *(" " * INDENT + each for each in rest)]

    def line(self, text: str = "") -> None:
        self.quiet()
        self._begun = True
        print(self._redact(text), file=self._out, flush=True)

    def _clean(self, text: str) -> str:
        return escaped(" ".join(text.split()))

    def _colour(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._coloured else text

    # --------------------------------------------------------------------------------------------------------- progress

    def waiting(self, what: str) -> None:
        self.quiet()
        if self._progress is not None:
            self._ticking = asyncio.create_task(self._tick(what, self._progress), name="progress")

    def quiet(self) -> None:
        """Ends the line of what is waited for."""
        if self._ticking is not None and self._progress is not None:
            self._ticking.cancel()
            self._ticking = None
            self._progress.write(CLEAR)
            self._progress.flush()

    async def _tick(self, what: str, to: TextIO) -> None:
        began = time.monotonic()
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                seconds = int(time.monotonic() - began)
                text = f"… waiting for {what}" + (f" ({seconds} s)" if seconds else "")
                to.write(f"{CLEAR}{text[: max(self._width, 80) - 1]}")
                to.flush()
                await asyncio.sleep(TICK)


def setting(key: Key, value: Any) -> str:
    """A setting in one line: of a backend as it is called there."""
    named = ".".join(map(str, key[2:] if key[0] == "backends" else key))
    shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"{named}: {shown if len(shown) <= MOST_SHOWN else shown[: MOST_SHOWN - 1] + '…'}"
