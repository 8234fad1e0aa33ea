"""The page docs/conformance.md promises a test for each case that others fail; every test that it names must exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "conformance.md").read_text("utf-8")
NAMED = sorted(set(re.findall(r"`((?!tests/)(?:\w+/)*test_\w+\.py)(?:::(\w+))?`", PAGE)))


def test_the_page_has_all_cases() -> None:
    assert re.findall(r"^\| T(\d+) \|", PAGE, re.MULTILINE) == [str(number) for number in range(1, 17)]
    rows = [line for line in PAGE.partition("## The seed")[2].splitlines() if line.startswith("| ")]
    assert len(rows) == 2 + 18 + 24  # two heads, the first eighteen, the later ones by subject


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_named_test_exists(file: str, name: str) -> None:
    functions = [
        node.name
        for node in ast.walk(ast.parse((TESTS / file).read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert not name or name in functions
