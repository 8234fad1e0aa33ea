"""A cut call that clients would execute stays open, and nothing begins after it, however the answer was mixed."""

from __future__ import annotations

import pytest

from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Delta, Event, Finished, Note, PartEnded, PartStarted, Started, StopReason
from dragoman.translators.protocol import Stream
from tests.grammar.responses import check_stream
from tests.replay import CONTEXT, PROTOCOL

TOOLS = [
    {"type": "custom", "name": "exec"},
    {"type": "apply_patch"},
    {"type": "shell"},
    {"type": "function", "name": "run"},
]


def begun(name: str, arguments: str) -> list[Event]:
    return [Started(), PartStarted("call", "call_1", name), Delta(arguments)]


@pytest.mark.parametrize("name", ["exec", "apply_patch", "shell"])
@pytest.mark.parametrize("reason", [StopReason.LENGTH, StopReason.CONTENT_FILTER])
def test_nothing_begins_after_a_cut_call(name: str, reason: StopReason) -> None:
    turn = PROTOCOL["responses"].parse({"model": "m", "input": "x", "stream": True, "tools": TOOLS}, CONTEXT)
    more: list[Event] = [PartStarted("text"), Delta("a"), Delta("b"), PartEnded(False)]
    later = [PartEnded(False), *more, *more, Finished(reason)]
    sent = b"".join(turn.stream.feed([*begun(name, '{"input": "half'), *later]))
    final = check_stream(sent)
    assert final["status"] == "incomplete"
    assert len(final["output"]) == 1
    assert b"output_item.done" not in sent
    assert b"input.done" not in sent
    assert turn.stream.notes == [Note("drop", "after_cut_call")] * 2  # one for each part


@pytest.mark.parametrize("name", ["exec", "apply_patch", "shell"])
def test_a_call_that_an_error_cuts_stays_open(name: str) -> None:
    turn = PROTOCOL["responses"].parse({"model": "m", "input": "x", "stream": True, "tools": TOOLS}, CONTEXT)
    sent = turn.stream.feed(begun(name, '{"input": "half')) + turn.stream.fail(GatewayError(Kind.TIMEOUT, "late"))
    assert check_stream(b"".join(sent))["status"] == "failed"
    assert b"output_item.done" not in b"".join(sent)
    assert b"input.done" not in b"".join(sent)


@pytest.mark.parametrize("arguments", ['{"inp', "{", '{"other": "half'])
def test_a_free_form_call_cut_before_its_text_has_none(arguments: str) -> None:
    turn = PROTOCOL["responses"].parse({"model": "m", "input": "x", "stream": True, "tools": TOOLS}, CONTEXT)
    sent = b"".join(turn.stream.feed([*begun("exec", arguments), PartEnded(False), Finished(StopReason.LENGTH)]))
    assert check_stream(sent)["output"][0]["input"] == ""
    assert b"input.delta" not in sent


def run_stream(arguments: str) -> tuple[Stream, list[bytes]]:
    asked = {"model": "m", "input": "x", "stream": True, "tools": TOOLS}
    stream = PROTOCOL["responses"].parse(asked, CONTEXT).stream
    events: list[Event] = [Started(), PartStarted("call", "call_1", "run")]
    return stream, stream.feed(events + ([Delta(arguments)] if arguments else []))


@pytest.mark.parametrize("arguments", ["", " ", "{}", '{"cmd": "rm -rf build/o"}'])
@pytest.mark.parametrize("reason", [StopReason.LENGTH, StopReason.CONTENT_FILTER])
def test_a_cut_function_call_that_reads_as_a_whole_one_is_never_done(arguments: str, reason: StopReason) -> None:
    """Codex and AI SDK run a call as soon as it is done, whatever its status: one without arguments as it is, and one
    that the server has completed with half of its command."""
    stream, sent = run_stream(arguments)
    sent += stream.feed([PartEnded(False), Finished(reason)])
    final = check_stream(b"".join(sent))
    assert [(item["arguments"], item["status"]) for item in final["output"]] == [(arguments, "incomplete")]
    assert b"output_item.done" not in b"".join(sent)
    assert b"arguments.done" not in b"".join(sent)


@pytest.mark.parametrize(
    ("arguments", "done"), [("", False), (" ", False), ('{"cmd": "l', False), ('{"cmd": "ls"}', True)]
)
def test_a_function_call_in_a_failed_answer(arguments: str, done: bool) -> None:
    """One without arguments would be run as it is, and the AI SDK goes on to the next step after half of one. One with
    all of them is run."""
    stream, sent = run_stream(arguments)
    sent += stream.fail(GatewayError(Kind.TIMEOUT, "late"))
    [item] = check_stream(b"".join(sent))["output"]
    assert item["status"] == ("completed" if arguments.endswith("}") else "incomplete")
    assert (b"output_item.done" in b"".join(sent)) is done


def test_half_the_json_of_a_call_is_done() -> None:
    """As OpenAI sends it; whoever runs calls refuses it."""
    stream, sent = run_stream('{"cmd": "rm')
    sent += stream.feed([PartEnded(False), Finished(StopReason.LENGTH)])
    assert check_stream(b"".join(sent))["output"][0]["status"] == "incomplete"
    assert b"output_item.done" in b"".join(sent)
