"""The doctor's verdict on the profiles of a real Triton server.

The stand-in models do what a script in the prompt says. Here the chat template puts it there: beside the doctor's own
questions, so that the model answers them as one that was trained for tools would.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dragoman.gateway.config import Config
from tests.gateway.doctor.asked import Told, ask
from tests.real.triton.asking import CALL, url
from tests.real.triton.server import Triton

pytestmark = pytest.mark.real

TWO = f"{CALL % 'Paris'}\n{CALL % 'Rome'}"
SCRIPTS = (
    ("'Rome' in asked", {"say": TWO, "eos": "<|im_end|>"}),
    ("tools", {"say": CALL % "Paris", "eos": "<|im_end|>"}),
    ("'500' in asked", {"say": "one two three " * 100, "delay": 0.02}),
    ("true", {"say": "Hello.", "eos": "<|im_end|>"}),
)


def able(tokenizer: Path, folder: Path) -> Path:
    """The tokenizer's folder with a template that begins with the script."""
    shutil.copytree(tokenizer, folder)
    parts = [
        f"{{%- {'elif' if place else 'if'} {when} -%}}{{% raw %}}SCRIPT{json.dumps(script)}END{{% endraw %}}"
        for place, (when, script) in enumerate(SCRIPTS)
    ]
    script = "{%- set asked = messages[-1].content -%}" + "".join(parts) + "{%- endif -%}"
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text("utf-8"))
    settings["chat_template"] = script + settings["chat_template"]
    file.write_text(json.dumps(settings), "utf-8")
    return folder


async def examined(capsys: pytest.CaptureFixture[str], address: str, **backend: Any) -> Told:
    return await ask(capsys, Config(backends=[{"url": address, "name": "triton", **backend}]))


@pytest.mark.parametrize(
    ("model", "transport"),
    [("ensemble", "grpc"), ("llmapi", "grpc"), ("tensorrt_llm", "grpc"), ("tensorrt_llm", "http")],
)
async def test_a_model_that_calls_tools_serves_codex(
    model: str,
    transport: str,
    triton: Triton,
    tokenizer_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = able(tokenizer_folder, tmp_path / "model")
    told = await examined(capsys, url(triton, transport, model, folder), window=32_768)
    assert told.findings["tool call"]["result"] == 'get_weather({"city": "Paris"})'
    assert told.findings["two calls at once"]["result"] == "2 calls"
    assert told.clients["Codex"] == told.clients["Claude Code"] == "works", told.document
    assert told.status == 0


async def test_a_model_that_calls_none_serves_no_agent(
    triton: Triton, tokenizer_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = await examined(capsys, url(triton, "grpc", "ensemble", tokenizer_folder), window=32_768)
    assert told.findings["tool call"]["result"] == "none, the model answered in text"
    assert told.clients == {"Codex": "does not", "Claude Code": "does not", "plain SDK": "works"}
    assert (told.status, told.settings) == (1, {})


async def test_that_nothing_stops_a_bls_model_is_said(
    triton: Triton, tokenizer_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = able(tokenizer_folder, tmp_path / "model")
    told = await examined(capsys, url(triton, "grpc", "tensorrt_llm_bls", folder), window=32_768)
    assert told.findings["client leaves"]["advice"] == "nothing stops a BLS model: serve the ensemble instead"
    assert told.clients["Codex"] == "works"
    assert "goes on on the GPU" in told.reasons("Codex")
