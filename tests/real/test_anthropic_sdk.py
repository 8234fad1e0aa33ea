"""The anthropic SDK, the newest and the newest below 1.0, reads every golden answer of the Messages protocol.

Each version runs in an environment of its own (`anthropic_driver.py`) against a server that plays the goldens, streamed
and whole. Every event and every whole answer is validated against the SDK's own types, and what its accumulator folds
must be our whole answer. The exceptions are listed here by name, with their reason; whatever is not listed fails, and
so does an entry that no golden needs any more.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import RealComponent
from tests.replay import TRANSCRIPTS
from tests.scripted import Json, Script, ScriptedServer

pytestmark = pytest.mark.real

DRIVER = Path(__file__).with_name("anthropic_driver.py")
FOLDER = TRANSCRIPTS[0].parent
CASES = [path.stem for path in TRANSCRIPTS]
VERSIONS = {"sdk-anthropic-0": "0.", "sdk-anthropic-2": "2."}
SECONDS = 120.0

# The accumulator parses arguments as it reads them and has no answer at all when they are no JSON. They began as an
# object, so they were sent as they came; the whole answer and clients that read events have them.
UNPARSABLE = {"call-invalid-arguments"}
# A call that the answer's limit cut is never stopped, so that nobody executes it, and our whole answer leaves it out.
# The accumulator keeps what was started, with an empty input; `stop_reason` is `max_tokens` in both.
CUT_CALLS = {"freeform-call-cut-by-length", "length-in-arguments", "length-in-second-call"}

# The classes of a status, where the answer was whole; in a stream the status is 200 and the class is APIStatusError.
RAISED = {400: "BadRequestError", 502: "InternalServerError", 529: "OverloadedError"}
TIMEOUT = {"sdk-anthropic-0": "InternalServerError", "sdk-anthropic-2": "GatewayTimeoutError"}

Reports = Callable[[str], Json]


def _golden(asked: Json) -> Script:
    if asked.get("stream"):
        return Script((FOLDER / f"{asked['model']}.to_messages.sse").read_bytes())
    told = whole_golden(asked["model"])
    return Script.json(told["body"], told["status"])


async def _read(python: Path) -> Json:
    async with ScriptedServer() as server:
        server.on("POST", "/v1/messages", _golden)
        child = await asyncio.create_subprocess_exec(
            *(str(python), str(DRIVER), server.root, str(FOLDER), *CASES),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={},
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
            assert kept[version]["version"].startswith(VERSIONS[version])
        return kept[version]

    return report


def whole_golden(case: str) -> Json:
    told: Json = json.loads((FOLDER / f"{case}.to_messages.json").read_bytes())
    return told


def golden_events(case: str) -> list[Json]:
    text = (FOLDER / f"{case}.to_messages.sse").read_text(encoding="utf-8")
    return [json.loads(line.removeprefix("data: ")) for line in text.split("\n") if line.startswith("data: ")]


every_version = pytest.mark.parametrize("version", VERSIONS)


@every_version
def test_every_event_and_answer_validates_and_holds_nothing_unknown(version: str, reports: Reports) -> None:
    cases = reports(version)["cases"]
    assert len(cases) == len(CASES) > 100
    assert {case: seen for case, seen in cases.items() if seen["extra"] or seen["invalid"]} == {}


@every_version
def test_the_iterator_sees_every_event_and_raises_at_a_failure(version: str, reports: Reports) -> None:
    for case, seen in reports(version)["cases"].items():
        events, iterated = golden_events(case), seen["iterated"]
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
        told, folded = whole_golden(case), seen["accumulated"]
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
        told = whole_golden(case)
        if told["status"] == 200:
            assert seen["whole"]["message"] == told["body"], case
        else:
            raised = seen["whole"]
            assert (raised["status"], raised["body"]) == (told["status"], told["body"]), case
            assert raised["raised"] == (RAISED | {504: TIMEOUT[version]})[told["status"]], case
