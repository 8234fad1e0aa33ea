"""Repairs of a conversation, so that every server's template can render it and the same history always renders the
same way.

Chat templates want one assistant turn with all its calls, followed directly by one result for each call, in the order
of the calls. What clients send is looser: one item per call, results in the order of completion, reminders in between,
results that were lost with a crashed session. `repair` restores the strict form and counts each departure from it as a
`Note("repair", kind)`:

    late_output         a result that other messages had separated from its call is moved up to follow the call
    reordered_output    the results of one turn are put into the order of its calls
    missing_output      a call without a result gets one that says so
    orphan_output       a result without a call becomes user text that says so
    bad_arguments       arguments that are not the text of a JSON object are wrapped into one
    duplicate_call_id   a second call with the same id gets an id of its own, and so does its result

A repair looks only backwards: what is in a complete conversation is never changed by what is appended to it, so the
prompt of a turn stays a prefix of the next turn's. System and developer messages keep their places; where a prompt may
have them is the backend's policy. Nothing here knows a protocol.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import orjson

from dragoman.translators.errors import invalid, quoted
from dragoman.translators.ir import Document, Image, Message, Note, Part, Text, ToolCall, ToolReference, ToolResult
from dragoman.translators.json_text import MOST_VALUES, is_object, values_in

MISSING_OUTPUT = "[No output was recorded for this call.]"
_MISSING = (Text(MISSING_OUTPUT),)
ORPHAN_LABEL = "[Output of a call that is not part of this conversation, call id {id}]"


def repair(
    messages: Sequence[Message], *, strict: bool, kept: dict[Hashable, Any] | None = None
) -> tuple[tuple[Message, ...], tuple[Note, ...]]:
    """The conversation in its strict form, and what had to be changed. With `strict`, calls without a result and
    results without a call raise an INVALID error in OpenAI's words instead. The other repairs change no meaning, so
    they are made either way.

    `kept` is what is kept of this conversation from turn to turn: then only what is new in it is looked at."""
    before: _Repaired | None = None if kept is None else kept.get((repair, strict))
    if before is not None and not before.begins(messages):
        before = None
    repairer = _Repairer(strict, before)
    for message in messages if before is None else messages[len(before.given) :]:
        repairer.add(message)
    closed = repairer.closed
    repaired, notes = repairer.finish()
    if kept is not None and closed:
        kept[repair, strict] = _Repaired([*messages], repaired, notes, repairer.ids, repairer.values_left)
    return repaired, notes


@dataclass(frozen=True, slots=True)
class _Repaired:
    """A conversation up to a place where nothing waits, so that nothing of it changes: as it was `given` and as it is
    in its strict form."""

    given: list[Message]
    messages: tuple[Message, ...]
    notes: tuple[Note, ...]
    ids: Mapping[str, int]
    values_left: int

    def begins(self, messages: Sequence[Message]) -> bool:
        return self.given == messages[: len(self.given)]  # most are the same objects


@dataclass(slots=True)
class _Turn:
    """One assistant turn under construction. `calls` are positions in `parts`; `results` maps them to what came back,
    and `answered` is the last position that has a result. Adjacent texts wait in `texts` until the end, since a history
    may hold very many.
    """

    parts: list[Part] = field(default_factory=list)
    texts: dict[int, list[str]] = field(default_factory=dict)
    calls: list[int] = field(default_factory=list)
    results: dict[int, ToolResult] = field(default_factory=dict)
    answered: int = -1

    def add(self, parts: Iterable[Part]) -> None:
        """Appends the parts of another message. Two texts that meet here were two messages, so a blank line goes
        between them."""
        for position, part in enumerate(parts):
            if position == 0 and type(part) is Text and self.parts and type(last := self.parts[-1]) is Text:
                self.texts.setdefault(len(self.parts) - 1, [last.text]).append(part.text)
                continue
            if type(part) is ToolCall:
                self.calls.append(len(self.parts))
            self.parts.append(part)

    def message(self) -> Message:
        for position, texts in self.texts.items():
            self.parts[position] = Text("\n\n".join(texts))
        return Message("assistant", tuple(self.parts))


class _Repairer:
    """`before`: what came before, and is not looked at again."""

    def __init__(self, strict: bool, before: _Repaired | None = None) -> None:
        self._strict = strict
        self._before = () if before is None else before.messages
        self._entries: list[_Turn | Message] = []
        # Turns with unanswered calls, by the id that the client uses, each with the positions of those calls.
        self._open: dict[str, list[tuple[_Turn, deque[int]]]] = {}
        # Every id in use, and the last number that was appended to it.
        self.ids: dict[str, int] = {} if before is None else dict(before.ids)
        self._notes: list[Note] = [] if before is None else [*before.notes]
        # In the arguments of all calls, which are JSON inside of JSON.
        self.values_left = MOST_VALUES if before is None else before.values_left

    @property
    def closed(self) -> bool:
        """Whether nothing that is appended changes what came so far: no call waits for its result, and no turn for the
        next message of it."""
        last = self._entries[-1] if self._entries else None
        return not any(self._open.values()) and (not isinstance(last, _Turn) or bool(last.results))

    def add(self, message: Message) -> None:
        if message.role == "assistant":
            self._assistant(message)
        elif message.role == "tool":
            for part in message.parts:
                if isinstance(part, ToolResult):
                    self._result(part)
        else:
            self._entries.append(message)

    def finish(self) -> tuple[tuple[Message, ...], tuple[Note, ...]]:
        out = [*self._before]
        for entry in self._entries:
            if isinstance(entry, Message):
                out.append(entry)
            else:
                out.append(entry.message())
                out.extend(self._results(entry))
        return tuple(out), tuple(self._notes)

    def _assistant(self, message: Message) -> None:
        parts = [part for part in message.parts if not (isinstance(part, Text) and not part.text)]
        if not parts:
            return
        last = self._entries[-1] if self._entries else None
        if isinstance(last, _Turn) and not last.results:
            turn = last
        else:
            turn = _Turn()
            self._entries.append(turn)
        known = len(turn.calls)
        turn.add([self._call(part) if type(part) is ToolCall else part for part in parts])
        client_ids = [part.id for part in parts if type(part) is ToolCall]
        for client_id, position in zip(client_ids, turn.calls[known:], strict=True):
            waiting = self._open.get(client_id)
            if waiting is None:
                waiting = self._open[client_id] = []
            if not waiting or waiting[-1][0] is not turn:
                waiting.append((turn, deque((position,))))
            else:
                waiting[-1][1].append(position)

    def _call(self, call: ToolCall) -> ToolCall:
        self.values_left -= values_in(call.arguments, max(self.values_left, 0))
        if self.values_left < 0:
            raise invalid(f"The arguments of call {quoted(call.id)} and those before it hold too many JSON values.")
        arguments, wrapped = object_text(call.arguments)
        if wrapped:
            self._note("bad_arguments")
        call_id = call.id
        if call_id in self.ids:
            self._note("duplicate_call_id")
            number = self.ids[call.id] + 1
            while (call_id := f"{call.id}_{number}") in self.ids:
                number += 1
            self.ids[call.id] = number
        self.ids[call_id] = 1
        if call_id == call.id and arguments == call.arguments:
            return call
        return ToolCall(call_id, call.name, arguments)

    def _result(self, result: ToolResult) -> None:
        waiting = self._open.get(result.call_id)
        if not waiting:
            self._orphan(result)
            return
        # The newest turn that waits for this id, and in it the first call: clients answer in the order of the calls.
        turn, positions = waiting[-1]
        position = positions.popleft()
        if not positions:
            waiting.pop()
        call = turn.parts[position]
        assert isinstance(call, ToolCall)
        if self._entries[-1] is not turn:
            self._note("late_output")
        elif position < turn.answered:
            self._note("reordered_output")
        turn.answered = max(turn.answered, position)
        turn.results[position] = ToolResult(call.id, result.content, result.is_error)

    def _orphan(self, result: ToolResult) -> None:
        if self._strict:
            raise invalid(f"No tool call found for function call output with call_id {result.call_id}.", "input")
        self._note("orphan_output")
        label = ORPHAN_LABEL.format(id=result.call_id)
        text = "\n".join([label, *(part.text for part in result.content if type(part) is Text)])
        known = [part for part in result.content if isinstance(part, ToolReference | Document)]
        images = [replace(part, past=True) for part in result.content if isinstance(part, Image)]
        self._entries.append(Message("user", (Text(text), *known, *images)))

    def _results(self, turn: _Turn) -> list[Message]:
        out: list[Message] = []
        for position in turn.calls:
            result = turn.results.get(position)
            if result is None:
                call = turn.parts[position]
                assert isinstance(call, ToolCall)
                if self._strict:
                    raise invalid(f"No tool output found for function call {call.id}.", "input")
                self._note("missing_output")
                result = ToolResult(call.id, _MISSING)
            out.append(Message("tool", (result,)))
        return out

    def _note(self, name: str) -> None:
        self._notes.append(_note_of(name))


@cache
def _note_of(name: str) -> Note:
    return Note("repair", name)


def object_text(arguments: str) -> tuple[str, bool]:
    """`arguments` as the text of a JSON object, and whether they had to be wrapped. Empty text means no arguments."""
    if not arguments.strip():
        return "{}", False
    if is_object(arguments):
        return arguments, False
    # cut short, or never JSON: templates that read arguments would fail on it in every later turn
    return orjson.dumps({"arguments": arguments}).decode(), True
