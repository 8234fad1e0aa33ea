"""The openai SDK, three majors of it, reads every golden answer of the Responses protocol.

Each version runs in an environment of its own (`openai_driver.py`) against a server that plays the goldens, streamed
and whole. Every event and every whole answer is validated against the SDK's own types. What a version does not know is
listed here by name, with the reason why we send it; whatever is not listed fails, and so does an entry that no golden
needs any more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import RealComponent
from tests.real.sdk_answers import CASES, SdkAnswers
from tests.scripted import Json

pytestmark = pytest.mark.real

ANSWERS = SdkAnswers("responses", "openai_driver.py", "/v1/responses")
VERSIONS = ("sdk-openai-1", "sdk-openai-2", "sdk-openai-3")

# Fields that no version knows, and why they are sent all the same.
EXTRA_EVERYWHERE = {
    "Response.frequency_penalty": "required by Open Responses",
    "Response.presence_penalty": "required by Open Responses",
    "Response.store": "required by Open Responses",
    "ResponseErrorEvent.error": "the object by which the SDK raises; without it libraries take the failure for success",
    "ResponseCustomToolCall.status": "OpenAI sends it, and AI SDK refuses an item without it",
    "Logprob.bytes": "Open Responses requires the bytes of a token",
    "LogprobTopLogprob.bytes": "Open Responses requires the bytes of a token",
}
EXTRA = {
    "sdk-openai-1": {
        "InputTokensDetails.cache_write_tokens": "newer than this major, which ignores it",
        "Response.completed_at": "newer than this major, which ignores it",
        "ResponseFunctionCallArgumentsDoneEvent.name": "required by OpenAI's own description of the interface",
        "ResponseFunctionToolCall.namespace": "newer than this major; Codex calls nothing without it",
    },
    "sdk-openai-2": {},
    "sdk-openai-3": {
        "ResponseFunctionCallArgumentsDoneEvent.name": "required by OpenAI's own description of the interface",
    },
}
# What a version has no class for. It reads the stream all the same.
MISSING = {
    "sdk-openai-1": {"tool namespace", "tool shell", "tool tool_search", "item shell_call", "item tool_search_call"},
    "sdk-openai-2": set(),
    "sdk-openai-3": set(),
}
# The SDK's list of codes is closed; Codex understands these, which it does not have.
CODES_FOR_CODEX = {"ResponseFailedEvent.response.error.code=context_length_exceeded"}

Reports = Callable[[str], Json]


@pytest.fixture(scope="module")
def reports(real_component: RealComponent) -> Reports:
    """What a version saw; each is run once."""

    def report(version: str) -> Json:
        found = ANSWERS.report(real_component(version))
        assert found["version"].startswith(f"{version[-1]}.")
        return found

    return report


def seen_types(case: str) -> list[str]:
    """The SDK hands on every event up to `error`, and raises there."""
    types = [event["type"] for event in ANSWERS.events(case)]
    return types[: types.index("error")] if "error" in types else types


def last_response(case: str) -> Json:
    """The response object of the stream's terminal event."""
    response: Json = ANSWERS.events(case)[-1]["response"]
    return response


def text_of(response: Json) -> str:
    parts = [part for item in response["output"] if item["type"] == "message" for part in item["content"]]
    return "".join(part["text"] for part in parts if part["type"] == "output_text")


def gathered(report: Json, key: str) -> set[str]:
    return {name for seen in report["cases"].values() for name in seen[key]}


every_version = pytest.mark.parametrize("version", VERSIONS)


@every_version
def test_every_event_and_answer_validates_and_what_is_unknown_is_listed(version: str, reports: Reports) -> None:
    report = reports(version)
    assert len(report["cases"]) == len(CASES) > 100
    assert gathered(report, "extra") == set(EXTRA_EVERYWHERE) | set(EXTRA[version])
    assert gathered(report, "missing") == MISSING[version]
    assert gathered(report, "invalid") == CODES_FOR_CODEX


@every_version
def test_the_iterator_sees_every_event_and_the_right_end(version: str, reports: Reports) -> None:
    for case, seen in reports(version)["cases"].items():
        response, iterated = last_response(case), seen["iterated"]
        assert iterated["types"] == seen_types(case), case
        if response["status"] == "failed":
            assert (iterated["raised"], iterated["code"]) == (response["error"]["message"], response["error"]["code"])
        else:
            assert iterated["status"] == response["status"], case


@every_version
def test_the_accumulator_sees_every_event_and_folds_what_was_streamed(version: str, reports: Reports) -> None:
    """It has nothing to give for an answer that did not complete, and says so itself."""
    for case, seen in reports(version)["cases"].items():
        response, folded = last_response(case), seen["accumulated"]
        assert folded["types"] == seen_types(case), case
        if response["status"] == "completed":
            assert folded["items"] == [item["id"] for item in response["output"]], case
            assert folded["text"] == text_of(response), case
        elif response["status"] == "failed":
            assert folded["raised"] == f"APIError: {response['error']['message']}", case
        else:
            assert folded["raised"] == "RuntimeError: Didn't receive a `response.completed` event.", case


@every_version
def test_a_whole_answer_is_read_and_a_failure_has_its_status(version: str, reports: Reports) -> None:
    for case, seen in reports(version)["cases"].items():
        told = ANSWERS.whole(case)
        if told["status"] == 200:
            assert (seen["whole"]["status"], seen["whole"]["text"]) == (told["body"]["status"], text_of(told["body"]))
        else:
            raised: dict[str, Any] = seen["whole"]
            assert (raised["status"], raised["code"]) == (told["status"], told["body"]["error"]["code"]), case
            assert raised["raised"] == ("BadRequestError" if told["status"] == 400 else "InternalServerError"), case
