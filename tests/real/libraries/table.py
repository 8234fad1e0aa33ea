"""The table of docs/clients.md, a row for each protocol of each client, with what it lacks and why, and the short one
of the README, a line for each client.

They say what `clients.py` declares, and are written once a measurement has found exactly that.
"""

from __future__ import annotations

import datetime

from tests.real.components import ROOT
from tests.real.libraries.clients import CLIENTS, Agent, Client, Row
from tests.real.libraries.scenarios import SCENARIOS

PAGE = ROOT / "docs" / "clients.md"
README = ROOT / "README.md"
MARKS = ("<!-- conformance: begin -->", "<!-- conformance: end -->")
PROTOCOLS: dict[str, str] = {"responses": "Responses", "messages": "Messages", "chat": "Chat"}
CANNOT = "\N{EN DASH}"
HEAD = ("client", "version", "protocol", "settings", "holds", "does not hold")
SHORT_HEAD = ("client", *PROTOCOLS.values(), "does not hold")


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
    rows += [_cells(client, row, reasons) for client in CLIENTS for row in client.rows]
    lines = [f"| {' | '.join(cells)} |" for cells in rows]
    notes = [f"{number}. {reason}" for number, reason in enumerate(reasons, 1)]
    return "\n".join([*lines, "", *notes])


def _cells(client: Client, row: Row, reasons: list[str]) -> tuple[str, ...]:
    version = f"{row.package} {client.version(row.package)}"
    lacks = [_lack(name, reason, reasons) for name, reason in row.lacks.items()]
    cannot = [f"{CANNOT} {_lack(name, reason, reasons)}" for name, reason in row.cannot.items()]
    return (client.name, version, PROTOCOLS[row.protocol], row.advice or "none", holds(row), ", ".join(lacks + cannot))


def holds(row: Row) -> str:
    """How many scenarios, of those that the client can be asked for."""
    asked = len(SCENARIOS) - len(row.cannot)
    return f"{asked - len(row.lacks)} of {asked}" if row.lacks or row.cannot else "all"


def _lack(name: str, reason: str, reasons: list[str]) -> str:
    """With the number of its reason; each reason is listed once."""
    if reason not in reasons:
        reasons.append(reason)
    scenario, _, way = name.partition("/")
    return f"{scenario}{f' ({way})' if way else ''} <sup>{reasons.index(reason) + 1}</sup>"


def short() -> str:
    """The README's table: a line for each client, with the versions of an agent that are alike."""
    versions: dict[tuple[str, ...], list[str]] = {}
    for client in CLIENTS:
        found = versions.setdefault(_line(client), [])
        if isinstance(client, Agent):
            found.append(client.version(client.rows[0].package))
    rows = [SHORT_HEAD, ("---",) * len(SHORT_HEAD)]
    for (name, *cells), found in versions.items():
        rows.append((f"{name} {' and '.join(found)}".strip(), *cells))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def _line(client: Client) -> tuple[str, ...]:
    held: dict[str, str] = {row.protocol: holds(row) for row in client.rows}
    several = len(client.rows) > 1
    lacks = [f"{PROTOCOLS[row.protocol]}: {lack}" if several else lack for row in client.rows if (lack := _lacked(row))]
    return (client.name, *(held.get(protocol, "") for protocol in PROTOCOLS), "; ".join(lacks))


def _lacked(row: Row) -> str:
    return ", ".join(f"{name.replace('/', ' (')})" if "/" in name else name for name in row.lacks)


def between_the_marks(page: str) -> tuple[str, str, str]:
    """What stands before the first mark's end, between the marks, and from the second on."""
    before, begin, rest = page.partition(MARKS[0])
    inside, end, after = rest.partition(MARKS[1])
    assert "" not in (begin, end), f"a page has lost its marks {MARKS}"
    return before + begin, inside, end + after


def write(day: datetime.date) -> None:
    for page, inside in ((PAGE, written(day)), (README, f"\n{short()}\n")):
        before, _, after = between_the_marks(page.read_text(encoding="utf-8"))
        page.write_text(before + inside + after, encoding="utf-8")
