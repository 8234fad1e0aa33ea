"""From events to the Messages stream, and to the message that it amounts to.

Rules (Messages reference, "Response and streaming"; each is checked by tests/grammar from the specification):

* `message_start`, then per part one content block: start, its deltas, stop. One block is open at a time and `index`
  counts up. Then one `message_delta` with the reason and the whole usage, and `message_stop`.
* Before the model has begun only `ping` goes out: clients try again when an `error` comes before `message_start`.
* A thinking block has a signature: our seal over its text, else a constant without meaning.
* A delta costs one template: what is fixed for a block is encoded when the block opens.

A cut `tool_use` is never stopped, because clients execute a block as soon as it is stopped. What would follow it is
left out and noted, since blocks must not overlap, and the whole message omits the block. After a failure no open block
is stopped either: where Claude Code has seen no finished block it asks again on its own, otherwise the turn is lost
(2.1.197).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import ClassVar, assert_never

import orjson

from dragoman.translators.errors import GatewayError
from dragoman.translators.history import object_text
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
from dragoman.translators.json_text import DEEPEST, deeper_than
from dragoman.translators.messages import searches
from dragoman.translators.messages.errors import stream_error
from dragoman.translators.protocol import BufferedStream, Context, Json

PING = b'{"type":"ping"}'
_LONG_NUMBER = re.compile("[0-9]{20}")  # perhaps a whole number beyond 64 bits, whose digits would be lost
SIGNATURE = "ZHJhZ29tYW4tdW5zZWFsZWQ"  # some clients drop a thinking block without one


@dataclass(frozen=True, slots=True)
class MessagesStreamOptions:
    """`omit_thinking`: the client wants the thinking block and its signature without the text. `blocks` are content
    that is known before the model begins. `silent`: the client wants no answer, only what it costs; nothing that the
    model says goes out."""

    model: str
    max_tokens: int | None = None
    stop_sequences: tuple[str, ...] = ()
    omit_thinking: bool = False
    silent: bool = False
    blocks: tuple[Json, ...] = ()


class _Block:
    """An open content block. `delta_head` is the beginning of its delta frames up to the text, and `head` is what the
    framing puts in front."""

    delta: ClassVar[str] = "text_delta"
    key: ClassVar[str] = "text"

    def __init__(self, head: bytes, index: int) -> None:
        self.index = index
        self.pieces = StringIO()
        data = f'{{"type":"content_block_delta","index":{index},"delta":{{"type":"{self.delta}","{self.key}":'
        self.delta_head = head + data.encode()

    @property
    def text(self) -> str:
        return self.pieces.getvalue()

    def feed(self, text: str) -> str:
        """The text to send now."""
        self.pieces.write(text)
        return text

    def feed_all(self, deltas: Deltas) -> Sequence[str]:
        """As `feed` for each of them, without those of which nothing is sent."""
        self.pieces.write(deltas.text)
        return deltas.texts

    def opening(self) -> Json:
        """`citations` is never null: AI SDK 5 and 6 would refuse the whole answer."""
        return {"type": "text", "text": "", "citations": []}

    def done(self) -> Json:
        return {"type": "text", "text": self.text, "citations": []}


class _Thinking(_Block):
    delta = "thinking_delta"
    key = "thinking"

    def __init__(self, head: bytes, index: int, shown: bool) -> None:
        super().__init__(head, index)
        self.signature = ""
        self._shown = shown

    def feed(self, text: str) -> str:
        self.pieces.write(text)
        return text if self._shown else ""

    def feed_all(self, deltas: Deltas) -> Sequence[str]:
        super().feed_all(deltas)
        return deltas.texts if self._shown else ()

    def opening(self) -> Json:
        return {"type": "thinking", "thinking": "", "signature": ""}

    def done(self) -> Json:
        return {"type": "thinking", "thinking": self.text if self._shown else "", "signature": self.signature}


class _ToolUse(_Block):
    """Arguments that do not begin as an object are sent as the only field of one, since SDKs fail on anything else.
    What breaks later has been sent by then: clients report it to the model, and the whole answer has that field."""

    delta = "input_json_delta"
    key = "partial_json"

    def __init__(self, head: bytes, index: int, id: str, name: str) -> None:
        super().__init__(head, index)
        self._id = id
        self._name = name
        self._wrapped: bool | None = None  # None until the first character is known

    def feed(self, text: str) -> str:
        self.pieces.write(text)
        if self._wrapped is None:
            text = self.text
            begun = text.lstrip()
            if not begun:
                return ""
            self._wrapped = begun[0] != "{"
            return '{"arguments":"' + _escaped(text) if self._wrapped else text
        return _escaped(text) if self._wrapped else text

    def feed_all(self, deltas: Deltas) -> Sequence[str]:
        if self._wrapped is False:
            return super().feed_all(deltas)
        return [text for each in deltas.texts if (text := self.feed(each))]

    def rest(self) -> str:
        return '"}' if self._wrapped else ""

    def opening(self) -> Json:
        return self._with({})

    def done(self) -> Json:
        text = object_text(self.text)[0]
        given = orjson.loads(text)
        if deeper_than(given, DEEPEST):
            return self._with({"arguments": self.text})
        return self._with(orjson.Fragment(text) if _LONG_NUMBER.search(text) else given)

    def _with(self, input: Json | orjson.Fragment) -> Json:
        return {"type": "tool_use", "id": self._id, "name": self._name, "input": input, "caller": {"type": "direct"}}


def _escaped(text: str) -> str:
    return orjson.dumps(text)[1:-1].decode()


class MessagesStream(BufferedStream):
    """`names` restores the client's names of tools where servers need others."""

    def __init__(self, context: Context, options: MessagesStreamOptions, names: Mapping[str, str]) -> None:
        super().__init__(context.framing)
        self._context = context
        self._options = options
        self._names = names
        self._delta_head = context.framing.head("content_block_delta")
        self._delta_tail = b"}}" + context.framing.tail
        self._content: list[Json] = []  # finished blocks
        self._calls = 0
        self._searches = 0
        self._failed = 0  # of the searches
        self._block: _Block | None = None
        self._cut = False  # an unfinished tool_use is open
        self._started = False
        self._counted: int | None = None  # the prompt's size, where it was counted

    def counted(self, tokens: int) -> None:
        """For `message_start`, and for the end where the server measures nothing."""
        self._counted = tokens

    # ------------------------------------------------------------------------------------------------------- the stream

    def start(self) -> list[bytes]:
        """Sends nothing: `message_start` waits for the model."""
        return []

    def keepalive(self) -> list[bytes]:
        return [self._framing.frame("ping", PING)]

    def feed(self, events: Sequence[Event]) -> list[bytes]:
        if self._options.silent:
            events = [event for event in events if isinstance(event, Started | Finished)]
        for event in events:
            block = self._block
            if type(event) is Delta and not self._cut:  # nearly all of them
                assert block is not None
                if (text := block.feed(event.text)) and not self.unseen:
                    self._out.append(block.delta_head + orjson.dumps(text) + self._delta_tail)
            else:
                self._event(event)
        frames, self._out = self._out, []
        return frames

    def fail(self, error: GatewayError) -> list[bytes]:
        request_id = self._context.headers.get("x-request-id") or f"req_{self._context.id}"
        payload = stream_error(error, request_id, self._options.max_tokens)
        self._out.append(self._framing.frame("error", orjson.dumps(payload)))
        return self._take()

    # ----------------------------------------------------------------------------------------------------------- events

    def _event(self, event: Event) -> None:
        if not self._started:
            self._started = True
            self._emit("message_start", message=self._message())
            for block in self._options.blocks:
                self._known(block)
        if self._cut and not isinstance(event, Finished):
            if isinstance(event, PartStarted):
                self.notes.append(Note("drop", "after_cut_call"))
            return
        match event:
            case PartStarted():
                self._open(event)
            case PartEnded():
                assert self._block is not None
                self._close(self._block, event.complete)
            case SearchStarted():
                self._searches += 1
                self._known(searches.call_block(self._search_id(), event.query))
            case SearchEnded():
                self._failed += event.error is not None
                self._known(searches.result_block(self._search_id(), event))
            case Finished():
                self._finish(event)
            case Deltas():
                assert self._block is not None
                self._deltas(self._block, event)
            case Started() | Delta():
                pass

    def _deltas(self, block: _Block, event: Deltas) -> None:
        texts = block.feed_all(event)
        if texts and not self.unseen:
            self._append_each(block.delta_head, texts, self._delta_tail)

    def _search_id(self) -> str:
        return f"srvtoolu_{self._context.id[:24]}{self._searches:02d}"

    def _known(self, block: Json) -> None:
        """A whole block. The input of a call goes out as a delta, which is where SDKs take it from."""
        index, input = len(self._content), block.get("input")
        self._emit("content_block_start", index=index, content_block=block if input is None else block | {"input": {}})
        if input:
            delta = {"type": "input_json_delta", "partial_json": orjson.dumps(input).decode()}
            self._emit("content_block_delta", index=index, delta=delta)
        self._emit("content_block_stop", index=index)
        self._content.append(block)

    def _open(self, part: PartStarted) -> None:
        head, index = self._delta_head, len(self._content)
        match part.kind:
            case "text" | "refusal":
                block = _Block(head, index)
            case "reasoning":
                block = _Thinking(head, index, not self._options.omit_thinking)
            case "call":
                block = _ToolUse(head, index, part.id, self._names.get(part.name, part.name))
            case _:
                assert_never(part.kind)
        self._block = block
        self._emit("content_block_start", index=index, content_block=block.opening())

    def _close(self, block: _Block, complete: bool) -> None:
        if isinstance(block, _ToolUse):
            if not complete:
                self._cut = True
                return
            if (rest := block.rest()) and not self.unseen:
                self._out.append(block.delta_head + orjson.dumps(rest) + self._delta_tail)
            self._calls += 1
        elif isinstance(block, _Thinking):
            block.signature = self._signature(block.text)
            delta = {"type": "signature_delta", "signature": block.signature}
            self._emit("content_block_delta", index=block.index, delta=delta)
        self._emit("content_block_stop", index=block.index)
        self._content.append(block.done())
        self._block = None

    def _signature(self, text: str) -> str:
        seal = self._context.seal
        return (seal(text) if seal is not None and text else "") or SIGNATURE

    def _finish(self, event: Finished) -> None:
        reason, matched = self._reason(event)
        details = {"type": "refusal", "category": None, "explanation": None} if reason == "refusal" else None
        delta = {"stop_reason": reason, "stop_sequence": matched, "stop_details": details, "container": None}
        usage = self._usage(event.usage)
        self._emit("message_delta", delta=delta, usage={key: usage[key] for key in _DELTA_USAGE})
        self._emit("message_stop")
        self._final = self._message() | delta
        self._final["content"] = self._content
        self._final["usage"] = _START_USAGE | {key: value for key, value in usage.items() if value is not None}

    def _reason(self, event: Finished) -> tuple[str, str | None]:
        """`max_tokens` also where the window ended the answer: Claude Code treats both words alike."""
        if self._options.silent:
            return "max_tokens", None
        match event.reason:
            case StopReason.LENGTH:
                return "max_tokens", None
            case StopReason.CONTENT_FILTER:
                return "refusal", None
            case StopReason.STOP:
                if self._calls:
                    return "tool_use", None
                if event.stop_sequence is not None and event.stop_sequence in self._options.stop_sequences:
                    return "stop_sequence", event.stop_sequence
                return "end_turn", None
            case _:
                assert_never(event.reason)

    # --------------------------------------------------------------------------------------------------------- messages

    def _message(self) -> Json:
        """The message before anything is known about it. Every key is there, since validators require them all."""
        return {
            "id": f"msg_{self._context.id}",
            "type": "message",
            "role": "assistant",
            "model": self._options.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "stop_details": None,
            "container": None,
            "usage": _START_USAGE | {"input_tokens": self._counted or 0},
        }

    def _usage(self, usage: Usage | None) -> Json:
        """What was measured, null or 0 where nothing was. `input_tokens` leaves out what came from the cache or went
        into it."""
        known = _START_USAGE | {"server_tool_use": self._server_tools()}
        if usage is None:
            return known | {"input_tokens": self._counted}
        return known | {
            "input_tokens": usage.input - (usage.cached or 0) - (usage.written or 0),
            "output_tokens": usage.output,
            "cache_creation_input_tokens": usage.written or 0,
            "cache_read_input_tokens": usage.cached or 0,
            "output_tokens_details": None if usage.reasoning is None else {"thinking_tokens": usage.reasoning},
        }

    def _server_tools(self) -> Json | None:
        """Searches that failed do not count."""
        if not self._searches:
            return None
        return {"web_search_requests": self._searches - self._failed, "web_fetch_requests": 0}

    def _emit(self, name: str, **fields: object) -> None:
        if self.unseen:
            return
        self._out.append(self._framing.frame(name, orjson.dumps({"type": name, **fields})))


# The API has no word for "unknown" in the first two: they are 0 until something was measured. It has one for the
# cache's, but Anthropic's answers always have numbers there, and Mistral Vibe adds them up.
_START_USAGE: Json = {
    "input_tokens": 0,
    "output_tokens": 0,
    "cache_creation": None,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "inference_geo": None,
    "output_tokens_details": None,
    "server_tool_use": None,
    "service_tier": None,
}
_DELTA_USAGE = (
    "input_tokens",
    "output_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "output_tokens_details",
    "server_tool_use",
)
