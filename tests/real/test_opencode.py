"""opencode at work over Responses, as `dragoman launch` starts it: a command runs, an answer is cut, a history is long.

How it is launched, and that its settings stay as they are, is in `test_launch.py`.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from tests.conftest import RealComponent
from tests.real.opencode import Opencode
from tests.real.scripted_model import calls, results, says
from tests.real.serving import serving
from tests.scripted import Json, Script, ScriptedServer, text_stream

TITLE = "Computing"
ANSWER = text_stream("It printed ", "42.")
CUT = Script(ANSWER, split="frames", cut_at=ANSWER.index(b"42."))
TOO_LONG = "This model's maximum context length is 32768 tokens. However, your request has 40000 input tokens."
OVERFLOW = Script.json({"object": "error", "message": TOO_LONG, "type": "BadRequestError", "code": 400}, 400)


@pytest.fixture
def opencode(real_component: RealComponent, tmp_path: Path) -> Opencode:
    return Opencode(real_component("opencode"), tmp_path)


def turns(server: ScriptedServer) -> list[list[Json]]:
    """The prompts of the conversation itself; what has no tools is a title or a summary."""
    return [seen.body["messages"] for seen in server.chats if seen.body and seen.body.get("tools")]


async def test_a_command_runs_once_although_the_first_answer_was_cut_and_the_session_goes_on(
    opencode: Opencode,
) -> None:
    cuts = [CUT]

    def answer(asked: Json) -> Script:
        if not asked.get("tools"):
            return says(TITLE)
        if cuts:
            return cuts.pop()
        if found := results(asked):
            return says(f"It printed {found[-1].strip()} at last.")
        return calls(("bash", {"command": "echo ran >> ran.txt; echo $((6*7))", "description": "computes"}))

    async with ScriptedServer(default=answer) as server, serving("--backend", server.url) as url:
        first = await opencode.run(url, "Compute.")
        second = await opencode.run(url, "--continue", "And now?")
        prompts = turns(server)
    assert [status for status, _, _ in (first, second)] == [0, 0], first[2] + second[2]
    assert all("It printed 42 at last." in output for _, output, _ in (first, second))
    assert (opencode.home / "ran.txt").read_text(encoding="utf-8") == "ran\n"
    assert prompts[0] == prompts[1]
    for before, after in pairwise(prompts):
        assert after[: len(before)] == before


async def test_an_overflow_is_shown_and_the_conversation_is_compacted(opencode: Opencode) -> None:
    def answer(asked: Json) -> Script:
        if not asked.get("tools"):
            return says("A summary.")
        return says("Done.") if "A summary." in str(asked["messages"]) else OVERFLOW

    async with ScriptedServer(default=answer) as server, serving("--backend", server.url) as url:
        status, output, errors = await opencode.run(url, "Compute.")
        assert len(turns(server)) == 2
    assert "This model's maximum context length is 32768 tokens" in errors
    assert "Done." in output
    assert status == 1  # although the answer came
