"""One family of each form of calls over a real Triton server: thought, call, result and a second turn.

The chat templates are the models' own. The stand-in writes what the model would write, with the tokenizer of another
family: every marker is text for it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dragoman.backends.markup import FAMILIES
from dragoman.backends.triton.backend import Triton as TritonBackend
from dragoman.translators.ir import Message, Reasoning, Request, Text, ToolCall, ToolResult
from tests.backends.markup.writers import WRITINGS
from tests.conftest import RealComponent
from tests.event_grammar import check
from tests.real.triton.asking import WEATHER, opened, request, url
from tests.real.triton.server import Triton
from tests.recording import Recorder, answered

pytestmark = pytest.mark.real

CITY = "Zürich"
THOUGHT = "I look it up."


@dataclass(frozen=True)
class Form:
    """`opens` and `closes` stand around thoughts and, where the family has messages, `speaks` before text."""

    family: str
    template: str
    opens: str = "<think>\n"
    closes: str = "\n</think>\n\n"
    speaks: str = ""


FORMS = {
    "an object": Form("hermes", "Qwen-Qwen3-0.6B"),
    "parameters in tags": Form("qwen3_coder", "Qwen3.5-4B"),
    "keys and values": Form("glm", "GLM-4.7-Flash"),
    "tags with attributes": Form("deepseek", "deepseek-ai-DeepSeek-V4"),
    "a header": Form("kimi_k2", "moonshotai-Kimi-K2"),
    "a keyword call": Form("lfm2", "LFM2.5-8B-A1B"),
    "braces": Form("gemma4", "google-gemma-4-31B-it", "<|channel>thought\n", "\n<channel|>"),
    "elements": Form("minimax_m3", "MiniMax-M3", "<mm:think>", "</mm:think>"),
    "open and close": Form("kimi_k3", "Kimi-K3", "<|open|>think<|sep|>", "<|close|>think<|sep|>"),
    "messages": Form(
        "harmony",
        "openai-gpt-oss-120b",
        "<|channel|>analysis<|message|>",
        "<|end|><|start|>assistant",
        "<|channel|>final<|message|>",
    ),
    "recipients": Form("functionary", "meetkai-functionary-medium-v3.2", "", "", "all\n"),
}


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> Form:
    return FORMS[request.param]


@pytest.fixture
async def backend(
    form: Form, triton: Triton, tokenizer_folder: Path, real_component: RealComponent, tmp_path: Path
) -> AsyncIterator[TritonBackend]:
    """A model with the family's template and the stand-in's tokenizer."""
    template = real_component("chat-templates") / f"{form.template}.jinja"
    (tmp_path / "tokenizer.json").symlink_to(tokenizer_folder / "tokenizer.json")
    (tmp_path / "chat_template.jinja").symlink_to(template)
    tokens = {"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(tokens), encoding="utf-8")
    async with opened(url(triton, "grpc", "tensorrt_llm", tmp_path)) as backend:
        yield backend


def scripted(say: str) -> Message:
    return Message("user", (Text(f"SCRIPT{json.dumps({'say': say, 'eos': '<|im_end|>'})}END"),))


async def ask(backend: TritonBackend, *messages: Message) -> tuple[Request, Recorder]:
    asked = request({}, messages=messages, tools=(WEATHER,))
    sink = Recorder()
    await answered(backend, asked, sink)
    check(sink.events)
    return asked, sink


async def prompt_end(backend: TritonBackend, *messages: Message) -> str:
    prepared: Any = await backend.prepare(request({}, messages=messages, tools=(WEATHER,)))
    return str(prepared.prompt.text).rstrip()


async def test_a_thought_a_call_its_result_and_another_turn(form: Form, backend: TritonBackend, triton: Triton) -> None:
    end = await prompt_end(backend, scripted(""))
    begun = bool(form.opens) and end.endswith(form.opens.strip())
    thought = f"{'' if begun else form.opens}{THOUGHT}{form.closes}" if form.opens else ""
    call = WRITINGS[form.family].write(("get_weather", {"city": CITY}))
    goes_on = FAMILIES[form.family].goes_on
    asked = scripted(thought + (call.removeprefix(goes_on) if goes_on and end.endswith(goes_on) else call))
    _, sink = await ask(backend, asked)
    *thoughts, called = sink.parts
    assert thoughts == ([Reasoning(THOUGHT)] if thought else [])
    assert isinstance(called, ToolCall)
    assert (called.name, json.loads(called.arguments)) == ("get_weather", {"city": CITY})

    answer = Message("assistant", (*thoughts, called))
    result = Message("tool", (ToolResult(called.id, (Text("It is sunny."),)),))
    again = scripted((form.closes if begun else "") + form.speaks + "Warm.")
    second, sink = await ask(backend, asked, answer, result, again)
    assert sink.text == "Warm."
    prompt = next(fact["prompt"] for fact in triton.facts(event="begin") if fact["id"].startswith(second.id))
    earlier = prompt[prompt.index("END") : prompt.rindex("SCRIPT")]
    assert "get_weather" in earlier
    assert CITY in earlier
    assert "It is sunny." in earlier
