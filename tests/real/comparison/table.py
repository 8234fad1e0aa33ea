"""The tables of docs/comparison.md and their short form in the README."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.report import as_markdown, pasted
from tests.real.comparison.cases import CASES, Case
from tests.real.comparison.measure import Row
from tests.real.components import ROOT

PAGE = ROOT / "docs" / "comparison.md"
README = ROOT / "README.md"


def gateways(rows: Mapping[str, Row]) -> str:
    """Every case with every gateway, with what was seen where it was wrong."""
    table = [["the server sends", "right is", *rows]]
    table += [
        [f"**{case.name}**: {case.sent}", case.right, *(_cell(row[case.name]) for row in rows.values())]
        for case in CASES
    ]
    table.append([f"right, of {len(CASES)}", "", *(str(_right(row)) for row in rows.values())])
    return as_markdown(table)


def engines(rows: Mapping[str, Row], cases: Sequence[Case], names: Sequence[str]) -> str:
    """`names` are the rows that `cases` lack: those in which the client leaves."""
    meanings = {case.name: case.right for case in cases} | {
        case.name: case.right for case in CASES if case.name in names
    }
    table = [["asked", "right is", *rows]]
    table += [[name, right, *(_cell(row[name]) for row in rows.values())] for name, right in meanings.items()]
    return as_markdown(table)


def short(rows: Mapping[str, Row]) -> str:
    """What stands in the README: of each gateway, whether it is right in the cases that hurt most."""
    names = [title.partition(" ")[0] for title in rows]
    table = [["", *names]]
    table += [
        [case.short, *("yes" if row[case.name] is None else "no" for row in rows.values())]
        for case in CASES
        if case.short
    ]
    table.append([f"right in {len(CASES)} cases", *(str(_right(row)) for row in rows.values())])
    return as_markdown(table)


def write(path: Path, **places: str) -> None:
    """Puts each text between its marks."""
    page = path.read_text("utf-8")
    for name, text in places.items():
        assert f"<!-- {name} -->" in page, f"{path.name} has lost the mark of {name}"
        page = pasted(page, name, text)
    path.write_text(page, "utf-8")


def _cell(seen: str | None) -> str:
    return "yes" if seen is None else f"no: {' '.join(seen.split())}".replace("|", "\\|")


def _right(row: Row) -> int:
    return sum(seen is None for seen in row.values())
