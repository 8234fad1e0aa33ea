"""The stage for constraints that the server cannot enforce: withhold, judge, perhaps ask once more, play back.

Nothing reaches the outer sink before the answer is judged, so the client's keepalives carry the wait and a failure
still has its HTTP status. Usage is the sum of the attempts. What is played back goes through `Parts` again, the only
producer of the stream grammar.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

from dragoman.backends.base import Flow, Sink, nothing
from dragoman.backends.usage import total
from dragoman.translators.constraints.forced import (
    Accepted,
    Plan,
    Rejected,
    Unchecked,
    again,
    answer_text,
    reasoning_text,
)
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.fold import Fold
from dragoman.translators.ir import Delta, Event, Finished, Note, PartEnded, PartStarted, Request, StopReason, Usage
from dragoman.translators.parts import Parts

Run = Callable[[Request, Sink], Awaitable[None]]
Faults = Callable[[str, Mapping[str, Any]], Awaitable[str | None]]
ATTEMPTS = 2


class Undecided(Exception):
    """Whether an answer fits its schema could not be found out in time."""


class Withheld:
    """A sink that keeps the events; everything else passes through."""

    def __init__(self, outer: Sink) -> None:
        self.events: list[Event] = []
        self.fold = Fold()
        self.on_writable: Callable[[], object] = nothing  # it is never full
        self.prompt_size = outer.prompt_size
        self.prompt_read = outer.prompt_read
        self.note = outer.note
        self._outer = outer

    @property
    def touched(self) -> bool:
        return bool(self.events)

    @property
    def on_left(self) -> Callable[[], object]:
        return self._outer.on_left

    @on_left.setter
    def on_left(self, callback: Callable[[], object]) -> None:
        self._outer.on_left = callback

    def at_work(self) -> None:
        self._outer.at_work()

    def feed(self, events: Sequence[Event]) -> Flow:
        self._outer.at_work()
        self.events += events
        self.fold.feed(events)
        return Flow.MORE


async def undecided(text: str, schema: Mapping[str, Any]) -> str | None:
    """For callers that check nothing against schemas."""
    raise Undecided


async def enforce(plan: Plan | None, original: Request, run: Run, sink: Sink, faults: Faults = undecided) -> None:
    """Without a plan this is `run`. `faults` says what in JSON text does not fit a schema, or raises `Undecided`.

    Raises what `run` raises, and BACKEND_FAILED when constrained decoding did not constrain."""
    if plan is None:
        await run(original, sink)
        return
    request, usages = plan.request, list[Usage | None]()
    while True:
        held = Withheld(sink)
        await run(request, held)
        finished = held.fold.finished
        if finished is None:  # the receiver left
            return
        usages.append(finished.usage)
        verdict = await _judged(plan, held, sink, faults)
        if isinstance(verdict, Accepted) or finished.reason is not StopReason.STOP:
            break
        if len(usages) == ATTEMPTS:
            _failed(plan, sink)
            break
        request = again(plan, held.fold, verdict.fault)
    if isinstance(verdict, Accepted) and verdict.silent:
        sink.note(Note("drop", "text"))
    if _is_changed(verdict, held.fold) and any(type(each) is Delta and each.logprobs for each in held.events):
        sink.note(Note("drop", "logprobs"))
    sink.feed(_played_back(original, held, finished, verdict, total(usages)))


async def _judged(plan: Plan, held: Withheld, sink: Sink, faults: Faults) -> Accepted | Rejected:
    verdict = plan.judge(held.fold)
    if not isinstance(verdict, Unchecked):
        return verdict
    try:
        return verdict.checked(await faults(verdict.text, verdict.schema))
    except Undecided:  # too lenient rather than too strict
        sink.note(Note("unenforced", f"{plan.name}_unchecked"))
        return verdict.checked(None)


def _failed(plan: Plan, sink: Sink) -> None:
    """A constraint that was announced as unenforced may fail; one that the server enforces may not fail silently."""
    if plan.fails_loudly:
        message = "The model server did not produce the tool call that tool_choice asks for."
        raise GatewayError(Kind.BACKEND_FAILED, message, source="backend")
    sink.note(Note("unenforced", f"{plan.name}_failed"))


def _is_changed(verdict: Accepted | Rejected, fold: Fold) -> bool:
    """Whether the answer is another than the one that came."""
    if isinstance(verdict, Rejected):
        return False
    return verdict.call is not None or verdict.text not in (None, answer_text(fold))


def _without_text(events: Sequence[Event]) -> Iterator[Event]:
    inside = False
    for event in events:
        if type(event) is PartStarted:
            inside = event.kind == "text"
        if not inside:
            yield event
        elif type(event) is PartEnded:
            inside = False


def _played_back(
    original: Request, held: Withheld, finished: Finished, verdict: Accepted | Rejected, usage: Usage | None
) -> list[Event]:
    if isinstance(verdict, Accepted) and verdict.silent:
        return [*_without_text(held.events[:-1]), Finished(finished.reason, usage, finished.stop_sequence)]
    if not _is_changed(verdict, held.fold):
        return [*held.events[:-1], Finished(finished.reason, usage, finished.stop_sequence)]
    assert isinstance(verdict, Accepted)
    parts = Parts.of(original)
    if thought := reasoning_text(held.fold):
        parts.reasoning(thought)
    if verdict.call is not None:
        name, arguments = verdict.call
        call = parts.begin_call(name=name)
        parts.extend_call(call, arguments)
        parts.end_call(call)
    elif verdict.text is not None:
        parts.text(verdict.text)
    parts.finish(finished.reason, usage, finished.stop_sequence)
    return parts.take()
