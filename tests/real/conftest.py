"""Fixtures that several real tests share."""

from pathlib import Path

import pytest

from tests.conftest import RealComponent
from tests.real.claude import Claude
from tests.real.codex import Codex


@pytest.fixture
def codex(real_component: RealComponent, tmp_path: Path) -> Codex:
    return Codex(real_component("codex"), tmp_path)


@pytest.fixture
def claude(real_component: RealComponent, tmp_path: Path) -> Claude:
    return Claude(real_component("claude"), tmp_path)


@pytest.fixture
def suite(real_component: RealComponent) -> Path:
    """The conformance suite llm-comply."""
    return real_component("comply").with_name("llm-comply")
