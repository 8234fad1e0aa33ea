"""A checker of the event grammar of `translators.ir`, written from its docstring and not from `translators.parts`.

    Started (PartStarted Delta* PartEnded | SearchStarted SearchEnded)* Finished

A stream that broke is a prefix of that. Beyond the order: deltas are not empty, the ids of calls are unique and not
empty, their names are not blank, other parts have neither, and an answer has at least one part.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dragoman.translators.fold import Fold
from dragoman.translators.ir import (
    Delta,
    Deltas,
    Event,
    Finished,
    PartEnded,
    PartStarted,
    SearchEnded,
    SearchStarted,
    Started,
    ToolCall,
)


def check(events: Sequence[Event], *, ended: bool = True) -> None:
    """Fail where `events` are no answer, or with `ended=False` no beginning of one."""
    wrong = violations(events, ended=ended)
    assert not wrong, "\n".join([*wrong, *map(repr, events)])


def violations(events: Sequence[Event], *, ended: bool) -> list[str]:
    wrong: list[str] = []
    state = "nothing"  # then outside, inside, searching, finished
    parts = 0
    ids: set[str] = set()
    for at, event in enumerate(events):
        before = state
        match event:
            case Started():
                allowed, state = ("nothing",), "outside"
            case PartStarted():
                allowed, state = ("outside",), "inside"
                parts += 1
                wrong += [f"{at}: {fault}" for fault in _part_faults(event, ids)]
                ids.add(event.id)
            case Delta():
                allowed = ("inside",)
                if not event.text:
                    wrong.append(f"{at}: an empty delta")
            case Deltas():
                allowed = ("inside",)
                if not all(event.texts) or "".join(event.texts) != event.text:
                    wrong.append(f"{at}: deltas that are not what they are together")
            case PartEnded():
                allowed, state = ("inside",), "outside"
            case SearchStarted():
                allowed, state = ("outside",), "searching"
            case SearchEnded():
                allowed, state = ("searching",), "outside"
                parts += 1
            case Finished():
                allowed, state = ("outside",), "finished"
        if before not in allowed:
            wrong.append(f"{at}: {type(event).__name__} {before}")
    if ended and state != "finished":
        wrong.append(f"the end: {state}")
    if state == "finished" and not parts:
        wrong.append("an answer without a part")
    return wrong


def _part_faults(part: PartStarted, ids: set[str]) -> list[str]:
    if part.kind != "call":
        return ["an id or a name on a part that is no call"] if part.id or part.name else []
    faults = [] if part.name.strip() else ["a call without a name"]
    if not part.id.strip() or part.id in ids:
        faults.append(f"the id {part.id!r} is empty or taken")
    return faults


def apart(events: Iterable[Event]) -> list[Event]:
    """With one delta after the other where several came together."""
    said: list[Event] = []
    for event in events:
        said += map(Delta, event.texts) if isinstance(event, Deltas) else [event]
    return said


def fold(events: Sequence[Event]) -> Fold:
    folded = Fold()
    folded.feed(events)
    return folded


def plain(events: Sequence[Event]) -> list[tuple[str, ...]]:
    """The parts of a whole answer as tuples: ("text", "Hi"), ("call", name, arguments)."""
    return [
        ("call", part.name, part.arguments) if isinstance(part, ToolCall) else (type(part).__name__.lower(), part.text)
        for part in fold(events).parts
    ]
