"""The walk of the tour that needs no registry: a broken server, found and mended by the doctor, then both clients."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import RealComponent
from tests.real.claude import CLAUDE_CODE_VERSIONS
from tests.real.codex import CODEX_VERSIONS
from tests.real.components import ROOT
from tests.real.tour import TITLES, Walk, table, to_mended

pytestmark = pytest.mark.real


async def test_a_broken_server_is_found_and_mended_and_then_serves_both_clients(
    real_component: RealComponent, tmp_path: Path
) -> None:
    for name in (CODEX_VERSIONS[-1], CLAUDE_CODE_VERSIONS[-1]):
        real_component(name)
    walk = Walk("mend", tmp_path)
    await to_mended(walk)
    shown = [row.split(" | ")[0] for row in table([walk]).splitlines() if row.startswith("| `")]
    page = (ROOT / "docs" / "getting-started.md").read_text("utf-8")
    assert [row for row in shown if row not in page] == []
    assert all(title in page for title in TITLES.values())
