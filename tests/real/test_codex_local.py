"""Codex CLI and the small model on the CPU, one plain turn: the whole way with nothing scripted.

It is slow (some thousands of tokens of prompt, half a minute to a minute on two cores) and runs once.
"""

from __future__ import annotations

import pytest

from tests.conftest import RealComponent
from tests.real.codex import Codex, configuration
from tests.real.serving import serving

pytestmark = pytest.mark.real

MINUTES = 5 * 60.0


async def test_codex_gets_an_answer_from_the_local_model(codex: Codex, real_component: RealComponent) -> None:
    real_component("local-model")
    async with serving() as url:
        # silence of the prompt's minute is carried by keepalives alone
        codex.configure(configuration(url) + "stream_idle_timeout_ms = 20000\nstream_max_retries = 0\n")
        turn = await codex.exec("Say hello.", within=MINUTES)
    assert (turn.status, turn.complaints) == (0, [])
    (answer,) = turn.answers
    assert answer.strip()
    assert turn.usage["input_tokens"] > 2000
    assert turn.usage["output_tokens"] > 0
