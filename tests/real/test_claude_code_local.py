"""Claude Code and the small model on the CPU, one plain turn: the whole way with nothing scripted.

Without tools, as the README says: the prompt would fit, but a model of this size, told of tools and sub-agents, writes
about them until its window is full.
"""

from __future__ import annotations

import pytest

from tests.conftest import RealComponent
from tests.real.claude import README, Claude, command
from tests.real.serving import serving

pytestmark = pytest.mark.real

MINUTES = 5 * 60.0
WITHOUT_TOOLS = ("--tools", "")


async def test_claude_code_gets_an_answer_from_the_local_model(claude: Claude, real_component: RealComponent) -> None:
    real_component("local-model")
    assert "`--tools ''`" in README
    *_, prompt = command()
    async with serving() as url:
        turn = await claude.ask(url, prompt, *WITHOUT_TOOLS, within=MINUTES)
    assert (turn.status, turn.last["is_error"], turn.told("api_retry")) == (0, False, [])
    assert turn.answer.strip()
    assert turn.usage["input_tokens"] > 500
    assert turn.usage["output_tokens"] > 0
