"""The table of docs/clients.md: a row for each protocol of each library, with what it lacks and why.

It says what `clients.py` declares, and is written once a measurement has found exactly that.
"""

from __future__ import annotations

import datetime

from tests.real.components import ROOT
from tests.real.libraries.clients import LIBRARIES, Library, Row
from tests.real.libraries.scenarios import SCENARIOS

PAGE = ROOT / "docs" / "clients.md"
BEGIN, END = "<!-- libraries: begin -->", "<!-- libraries: end -->"
PROTOCOLS = {"responses": "Responses", "messages": "Messages", "chat": "Chat"}
HEAD = ("library", "version", "protocol", "settings", "holds", "does not hold")


def written(day: datetime.date) -> str:
    """What stands between the marks."""
    return f"\nMeasured on {day.isoformat()}.\n\n{body()}\n"


def body() -> str:
    """Everything but the day."""
    meanings = "\n".join(f"* **{scenario.name}**: {scenario.meaning}" for scenario in SCENARIOS)
    return f"{meanings}\n\n{table()}"


def table() -> str:
    reasons: list[str] = []
    rows = [HEAD, ("---",) * len(HEAD)]
    rows += [_cells(library, row, reasons) for library in LIBRARIES for row in library.rows]
    lines = [f"| {' | '.join(cells)} |" for cells in rows]
    notes = [f"{number}. {reason}" for number, reason in enumerate(reasons, 1)]
    return "\n".join([*lines, "", *notes])


def _cells(library: Library, row: Row, reasons: list[str]) -> tuple[str, ...]:
    version = f"{row.package} {library.version(row.package)}"
    left = len(SCENARIOS) - len(row.lacks)
    lacks = ", ".join(_lack(name, reason, reasons) for name, reason in row.lacks.items())
    holds = "all" if not row.lacks else f"{left} of {len(SCENARIOS)}"
    return (library.name, version, PROTOCOLS[row.protocol], row.advice or "none", holds, lacks)


def _lack(name: str, reason: str, reasons: list[str]) -> str:
    """With the number of its reason; each reason is listed once."""
    if reason not in reasons:
        reasons.append(reason)
    scenario, _, way = name.partition("/")
    return f"{scenario}{f' ({way})' if way else ''} <sup>{reasons.index(reason) + 1}</sup>"


def between_the_marks(page: str) -> tuple[str, str, str]:
    """What stands before the first mark's end, between the marks, and from the second on."""
    before, begin, rest = page.partition(BEGIN)
    inside, end, after = rest.partition(END)
    assert "" not in (begin, end), f"{PAGE.name} has lost its marks"
    return before + begin, inside, end + after


def write(day: datetime.date) -> None:
    before, _, after = between_the_marks(PAGE.read_text(encoding="utf-8"))
    PAGE.write_text(before + written(day) + after, encoding="utf-8")
