"""What a reader makes of each happening in each state, and until when it waits for the next one."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Iterator, Sequence

import pytest

from dragoman.backends.base import Flow, Unanswered, nothing
from dragoman.backends.reader import Reader, Timeouts
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Delta, Event, Finished, Note, PartStarted, Started, StopReason, Usage
from tests.recording import Recorder

LIMITS = Timeouts(first=100.0, between=10.0, usage=2.0)
END_OF_BODY = 0.5
BEGINNING: list[Event] = [Started(), PartStarted("text"), Delta("a")]
HELD = Delta("held back")  # what a decoder is certain of when it has to give up
LAST = Finished(StopReason.STOP, Usage(5, 3))
SO_FAR = Finished(StopReason.STOP, Usage(5, 1))
NOTE = Note("repair", "something")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Words:
    """A decoder whose answer a test spells out: it has begun, it is `stopping`, it is `done`."""

    def __init__(self) -> None:
        self.begun = self.stopping = self.done = False
        self.notes: Sequence[Note] = (NOTE,)

    def finish(self) -> list[Event]:
        if self.done:
            return []
        if not self.stopping:
            raise GatewayError(Kind.BACKEND_FAILED, "no finish reason", source="backend")
        self.done, self.stopping = True, False
        return [LAST]

    def stop(self) -> list[Event]:
        return [SO_FAR]

    def abort(self) -> list[Event]:
        return [HELD] if self.begun else []


class WordsReader(Reader):
    """Reads as those of the backends do: a read is the events that it gives."""

    def __init__(self, sink: Recorder, clock: Clock) -> None:
        self.words = Words()
        super().__init__(self.words, sink, LIMITS, clock)

    def received(self, events: Sequence[Event], *, progress: bool = True) -> Flow:
        self.words.begun = self.words.begun or bool(events)
        flow = self._sink.feed(events) if events else Flow.MORE
        flow = self._after(flow, events, progress)
        return self._await_end(END_OF_BODY) if self.words.done and flow is not Flow.ENOUGH else flow

    def fail(self) -> Flow:
        try:
            raise GatewayError(Kind.BUSY, "The model server is full.", source="backend")
        except GatewayError as error:
            return self._fail(error)


class Reading:
    """A reader with its sink and clock, brought into a state. The sink had a callback of its own before."""

    def __init__(self, state: str = "waiting") -> None:
        self.clock, self.sink = Clock(), Recorder()
        self.sink.on_left = self.gone = lambda: None
        self.reader = WordsReader(self.sink, self.clock)
        self.changes = 0
        self.reader.on_change = self._count
        words = self.reader.words
        if state in ("running", "stopping", "closing", "enough", "failed"):
            self.reader.received(BEGINNING)
        if state in ("stopping", "closing"):
            words.stopping = True
            self.reader.received([Delta("b")])
        match state:
            case "closing":
                self.reader.received(words.finish())
            case "left":
                self.reader.left()
            case "enough":
                self.sink._enough = lambda sink: True
                self.reader.received([Delta("b")])
                self.sink._enough = None
            case "failed":
                self.reader.fail()
                with pytest.raises(GatewayError):
                    self.reader.check()
            case _:
                pass
        self.before = len(self.sink.events)

    def _count(self) -> None:
        self.changes += 1

    def happens(self, what: str) -> None:
        getattr(self.reader, what)()

    @property
    def fed(self) -> list[Event]:
        return self.sink.events[self.before :]

    @property
    def due(self) -> float:
        return self.reader.deadline - self.clock.now

    def error(self) -> GatewayError | None:
        try:
            self.reader.check()
        except GatewayError as error:
            return error
        return None


# ----------------------------------------------------------------------------------------- what happens in which state

HAPPENINGS = ("ended", "lost", "late", "left", "close")
# What is fed then, and what is wrong with the answer: a kind, or that there was none.
TABLE: dict[tuple[str, str], tuple[list[Event], Kind | type[Unanswered] | None]] = {
    ("waiting", "ended"): ([], Kind.BACKEND_FAILED),
    ("waiting", "lost"): ([], Unanswered),
    ("waiting", "late"): ([], Kind.TIMEOUT),
    ("running", "ended"): ([HELD], Kind.BACKEND_FAILED),
    ("running", "lost"): ([HELD], Kind.BACKEND_FAILED),
    ("running", "late"): ([HELD], Kind.TIMEOUT),
    ("stopping", "ended"): ([LAST], None),
    ("stopping", "lost"): ([LAST], None),
    ("stopping", "late"): ([LAST], None),
}
STATES = ("waiting", "running", "stopping", "closing", "left", "enough", "failed")
EVERY = [(state, what) for state in STATES for what in HAPPENINGS]


@pytest.mark.parametrize(("state", "what"), EVERY)
def test_what_is_fed_and_how_it_ends(state: str, what: str) -> None:
    """In whatever state an answer is whole, over or left, nothing is fed and nothing is wrong."""
    reading = Reading(state)
    fed, wrong = TABLE.get((state, what), ([], None))
    reading.happens(what)
    assert reading.reader.over
    assert reading.fed == fed
    error = reading.error()
    if isinstance(wrong, Kind):
        assert error is not None
        assert not isinstance(error, Unanswered)
        assert (error.kind, error.source) == (wrong, "backend")
    else:
        assert error is None if wrong is None else type(error) is wrong


@pytest.mark.parametrize(("state", "what"), EVERY)
def test_what_happens_after_the_end_changes_nothing(state: str, what: str) -> None:
    for later in HAPPENINGS[:-1]:
        reading = Reading(state)
        reading.happens(what)
        fed, error = [*reading.fed], reading.reader.error
        reading.happens(later)
        reading.reader.writable()
        assert reading.fed == fed
        assert reading.reader.error is error
        assert reading.reader.over


def test_what_was_certain_is_fed_before_it_is_judged_whether_an_answer_had_begun() -> None:
    """A decoder may hold back the very first words; once they are fed nothing may be tried elsewhere."""
    reading = Reading()
    reading.reader.words.begun = True
    reading.happens("lost")
    assert reading.fed == [HELD]
    assert not isinstance(reading.error(), Unanswered)


@pytest.mark.parametrize("state", ["waiting", "running", "stopping"])
def test_a_receiver_that_has_enough_gets_the_last_event_and_no_other(state: str) -> None:
    reading = Reading(state)
    reading.sink._enough = lambda sink: True
    more = BEGINNING if state == "waiting" else [Delta("x")]
    assert reading.reader.received(more) is Flow.ENOUGH
    assert reading.fed == [*more, SO_FAR]
    assert reading.reader.over
    assert reading.error() is None


def test_enough_with_the_last_event_needs_no_other() -> None:
    reading = Reading("stopping")
    reading.sink._enough = lambda sink: True
    assert reading.reader.received([LAST]) is Flow.ENOUGH
    assert reading.fed == [LAST]


@pytest.mark.parametrize("flow", ["more", "wait", "enough"])
@pytest.mark.parametrize("state", ["waiting", "running", "stopping"])
def test_a_receiver_that_leaves_while_it_is_fed_gets_nothing_more(state: str, flow: str) -> None:
    def leave(sink: Recorder) -> bool:
        sink.on_left()
        return flow == "enough"

    reading = Reading(state)
    reading.sink._enough, reading.sink.held = leave, flow == "wait"
    assert reading.reader.received([Delta("x")]) is Flow.ENOUGH
    assert reading.changes == 1, "the driver does not know"
    for what in HAPPENINGS:
        reading.happens(what)
    assert reading.fed == [Delta("x")]
    assert reading.error() is None


# ------------------------------------------------------------------------------------------------------------ deadlines


def test_the_first_event_has_its_own_limit_whatever_comes_before_it() -> None:
    reading = Reading()
    assert reading.due == 100.0
    reading.clock.now += 60.0
    reading.reader.received([], progress=False)
    assert reading.due == 40.0
    reading.reader.received(BEGINNING)
    assert reading.due == 10.0


def test_each_read_moves_the_limit_unless_it_is_no_progress() -> None:
    reading = Reading("running")
    for _ in range(3):
        reading.clock.now += 4.0
        reading.reader.received([Delta("x")])
        assert reading.due == 10.0
    reading.clock.now += 4.0
    reading.reader.received([], progress=False)
    assert reading.due == 6.0
    reading.reader.received([], progress=True)
    assert reading.due == 10.0


def test_after_the_finish_reason_one_short_limit_runs_for_usage() -> None:
    reading = Reading("stopping")
    assert reading.due == 2.0
    reading.clock.now += 1.5
    reading.reader.received([], progress=True)
    assert reading.due == 0.5


def test_after_the_answer_the_end_of_the_body_is_awaited_for_a_moment() -> None:
    reading = Reading("closing")
    assert reading.due == END_OF_BODY
    assert not reading.reader.over


@pytest.mark.parametrize(("state", "seconds"), [("waiting", 10.0), ("running", 10.0), ("stopping", 2.0)])
def test_no_limit_runs_while_the_receiver_is_slow(state: str, seconds: float) -> None:
    reading = Reading(state)
    reading.sink.held = True
    assert reading.reader.received([Delta("x")]) is Flow.WAIT
    assert reading.due == math.inf
    reading.clock.now += 1e6
    reading.sink.release()
    assert reading.changes == 1
    assert reading.due == seconds


@pytest.mark.parametrize("state", ["waiting", "running", "stopping", "closing", "left"])
def test_a_receiver_that_was_not_waited_for_moves_no_limit(state: str) -> None:
    """Keepalives may have filled the client's buffer: that it is empty again is no word from the server."""
    reading = Reading(state)
    reading.changes = 0
    reading.clock.now += 0.25
    before = reading.reader.deadline
    reading.sink.on_writable()
    assert reading.reader.deadline == before
    assert reading.changes == 0


# ------------------------------------------------------------------------------------------------- the end and the sink


@pytest.mark.parametrize("state", STATES)
def test_the_sink_is_handed_back_with_what_was_found(state: str) -> None:
    reading = Reading(state)
    reader, sink = reading.reader, reading.sink
    assert (sink.on_left, sink.on_writable) == (reader.left, reader.writable)
    reader.close()
    assert (sink.on_left, sink.on_writable) == (reading.gone, nothing)
    assert reader.on_change is nothing
    assert sink.notes == [NOTE]


def test_the_driver_learns_that_the_receiver_left() -> None:
    reading = Reading("running")
    reading.sink.on_left()
    assert reading.reader.over
    assert reading.changes == 1


@pytest.fixture
def no_collection() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collection")
def test_an_error_is_raised_once_and_freed_with_all_that_it_refers_to() -> None:
    """Its traceback refers to the frames of the reader, and through them to a prompt of megabytes."""
    reading = Reading("running")
    reader = weakref.ref(reading.reader)
    reading.reader.fail()
    try:
        reading.reader.check()
    except GatewayError as error:
        raised = weakref.ref(error)
    else:
        pytest.fail("no error was raised")
    reading.reader.check()
    reading.reader.close()
    del reading
    assert raised() is None
    assert reader() is None
