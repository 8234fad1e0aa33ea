"""Fixtures that several real tests share."""

from pathlib import Path

import pytest

from tests.conftest import RealComponent
from tests.real.claude import CLAUDE_CODE_VERSIONS, Claude
from tests.real.codex import CODEX_VERSIONS, Codex


@pytest.fixture
def codex(request: pytest.FixtureRequest, real_component: RealComponent, tmp_path: Path) -> Codex:
    """The newest version, where the test is not parametrised over them."""
    return Codex(real_component(getattr(request, "param", CODEX_VERSIONS[-1])), tmp_path)


@pytest.fixture
def claude(request: pytest.FixtureRequest, real_component: RealComponent, tmp_path: Path) -> Claude:
    """The newest version, where the test is not parametrised over them."""
    return Claude(real_component(getattr(request, "param", CLAUDE_CODE_VERSIONS[-1])), tmp_path)


@pytest.fixture
def suite(real_component: RealComponent) -> Path:
    """The conformance suite llm-comply."""
    return real_component("comply").with_name("llm-comply")
