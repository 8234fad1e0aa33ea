"""The calls of one answer, as readers write them into its parts, and what the readers of all forms share.

A call is announced once its name is known and its arguments have begun; from then on it is a call whatever follows.
Before that, whatever turns out to be none goes back as text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from dragoman.backends.markup.closing import closing
from dragoman.backends.markup.model_json import ModelJson
from dragoman.backends.markup.text import Signal, Step, Text
from dragoman.translators.call_part import CallPart
from dragoman.translators.ir import Request, Tool
from dragoman.translators.parts import Parts

HELD_LIMIT = 262_144  # characters of a call that may wait for its name
THOUGHT_LIMIT = 1_024  # the same within a thought, which may only speak of calls
MEND_LIMIT = 1_048_576  # characters of arguments that are looked through for what is missing at their end


class NotACall(Exception):
    """What was to be announced is none: it is an example, or names itself too late and would have been given up had the
    text come in more pieces."""


class Calls:
    """`bare`: what is read stands where text may stand too, so that only a declared name makes a call of it.
    `in_thought`: it stands inside a thought, which may only speak of calls. `in_code`: it stands in Markdown's code, as
    examples do; there too, only a declared name makes a call of it."""

    def __init__(self, parts: Parts, request: Request | None) -> None:
        self._parts = parts
        self._tools: Mapping[str, Tool] = {tool.name: tool for tool in request.tools} if request else {}
        self._closed_world = request is not None  # the tools are known: any other name is no call
        self._open: CallPart | None = None
        self.count = 0
        self.bare = False
        self.in_thought = False
        self.in_code = False

    def begin(self, name: str, id: str = "") -> None:
        self.in_thought = False
        self._open = self._parts.begin_call(id.strip() and id, name)

    def extend(self, piece: str) -> None:
        assert self._open is not None
        self._parts.extend_call(self._open, piece)

    def end(self) -> None:
        assert self._open is not None
        self._parts.end_call(self._open)
        self._open = None
        self.count += 1

    def mend(self) -> None:
        """Writes the brackets that the model forgot at the end of the open call, where that makes JSON of it."""
        if self._open is None or self._open.whole or self._open.size > MEND_LIMIT:
            return
        self.extend(closing(self._open.arguments))

    def too_late(self, text: Text) -> bool:
        """Whether more is held than a call may have before its name."""
        return text.held_size > (THOUGHT_LIMIT if self.in_thought else HELD_LIMIT)

    @property
    def one_is_open(self) -> bool:
        return self._open is not None

    def note(self, name: str) -> None:
        if not (self.bare and name == "malformed_call"):
            self._parts.note("repair", name)

    def note_mended(self) -> None:
        """What a model wrote as arguments was no JSON."""
        self._parts.note("repair", "malformed_call")

    def declared(self, name: str) -> bool:
        """Whether a tool has that name, as far as the tools are known."""
        return not self._closed_world or self._tool(name) is not None

    def _tool(self, name: str) -> Tool | None:
        return self._tools.get(name) or self._tools.get(self._parts.declared_name(name) or "")

    @property
    def without_tools(self) -> bool:
        """No tool is declared, so that a client expects no call."""
        return self._closed_world and not self._tools

    def is_tool(self, name: str) -> bool:
        return name in self._tools

    def schema(self, name: str) -> Mapping[str, Any] | None:
        """The parameters of a tool that is declared."""
        tool = self._tool(name)
        return tool.parameters if tool is not None else None

    def tool_and_parameter(self, written: str) -> tuple[str, str] | None:
        """A tool and one of its parameters, whose names stand together."""
        found = [
            (name, rest)
            for name, tool in self._tools.items()
            if (rest := written.removeprefix(name).strip()) in properties_of(tool.parameters) and rest != written
        ]
        return max(found, key=lambda pair: len(pair[0]), default=None)

    def named_by_keys(self, keys: frozenset[str]) -> str | None:
        """The one tool that takes arguments of these names; where only one is declared, that."""
        if len(self._tools) == 1:
            return next(iter(self._tools))
        fitting = [
            name
            for name, tool in self._tools.items()
            if keys <= properties_of(tool.parameters).keys() and keys >= {*_required(tool.parameters)}
        ]
        return fitting[0] if len(fitting) == 1 else None


def properties_of(schema: Mapping[str, Any] | None) -> Mapping[str, Any]:
    properties = schema.get("properties") if schema is not None else None
    return properties if isinstance(properties, Mapping) else {}


def _required(schema: Mapping[str, Any]) -> list[str]:
    required = schema.get("required")
    return [str(name) for name in required] if isinstance(required, list) else []


class Form(Protocol):
    """One way of writing calls. `open` begins to read after `opener` and gives the first step."""

    def open(self, text: Text, calls: Calls, opener: str) -> Step: ...


class CallReader:
    """What all forms do at the end of a call, and with JSON in it."""

    only_declared = False  # what stands here may be no call, unless it is one of a declared tool

    def __init__(self, text: Text, calls: Calls) -> None:
        self.text = text
        self.calls = calls
        self._json = ModelJson()

    def announce(self, name: str, id: str = "") -> None:
        doubtful = self.only_declared or self.calls.in_code or self.calls.without_tools
        if not name.strip() or self.calls.too_late(self.text) or (doubtful and not self.calls.declared(name)):
            raise NotACall
        self.text.release()
        self.calls.begin(name, id)

    def end_call(self) -> None:
        self.calls.end()
        self.text.hold()

    def broken(self) -> Signal:
        """Nothing more can be read: no call, or the end of the one that was announced."""
        if not self.calls.one_is_open:
            return Signal.NO_CALL if self.text.holding else Signal.DONE
        if not self.text.final:
            self.calls.note("malformed_call")
        if not self.text.cut:
            self.calls.mend()
        self.end_call()
        self.text.release()
        return Signal.DONE

    def close(self, closer: str) -> Signal:
        """The closing tag of the calls stands here."""
        self.text.at += len(closer)
        self.text.release()
        return Signal.DONE

    def leave(self) -> Signal:
        """No further call: white space after the last one is text again, anything else makes it no call."""
        return Signal.NO_CALL if self.text.held.strip() else Signal.DONE

    @property
    def broken_json(self) -> bool:
        return self._json.broken

    def begin_json(self, *ends: str) -> None:
        """`ends` are the tags that may follow where brackets were forgotten."""
        self._json = ModelJson(ends)

    def json_piece(self) -> str:
        """What there is of the value, as JSON."""
        end, written = self._json.read(self.text.all, self.text.at, final=self.text.final)
        self.text.take(end)
        return written + (self._json.pending() if self.text.cut else "")

    @property
    def json_over(self) -> bool:
        """The value has ended, one way or the other."""
        if not (self._json.complete or self._json.broken):
            return False
        if self._json.mended:
            self.calls.note_mended()
        return True

    def stream_object(self) -> bool:
        """Passes on what there is of the object; True when it has ended."""
        if piece := self.json_piece():
            self.calls.extend(piece)
        return self.json_over

    def stream_arguments(self) -> bool:
        """The same for arguments, which are completed where brackets are missing."""
        if not self.stream_object():
            return False
        if self._json.broken:
            self.calls.note("malformed_call")
            self.calls.mend()
        return True
