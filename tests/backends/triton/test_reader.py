"""The reading of a Triton answer: however its responses are batched and wherever they end, and whether the server has
to be told to stop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragoman.backends.base import Flow
from dragoman.backends.markup import open_markup
from dragoman.backends.reader import Timeouts
from dragoman.backends.refusal import cut
from dragoman.backends.triton.answer import AnswerDecoder, AnswerFormat
from dragoman.backends.triton.client import Metadata, Outputs
from dragoman.backends.triton.errors import broken_off, classify, unreachable
from dragoman.backends.triton.profiles import Form, Profile, PromptRequest
from dragoman.backends.triton.reader import END_OF_STREAM, ResponseReader
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Delta, Event, Finished, Sampling, StopReason, Usage
from dragoman.translators.parts import Parts
from tests.event_grammar import violations
from tests.recording import Moody, Recorder, ask

LIMITS = Timeouts(first=100.0, between=10.0, usage=2.0)
END = ord("$")  # the model's end token
INPUTS = {"text_input": "BYTES", "exclude_input_in_output": "BOOL"}
OUTPUTS = {"finish_reason": "BYTES"}


class Letters:
    """A token is a character."""

    def feed(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))

    def finish(self) -> str:
        return ""


def decoder(form: Form = "tensorrt_llm", stop: tuple[str, ...] = ()) -> AnswerDecoder:
    profile = Profile(
        form,
        Metadata("m", INPUTS, OUTPUTS, batched=False),
        decoupled=True,
        cumulative=form == "llmapi",
        stopper=None,
        guided=False,
        models=("m",),
    )
    format = AnswerFormat(Letters, lambda parts: open_markup("plain", parts, prompt="", request=ask()), count=len)
    prompt = PromptRequest("hello", [1, 2, 3], 100, Sampling(stop=stop), ends=[END])
    return AnswerDecoder(profile, prompt, Parts.of(ask()), format)


def ids(text: str) -> Outputs:
    return {"output_ids": [*map(ord, text)], "sequence_length": [len(text)]}


def text(so_far: str, reason: str = "None") -> Outputs:
    """As llmapi sends it."""
    return {"text_output": [so_far], "finish_reason": [reason]}


@dataclass(frozen=True)
class Outcome:
    events: Sequence[Event]
    kind: Kind | None
    server_ended: bool


class Reading:
    """A reader as a driver uses it."""

    def __init__(self, it: AnswerDecoder | None = None, sink: Recorder | None = None) -> None:
        self.now = 0.0
        self.sink = sink or Recorder()
        self.reader = ResponseReader(it or decoder(), self.sink, LIMITS, lambda: self.now)

    def reads(self, *batches: Sequence[Outputs]) -> Flow:
        flow = Flow.MORE
        for batch in batches:
            flow = self.reader.received(batch)
            if flow is Flow.WAIT:
                self.sink.on_writable()
            if flow is Flow.ENOUGH:
                break
        return flow

    def end(self, how: str = "ended", error: GatewayError | None = None) -> Outcome:
        if not self.reader.over:
            if error is not None:
                self.reader.lost(error)
            else:
                getattr(self.reader, how)()
        assert self.reader.over
        self.reader.close()
        kind: Kind | None = None
        try:
            self.reader.check()
        except GatewayError as raised:
            kind = raised.kind
        return Outcome(self.sink.events, kind, self.reader.server_ended)

    @property
    def due(self) -> float:
        return self.reader.deadline - self.now


# ------------------------------------------------------------------------ how it ends, and whether the server has ended

BUSY = classify("RESOURCE_EXHAUSTED", cut("queue is full"))
FAILED = Kind.BACKEND_FAILED
A, HELLO = ids("a"), [ids("Hel"), ids("lo")]


@dataclass(frozen=True)
class Case:
    """Batches, and how it ends after them: a method of the reader, or an error of the transport. `server_ended` is
    False where the request may still run in the engine, so that it has to be stopped there."""

    batches: Sequence[Sequence[Outputs]]
    ends: str | GatewayError
    kind: Kind | None
    server_ended: bool
    form: Form = "tensorrt_llm"
    stop: tuple[str, ...] = ()
    enough: bool = False
    text: str = ""


CASES = {
    "an answer without a response": Case([], "ended", FAILED, False),
    "an answer that ends at its limit": Case([HELLO], "ended", None, True, text="Hello"),
    "an end token, and the end": Case([HELLO, [ids("$")]], "ended", None, True, text="Hello"),
    "an end token, and a break": Case([HELLO, [ids("$")]], broken_off(), None, False, text="Hello"),
    "an end token, and silence": Case([HELLO, [ids("$")]], "late", None, False, text="Hello"),
    "an end token, and the receiver leaves": Case([HELLO, [ids("$")]], "left", None, False, text="Hello"),
    "an end token of which the receiver has enough": Case([[ids("a$")]], "ended", None, False, enough=True, text="a"),
    "a stop string": Case([[ids("a##b")]], "ended", None, False, stop=("##",), text="a"),
    "a refusal": Case([], BUSY, Kind.BUSY, True),
    "no connection": Case([], unreachable(), Kind.BACKEND_DOWN, True),
    "a break before the first response": Case([], broken_off(), FAILED, False),
    "a break in the middle": Case([HELLO], broken_off(), FAILED, False, text="Hello"),
    "a break in the middle without a word": Case([HELLO], "lost", FAILED, False, text="Hello"),
    "a refusal in the middle": Case([HELLO], BUSY, Kind.BUSY, True, text="Hello"),
    "silence from the start": Case([], "late", Kind.TIMEOUT, False),
    "silence in the middle": Case([HELLO], "late", Kind.TIMEOUT, False, text="Hello"),
    "a receiver that left before": Case([], "left", None, False),
    "a receiver that left in the middle": Case([HELLO], "left", None, False, text="Hello"),
    "a receiver that has enough": Case([[A], [A]], "ended", None, False, enough=True, text="a"),
    "llmapi, a reason, and the end": Case([[text("a", "stop")]], "ended", None, True, "llmapi", text="a"),
    "llmapi, a reason, and silence": Case([[text("a", "stop")]], "late", None, False, "llmapi", text="a"),
    "llmapi, a reason, and a break": Case([[text("a", "stop")]], broken_off(), FAILED, False, "llmapi", text="a"),
    "llmapi without a reason": Case([[text("a")]], "ended", FAILED, False, "llmapi", text="a"),
    "llmapi, its own time limit": Case([[text("a", "timeout")]], "ended", Kind.TIMEOUT, True, "llmapi", text="a"),
    "llmapi, cancelled": Case([[text("a", "cancelled")]], "ended", FAILED, False, "llmapi", text="a"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_how_it_ends_and_whether_the_server_must_be_told(case: Case) -> None:
    sink = Recorder(enough=(lambda sink: True) if case.enough else None)
    reading = Reading(decoder(case.form, case.stop), sink)
    reading.reads(*case.batches)
    error = case.ends if isinstance(case.ends, GatewayError) else None
    outcome = reading.end(str(case.ends), error)
    assert (outcome.kind, outcome.server_ended) == (case.kind, case.server_ended)
    assert sink.text == case.text
    whole = case.kind is None and (case.ends != "left" or [ids("$")] in case.batches)
    assert sum(isinstance(event, Finished) for event in sink.events) == whole


def test_enough_with_the_last_event_of_a_stream_that_has_ended() -> None:
    sink = Recorder(enough=lambda sink: isinstance(sink.events[-1], Finished))
    reading = Reading(sink=sink)
    reading.reads(HELLO)
    assert reading.end() == Outcome(sink.events, None, server_ended=True)
    assert sink.finished == Finished(StopReason.STOP, Usage(3, 5))


def test_a_receiver_that_has_enough_gets_a_last_event_with_the_usage_so_far() -> None:
    reading = Reading(sink=Recorder(enough=lambda sink: len(sink.text) == 2))
    assert reading.reads([A], [A], [A]) is Flow.ENOUGH
    assert reading.end().kind is None
    assert reading.sink.finished == Finished(StopReason.STOP, Usage(3, 2))


def test_a_receiver_that_leaves_while_it_is_fed_gets_nothing_more_and_the_server_is_told() -> None:
    sink = Recorder(enough=lambda sink: bool(sink.on_left()))
    reading = Reading(sink=sink)
    assert reading.reads([A], [A]) is Flow.ENOUGH
    assert reading.end() == Outcome(sink.events, None, server_ended=False)
    assert sink.text == "a"


def test_after_the_end_nothing_is_fed() -> None:
    for before in ([ids("a$")], [ids("a##")]):
        reading = Reading(decoder(stop=("##",)))
        flow = reading.reads(before)
        assert reading.reads([A]) is flow
        assert reading.reads([A]) is flow
        reading.end("late")
        assert reading.reads([A]) is Flow.ENOUGH
        assert reading.sink.text == "a"
        assert reading.sink.finished


# ------------------------------------------------------------------------------------------------------------ deadlines


def test_a_response_of_which_nothing_can_be_fed_yet_shows_that_the_server_works() -> None:
    reading = Reading()
    reading.reads([ids("<")], [ids("thi")])
    assert (reading.sink.works, reading.sink.events) == (2, [])
    reading.reads([ids("s")])
    assert (reading.sink.works, reading.end().events[2:3]) == (2, [Delta("<this")])


def test_the_limits_of_an_answer_by_ids() -> None:
    reading = Reading()
    assert reading.due == 100.0
    reading.now += 60.0
    reading.reads([{}])
    assert reading.due == 10.0, "a response without an output is progress: the engine has begun"
    reading.now += 9.0
    reading.reads([A])
    assert reading.due == 10.0
    reading.reads([ids("$")])
    assert reading.due == END_OF_STREAM


def test_after_llmapi_s_reason_the_end_of_the_stream_is_awaited_for_a_short_while() -> None:
    reading = Reading(decoder("llmapi"))
    reading.reads([text("a")], [text("ab", "length")])
    assert reading.due == 2.0
    reading.now += 1.5
    reading.reads([text("ab")])
    assert reading.due == 0.5
    assert reading.end().kind is None
    assert reading.sink.finished.reason is StopReason.LENGTH


def test_no_limit_runs_while_the_receiver_is_slow() -> None:
    reading = Reading()
    reading.sink.held = True
    assert reading.reader.received([A]) is Flow.WAIT
    assert reading.due == float("inf")
    reading.now += 1e6
    reading.sink.release()
    assert reading.due == 10.0


# ----------------------------------------------------------------------------------------------------- batches and ends

FLOWS = st.lists(st.sampled_from((Flow.MORE, Flow.MORE, Flow.WAIT, Flow.ENOUGH)), max_size=8)


def batched(responses: Sequence[Outputs], cuts: set[int]) -> list[Sequence[Outputs]]:
    edges = [0, *sorted(cut for cut in cuts if 0 < cut < len(responses)), len(responses)]
    return [responses[start:end] for start, end in pairwise(edges)]


def joined(events: Sequence[Event]) -> list[Event]:
    """With the deltas of a part in one: how many there are is the batches' affair."""
    out: list[Event] = []
    for event in events:
        if isinstance(event, Delta) and out and isinstance(last := out[-1], Delta):
            out[-1] = Delta(last.text + event.text)
        else:
            out.append(event)
    return out


@settings(max_examples=100, deadline=None)
@given(words=st.text("ab#$\n", max_size=12), cuts=st.sets(st.integers(0, 12)), stop=st.sampled_from(["##", "b#", "zz"]))
def test_the_batches_change_nothing(words: str, cuts: set[int], stop: str) -> None:
    responses = [ids(letter) for letter in words]
    whole, parts = Reading(decoder(stop=(stop,))), Reading(decoder(stop=(stop,)))
    whole.reads(responses)
    parts.reads(*batched(responses, cuts))
    one, other = whole.end(), parts.end()
    assert joined(one.events) == joined(other.events)
    assert (one.kind, one.server_ended) == (other.kind, other.server_ended)


@settings(max_examples=150, deadline=None)
@given(
    words=st.text("ab#$", max_size=8),
    flows=FLOWS,
    ends=st.sampled_from(["ended", "late", "left", BUSY, broken_off()]),
    form=st.sampled_from(("tensorrt_llm", "llmapi")),
)
def test_a_receiver_gets_one_end_and_nothing_after_it_has_enough(
    words: str, flows: list[Flow], ends: str | GatewayError, form: Form
) -> None:
    sink = Moody(flows)
    reading = Reading(decoder(form, stop=("##",)), sink)
    if form == "llmapi":
        batches = [[text(words[: at + 1], "stop" if at + 1 == len(words) else "None")] for at in range(len(words))]
    else:
        batches = [[ids(letter)] for letter in words]
    reading.reads(*batches)
    kind = reading.end(str(ends), ends if isinstance(ends, GatewayError) else None).kind
    assert reading.reads([A]) is Flow.ENOUGH
    assert sum(isinstance(event, Finished) for event in sink.events) <= (kind is None)
    if Flow.ENOUGH not in sink.said:
        assert not violations(sink.events, ended=False)
    else:
        after = [event for feed in sink.feeds[sink.said.index(Flow.ENOUGH) + 1 :] for event in feed]
        assert not [event for event in after if isinstance(event, Delta)]
