"""The chat client of the openai SDK, three majors of it, reads every golden answer of chat completions.

Each version runs in an environment of its own (`openai_chat_driver.py`) against a server that plays the goldens,
streamed and whole. Every chunk and every whole answer is validated against the SDK's own types. What a version does
not know is listed here by name, with the reason why we send it; whatever is not listed fails, and so does an entry that
no golden needs any more.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.conftest import RealComponent
from tests.grammar.chat_completions import check_stream
from tests.real.sdk_answers import CASES, SdkAnswers
from tests.scripted import Json

pytestmark = pytest.mark.real

ANSWERS = SdkAnswers("chat_completions", "openai_chat_driver.py", "/v1/chat/completions")
VERSIONS = ("sdk-openai-1", "sdk-openai-2", "sdk-openai-3")

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


@pytest.fixture(scope="module")
def reports(real_component: RealComponent) -> Reports:
    """What a version saw; each is run once."""

    def report(version: str) -> Json:
        return ANSWERS.report(real_component(version))

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
        sent, got = ANSWERS.events(case), seen["iterated"]
        if "error" in sent[-1]:
            error = sent[-1]["error"]
            assert (got["raised"], got["code"], got["message"]) == ("APIError", error["code"], error["message"]), case
        else:
            assert got["read"] == sent, case


@every_version
def test_the_accumulator_folds_what_was_streamed(version: str, reports: Reports) -> None:
    for case, seen in reports(version)["cases"].items():
        got, completion = seen["accumulated"], check_stream(ANSWERS.streamed(case))
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
        told, got = ANSWERS.whole(case), seen["whole"]
        if told["status"] == 200:
            assert got["read"] == told["body"], case
        else:
            assert (got["status"], got["code"]) == (told["status"], told["body"]["error"]["code"]), case
            assert got["raised"] == ("BadRequestError" if told["status"] == 400 else "InternalServerError"), case
