"""The anthropic SDK, the newest and the newest below 1.0, reads every golden answer of the Messages protocol.

Each version runs in an environment of its own (`anthropic_driver.py`) against a server that plays the goldens, streamed
and whole. Every event and every whole answer is validated against the SDK's own types, and what its accumulator folds
must be our whole answer. The exceptions are listed here by name, with their reason; whatever is not listed fails, and
so does an entry that no golden needs any more.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.conftest import RealComponent
from tests.real.sdk_answers import CASES, SdkAnswers
from tests.scripted import Json

pytestmark = pytest.mark.real

ANSWERS = SdkAnswers("messages", "anthropic_driver.py", "/v1/messages", base="root")
VERSIONS = {"sdk-anthropic-0": "0.", "sdk-anthropic-2": "2."}

# The accumulator parses arguments as it reads them and has no answer at all when they are no JSON. They began as an
# object, so they were sent as they came; the whole answer and clients that read events have them.
UNPARSABLE = {"call-invalid-arguments"}
# A call that the answer's limit cut is never stopped, so that nobody executes it, and our whole answer leaves it out.
# The accumulator keeps what was started, with an empty input; `stop_reason` is `max_tokens` in both.
CUT_CALLS = {
    "call-arguments-as-a-string-cut",
    "freeform-call-cut-by-length",
    "length-in-arguments",
    "length-in-second-call",
}

# The classes of a status, where the answer was whole; in a stream the status is 200 and the class is APIStatusError.
RAISED = {400: "BadRequestError", 502: "InternalServerError", 529: "OverloadedError"}
TIMEOUT = {"sdk-anthropic-0": "InternalServerError", "sdk-anthropic-2": "GatewayTimeoutError"}

Reports = Callable[[str], Json]


@pytest.fixture(scope="module")
def reports(real_component: RealComponent) -> Reports:
    """What a version saw; each is run once."""

    def report(version: str) -> Json:
        found = ANSWERS.report(real_component(version))
        assert found["version"].startswith(VERSIONS[version])
        return found

    return report


every_version = pytest.mark.parametrize("version", VERSIONS)


@every_version
def test_every_event_and_answer_validates_and_holds_nothing_unknown(version: str, reports: Reports) -> None:
    cases = reports(version)["cases"]
    assert len(cases) == len(CASES) > 100
    assert {case: seen for case, seen in cases.items() if seen["extra"] or seen["invalid"]} == {}


@every_version
def test_the_iterator_sees_every_event_and_raises_at_a_failure(version: str, reports: Reports) -> None:
    for case, seen in reports(version)["cases"].items():
        events, iterated = ANSWERS.events(case), seen["iterated"]
        types = [event["type"] for event in events if event["type"] not in ("ping", "error")]
        assert iterated["types"] == types, case
        failed = [event for event in events if event["type"] == "error"]
        assert iterated.get("raised") == ("APIStatusError" if failed else None), case
        if failed:
            assert iterated["body"]["error"] == failed[0]["error"], case
        else:
            assert types[-1] == "message_stop", case


@every_version
def test_the_accumulator_folds_what_our_whole_answer_is(version: str, reports: Reports) -> None:
    unparsable, differing = set(), set()
    for case, seen in reports(version)["cases"].items():
        told, folded = ANSWERS.whole(case), seen["accumulated"]
        if told["status"] != 200:
            assert folded["raised"] == "APIStatusError", case
        elif "raised" in folded:
            assert folded["raised"] == "ValueError", case
            unparsable.add(case)
        elif folded["message"] != told["body"]:
            assert {**folded["message"], "content": None} == {**told["body"], "content": None}, case
            assert folded["message"]["stop_reason"] == "max_tokens", case
            assert folded["message"]["content"][:-1] == told["body"]["content"], case
            assert folded["message"]["content"][-1]["input"] == {}, case
            differing.add(case)
    assert (unparsable, differing) == (UNPARSABLE, CUT_CALLS)


@every_version
def test_a_whole_answer_is_read_and_a_failure_has_its_class(version: str, reports: Reports) -> None:
    for case, seen in reports(version)["cases"].items():
        told = ANSWERS.whole(case)
        if told["status"] == 200:
            assert seen["whole"]["message"] == told["body"], case
        else:
            raised = seen["whole"]
            assert (raised["status"], raised["body"]) == (told["status"], told["body"]), case
            assert raised["raised"] == (RAISED | {504: TIMEOUT[version]})[told["status"]], case
