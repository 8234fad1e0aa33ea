"""The reading of a chat completion: however the bytes arrive and wherever they end, the events are the decoder's."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragoman.backends.base import Flow, Unanswered
from dragoman.backends.chat import answer
from dragoman.backends.chat.answer import END_OF_BODY, AnswerReader
from dragoman.backends.chat.decoder import ChatDecoder
from dragoman.backends.chat.errors import classify
from dragoman.backends.chat.settings import resolve
from dragoman.backends.reader import Timeouts
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Delta, Event, Finished, StopReason, ToolCall, Usage
from tests.event_grammar import apart, violations
from tests.golden_files import TRANSCRIPTS, upstream
from tests.recording import Moody, Recorder
from tests.replay import PROTOCOL, pieces, turn
from tests.scripted import chunk, frames, sse, text_stream, usage

LIMITS = Timeouts(first=100.0, between=10.0, usage=2.0)
REQUEST = turn(PROTOCOL["chat_completions"]).request
HELLO = text_stream("Hel", "lo")
FINISH = sse(chunk({"content": "Hi"}), chunk({}, "stop"), done=False)
USAGE = sse(chunk(None, usage=usage()), done=False)
DONE = b"data: [DONE]\n\n"
STREAMS = {path.stem: upstream(path) for path in TRANSCRIPTS}
SHORT = {name: data for name, data in STREAMS.items() if len(data) < 20_000}
every_stream = pytest.mark.parametrize("name", STREAMS)


def decoder(markup: str | None = None) -> ChatDecoder:
    return ChatDecoder(REQUEST, lambda status, body: classify(status, body, resolve()), markup=markup)


class Reading:
    """A reader as a driver uses it: it reads no more after ENOUGH, and after WAIT not before it may."""

    def __init__(
        self, sink: Recorder | None = None, content_type: str = "text/event-stream", markup: str | None = None
    ) -> None:
        self.now = 0.0
        self.sink = sink or Recorder()
        self.reader = AnswerReader(decoder(markup), self.sink, LIMITS, lambda: self.now)
        self.reader.head(content_type)

    def reads(self, *reads: bytes) -> Flow:
        flow = Flow.MORE
        for data in reads:
            flow = self.reader.received(data)
            if flow is Flow.WAIT:
                self.sink.on_writable()
            if flow is Flow.ENOUGH:
                break
        return flow

    def end(self, how: str = "ended") -> Outcome:
        if not self.reader.over:
            getattr(self.reader, how)()
        assert self.reader.over
        self.reader.close()
        return self.outcome

    @property
    def due(self) -> float:
        return self.reader.deadline - self.now

    @property
    def outcome(self) -> Outcome:
        try:
            self.reader.check()
        except GatewayError as error:
            return Outcome(apart(self.sink.events), error.kind, error.message, isinstance(error, Unanswered))
        return Outcome(apart(self.sink.events))


@dataclass(frozen=True)
class Outcome:
    events: Sequence[Event]
    kind: Kind | None = None
    message: str = ""
    unanswered: bool = False


def alone(data: bytes) -> Outcome:
    """What the decoder makes of a body that has ended."""
    it = decoder()
    events: list[Event] = []
    try:
        events += it.feed(data)
        events += it.finish()
    except GatewayError as error:
        events += it.abort()
        return Outcome(apart(events), error.kind, error.message)
    return Outcome(apart(events))


def cut_short(data: bytes, how: str) -> Outcome:
    """What is left of a body of which only `data` came."""
    it = decoder()
    try:
        events = it.feed(data)
    except GatewayError as error:
        return Outcome(it.abort(), error.kind, error.message)
    if it.done or how == "left":
        return Outcome(apart(events))
    if it.stopping:
        return Outcome(apart(events) + it.finish())
    events += it.abort()
    if how == "late":
        return Outcome(apart(events), Kind.TIMEOUT, "The model server did not answer in time.")
    message = "The model server broke off in the middle of its answer."
    return Outcome(apart(events), Kind.BACKEND_FAILED, message, unanswered=not events)


def cuts(name: str, count: int) -> list[int]:
    """Random places in a stream, and the ends of its first frames."""
    data = STREAMS[name]
    places = random.Random(name)
    ends = list(accumulate(map(len, frames(data)[:count])))
    return sorted({*(places.randrange(len(data) + 1) for _ in range(count)), *ends, 0, len(data)})


# ---------------------------------------------------------------------------------------------------- every transcript


@every_stream
def test_a_transcript_gives_the_decoder_s_events_however_it_is_cut(name: str) -> None:
    data = STREAMS[name]
    for count in (0, 1, 5, 40):
        reading = Reading()
        reading.reads(*(piece for piece in pieces(data, cuts(name, count)[: count + 1]) if piece))
        assert reading.end() == alone(data)


@pytest.mark.parametrize("name", SHORT)
def test_a_transcript_that_comes_byte_by_byte(name: str) -> None:
    data = STREAMS[name]
    reading = Reading()
    reading.reads(*(data[at : at + 1] for at in range(len(data))))
    assert reading.end() == alone(data)


@pytest.mark.parametrize("how", ["lost", "late", "left"])
@pytest.mark.parametrize("name", SHORT)
def test_a_transcript_that_ends_anywhere(name: str, how: str) -> None:
    for cut in cuts(name, 8):
        reading = Reading()
        if cut:
            reading.reads(STREAMS[name][:cut])
        assert reading.end(how) == cut_short(STREAMS[name][:cut], how), cut
        assert not violations(reading.sink.events, ended=False)


@every_stream
def test_a_transcript_that_is_called_json(name: str) -> None:
    data = STREAMS[name]
    reading = Reading(content_type="application/json")
    reading.reads(*(piece for piece in pieces(data, cuts(name, 5)) if piece))
    assert not reading.sink.feeds
    assert reading.end() == alone(data)


@settings(max_examples=200, deadline=None)
@given(
    name=st.sampled_from(sorted(SHORT)),
    seed=st.integers(0, 2**16),
    flows=st.lists(st.sampled_from((Flow.MORE, Flow.MORE, Flow.WAIT, Flow.ENOUGH)), max_size=12),
    how=st.sampled_from(("ended", "lost", "late", "left")),
)
def test_a_receiver_gets_one_end_and_nothing_after_it_has_enough(
    name: str, seed: int, flows: list[Flow], how: str
) -> None:
    data, chance = STREAMS[name], random.Random(seed)
    sink = Moody(flows)
    reading = Reading(sink)
    reading.reads(*(piece for piece in pieces(data, [chance.randrange(len(data) + 1) for _ in range(10)]) if piece))
    error = reading.end(how).kind
    assert reading.reads(data) is Flow.ENOUGH
    assert sum(isinstance(event, Finished) for event in sink.events) <= 1
    if Flow.ENOUGH not in sink.said:
        assert not violations(sink.events, ended=False)
    else:
        after = [event for feed in sink.feeds[sink.said.index(Flow.ENOUGH) + 1 :] for event in feed]
        assert all(isinstance(event, Finished) for event in after)
        assert error is None or not after


# ------------------------------------------------------------------------------------------------------- whole answers

WHOLE: dict[str, Any] = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
    "usage": usage(),
}


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream", "text/plain"])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_server_that_ignores_stream(kind: str, size: int) -> None:
    body = orjson.dumps(WHOLE)
    reading = Reading(content_type=kind)
    reading.reads(*(body[at : at + size] for at in range(0, len(body), size)))
    assert not reading.sink.feeds
    assert reading.due == 100.0, "nothing is decoded yet: the limit is the first event's"
    outcome = reading.end()
    assert outcome.kind is None
    assert reading.sink.text == "Hello"
    assert reading.sink.finished == Finished(StopReason.STOP, Usage(11, 7))


@pytest.mark.parametrize(
    "body",
    [
        b'{"choices": ',
        b"{}",
        b"[]",
        b"null",
        b"<html>busy</html>",
        b"",
        b'{"choices": [{"message": 7}]}',
        b'{"error": {"message": "died"}}',
        b"\xff\xfe",
    ],
)
@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
def test_what_is_no_answer_is_a_failure(body: bytes, kind: str) -> None:
    reading = Reading(content_type=kind)
    reading.reads(*([body] if body else []))
    outcome = reading.end()
    assert outcome.kind is Kind.BACKEND_FAILED
    assert not outcome.unanswered
    assert not outcome.events


def test_a_web_page_is_said_to_be_one_at_once() -> None:
    reading = Reading(content_type="text/html")
    assert reading.reads(b"\n<!doctype html>") is Flow.ENOUGH
    with pytest.raises(GatewayError, match="web page"):
        reading.reader.check()


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
def test_an_answer_that_is_too_large_is_given_up_at_once(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer, "MAX_WHOLE", 100)
    reading = Reading(content_type=kind)
    assert reading.reads(b"{" + b" " * 98) is Flow.MORE
    assert reading.reads(b" ") is Flow.ENOUGH
    assert reading.reads(b" ") is Flow.ENOUGH
    outcome = reading.end()
    assert (outcome.kind, outcome.message) == (Kind.BACKEND_FAILED, "The model server's answer is too large.")
    assert not reading.sink.touched


@pytest.mark.parametrize(("how", "kind"), [("lost", Kind.BACKEND_FAILED), ("late", Kind.TIMEOUT), ("left", None)])
def test_half_of_a_whole_answer_is_none(how: str, kind: Kind | None) -> None:
    reading = Reading(content_type="application/json")
    reading.reads(orjson.dumps(WHOLE))
    outcome = reading.end(how)
    assert (outcome.kind, outcome.unanswered, outcome.events) == (kind, how == "lost", [])


def test_enough_of_a_whole_answer() -> None:
    reading = Reading(Recorder(enough=lambda sink: True), "application/json")
    reading.reads(orjson.dumps(WHOLE))
    assert reading.end().kind is None
    assert reading.sink.finished.usage == Usage(11, 7)


@pytest.mark.parametrize("body", [orjson.dumps(WHOLE), HELLO])
def test_a_receiver_that_leaves_while_it_is_fed_the_whole(body: bytes) -> None:
    sink = Recorder(enough=lambda sink: bool(sink.on_left()))
    reading = Reading(sink, "application/json")
    reading.reads(body)
    assert reading.end().kind is None
    assert len(sink.feeds) == 1


# -------------------------------------------------------------------------------------------------------------- the end


def test_enough_in_the_middle_gives_a_last_event_with_the_usage_so_far() -> None:
    counted = [sse(chunk({"content": str(n)}, usage=usage(5, n + 1)), done=False) for n in range(9)]
    reading = Reading(Recorder(enough=lambda sink: len(sink.text) >= 3))
    assert reading.reads(*counted) is Flow.ENOUGH
    assert reading.end().kind is None
    assert reading.sink.text == "012"
    assert reading.sink.finished == Finished(StopReason.STOP, Usage(5, 3))


@pytest.mark.parametrize("more", [b"data: {oops\n\n", b"garbage", HELLO, DONE, b": ping\n\n"])
def test_what_follows_the_end_of_the_answer_is_read_and_means_nothing(more: bytes) -> None:
    for reads in ([HELLO + more], [HELLO, more], [HELLO, more, more]):
        reading = Reading()
        assert reading.reads(*reads) is Flow.MORE
        assert reading.due == END_OF_BODY
        outcome = reading.end()
        assert outcome.kind is None
        assert outcome.events == alone(HELLO).events


@pytest.mark.parametrize("how", ["ended", "lost", "late", "left"])
def test_however_the_body_ends_after_the_answer(how: str) -> None:
    reading = Reading()
    reading.reads(HELLO)
    assert not reading.reader.over
    outcome = reading.end(how)
    assert outcome.kind is None
    assert reading.sink.finished.usage == Usage(11, 7)


def test_a_slow_receiver_of_the_last_events_does_not_hold_up_the_end_of_the_body() -> None:
    reading = Reading()
    reading.sink.held = True
    assert reading.reader.received(HELLO) is Flow.MORE
    assert reading.due == END_OF_BODY


# -------------------------------------------------------------------------------------------------------- the deadlines


def test_comments_are_no_progress() -> None:
    reading, frame = Reading(), sse(chunk({"content": "Hi"}), done=False)
    half, rest = frame[:20], frame[20:]
    for data, due in (
        (b": ping\n\n", 99.0),
        (sse(chunk({"role": "assistant"}), done=False), 98.0),  # no event
        (frame, 10.0),
        (b": ping\n\n", 9.0),
        (b": ping\n", 8.0),
        (half, 10.0),
        (rest, 10.0),
    ):
        reading.now += 1.0
        reading.reads(data)
        assert reading.due == due


def test_the_middle_of_an_answer_moves_the_limit_with_every_delta() -> None:
    reading = Reading()
    for _ in range(5):
        reading.now += 9.0
        reading.reads(sse(chunk({"content": "Hi"}), done=False))
        assert reading.due == 10.0


@pytest.mark.parametrize(
    "read", [lambda reading: reading.reads(FINISH), lambda reading: reading.reads(*frames(FINISH))]
)
def test_usage_is_awaited_for_a_short_while_only(read: Callable[[Reading], Flow]) -> None:
    reading = Reading()
    read(reading)
    assert reading.due == 2.0
    reading.now += 1.0
    reading.reads(b": ping\n\n", USAGE)
    assert reading.due == 1.0
    reading.now += 1.0
    assert reading.end("late").kind is None
    assert reading.sink.finished.usage == Usage(11, 7)


@pytest.mark.parametrize(("rest", "due"), [(FINISH, 2.0), (FINISH + USAGE, 2.0), (FINISH + DONE, END_OF_BODY)])
def test_the_end_may_come_in_one_read_with_the_last_delta(rest: bytes, due: float) -> None:
    reading = Reading()
    reading.reads(sse(chunk({"content": "Hi"}), done=False), rest)
    assert reading.due == due


def test_an_answer_whose_first_read_made_its_receiver_wait_has_begun() -> None:
    reading = Reading(Moody([Flow.WAIT]))
    reading.reads(sse(chunk({"content": "Hi"}), done=False))
    reading.now += 1.0
    reading.reads(b"data: {")
    assert reading.due == 10.0


def test_no_delta_is_kept_for_a_later_read() -> None:
    reading = Reading()
    for text in "abc":
        reading.reads(sse(chunk({"content": text}), done=False))
        assert reading.sink.feeds[-1][-1] == Delta(text)


def test_the_repairs_are_noted_in_the_end() -> None:
    data = next(data for data in STREAMS.values() if (it := decoder()).feed(data) and it.notes)
    it = decoder()
    it.feed(data)
    reading = Reading()
    reading.reads(data)
    assert not reading.sink.notes
    reading.end()
    assert reading.sink.notes == it.notes


# ----------------------------------------------------------------------------------------------- before the first event


def progress(**fields: object) -> bytes:
    return sse(chunk({"role": "assistant", "content": None}, prompt_progress=fields), done=False)


def test_a_server_that_reads_a_long_prompt_says_how_far_it_is_and_the_wait_for_the_first_event_goes_on() -> None:
    reading = Reading()
    frames = [progress(total=900, cache=100, processed=done, time_ms=9) for done in (100, 100, 500, 900)]
    for number, data in enumerate(frames):
        reading.now = float(number)
        reading.reads(data)
    assert reading.sink.read == [(100, 900), (500, 900), (900, 900)]
    assert reading.sink.size == 900
    assert not reading.sink.events
    assert reading.reader.deadline == LIMITS.first
    reading.reads(HELLO, progress(total=900, processed=901))
    assert reading.end() == alone(HELLO)
    assert len(reading.sink.read) == 3


@pytest.mark.parametrize(
    "said",
    [
        *({"total": 5}, {"processed": 5}, {"total": 5, "processed": 6}, {"total": "many", "processed": 1}),
        *({"total": 5, "processed": -1}, {"total": True, "processed": 0}, {"total": 5, "processed": 0.5}),
    ],
)
def test_progress_that_makes_no_sense_is_not_reported(said: dict[str, object]) -> None:
    reading = Reading()
    reading.reads(progress(**said), HELLO)
    assert reading.end() == alone(HELLO)
    assert reading.sink.read == []


def test_of_a_call_that_is_withheld_up_to_its_end_it_is_said_that_the_server_works() -> None:
    """A call in Python's form gives no event before it is whole."""
    reading = Reading(markup="pythonic")
    reading.reads(sse(chunk({"role": "assistant"}), done=False))
    assert reading.sink.works == 0
    for number, piece in enumerate(["[read_file(", 'path="', "a", '.py", ']):
        reading.reads(sse(chunk({"content": piece}), done=False), b": still here\n\n", b": and here\n\n")
        assert reading.sink.works == number + 1
    assert not reading.sink.events
    assert reading.reader.deadline == LIMITS.first
    reading.reads(sse(chunk({"content": "lines=1)]"}), chunk({}, "stop")))
    assert [part.arguments for part in reading.sink.parts if isinstance(part, ToolCall)] == [
        '{"path": "a.py", "lines": 1}'
    ]


@pytest.mark.parametrize("odd", [5, [1], "half"])
def test_progress_that_is_no_object_breaks_the_answer_as_other_nonsense_does(odd: object) -> None:
    reading = Reading()
    reading.reads(sse(chunk({}, prompt_progress=odd), done=False))
    assert reading.end().kind is Kind.BACKEND_FAILED
