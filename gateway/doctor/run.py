"""The command: examines, prints or writes what was found, and ends with a status.

0 where clients are served, 1 where they are not. Without names, some agent must work for each model that was judged;
with names, each of these clients. What works only with settings that are not in the configuration does not count,
unless they were written into a file.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dragoman.gateway.config import Config
from dragoman.gateway.doctor.clients import CLIENTS
from dragoman.gateway.doctor.document import document
from dragoman.gateway.doctor.examine import examine
from dragoman.gateway.doctor.report import Report
from dragoman.gateway.doctor.settings_file import pasteable, write
from dragoman.gateway.doctor.show import Silent
from dragoman.gateway.doctor.terminal import Terminal
from dragoman.gateway.doctor.words import quiet
from dragoman.gateway.keys.secrets import Secrets
from dragoman.gateway.telemetry.logs import Redactor


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line asks for. `source` is the file of the configuration, `clients` are as it calls them."""

    model: str | None = None
    clients: Sequence[str] = ()
    deep: bool = False
    json: bool = False
    write: Path | None = None
    source: Path | None = None


async def run(config: Config, secrets: Secrets, wanted: Wanted) -> int:
    """The status. Raises `ConfigError` where the settings cannot be written."""
    redact = Redactor(secrets.all())  # a server may echo the key that it was sent
    terminal = Terminal(sys.stdout, sys.stderr, redact)
    with quiet() as words:
        try:
            show = Silent() if wanted.json else terminal
            report = await examine(config, secrets, words, show, wanted.model, wanted.deep)
        finally:
            terminal.quiet()
    written = []
    if wanted.write is not None and report.servers:
        written = write(report, config, wanted.write, wanted.source)
    names = [CLIENTS[each] for each in wanted.clients]
    unserved = report.unserved(names, with_settings=bool(written))
    if wanted.json:
        print(document(report, pasteable(report, config), written, unserved, redact))
    else:
        _conclude(terminal, report, pasteable(report, config), written, unserved)
    return 1 if unserved else 0


def _conclude(
    terminal: Terminal, report: Report, settings: str, written: Sequence[str], unserved: Sequence[str]
) -> None:
    terminal.line()
    if settings and not written:
        terminal.line("settings that were tried and helped; `--write FILE` puts them into a configuration:\n")
        terminal.line(settings)
    for each in written:
        terminal.line(each)
    if not report.servers:
        terminal.line("no backend serves that model")
    if unserved:
        terminal.line("verdict: clients will fail here" + ("" if written else ", as it is configured"))
        for each in unserved:
            terminal.line(f"  {each}")
    elif report.servers:
        failing = f", but not {' and '.join(report.failing)}" if report.failing else ""
        terminal.line(f"verdict: {'with that ' if written else ''}it can serve agents{failing}")
