"""From events to chunks, and to the completion that they amount to.

Rules (OpenAI's specification; each is checked by tests/grammar from it):

* The first chunk has the role; then content, `reasoning_content`, refusals and calls follow as they are written, the
  header of a call before its arguments; then one chunk with the finish reason, one with the usage where it was asked
  for and is known, and `[DONE]` where the framing has it.
* Every chunk has the same id, time and model. Before the model has begun only comments go out.
* `finish_reason` is `tool_calls` where there are calls and nothing cut the answer. A cut call keeps its text as it is.
* A failed stream ends in a chunk with `error`, without a finish reason and without `[DONE]`.
* A delta costs one template: what is fixed for a part is encoded when the part opens.

The specification has no field for reasoning; it is sent under the name that most servers use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any, assert_never

import orjson

from dragoman.translators.chat_completions.errors import stream_error
from dragoman.translators.errors import GatewayError
from dragoman.translators.framing import padding
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
    StopReason,
    Usage,
)
from dragoman.translators.json_text import StringReader
from dragoman.translators.openai.catalogue import Catalogue, DeclaredTool
from dragoman.translators.protocol import BufferedStream, Context, Json

_FIELDS = {"text": "content", "refusal": "refusal", "reasoning": "reasoning_content"}


@dataclass(frozen=True, slots=True)
class ChatStreamOptions:
    """`usage`: a last chunk holds the usage, and every other chunk has null in its place."""

    model: str
    usage: bool = False
    obfuscation: bool = False
    logprobs: bool = False


class _OpenPart:
    """An open part. `prefix` and `suffix` surround its text in a delta. Parts of one kind share their `pieces`, since a
    message has one content. The stream appends to them what goes out of each delta: all of it, or what `reader` makes
    of it."""

    __slots__ = ("pieces", "prefix", "reader", "suffix", "wants_logprobs")

    def __init__(self, prefix: bytes, suffix: bytes, pieces: StringIO, wants_logprobs: bool = False) -> None:
        self.prefix = prefix
        self.suffix = suffix
        self.pieces = pieces
        self.wants_logprobs = wants_logprobs
        self.reader: StringReader | None = None

    def finish(self, complete: bool) -> str:
        """A last piece of text that became certain only now."""
        rest = self.reader.finish() if self.reader is not None and complete else ""
        self.pieces.write(rest)
        return rest


class _OpenCall(_OpenPart):
    """A call of a function or of a free-form tool. For the latter the model writes {"input": "…"}, and the client gets
    the text as it comes."""

    __slots__ = ("_id", "_key", "_kind", "_name")

    def __init__(self, head: bytes, index: int, id: str, tool: DeclaredTool) -> None:
        as_function = tool.kind == "function" or tool.called_as_function
        self._kind, self._key = ("function", "arguments") if as_function else (tool.kind, "input")
        prefix = f'{{"tool_calls":[{{"index":{index},"{self._kind}":{{"{self._key}":'.encode()
        super().__init__(head + prefix, b"}}]}", StringIO())
        self._id = id
        self._name = tool.name
        if tool.kind == "custom":
            self.reader = StringReader()

    def shown(self) -> Json:
        """The call so far: without text in its header chunk, with all of it in the whole message."""
        owner = {"name": self._name, self._key: self.pieces.getvalue()}
        return {"id": self._id, "type": self._kind, self._kind: owner}


class ChatStream(BufferedStream):
    """`tools` restores the client's tools from the names that servers know."""

    def __init__(self, context: Context, options: ChatStreamOptions, tools: Catalogue) -> None:
        super().__init__(context.framing)
        self._context = context
        self._options = options
        self._tools = tools
        self._created = context.clock()
        head = {"id": f"chatcmpl-{context.id}", "object": "chat.completion.chunk", "created": self._created}
        self._head = context.framing.head("") + orjson.dumps({**head, "model": options.model})[:-1]
        self._delta_head = self._head + b',"choices":[{"index":0,"delta":'
        self._tail = b"}" + context.framing.tail
        self._end = b',"usage":null' + self._tail if options.usage else self._tail
        self._delta_end = b',"logprobs":null,"finish_reason":null}]' + self._end
        self._texts: dict[str, StringIO] = {}  # by the message's field
        self._logprobs: list[Json] = []
        self._calls: list[_OpenCall] = []
        self._part: _OpenPart | None = None
        self._begun = False

    # ------------------------------------------------------------------------------------------------------- the stream

    def start(self) -> list[bytes]:
        """Sends nothing: the first chunk waits for the model."""
        return []

    def keepalive(self) -> list[bytes]:
        """A comment where the framing has one: the protocol has no event that changes nothing."""
        return list(self._framing.comment)

    def feed(self, events: Sequence[Event]) -> list[bytes]:
        for event in events:
            if type(event) is Delta:  # nearly all of them
                part = self._part
                assert part is not None
                text = event.text if part.reader is None else part.reader.feed(event.text)
                part.pieces.write(text)
                if part.wants_logprobs and event.logprobs:
                    self._with_logprobs(part, text, event.logprobs)
                elif text:
                    self._delta(part, text)
            else:
                self._event(event)
        frames, self._out = self._out, []
        return frames

    def fail(self, error: GatewayError) -> list[bytes]:
        self._out.append(self._framing.frame("", orjson.dumps(stream_error(error))))
        return self._take()

    # ----------------------------------------------------------------------------------------------------------- chunks

    def _delta(self, part: _OpenPart, text: str) -> None:
        if self.unseen:
            return
        end = self._delta_end if not self._options.obfuscation else self._padded(self._delta_end, len(text))
        self._out.append(part.prefix + orjson.dumps(text) + part.suffix + end)

    def _deltas(self, part: _OpenPart, event: Deltas) -> None:
        reader, texts = part.reader, event.texts
        if reader is not None:
            texts = [text for each in texts if (text := reader.feed(each))]
        part.pieces.writelines(texts)
        if self._options.obfuscation:
            for text in texts:
                self._delta(part, text)
        elif texts and not self.unseen:
            self._append_each(part.prefix, texts, part.suffix + self._delta_end)

    def _with_logprobs(self, part: _OpenPart, text: str, logprobs: list[dict[str, Any]]) -> None:
        self._logprobs += logprobs
        if self.unseen:
            return
        said = orjson.dumps({"content": logprobs, "refusal": None})
        end = b',"logprobs":' + said + b',"finish_reason":null}]' + self._end
        end = end if not self._options.obfuscation else self._padded(end, len(text))
        self._out.append(part.prefix + orjson.dumps(text) + part.suffix + end)

    def _padded(self, end: bytes, length: int) -> bytes:
        padded = b',"obfuscation":"' + padding(self._context.id, length) + b'"'
        return end.removesuffix(self._tail) + padded + self._tail

    def _chunk(self, delta: Json, finish_reason: str | None = None) -> None:
        if self.unseen:
            return
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        self._out.append(self._head + b',"choices":[' + orjson.dumps(choice) + b"]" + self._end)

    # ----------------------------------------------------------------------------------------------------------- events

    def _event(self, event: Event) -> None:
        match event:
            case PartStarted():
                self._open(event)
            case PartEnded():
                assert self._part is not None
                if rest := self._part.finish(event.complete):
                    self._delta(self._part, rest)
                self._part = None
            case Finished():
                self._finish(event)
            case Deltas():
                assert self._part is not None
                self._deltas(self._part, event)
            case Started() | Delta() | SearchStarted() | SearchEnded():  # no tool of this protocol is a search
                pass

    def _open(self, part: PartStarted) -> None:
        if not self._begun:
            self._begun = True
            self._chunk({"role": "assistant", "content": "" if part.kind == "text" else None})
        match part.kind:
            case "text" | "refusal" | "reasoning":
                field = _FIELDS[part.kind]
                prefix = self._delta_head + f'{{"{field}":'.encode()
                pieces = self._texts.setdefault(field, StringIO())
                self._part = _OpenPart(prefix, b"}", pieces, self._options.logprobs and part.kind == "text")
            case "call":
                tool = self._tools.restore(part.name)
                call = self._part = _OpenCall(self._delta_head, len(self._calls), part.id, tool)
                self._chunk({"tool_calls": [{"index": len(self._calls), **call.shown()}]})
                self._calls.append(call)
            case _:
                assert_never(part.kind)

    def _finish(self, event: Finished) -> None:
        reason = self._reason(event.reason)
        self._chunk({}, reason)
        usage = _usage(event.usage)
        if self._options.usage and usage is not None and not self.unseen:
            self._out.append(self._head + b',"choices":[],"usage":' + orjson.dumps(usage) + self._tail)
        if not self.unseen:
            self._out += self._framing.done
        logprobs = {"content": self._logprobs, "refusal": None} if self._logprobs else None
        choice = {"index": 0, "message": self._message(), "logprobs": logprobs, "finish_reason": reason}
        self._final = {
            "id": f"chatcmpl-{self._context.id}",
            "object": "chat.completion",
            "created": self._created,
            "model": self._options.model,
            "choices": [choice],
            "usage": usage,
        }

    def _reason(self, reason: StopReason) -> str:
        match reason:
            case StopReason.LENGTH:
                return "length"
            case StopReason.CONTENT_FILTER:
                return "content_filter"
            case StopReason.STOP:
                return "tool_calls" if self._calls else "stop"
            case _:
                assert_never(reason)

    def _message(self) -> Json:
        texts = {field: pieces.getvalue() for field, pieces in self._texts.items()}
        message: Json = {"role": "assistant", "content": texts.get("content"), "refusal": texts.get("refusal")}
        message["annotations"] = []  # OpenAI has them in every whole message
        if "reasoning_content" in texts:
            message["reasoning_content"] = texts["reasoning_content"]
        if self._calls:
            message["tool_calls"] = [call.shown() for call in self._calls]
        return message


def _usage(usage: Usage | None) -> Json | None:
    """What was measured. A detail that was not measured is left out."""
    if usage is None:
        return None
    out: Json = {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
    }
    details = {"cached_tokens": usage.cached, "cache_write_tokens": usage.written}
    if known := {name: tokens for name, tokens in details.items() if tokens is not None}:
        out["prompt_tokens_details"] = known
    if usage.reasoning is not None:
        out["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning}
    return out
