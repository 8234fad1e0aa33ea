"""Agents and a real model over Triton: Codex and Claude Code run a turn with a tool, a small model talks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dragoman.backends.local.child import LocalModel, ServerOptions
from tests.conftest import RealComponent
from tests.event_grammar import check
from tests.real.claude import Claude
from tests.real.codex import Codex, configuration
from tests.real.serving import serving
from tests.real.triton.asking import opened, request, url
from tests.real.triton.server import Triton
from tests.recording import Recorder, answered

pytestmark = pytest.mark.real


def calling(tool: str, arguments: dict[str, Any], then: str) -> str:
    """A prompt that makes the stand-in call a tool, and speak once it has the result."""
    call = json.dumps({"name": tool, "arguments": arguments})
    turns = [{"say": f"I will compute it.\n<tool_call>\n{call}\n</tool_call>", "eos": "<|im_end|>"}, {"say": then}]
    return f"SCRIPT{json.dumps({'turns': turns})}END"


@pytest.mark.parametrize(("model", "transport"), [("ensemble", "grpc"), ("llmapi", "grpc"), ("tensorrt_llm", "http")])
async def test_codex_runs_a_command(
    codex: Codex, triton: Triton, tokenizer_folder: Path, model: str, transport: str
) -> None:
    async with serving("--backend", url(triton, transport, model, tokenizer_folder)) as gateway:
        codex.configure(configuration(gateway))
        turn = await codex.exec(calling("exec_command", {"cmd": "echo $((6*7))"}, "It printed 42."))
    assert (turn.status, turn.complaints) == (0, [])
    assert turn.answers == ["I will compute it.", "It printed 42."]
    (command,) = turn.items("command_execution")
    assert (command["exit_code"], command["aggregated_output"]) == (0, "42\n")
    first, second = [fact["prompt"] for fact in triton.facts(event="begin")[-2:]]
    assert second.startswith(first)  # the prefix cache keeps working
    assert turn.usage["output_tokens"] > 10


async def test_claude_code_runs_a_command(claude: Claude, triton: Triton, tokenizer_folder: Path) -> None:
    async with serving("--backend", url(triton, "grpc", "ensemble", tokenizer_folder)) as gateway:
        prompt = calling("Bash", {"command": "echo $((6*7))"}, "It printed 42.")
        turn = await claude.ask(gateway, prompt, "--allowedTools", "Bash")
    assert (turn.status, turn.answer) == (0, "It printed 42.")


async def test_a_real_model_speaks_through_triton(
    real_component: RealComponent, triton: Triton, tokenizer_folder: Path
) -> None:
    real_component("local-model")
    local = LocalModel(ServerOptions(threads=1))
    await local.start()
    try:
        place = (await local.ready()).removesuffix("/v1")
        address = url(triton, "grpc", "llmapi", tokenizer_folder)
        async with opened(address) as backend:
            sink = Recorder()
            await answered(backend, request({"ask": f"{place}/completion"}, max_tokens=12), sink)
    finally:
        await local.close()
    check(sink.events)
    assert len(sink.text.split()) > 3
    assert len(sink.feeds) > 3
