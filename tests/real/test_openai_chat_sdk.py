"""The chat client of the openai SDK, three majors of it, reads every golden answer of chat completions.

Each version runs in an environment of its own (`openai_chat_driver.py`) against a server that plays the goldens,
streamed and whole. Every chunk and every whole answer is validated against the SDK's own types. What a version does
not know is listed here by name, with the reason why we send it; whatever is not listed fails, and so does an entry that
no golden needs any more.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import RealComponent
from tests.grammar.chat_completions import check_stream
from tests.replay import TRANSCRIPTS
from tests.scripted import Json, Script, ScriptedServer

pytestmark = pytest.mark.real

DRIVER = Path(__file__).with_name("openai_chat_driver.py")
ROOT = Path(__file__).parents[2]
FOLDER = TRANSCRIPTS[0].parent
CASES = [path.stem for path in TRANSCRIPTS]
VERSIONS = ("sdk-openai-1", "sdk-openai-2", "sdk-openai-3")
SECONDS = 120.0

EXTRA = {
    "ChatCompletionMessage.reasoning_content": "reasoning has no place in OpenAI's own answers",
    "ChoiceDelta.reasoning_content": "reasoning has no place in OpenAI's own answers",
    "ChoiceDeltaToolCall.custom": "the SDK has free-form calls in whole answers only",
}
INVALID = {"ChatCompletionChunk.choices.[].delta.tool_calls.[].type=custom"}  # as above
# How the accumulator ends where the answer did not end well; and it fails at its own warning of a free-form call.
RAISED = {"length": "LengthFinishReasonError", "content_filter": "ContentFilterFinishReasonError"}
FREE_FORM = "AttributeError"

Reports = Callable[[str], Json]


def streamed(case: str) -> bytes:
    return (FOLDER / f"{case}.to_chat_completions.sse").read_bytes()


def whole(case: str) -> Json:
    told: Json = json.loads((FOLDER / f"{case}.to_chat_completions.json").read_bytes())
    return told


def chunks(case: str) -> list[Json]:
    lines = [line[6:] for line in streamed(case).decode().split("\n") if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def _golden(asked: Json) -> Script:
    if asked.get("stream"):
        return Script(streamed(asked["model"]))
    told = whole(asked["model"])
    return Script.json(told["body"], told["status"])


async def _read(python: Path) -> Json:
    async with ScriptedServer() as server:
        server.on("POST", "/v1/chat/completions", _golden)
        child = await asyncio.create_subprocess_exec(
            *(str(python), str(DRIVER), server.url, str(FOLDER), *CASES),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        )
        try:
            output, errors = await asyncio.wait_for(child.communicate(), SECONDS)
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
    assert child.returncode == 0, errors.decode()
    report: Json = json.loads(output)
    return report


@pytest.fixture(scope="module")
def reports(real_component: RealComponent) -> Reports:
    """What a version saw; each is run once."""
    kept: dict[str, Json] = {}

    def report(version: str) -> Json:
        if version not in kept:
            kept[version] = asyncio.run(_read(real_component(version)))
            assert kept[version]["version"].startswith(f"{version[-1]}.")
        return kept[version]

    return report


def gathered(report: Json, key: str) -> set[str]:
    return {name for seen in report["cases"].values() for name in seen[key]}


every_version = pytest.mark.parametrize("version", VERSIONS)


@every_version
def test_every_chunk_and_answer_validates_and_what_is_unknown_is_listed(version: str, reports: Reports) -> None:
    report = reports(version)
    assert len(report["cases"]) == len(CASES) > 100
    assert gathered(report, "extra") == set(EXTRA)
    assert gathered(report, "invalid") == INVALID


@every_version
def test_the_iterator_gives_every_chunk_or_raises_the_failure(version: str, reports: Reports) -> None:
    for case, seen in reports(version)["cases"].items():
        sent, got = chunks(case), seen["iterated"]
        if "error" in sent[-1]:
            error = sent[-1]["error"]
            assert (got["raised"], got["code"], got["message"]) == ("APIError", error["code"], error["message"]), case
        else:
            assert got["read"] == sent, case


@every_version
def test_the_accumulator_folds_what_was_streamed(version: str, reports: Reports) -> None:
    for case, seen in reports(version)["cases"].items():
        got, completion = seen["accumulated"], check_stream(streamed(case))
        if completion is None:
            assert got["raised"] == "APIError", case
            continue
        (choice,) = completion["choices"]
        if choice["finish_reason"] in RAISED:
            assert got["raised"] == RAISED[choice["finish_reason"]], case
        elif any(call["type"] == "custom" for call in choice["message"].get("tool_calls", [])):
            assert got["raised"] == FREE_FORM, case
        else:
            folded = got["read"]["choices"][0]
            assert folded["finish_reason"] == choice["finish_reason"], case
            assert text_of(folded["message"]) == text_of(choice["message"]), case
            assert calls_of(folded["message"]) == calls_of(choice["message"]), case
            assert got["read"]["usage"] == completion["usage"], case


def text_of(message: Json) -> list[str]:
    return [message.get(key) or "" for key in ("content", "refusal", "reasoning_content")]


def calls_of(message: Json) -> list[tuple[str, str, str]]:
    calls = message.get("tool_calls") or []
    return [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in calls]


@every_version
def test_a_whole_answer_is_read_and_a_failure_has_its_status(version: str, reports: Reports) -> None:
    for case, seen in reports(version)["cases"].items():
        told, got = whole(case), seen["whole"]
        if told["status"] == 200:
            assert got["read"] == told["body"], case
        else:
            assert (got["status"], got["code"]) == (told["status"], told["body"]["error"]["code"]), case
            assert got["raised"] == ("BadRequestError" if told["status"] == 400 else "InternalServerError"), case
