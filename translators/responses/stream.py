"""From events to the Responses stream, and to the response object that it ends with.

Rules (responses reference, section "Streaming"; each is checked by tests/grammar from the specification):

* `response.created`, `response.in_progress`, then per part one output item: added, its deltas, done; one item is open
  at a time and `output_index` counts up. Ids in deltas, done events and the final object are the same objects' ids.
* Exactly one terminal event, and its `output` is the very items that were streamed. `[DONE]` is last where the framing
  has it.
* A failure is an `error` event and then `response.failed`, as OpenAI sends it. Libraries built on its SDKs raise on the
  first and take the second alone for a complete answer; Codex relies on the second. Over a WebSocket it is the second
  alone: clients end a response at either, and would take what comes after it for the end of the next response.
* Frame i of the whole stream has `sequence_number` i, keepalives included; only `[DONE]` has none.
* A delta costs one template: what is fixed for an item is encoded when the item opens.

A cut `custom_tool_call` gets no `output_item.done`: clients execute raw input as soon as the item is done, whatever its
status says, and half a patch must not be applied. Nor does a function call that was cut although its arguments read as
whole ones. The final object has such an item with status `incomplete`, and nothing follows it; what would have followed
is noted. Where an answer fails, half a JSON text has no done event either: OpenAI's SDK parses a text as soon as it is
done, and would raise on it ahead of the error. Nor has half a function call: the AI SDK goes on from one that is done,
and Codex keeps it in its history. One whose arguments are whole is done then, and Codex goes on from it when it asks
again.

Where the answer must be JSON, models still say what they are about to do before they call a tool. The SDK would raise
on that text, unless its message is `commentary` from the beginning. So text that does not begin like JSON is held until
what comes after it says which it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import orjson

from dragoman.translators.errors import GatewayError
from dragoman.translators.framing import padding
from dragoman.translators.ir import (
    Delta,
    Deltas,
    Event,
    Finished,
    Note,
    PartEnded,
    PartStarted,
    SearchEnded,
    SearchStarted,
    Started,
    StopReason,
    Usage,
)
from dragoman.translators.json_text import encoded
from dragoman.translators.openai.catalogue import Catalogue
from dragoman.translators.protocol import BufferedStream, Context, Json
from dragoman.translators.responses.errors import error_event, stream_error
from dragoman.translators.responses.options import ResponsesStreamOptions
from dragoman.translators.responses.output import (
    CallItem,
    CarriedSearchItem,
    Item,
    MessageItem,
    WebSearchItem,
    open_item,
)
from dragoman.translators.responses.tools import Shown

_JSON = ("{", "[", '"', "`")  # also in a fence
_REASONS = {StopReason.LENGTH: "max_output_tokens", StopReason.CONTENT_FILTER: "content_filter"}


class ResponsesStream(BufferedStream):
    """`echo` holds the fields of the response object that the request decides. A request's tools come back in every
    lifecycle event, keepalives included, unless the policy leaves them out of all."""

    def __init__(self, context: Context, echo: Json, tools: Catalogue, options: ResponsesStreamOptions) -> None:
        super().__init__(context.framing)
        self._context = context
        self._echo = echo if context.policy.echo_tools else {**echo, "tools": Shown()}
        self._tools = tools
        self._options = options
        self._head: Json = {"id": f"resp_{context.id}", "object": "response", "created_at": context.clock()}
        self._sequence = 0
        self._output: list[Json] = []  # finished items, as they were sent
        self._item: Item | None = None
        self._delta_head = b""  # of the open item's deltas; empty where it has none
        self._plain = b""  # the frame of such a delta, for its text and its number; empty where there is more in one
        self._delta_tail = b',"sequence_number":%d}' + context.framing.tail
        self._started = False
        self._titles: dict[str, str] = {}  # of pages that were found, by address
        self._ending: Finished | None = None
        self._left_open = False  # a cut call has no done event, so no other item may follow it
        self._held: list[Event] | None = None  # a text that may be commentary

    # ------------------------------------------------------------------------------------------------------- the stream

    def start(self) -> list[bytes]:
        if not self._started:
            self._begin()
        return self._take()

    def keepalive(self) -> list[bytes]:
        """`response.in_progress` again: a comment would not reset Codex's idle timer."""
        self._lifecycle("response.in_progress", "in_progress")
        return self._take()

    def feed(self, events: Sequence[Event]) -> list[bytes]:
        if not self._started:
            self._begin()
        if self._options.prewarm:
            return self._feed_unseen(events)
        item, plain, out = self._item, self._plain, self._out
        for event in events:
            if type(event) is not Delta or item is None:
                self._event(event)
                item, plain = self._item, self._plain
            elif plain:  # nearly all of them
                item.pieces.write(event.text)
                out.append(plain % (orjson.dumps(event.text)[1:-1], self._sequence))
                self._sequence += 1
            else:
                self._delta(item, event)
        frames, self._out = self._out, []
        return frames

    def _feed_unseen(self, events: Sequence[Event]) -> list[bytes]:
        for event in events:
            if isinstance(event, Finished):
                self._finish(event)
        return self._take()

    def fail(self, error: GatewayError) -> list[bytes]:
        if not self._started:
            self._begin()
        self._let_go()
        if self._item is not None:
            self._close_for_failure(self._item)
        if not self._framing.shared:
            self._emit("error", error_event(error))
        self._terminal("response.failed", "failed", error=stream_error(error))
        return self._take()

    def unstored(self) -> list[bytes]:
        """The end once more, of an answer that could not be kept as the first end says."""
        assert self._ending is not None, "the answer is not finished"
        self._echo = {**self._echo, "store": False}
        self._sequence -= 1
        self._finish(self._ending)
        return self._take()

    # ----------------------------------------------------------------------------------------------------------- events

    def _begin(self) -> None:
        self._started = True
        if self.unseen:
            return
        self._lifecycle("response.created", "in_progress")
        self._lifecycle("response.in_progress", "in_progress")

    def _delta(self, item: Item, event: Delta) -> None:
        text = event.text if item.reader is None else item.reader.feed(event.text)
        item.pieces.write(text)
        if item.logprobs is not None:
            item.logprobs += event.logprobs or ()
        if text and self._delta_head:
            tail = self._delta_tail % self._sequence
            if item.logprobs is not None:
                tail = b',"logprobs":' + orjson.dumps(event.logprobs or []) + tail
            if self._options.obfuscation:
                tail = b',"obfuscation":"' + padding(self._context.id, len(text)) + b'"' + tail
            self._out.append(self._delta_head + orjson.dumps(text) + tail)
            self._sequence += 1

    def _deltas(self, item: Item, event: Deltas) -> None:
        plain, first = self._plain, self._sequence
        if plain:
            item.pieces.write(event.text)
            self._out += map(plain.__mod__, zip(encoded(event.texts), count(first)))
            self._sequence += len(event.texts)
        elif self.unseen:
            self._delta(item, Delta(event.text))
        else:
            for text in event.texts:
                self._delta(item, Delta(text))

    def _event(self, event: Event) -> None:
        if self._held is not None and self._holds(event):
            return
        match event:
            case Deltas():
                if self._item is not None:
                    self._deltas(self._item, event)
            case PartStarted():
                if self._left_open:
                    self.notes.append(Note("drop", "after_cut_call"))
                elif event.kind == "text" and self._options.json and self._options.calls:
                    self._held = [event]
                else:
                    self._open(event)
            case PartEnded():
                if self._item is not None:
                    self._close(self._item, event.complete)
            case SearchStarted():
                if not self._left_open:
                    self._search(event)
            case SearchEnded():
                if isinstance(self._item, WebSearchItem):
                    self._titles |= {each.url: each.title for each in event.results}
                    self._item.found(event)
                    self._close(self._item, complete=True)
                    self._carry(event)
            case Finished():
                self._finish(event)
            case Started() | Delta():
                pass

    def _holds(self, event: Event) -> bool:
        """Of an event after those that are held: whether it is held too, or says what they are."""
        assert self._held is not None
        if isinstance(event, Delta | Deltas | PartEnded):
            self._held.append(event)
            if len(self._held) == 2 and isinstance(event, Delta | Deltas) and event.text.lstrip().startswith(_JSON):
                self._let_go()
            return True
        acts = isinstance(event, SearchStarted) or (isinstance(event, PartStarted) and event.kind == "call")
        self._let_go("commentary" if acts else None)
        return False

    def _let_go(self, phase: str | None = None) -> None:
        held, self._held = self._held, None
        for event in held or ():
            if type(event) is PartStarted:
                self._open(event, phase)
            elif self._item is not None and type(event) is Delta:
                self._delta(self._item, event)
            else:
                self._event(event)

    def _open(self, part: PartStarted, phase: str | None = None) -> None:
        id, index = self._next()
        item = open_item(part, id, index, self._tools, self._options, self._titles)
        if phase is not None and isinstance(item, MessageItem):
            item.phase = phase
        self._announce(item)

    def _search(self, event: SearchStarted) -> None:
        self._announce(WebSearchItem(*self._next(), event.query))

    def _carry(self, event: SearchEnded) -> None:
        if self._context.seal is not None and self._options.encrypted_reasoning:
            item = CarriedSearchItem(*self._next(), event)
            self._announce(item)
            self._close(item, complete=True)

    def _next(self) -> tuple[str, int]:
        """The seed of the next item's id, and its index."""
        index = len(self._output)
        return f"{self._context.id}{index:02d}", index

    def _announce(self, item: Item) -> None:
        self._item = item
        if self.unseen:
            return
        head = self._framing.head(item.delta_event) if item.delta_event else b""
        self._delta_head = head + item.delta_head
        plain = item.passes_on and self._delta_head and not self._options.obfuscation
        self._plain = self._delta_head.replace(b"%", b"%%") + b'"%b"' + self._delta_tail if plain else b""
        self._emit("response.output_item.added", {"output_index": item.index, "item": item.added()})
        for name, fields in item.opening():
            self._emit(name, fields)

    def _close(self, item: Item, complete: bool) -> None:
        rest = item.finish(complete)
        if rest and not self.unseen:  # free-form input that only now turned out to be whole
            self._out.append(self._delta_head + orjson.dumps(rest) + self._delta_tail % self._sequence)
            self._sequence += 1
        if not self.unseen:
            for name, fields in item.closing():
                self._emit(name, fields)
        done = item.done(self._context.seal if self._options.encrypted_reasoning else None)
        if item.open_when_cut and not complete:
            self._left_open = True
        elif not self.unseen:
            self._emit("response.output_item.done", {"output_index": item.index, "item": done})
        self._output.append(done)
        self._item = None

    def _close_for_failure(self, item: Item) -> None:
        """The item may be what broke. Then it stays open, and the failure still goes out."""
        try:
            if item.open_when_broken or (isinstance(item, CallItem) and not item.whole):
                item.finish(complete=False)
                self._output.append(item.done(None))
                self._item = None
            else:
                self._close(item, complete=item.whole)
        except Exception:
            self._item = None

    def _finish(self, event: Finished) -> None:
        self._ending = event
        reason = None if self._options.prewarm else _REASONS.get(event.reason)
        if reason is not None:
            self._terminal("response.incomplete", "incomplete", details={"reason": reason}, usage=event.usage)
        else:
            self._terminal("response.completed", "completed", usage=event.usage)

    # -------------------------------------------------------------------------------------------------------- lifecycle

    def _terminal(
        self,
        name: str,
        status: str,
        *,
        error: Json | None = None,
        details: Json | None = None,
        usage: Usage | None = None,
    ) -> None:
        completed_at = self._context.clock() if status == "completed" else None
        self._lifecycle(name, status, completed_at=completed_at, error=error, details=details, usage=usage)
        if not self.unseen:
            self._out += self._framing.done

    def _lifecycle(
        self,
        name: str,
        status: str,
        *,
        completed_at: int | None = None,
        error: Json | None = None,
        details: Json | None = None,
        usage: Usage | None = None,
    ) -> None:
        whole = self._head | {
            "completed_at": completed_at,
            "status": status,
            "error": error,
            "incomplete_details": details,
            "output": self._output,
            "usage": _usage(usage),
        }
        whole |= self._echo
        if status != "in_progress":
            self._final = whole
        if self.unseen:
            return
        head = self._framing.head(name) + f'{{"type":"{name}","sequence_number":{self._sequence},"response":'.encode()
        shown = whole | {"tools": self._echo["tools"].fragment}
        self._out.append(b"".join((head, orjson.dumps(shown), b"}", self._framing.tail)))
        self._sequence += 1

    def _emit(self, name: str, fields: Json) -> None:
        data = orjson.dumps({"type": name, **fields, "sequence_number": self._sequence})
        self._out.append(self._framing.frame(name, data))
        self._sequence += 1


def _usage(usage: Usage | None) -> Json | None:
    if usage is None:
        return None
    return {
        "input_tokens": usage.input,
        "input_tokens_details": {"cached_tokens": usage.cached or 0, "cache_write_tokens": usage.written or 0},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning or 0},
        "total_tokens": usage.input + usage.output,
    }
