"""The decoder of chat streams: T1 to T9 and T14 of what other gateways get wrong, each tolerance, and every golden
transcript cut anywhere. How answers end is in `test_decoder_ends`."""

import json
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragoman.backends.chat.call_deltas import MAX_IDS
from dragoman.backends.chat.decoder import ChatDecoder
from dragoman.translators.constraints.parallel import FirstCallOnly
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Delta, Event, Finished, PartEnded, PartStarted, Started, StopReason, ToolCall, Usage
from dragoman.translators.json_text import is_object
from tests.backends.chat.decoding import (
    CALL_F,
    CALL_G,
    DONE,
    END,
    FILTER,
    LENGTH,
    REQUEST,
    STOP,
    T3,
    F,
    G,
    broken,
    call,
    calls,
    chunk,
    classify,
    decode,
    decoder,
    first_only,
    frame,
    spent,
    whole,
)
from tests.event_grammar import check, fold, plain
from tests.golden_files import TRANSCRIPTS, upstream

# -------------------------------------------------------------------------------------- the cases that others get wrong


@pytest.mark.parametrize("index", [1, 7, None])
def test_t1_the_only_call_has_an_odd_index_or_none(index: int | None) -> None:
    events = whole(calls(call("", "f", "x", index)), calls(call(F, None, None, index)), END)
    assert plain(events) == [CALL_F]
    assert first_only(events) == events


@pytest.mark.parametrize("ids", [("x", "y"), (None, None)])
def test_t2_two_calls_with_one_index(ids: tuple[str | None, str | None]) -> None:
    x, y = ids
    events = whole(calls(call("", "f", x)), calls(call(F)), calls(call("", "g", y)), calls(call(G)), END)
    assert plain(events) == [CALL_F, CALL_G]
    assert plain(first_only(events)) == [CALL_F]


def test_t3_interleaved_calls() -> None:
    events = whole(*T3)
    assert plain(events) == [CALL_F, CALL_G]
    assert plain(first_only(events)) == [CALL_F]


@pytest.mark.parametrize("blank", ["\n", " ", "\n\n\t"])
def test_t4_white_space_between_calls_and_within_arguments(blank: str) -> None:
    space = chunk(content=blank)
    events = whole(space, T3[0], space, T3[1], space, T3[2], space, T3[3])
    assert plain(events) == [CALL_F, CALL_G]
    assert plain(first_only(events)) == [CALL_F]


def test_t5_text_call_text() -> None:
    events = whole(chunk(content="a"), calls(call(F, "f", "x")), chunk(content="b"), END)
    assert plain(events) == [("text", "a"), CALL_F, ("text", "b")]
    assert plain(first_only(events)) == [("text", "a"), CALL_F]


@pytest.mark.parametrize(
    ("content", "cut"),
    [([chunk(content="a")], {0}), ([calls(call('{"a":', "f", "x"))], {0}), ([calls(call(F, "f", "x"))], set())],
)
@pytest.mark.parametrize(("word", "reason"), [("length", LENGTH), ("content_filter", FILTER)])
def test_t6_t9_a_limit_or_a_filter(content: list[bytes], cut: set[int], word: str, reason: StopReason) -> None:
    events = whole(*content, chunk(word), DONE)
    assert events[-1] == Finished(reason)
    assert fold(events).cut == cut
    assert first_only(events) == events


LIMITED = {"max_tokens": 16}
HALF = calls(call('{"a":', "f", "x"))
CUT_CALLS: dict[str, list[bytes]] = {  # as vLLM sends them
    "in its arguments": [HALF, chunk("tool_calls")],
    "in its arguments, which the end completes": [HALF, chunk("tool_calls", tool_calls=[call("0}")])],
    "before its arguments": [calls(call("", "f", "x")), chunk("tool_calls")],
    "before its arguments, which the end says are none": [
        calls(call("", "f", "x")),
        chunk("tool_calls", tool_calls=[call("{}")]),
    ],
    "after a whole one": [calls(call(G, "g", "y", 0)), calls(call('{"a', "f", "x", 1)), chunk("tool_calls")],
}


@pytest.mark.parametrize("content", CUT_CALLS.values(), ids=CUT_CALLS)
def test_t6_a_call_that_the_limit_cut_is_not_whole_although_the_server_says_that_the_answer_ended_in_calls(
    content: list[bytes],
) -> None:
    folded = fold(whole(*content, spent(16), **LIMITED))
    assert folded.finished == Finished(LENGTH, Usage(5, 16))
    assert folded.cut == {len(folded.parts) - 1}
    last = folded.parts[-1]
    assert isinstance(last, ToolCall)
    assert not is_object(last.arguments)  # many clients run any call that they can read


@pytest.mark.parametrize(
    ("content", "cut"),
    [
        ([HALF, calls(call("0}")), chunk("length")], {0}),
        ([calls(call("", "f", "x")), calls(call("{}")), chunk("length")], {0}),
        (
            [
                calls(call(G, "g", "y", 0)),
                calls(call('{"a":', "f", "x", 1)),
                calls(call("0}", index=1)),
                chunk("length"),
            ],
            {1},
        ),
        ([HALF, calls(call("0}")), chunk(content="So"), chunk("length")], {1}),
        ([HALF, calls(call("0}")), chunk("tool_calls")], set()),
        ([chunk(content="So"), chunk("length")], {0}),
    ],
    ids=["its arguments", "no arguments", "the second", "the text after it", "no limit", "a text"],
)
def test_t6_a_server_that_completes_the_call_that_the_limit_cut(content: list[bytes], cut: set[int]) -> None:
    machine = ChatDecoder(REQUEST, classify, completes_cut_calls=True)
    events = [*machine.feed(b"".join([*content, DONE])), *machine.finish()]
    check(events)
    folded = fold(events)
    assert folded.cut == cut
    for at, part in enumerate(folded.parts):
        assert not isinstance(part, ToolCall) or is_object(part.arguments) is (at not in cut)


@pytest.mark.parametrize(
    ("content", "end", "limit"),
    [
        ([calls(call(F, "f", "x")), chunk("tool_calls")], spent(16), 16),
        ([calls(call(F, "f", "x")), chunk("function_call")], spent(16), 16),
        ([calls(call(F, "f", "x")), chunk("tool_calls")], spent(15), 16),
        ([calls(call(F, "f", "x")), chunk("tool_calls")], spent(16), None),
        ([calls(call(F, "f", "x")), chunk("tool_calls")], DONE, 16),
        ([calls(call(F, "f", "x")), chunk("stop")], spent(16), 16),
        ([chunk(content="a"), chunk("stop")], spent(16), 16),
        ([HALF, chunk("tool_calls", tool_calls=[call("0}")])], spent(15), 16),
    ],
    ids=[
        "whole before the end",
        "in the old form",
        "room left",
        "no limit",
        "nothing counted",
        "stop",
        "text",
        "arguments end with the answer",
    ],
)
def test_t6_no_other_answer_is_cut_by_what_was_counted(content: list[bytes], end: bytes, limit: int | None) -> None:
    folded = fold(whole(*content, end, max_tokens=limit))
    assert folded.finished is not None
    assert folded.finished.reason is STOP
    assert not folded.cut


def test_t6_a_limit_within_the_second_call_is_not_reported_when_that_is_swallowed() -> None:
    events = whole(calls(call(F, "f", "x", 0)), calls(call('{"b":', "g", "y", 1)), chunk("length"), DONE)
    assert events[-1] == Finished(LENGTH)
    assert fold(events).cut == {1}
    first = first_only(events)
    assert plain(first) == [CALL_F]
    assert first[-1] == Finished(STOP)
    assert fold(first).cut == set()


@pytest.mark.parametrize(
    "content", [[], [chunk(role="assistant")], [chunk(content="a")], [calls(call('{"a":', "f"))], [calls(call(F, "f"))]]
)
@pytest.mark.parametrize("end", [b"", DONE, b"data: {", b": ping\n\n"])
def test_t7_no_finish_reason(content: list[bytes], end: bytes) -> None:
    events, error = broken(*content, end)
    assert error.kind is Kind.BACKEND_FAILED
    assert not any(isinstance(event, Finished) for event in events)
    assert FirstCallOnly().feed(events) == events


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (frame({"error": {"message": "/srv/x.py died", "code": 500}}), "classified"),
        (frame({"error": "out of memory"}), "classified"),
        (frame({"object": "error", "message": "x", "code": 400}), "classified"),
        (frame({"message": "x", "type": "Service Unavailable", "code": 503}), "classified"),
        (frame({"error_type": "invalid_request", "error_message": "x"}), "classified"),
        (frame({"detail": "x"}), "classified"),
        (
            frame({"choices": [{"delta": {"content": ""}, "finish_reason": "error", "error": {"code": 429}}]}),
            "classified",
        ),
        (b"event: error\n: Exception: x\n\n", "classified"),
        (b'{"error": {"message": "x"}, "src": "llama-swap"}\n\n', "classified"),
        (b"data: {]\n\n", "The model server sent something that is not a chat completion."),
        (b"data: <html>\n\n", "The model server sent something that is not a chat completion."),
        (b"data: []\n\n", "The model server sent something that is not a chat completion."),
        (frame({"choices": [{"delta": []}]}) + frame({"choices": 7}), None),
        (frame({"choices": [{"delta": "text"}]}), None),
        (frame({"choices": [{"delta": {"content": 7}}]}), None),
        (frame({"choices": [{"delta": {"tool_calls": ["f"]}}]}), None),
        (frame({"choices": [{"delta": {"tool_calls": [{"function": "f"}]}}]}), None),
        (b"data: " + b"[" * 5000 + b"\n\n", None),
    ],
)
def test_t8_errors_within_the_stream(data: bytes, message: str | None) -> None:
    events, error = broken(chunk(content="a"), calls(call('{"a":', "f", "x")), data, chunk(content="b"), END)
    assert error.message == (message or "The model server sent something that is not a chat completion.")
    assert events[:4] == [Started(), PartStarted("text"), Delta("a"), PartEnded()]
    assert events[4:] == [PartStarted("call", "x", "f"), Delta('{"a":')]
    assert FirstCallOnly().feed(events) == events


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_t14_comments_line_ends_lines_of_data_and_split_characters(line_end: bytes) -> None:
    pretty = json.dumps({"choices": [{"delta": {"content": "é😀"}}]}, indent=1, ensure_ascii=False).encode()
    stream = b": ping\n\n:\n\n" + b"".join(b"data:" + line + b"\n" for line in pretty.split(b"\n")) + b"\n" + END
    assert plain(whole(stream.replace(b"\n", line_end))) == [("text", "é😀")]


# ----------------------------------------------------------------------------------------------------------- tolerances


def test_both_reasoning_fields_are_one_text() -> None:
    events = whole(chunk(reasoning="a", reasoning_content="a"), chunk(reasoning="b"), chunk(reasoning_content="c"), END)
    assert plain(events) == [("reasoning", "abc")]


def test_the_order_within_one_delta() -> None:
    events = whole(chunk(tool_calls=[call(F, "f")], refusal="no", content="a", reasoning="hm"), END)
    assert plain(events) == [("reasoning", "hm"), ("text", "a"), ("refusal", "no"), CALL_F]


@pytest.mark.parametrize("arguments", [{"a": 1}, [1], 7, False])
def test_arguments_that_are_no_string(arguments: object) -> None:
    events = whole(calls(call(arguments, "f", "x")), END)
    assert [json.loads(part[2]) for part in plain(events)] == [arguments]


@pytest.mark.parametrize("arguments", [None, "", {}])
def test_no_arguments(arguments: object) -> None:
    assert plain(whole(calls(call(arguments, "f", "x")), END)) == [("call", "f", "{}")]


def test_the_form_before_tools() -> None:
    events = whole(chunk(function_call={"name": "f", "arguments": ""}), chunk(function_call={"arguments": F}), END)
    assert plain(events) == [CALL_F]


def test_a_message_where_a_delta_belongs() -> None:
    message = {"role": "assistant", "content": "a", "tool_calls": [call(F, "f", index=None), call(G, "g", index=None)]}
    expected = [("text", "a"), CALL_F, CALL_G]
    body = {"choices": [{"message": message, "finish_reason": "tool_calls"}], "usage": {"prompt_tokens": 3}}
    assert plain(whole(frame(body), DONE)) == expected
    events = decoder().feed_whole(json.dumps(body).encode())
    check(events)
    assert plain(events) == expected
    assert events[-1] == Finished(STOP, Usage(3, 0))


def test_a_message_that_repeats_the_deltas_is_not_said_twice() -> None:
    last = frame({"choices": [{"delta": {}, "message": {"content": "ab"}, "finish_reason": "stop"}]})
    assert plain(whole(chunk(content="a"), chunk(content="b"), last, DONE)) == [("text", "ab")]


def test_a_whole_answer_without_a_finish_reason_is_broken_and_not_lost() -> None:
    machine = decoder()
    with pytest.raises(GatewayError):
        machine.feed_whole(b'{"choices": [{"message": {"content": "a"}}]}')
    assert machine.abort() == [Started(), PartStarted("text"), Delta("a")]


def test_a_whole_answer_that_is_an_error() -> None:
    with pytest.raises(GatewayError, match="classified"):
        decoder().feed_whole(b'{"error": {"message": "no"}}')
    with pytest.raises(GatewayError):
        decoder().feed_whole(b"[]")


def test_other_choices_are_not_read() -> None:
    other = frame({"choices": [{"index": 1, "delta": {"content": "b"}, "finish_reason": "length"}]})
    assert plain(whole(other, chunk(content="a"), other, END)) == [("text", "a")]


@pytest.mark.parametrize(
    "noise",
    [
        frame({}),
        frame({"choices": []}),
        frame({"choices": None, "usage": None, "error": None}),
        frame({"choices": [{"delta": None}]}),
        frame({"choices": [{}, None]}),
        chunk(role="assistant", content=None, tool_calls=None, reasoning_content=None),
        chunk(content="", tool_calls=[], reasoning="", refusal=""),
        chunk("", content=""),
        calls({"index": 0}),
        calls({"index": 0, "id": None, "function": None}),
        b"data:\n\n",
        b"event: ping\ndata: {}\n\n",
    ],
)
def test_chunks_that_say_nothing(noise: bytes) -> None:
    machine = decoder()
    assert machine.feed(noise) == []
    assert machine.feed(chunk(content="a"))[-1] == Delta("a")
    assert machine.feed(noise) == []
    assert machine.feed(chunk(content="b")) == [Delta("b")]


def test_half_a_pair_and_bytes_that_are_no_text() -> None:
    half = b'data: {"choices":[{"delta":{"content":"a\\ud83d\\\\ud83d\\ud83d\\ude00"}}]}\n\n'
    octets = b'data: {"choices":[{"delta":{"content":"b\xff\xf0\x9f"}}]}\n\n'
    assert plain(whole(half, octets, END)) == [("text", "a\ufffd\\ud83d😀b\ufffd\ufffd")]


def test_log_probabilities() -> None:
    content = [
        {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": [{"token": "é", "logprob": float("-inf")}]},
        {"token": "b", "logprob": None},
    ]
    choice = {"delta": {"content": "ab"}, "logprobs": {"content": content}}
    events = whole(frame({"choices": [choice]}), END, logprobs=1)
    top = {"token": "é", "logprob": -9999.0, "bytes": [195, 169]}
    assert events[2] == Delta(
        "ab",
        [
            {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": [top]},
            {"token": "b", "logprob": -9999.0, "bytes": [98], "top_logprobs": []},
        ],
    )
    assert whole(frame({"choices": [choice]}), END)[2] == Delta("ab")  # nobody asked


def told(tokens: str | list[bytes], text: str | None, finish: str | None = None, **delta: Any) -> bytes:
    """A chunk with log probabilities of tokens."""
    content = [{"token": "t", "logprob": -1.0, "bytes": [*token], "top_logprobs": []} for token in tokens]
    choice = {"delta": {"content": text, **delta}, "logprobs": {"content": content}, "finish_reason": finish}
    return frame({"choices": [choice]})


SMILE = "😀".encode()
REASONS = chunk(reasoning="hm")


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([told([SMILE[:2]], ""), told([SMILE[2:]], "😀")], [SMILE[:2], SMILE[2:]]),
        ([told([b"a"], "a"), told([SMILE[:1]], ""), told([SMILE[1:2]], ""), told([SMILE[2:]], "😀")],
         [b"a", SMILE[:1], SMILE[1:2], SMILE[2:]]),
        ([told([b"EN"], ""), told([b"O", b"!"], "ENO!", "stop")], [b"EN", b"O", b"!"]),
        ([told([b"a"], "a"), told([b"</s>"], "", "stop")], [b"a"]),
        ([told([b"hm"], "", reasoning="hm"), told([b"</think>"], ""), told([b"a"], "a")], [b"a"]),
        ([REASONS, told([b"a"], "a"), told([SMILE[:2]], ""), told([SMILE[2:]], "😀")], [b"a", SMILE[:2], SMILE[2:]]),
        ([told([b"{"], "", tool_calls=[call(F, "f", "x")]), told([b"</c>"], ""), told([b"a"], "a")], [b"a"]),
        ([told([b"a"], "a"), told([], None), told([b"<c>"], None), told([b"b"], "b")], [b"a", b"b"]),
    ],
    ids=["a character", "a later one", "perhaps a stop string", "the end", "a thought's end", "after a thought",
         "a call's end", "no text"],
)  # fmt: skip
def test_a_token_whose_text_comes_with_the_next_chunk(chunks: list[bytes], expected: list[bytes]) -> None:
    events = whole(*chunks, chunk("stop"), DONE, logprobs=0)
    tokens = [bytes(each["bytes"]) for event in events if isinstance(event, Delta) for each in event.logprobs or ()]
    assert tokens == expected


def test_no_endless_number_of_tokens_waits_for_its_text() -> None:
    machine = decoder(logprobs=0)
    for _ in range(2000):
        machine.feed(told([b"x"], ""))
    (delta,) = [event for event in machine.feed(told([b"a"], "a")) if isinstance(event, Delta)]
    assert [each["bytes"] for each in delta.logprobs or ()] == [[97]]


def test_names_are_those_of_the_request() -> None:
    events = whole(calls(call('{"a":', "F", "x")), calls(call("1}", "F")), END)
    assert fold(events).parts == [ToolCall("x", "f", F)]


# ----------------------------------------------------------------------------------------------------------- properties


def outcome(reads: Iterable[bytes]) -> tuple[list[Event], str]:
    events, error = decode(reads)
    return events, repr(error)


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_a_transcript_gives_the_same_events_however_it_is_cut(path: Path) -> None:
    data = upstream(path)
    expected = outcome([data])
    assert outcome(bytes([byte]) for byte in data) == expected
    for size in (2, 3, 7, 64, 1000):
        assert outcome(data[at : at + size] for at in range(0, len(data), size)) == expected


@settings(deadline=None, max_examples=150)
@given(path=st.sampled_from(TRANSCRIPTS), data=st.data())
def test_a_transcript_cut_anywhere_and_at_once(path: Path, data: st.DataObject) -> None:
    stream = upstream(path)
    places = sorted({0, len(stream), *data.draw(st.lists(st.integers(0, len(stream)), max_size=8))})
    assert outcome(stream[a:b] for a, b in pairwise(places)) == outcome([stream])


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_the_first_call_of_a_transcript_is_its_beginning(path: Path) -> None:
    events, _ = decode([upstream(path)])
    stage = FirstCallOnly()
    kept = stage.feed(events)
    begin = next((n for n, e in enumerate(events) if isinstance(e, PartStarted) and e.kind == "call"), len(events))
    end = next((n + 1 for n in range(begin, len(events)) if isinstance(events[n], PartEnded)), len(events))
    beginning = events[:end]
    if end < len(events) and isinstance(events[-1], Finished):
        assert kept[:-1] == beginning
        assert isinstance(kept[-1], Finished)
    else:
        assert kept == beginning


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_a_transcript_broken_anywhere_leaves_a_beginning(path: Path) -> None:
    data = upstream(path)
    for length in range(0, len(data), max(1, len(data) // 40)):
        machine, events = decoder(), list[Event]()
        try:
            events += machine.feed(data[:length])
        except GatewayError:
            check(events + machine.abort(), ended=False)
        else:
            check(events + machine.abort(), ended=False)


def test_every_text_delta_leaves_with_the_byte_that_completes_it() -> None:
    machine = decoder()
    for number in range(20):
        data = chunk(content=f"word {number}")
        assert machine.feed(data[:-1]) == []
        assert machine.feed(data[-1:])[-1] == Delta(f"word {number}")


# --------------------------------------------------------------------------------------------------------------- bounds


@pytest.mark.parametrize(
    "event",
    [
        chunk(content=[{"type": "text"}] * 2000),
        chunk(content=[0] * 2000),
        chunk(reasoning_details=[{}] * 2000),
        chunk(tool_calls=[{}] * 2000),
        chunk(tool_calls=[call("{}", name="f", index=None)] * 1024 + [call("{}", name="f", index=None)]),
        frame({"choices": [{}] * 2000}),
        frame({"choices": [{"delta": {"content": "a"}, "logprobs": {"content": [{}] * 200_001}}]}),
        frame({"choices": [{"delta": {"content": "a"}, "logprobs": {"content": [{"top_logprobs": [{}] * 200_000}]}}]}),
        frame({"more": [[]] * 1_000_001}),
        b"data: " + json.dumps({"more": ["\ud83d"] * 100_001}).encode() + b"\n\n",
    ],
)
def test_an_event_of_very_many_values_is_a_failure(event: bytes) -> None:
    with pytest.raises(GatewayError) as caught:
        decoder(logprobs=20).feed(event)
    assert caught.value.kind is Kind.BACKEND_FAILED


def test_halves_of_characters_are_bounded_in_number() -> None:
    reading = decoder()
    for index in range(3000):
        reading.feed(chunk(tool_calls=[call("\ud83d", index=index)]))
        assert len(reading._halves.waiting) <= 1024
        if reading._parts.begun:
            break


def test_new_ids_in_each_delta_are_bounded_in_number() -> None:
    reading = decoder()
    reading.feed(chunk(tool_calls=[call("{", name="f", id="a")]))
    for number in range(MAX_IDS + 100):
        reading.feed(chunk(tool_calls=[call('"', id=f"id{number}")]))
    assert len(reading._calls._by_id) == MAX_IDS
    assert not [event for event in reading.feed(chunk(tool_calls=[call("}")])) if not isinstance(event, Delta)]


def test_an_endless_answer_is_a_failure_and_what_came_is_shown() -> None:
    reading = ChatDecoder(REQUEST, classify, answer_bytes=10_000)
    shown: list[Event] = []
    with pytest.raises(GatewayError) as caught:
        shown.extend(event for _ in range(1000) for event in reading.feed(chunk(content="a" * 68)))
    assert caught.value.message == "The model's answer has more than the 10000 bytes that the gateway takes."
    assert sum(len(event.text) for event in [*shown, *reading.abort()] if isinstance(event, Delta)) == 6800
