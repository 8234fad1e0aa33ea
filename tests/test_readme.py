"""The README's tables are rows of the pages that they come from, and the case table holds for this very code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.report import as_markdown, read, summary
from bench.systems import GATEWAY_SYSTEM
from tests.real.comparison.cases import CASES
from tests.real.comparison.engine import CASES as ENGINE_CASES
from tests.real.comparison.engine import LEAVING
from tests.real.comparison.measure import Row, measured
from tests.real.comparison.table import engines, gateways, short

ROOT = Path(__file__).parents[1]
LINES = 210


def marked(page: str, name: str) -> str:
    text = (ROOT / page).read_text("utf-8")
    found = re.search(rf"<!-- {name} -->\n(.*?)\n<!-- end of {name} -->", text, re.DOTALL)
    assert found is not None, f"{page} has lost the mark of {name}"
    return found[1]


def rows(page: str, name: str, names: list[str]) -> dict[str, Row]:
    """What a table of the page says, by column."""
    head, *table = read(marked(page, name))
    assert len(table) >= len(names)
    return {
        title: {
            each: None if row[place] == "yes" else row[place].removeprefix("no: ").replace("\\|", "|")
            for each, row in zip(names, table, strict=False)
        }
        for place, title in enumerate(head)
        if place > 1
    }


def test_the_figures_of_the_readme_are_those_of_the_page() -> None:
    assert marked("README.md", "speed") == as_markdown(summary(read(marked("docs/performance.md", "figures"))))


def test_the_cases_of_the_readme_are_those_of_the_page() -> None:
    found = rows("docs/comparison.md", "gateways", [case.name for case in CASES])
    assert marked("README.md", "comparison") == short(found)
    assert marked("docs/comparison.md", "gateways").partition("\n\n")[2] == gateways(found)


def test_the_page_has_every_case_of_the_engine() -> None:
    names = [*(case.name for case in ENGINE_CASES), *LEAVING]
    found = rows("docs/comparison.md", "engines", names)
    assert marked("docs/comparison.md", "engines").partition("\n\n")[2] == engines(found, ENGINE_CASES, LEAVING)
    assert set(found["dragoman"].values()) == {None}


def test_the_readme_stays_short_and_shows_it_working_first() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert len(text.splitlines()) <= LINES
    assert re.findall("^## (.*)$", text, re.MULTILINE)[0] == "See it work"


@pytest.mark.slow
async def test_this_gateway_is_right_in_every_case(tmp_path: Path) -> None:
    wrong = {name: seen for name, seen in (await measured(GATEWAY_SYSTEM, tmp_path)).items() if seen is not None}
    assert wrong == {}
