"""GitHub Copilot CLI and pi where something fails: both decide by the words of an error what to do about it.

What they do with answers is measured by `libraries`, with every protocol.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import RealComponent
from tests.real.libraries.drivers.scenario import Scenario
from tests.real.libraries.programs import ask_pi, copilot_variables, set_up_pi, told
from tests.real.scripted_model import says
from tests.real.serving import serving
from tests.scripted import Script, ScriptedServer, text_stream

TOO_LONG = "This model's maximum context length is 32768 tokens. However, your request has 40000 input tokens."
OVERFLOW = Script.json({"object": "error", "message": TOO_LONG, "type": "BadRequestError", "code": 400}, 400)
ANSWER = text_stream("Hello", " there.")
CUT = Script(ANSWER, split="frames", cut_at=ANSWER.index(b" there."))
EACH_PROTOCOL = pytest.mark.parametrize("protocol", ["responses", "messages", "chat"])


def scenario(url: str, protocol: str) -> Scenario:
    return Scenario(url, "any", "m", protocol, {}, streamed=True, questions=["Say hello."])


@EACH_PROTOCOL
async def test_copilot_recognizes_an_overflow(real_component: RealComponent, tmp_path: Path, protocol: str) -> None:
    program = real_component("copilot")
    real_component("node")
    async with ScriptedServer(default=OVERFLOW) as server, serving("--backend", server.url) as url:
        given = (str(program), "--output-format", "json", "--prompt", "Say hello.")
        events = await told(given, tmp_path, copilot_variables(scenario(url, protocol)))
        assert len(server.chats) == 1
    assert "Compacting history and retrying" in json.dumps(events)


@EACH_PROTOCOL
async def test_pi_asks_again_where_an_answer_was_cut(
    real_component: RealComponent, tmp_path: Path, protocol: str
) -> None:
    program = real_component("pi")
    real_component("node")
    async with ScriptedServer(CUT, default=says("Hello", " there.")) as server, serving("--backend", server.url) as url:
        asked = scenario(url, protocol)
        set_up_pi(tmp_path, asked, retry={"baseDelayMs": 10})
        events = await ask_pi(program, tmp_path, asked, "Say hello.")
        assert len(server.chats) == 2
    last = [event["message"] for event in events if event["type"] == "message_end"][-1]
    assert [part["text"] for part in last["content"]] == ["Hello there."]
