"""What the golden transcripts cannot show of a Responses stream: its frames, and what a bug leaves of it."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import (
    Delta,
    Event,
    Finished,
    PartEnded,
    PartStarted,
    SearchEnded,
    SearchStarted,
    Started,
    StopReason,
    Usage,
)
from dragoman.translators.protocol import Json, Policy
from tests.golden_files import TRANSCRIPTS, upstream
from tests.grammar.framing import split
from tests.grammar.responses import check_stream
from tests.replay import CONTEXT, PROTOCOL, replay, turn

RESPONSES = PROTOCOL["responses"]
TEXT: list[Event] = [PartStarted("text"), Delta("a"), Delta("b"), PartEnded()]


def numbers(frames: list[bytes]) -> list[int]:
    """The sequence number of each frame."""
    return [orjson.loads(split(frame)[0].data)["sequence_number"] for frame in frames]


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_frame_i_has_sequence_number_i(path: Path) -> None:
    *frames, done = replay(RESPONSES, [upstream(path)]).frames
    assert done == b"data: [DONE]\n\n"
    assert numbers(frames) == list(range(len(frames)))


def test_keepalives_are_counted() -> None:
    stream = turn(RESPONSES).stream
    frames = [*stream.start(), *stream.keepalive(), *stream.feed([Started(), *TEXT[:2]]), *stream.keepalive()]
    frames += stream.feed([*TEXT[2:], Finished(StopReason.STOP)])
    assert numbers(frames[:-1]) == list(range(len(frames) - 1))
    assert check_stream(b"".join(frames)) == stream.body()


def test_a_stream_starts_once() -> None:
    stream = turn(RESPONSES).stream
    assert len(stream.start()) == 2
    assert stream.start() == []
    assert stream.feed([Started()]) == []


def test_usage_says_what_came_from_the_cache_and_what_went_into_it() -> None:
    asked = turn(PROTOCOL["responses"])
    asked.stream.feed([Started(), PartStarted("text"), Delta("a"), PartEnded()])
    asked.stream.feed([Finished(StopReason.STOP, Usage(10, 5, cached=4, written=3))])
    usage = asked.stream.body()["usage"]
    assert usage["input_tokens"] == 10
    assert usage["input_tokens_details"] == {"cached_tokens": 4, "cache_write_tokens": 3}


@pytest.mark.parametrize("wanted", [True, False])
def test_every_event_with_the_response_repeats_the_tools_of_the_request_or_none_does(wanted: bool) -> None:
    context = replace(CONTEXT, policy=Policy(echo_tools=wanted))
    tool = {"type": "function", "name": "add", "parameters": {"type": "object", "properties": {}}}
    stream = RESPONSES.parse({"model": "m", "input": "a", "stream": True, "tools": [tool]}, context).stream
    frames = [*stream.start(), *stream.keepalive(), *stream.feed([Started(), *TEXT, Finished(StopReason.STOP)])]
    held = [orjson.loads(split(frame)[0].data) for frame in frames[:-1]]
    assert [bool(each["response"]["tools"]) for each in held if "response" in each] == [wanted] * 4
    assert check_stream(b"".join(frames)) == stream.body()


def test_what_was_made_before_a_bug_goes_out_with_the_failure() -> None:
    """A lone surrogate cannot be encoded. The frames before it are whole, and none is counted that was not made."""
    stream = turn(RESPONSES).stream
    with pytest.raises(orjson.JSONEncodeError):
        stream.feed([Started(), PartStarted("text"), Delta("a"), Delta("\ud800")])
    *frames, _ = stream.fail(GatewayError(Kind.INTERNAL, "A bug."))
    assert numbers(frames) == list(range(len(frames)))
    assert [split(frame)[0].event for frame in frames[:2]] == ["response.created", "response.in_progress"]
    assert split(frames[-1])[0].event == "response.failed"


@pytest.mark.parametrize(
    ("format", "done"),
    [
        ({"type": "text"}, True),
        ({"type": "json_object"}, False),
        ({"type": "json_schema", "name": "a", "schema": {}}, False),
    ],
)
def test_half_a_json_text_of_a_failed_answer_is_never_done(format: Json, done: bool) -> None:
    """Nor is its part nor its item: OpenAI's SDK parses it then, and would raise on that ahead of the error."""
    fields: Json = {"model": "m", "input": "a", "stream": True, "text": {"format": format}}
    stream = RESPONSES.parse(fields, CONTEXT).stream
    frames = stream.feed([Started(), *TEXT, PartStarted("text"), Delta('{"a": ')])
    frames += stream.fail(GatewayError(Kind.BACKEND_FAILED, "It broke."))
    check_stream(b"".join(frames))
    names = [split(frame)[0].event for frame in frames]
    for name in ("response.output_text.done", "response.content_part.done", "response.output_item.done"):
        assert names.count(name) == (2 if done else 1)  # the whole text before it is done
    last = orjson.loads(split(frames[-2])[0].data)["response"]
    assert last["output"][1]["status"] == "incomplete"
    assert last["output"][1]["content"][0]["text"] == '{"a": '


@pytest.mark.parametrize("each", [1, 2, 3])
def test_log_probabilities_stand_in_each_delta_and_in_the_item(each: int) -> None:
    def logprob(token: str) -> Json:
        return {"token": token, "logprob": -0.5, "bytes": list(token.encode()), "top_logprobs": []}

    stream = turn(RESPONSES, include=["message.output_text.logprobs"]).stream
    deltas: list[Event] = [Delta("a", [logprob("a")]), Delta("b"), Delta("cd", [logprob("c"), logprob("d")])]
    events = [Started(), PartStarted("text"), *deltas, PartEnded(), Finished(StopReason.STOP)]
    frames = [frame for at in range(0, len(events), each) for frame in stream.feed(events[at : at + each])]
    sent = [orjson.loads(frame.data) for frame in split(b"".join(frames))[:-1]]
    told = [event["logprobs"] for event in sent if event["type"] == "response.output_text.delta"]
    assert [[entry["token"] for entry in one] for one in told] == [["a"], [], ["c", "d"]]
    [item] = check_stream(b"".join(frames))["output"]
    assert item["content"][0]["logprobs"] == list(itertools.chain(*told))


@pytest.mark.parametrize(
    ("include", "complete", "sealed"),
    [
        (None, True, False),
        ([], True, False),
        (["message.output_text.logprobs"], True, False),
        (["reasoning.encrypted_content"], True, True),
        (["reasoning.encrypted_content"], False, False),
    ],
)
def test_reasoning_is_sealed_only_where_the_client_asks_for_it(
    include: list[str] | None, complete: bool, sealed: bool
) -> None:
    context = replace(CONTEXT, seal=lambda text: f"sealed {text}")
    stream = turn(RESPONSES, context, include=include).stream
    thought: list[Event] = [PartStarted("reasoning"), Delta("hm"), PartEnded(complete)]
    frames = stream.feed([Started(), *thought, Finished(StopReason.STOP if complete else StopReason.LENGTH)])
    final = check_stream(b"".join(frames))
    assert final["output"][0].get("encrypted_content") == ("sealed hm" if sealed else None)
    assert (b'encrypted_content":"sealed' in b"".join(frames)) is sealed


@pytest.mark.parametrize("include", [None, ["reasoning.encrypted_content"]])
def test_a_summary_has_its_text_as_content_too_only_where_nothing_is_sealed(include: list[str] | None) -> None:
    context = replace(CONTEXT, seal=lambda text: f"sealed {text}")
    stream = turn(RESPONSES, context, include=include, reasoning={"summary": "auto"}).stream
    thought: list[Event] = [PartStarted("reasoning"), Delta("hm"), PartEnded()]
    [item] = check_stream(b"".join(stream.feed([Started(), *thought, Finished(StopReason.STOP)])))["output"]
    assert item["summary"] == [{"type": "summary_text", "text": "hm"}]
    assert item["content"] == ([] if include else [{"type": "reasoning_text", "text": "hm"}])


@pytest.mark.parametrize("levels", [100, 190, 200, 260, 1000, 2000])
@pytest.mark.parametrize("form", ['{"query": %s}', "%s"])
@pytest.mark.parametrize("kind", ["tool_search", "shell"])
def test_arguments_that_are_nested_too_deep_to_be_written_are_a_text(kind: str, form: str, levels: int) -> None:
    text = form % ("[" * levels + "]" * levels)
    tool = {"type": kind, "execution": "client"} if kind == "tool_search" else {"type": kind}
    stream = RESPONSES.parse({"model": "m", "input": "a", "stream": True, "tools": [tool]}, CONTEXT).stream
    call: list[Event] = [PartStarted("call", "call_1", kind), Delta(text), PartEnded()]
    frames = stream.feed([Started(), *call, Finished(StopReason.STOP)])
    check_stream(b"".join(frames))
    (item,) = stream.body()["output"]
    given = item["arguments" if kind == "tool_search" else "action"]
    if levels > 200:
        assert given["input"] == text
    elif levels < 200:
        assert given["input" if form == "%s" else "query"] == orjson.loads("[" * levels + "]" * levels)
    assert orjson.loads(orjson.dumps(stream.body())) == stream.body()


ADD: Json = {"type": "function", "name": "add", "parameters": {"type": "object"}}
WANTS_JSON: Json = {
    "model": "m",
    "input": "a",
    "stream": True,
    "tools": [ADD],
    "text": {"format": {"type": "json_object"}},
}
CALL: list[Event] = [PartStarted("call", "call_1", "add"), Delta("{}"), PartEnded()]
SEARCH: list[Event] = [SearchStarted("q"), SearchEnded(error="unavailable")]


def spoken(*pieces: str, complete: bool = True) -> list[Event]:
    return [PartStarted("text"), *map(Delta, pieces), PartEnded(complete)]


def json_answer(events: list[Event], *, each: bool = False, **fields: object) -> tuple[list[bytes], Json]:
    """The frames and the whole answer, where the text must be JSON and a tool may be called. `each`: every event comes
    alone."""
    stream = RESPONSES.parse(WANTS_JSON | fields, CONTEXT).stream
    frames = [frame for batch in ([one] for one in events) for frame in stream.feed(batch)] if each else None
    frames = stream.feed(events) if frames is None else frames
    whole = check_stream(b"".join(frames))
    assert whole == stream.body()
    return frames, whole


@pytest.mark.parametrize("each", [True, False])
@pytest.mark.parametrize("act", [CALL, SEARCH], ids=["call", "search"])
def test_what_is_said_before_an_act_is_commentary_where_the_answer_must_be_json(act: list[Event], each: bool) -> None:
    """From the beginning: OpenAI's SDK parses every other text, and raises on one that is no JSON."""
    events = [Started(), *spoken("I look", " it up."), *act, *spoken('{"a"', ": 1}"), Finished(StopReason.STOP)]
    frames, whole = json_answer(events, each=each)
    phases = [item.get("phase") for item in whole["output"]]
    assert phases == ["commentary", None, None]
    added = [orjson.loads(split(frame)[0].data)["item"] for frame in frames if b"output_item.added" in frame]
    assert [item.get("phase") for item in added] == phases
    assert whole["output"][0]["content"][0]["text"] == "I look it up."


@pytest.mark.parametrize(
    ("more", "fields"),
    [
        ([], {}),
        ([PartStarted("reasoning"), Delta("hm"), PartEnded()], {}),
        (CALL, {"text": {"format": {"type": "text"}}}),
        (CALL, {"tools": []}),
        (CALL, {"tool_choice": "none"}),
    ],
)
@pytest.mark.parametrize("each", [True, False])
def test_no_other_text_is_called_commentary(more: list[Event], fields: Json, each: bool) -> None:
    events = [Started(), *spoken("I think", " not."), *more, Finished(StopReason.STOP)]
    _, whole = json_answer(events, each=each, **fields)
    assert all("phase" not in item for item in whole["output"])
    assert whole["output"][0]["content"][0]["text"] == "I think not."


@pytest.mark.parametrize("begins", ["{", '\n {"a"', "[", '"', "```json\n"])
def test_text_that_begins_like_json_leaves_as_it_comes(begins: str) -> None:
    stream = RESPONSES.parse(WANTS_JSON, CONTEXT).stream
    stream.feed([Started(), PartStarted("text")])
    deltas = [stream.feed([Delta(piece)])[-1] for piece in (begins, "b", "c")]
    assert [orjson.loads(split(frame)[0].data)["delta"] for frame in deltas] == [begins, "b", "c"]
    assert stream.feed([Delta("d"), Delta("e")]) != []


@pytest.mark.parametrize("ended", [True, False])
def test_text_that_is_held_when_the_answer_fails_goes_out(ended: bool) -> None:
    stream = RESPONSES.parse(WANTS_JSON, CONTEXT).stream
    frames = stream.feed([Started(), *spoken("I look", " it up.")[: 4 if ended else 3]])
    frames += stream.keepalive() + stream.fail(GatewayError(Kind.BACKEND_FAILED, "It broke."))
    assert numbers(frames[:-1]) == list(range(len(frames) - 1))
    (item,) = check_stream(b"".join(frames))["output"]
    assert (item["content"][0]["text"], item["status"]) == ("I look it up.", "completed" if ended else "incomplete")
    assert "phase" not in item


@pytest.mark.parametrize(
    ("headers", "shown"),
    [
        ({}, "refusal"),
        ({"originator": "opencode"}, "refusal"),
        ({"originator": "codex_exec"}, "output_text"),
        ({"originator": "Codex Desktop"}, "output_text"),
        ({"originator": "zed", "x-codex-turn-metadata": "{}"}, "output_text"),  # an editor that runs Codex's server
    ],
)
def test_codex_gets_a_refusal_as_text_whatever_runs_it(headers: dict[str, str], shown: str) -> None:
    """It shows no message with a refusal part: its turn would end with nothing."""
    stream = turn(RESPONSES, replace(CONTEXT, headers=headers)).stream
    events: list[Event] = [Started(), PartStarted("refusal"), Delta("No."), PartEnded(), Finished(StopReason.STOP)]
    [message] = check_stream(b"".join(stream.feed(events)))["output"]
    assert [part["type"] for part in message["content"]] == [shown]
