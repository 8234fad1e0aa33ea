"""The grammar of chat completions: what a whole streamed or plain answer must be.

    role delta* finish [usage] [DONE]        comments may stand anywhere, `error` ends the stream at any point

Written from OpenAI's specification (API of 2026-11). Every chunk has the same id, time and model; the role comes first
and once; a call is announced with id, type and name before its text, calls follow one another and count from 0; the
finish reason comes once, after everything; usage stands in a chunk of its own without choices, and every other chunk
then says null. `reasoning_content`, which servers of open models add, is allowed beside `content`. Several choices,
audio and annotations are outside this grammar. `check_stream` gives the completion that the chunks amount to, in the
shape of a plain answer, so that the two can be compared.

Rules by name: framing, json, done, event-name, order, role, identity, index, call, verdict, usage, error-type,
http-status; and of shapes: missing, unknown-key, type.
"""

from typing import Any

from tests.grammar import framing
from tests.grammar.responses import check_error
from tests.grammar.shapes import (
    Violation,
    array,
    count,
    integer,
    nullable,
    number,
    one_of,
    record,
    require,
    string,
    tagged,
    text,
)

__all__ = ["check_chunks", "check_error", "check_response", "check_stream"]

Json = dict[str, Any]

FINISH_REASONS = ("stop", "length", "tool_calls", "content_filter")
_TEXTS = ("content", "refusal", "reasoning_content")
_PAYLOAD = {"function": "arguments", "custom": "input"}

# ---------------------------------------------------------------------------------------------------------- the shapes

_TOKEN = {"token": string, "logprob": number, "bytes": nullable(array(integer))}
_TOKENS = nullable(array(record({**_TOKEN, "top_logprobs": array(record(_TOKEN))})))
_LOGPROBS = nullable(record({"content": _TOKENS, "refusal": _TOKENS}))
_USAGE = record(
    {"prompt_tokens": count, "completion_tokens": count, "total_tokens": count},
    {
        "prompt_tokens_details": record(
            {}, {"cached_tokens": count, "audio_tokens": count, "cache_write_tokens": count}
        ),
        "completion_tokens_details": record({}, {"reasoning_tokens": count, "audio_tokens": count}),
    },
)
_CALL = tagged(
    {
        "function": record(
            {"id": text, "type": one_of("function"), "function": record({"name": text, "arguments": string})}
        ),
        "custom": record({"id": text, "type": one_of("custom"), "custom": record({"name": text, "input": string})}),
    }
)
_CALL_DELTA = record(
    {"index": count},
    {
        "id": text,
        "type": one_of("function", "custom"),
        "function": record({"arguments": string}, {"name": text}),
        "custom": record({"input": string}, {"name": text}),
    },
)
_DELTA = record(
    {},
    {
        "role": one_of("assistant"),
        "content": nullable(string),
        "refusal": string,
        "reasoning_content": string,
        "tool_calls": array(_CALL_DELTA),
    },
)
_CHOICE = record(
    {"index": one_of(0), "delta": _DELTA, "finish_reason": nullable(one_of(*FINISH_REASONS)), "logprobs": _LOGPROBS}
)
CHUNK = record(
    {
        "id": text,
        "object": one_of("chat.completion.chunk"),
        "created": count,
        "model": text,
        "choices": array(_CHOICE),
    },
    {"usage": nullable(_USAGE), "obfuscation": string, "service_tier": text, "system_fingerprint": nullable(text)},
)
_MESSAGE = record(
    {
        "role": one_of("assistant"),
        "content": nullable(string),
        "refusal": nullable(string),
        "annotations": one_of([]),
    },
    {"reasoning_content": string, "tool_calls": array(_CALL)},
)
COMPLETION = record(
    {
        "id": text,
        "object": one_of("chat.completion"),
        "created": count,
        "model": text,
        "choices": array(
            record(
                {
                    "index": one_of(0),
                    "message": _MESSAGE,
                    "logprobs": _LOGPROBS,
                    "finish_reason": one_of(*FINISH_REASONS),
                }
            )
        ),
        "usage": nullable(_USAGE),
    },
    {"service_tier": text, "system_fingerprint": nullable(text)},
)
_ERROR_CHUNK = record(
    {"error": record({"message": text, "type": text, "param": nullable(text), "code": nullable(text)})}
)


# ----------------------------------------------------------------------------------------------------------- the walk


class _Walk:
    def __init__(self) -> None:
        self.where = ""
        self.first: Json | None = None
        self.texts: dict[str, list[str]] = {}
        self.calls: list[Json] = []
        self.logprobs: list[Json] | None = None
        self.reason: str | None = None
        self.usage: Json | None = None
        self.failed = False

    def feed(self, position: int, chunk: Json) -> None:
        self.where = f"chunk {position}"
        require(not self.failed, "order", self.where, "a chunk after the error")
        if "error" in chunk:
            _ERROR_CHUNK(chunk, self.where)
            require(self.reason is None, "order", self.where, "an error after the finish reason")
            self.failed = True
            return
        CHUNK(chunk, self.where)
        if self.first is None:
            self.first = chunk
        for key in ("id", "created", "model"):
            require(chunk[key] == self.first[key], "identity", f"{self.where}.{key}", "changed since the first chunk")
        require(("usage" in chunk) == self.says_usage, "usage", self.where, "`usage` stands in every chunk or in none")
        require(self.usage is None, "order", self.where, "a chunk after the usage")
        if not chunk["choices"]:
            self._usage(chunk)
            return
        require(len(chunk["choices"]) == 1, "index", self.where, "one choice was asked for")
        require(chunk.get("usage") is None, "usage", self.where, "usage has a chunk of its own")
        require(self.reason is None, "order", self.where, "a choice after the finish reason")
        self._choice(chunk["choices"][0], chunk is self.first)

    @property
    def says_usage(self) -> bool:
        return self.first is not None and "usage" in self.first

    def _usage(self, chunk: Json) -> None:
        require(self.reason is not None, "order", self.where, "usage before the finish reason")
        usage = chunk.get("usage")
        if usage is None:
            raise Violation("usage", self.where, "a chunk without choices and without usage")
        _check_usage(usage, self.where)
        self.usage = usage

    def _choice(self, choice: Json, is_first: bool) -> None:
        delta = choice["delta"]
        require(("role" in delta) == is_first, "role", self.where, "the role stands in the first chunk, and only there")
        for key in _TEXTS:
            if delta.get(key) is not None:
                self.texts.setdefault(key, []).append(delta[key])
        for call in delta.get("tool_calls", ()):
            self._call(call)
        if choice["logprobs"] is not None:
            require(bool(delta.get("content")), "order", self.where, "log probabilities without their text")
            self.logprobs = (self.logprobs or []) + (choice["logprobs"]["content"] or [])
        if choice["finish_reason"] is not None:
            require(delta == {}, "order", self.where, "the finish reason stands in a chunk of its own")
            self.reason = choice["finish_reason"]

    def _call(self, call: Json) -> None:
        if call["index"] == len(self.calls):
            for key in ("id", "type"):
                require(key in call, "call", f"{self.where}.{key}", "a call begins with its id and type")
            kind = call["type"]
            require(kind in call and "name" in call[kind], "call", self.where, "a call begins with its name")
            require(call[kind][_PAYLOAD[kind]] == "", "call", self.where, "a header brings no text yet")
            require(all(call["id"] != one["id"] for one in self.calls), "identity", self.where, "this id is taken")
            self.calls.append({key: call[key] for key in ("id", "type")} | {kind: dict(call[kind])})
            return
        require(call["index"] == len(self.calls) - 1, "index", self.where, f"index {call['index']} is not open")
        known = self.calls[-1]
        kind = known["type"]
        fits = set(call) == {"index", kind} and set(call[kind]) == {_PAYLOAD[kind]}
        require(fits, "call", self.where, "only the header names a call")
        known[kind][_PAYLOAD[kind]] += call[kind][_PAYLOAD[kind]]

    def completion(self) -> Json:
        """What the chunks amount to, once they have ended well."""
        if self.first is None or self.reason is None:
            raise Violation("order", "end", "the stream ends without a finish reason")
        texts = {key: "".join(pieces) for key, pieces in self.texts.items()}
        message: Json = {"role": "assistant", "content": texts.get("content"), "refusal": texts.get("refusal")}
        message["annotations"] = []
        if "reasoning_content" in texts:
            message["reasoning_content"] = texts["reasoning_content"]
        if self.calls:
            message["tool_calls"] = self.calls
        said = None if self.logprobs is None else {"content": self.logprobs, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": said, "finish_reason": self.reason}
        head = {key: self.first[key] for key in ("id", "created", "model")}
        return {**head, "object": "chat.completion", "choices": [choice], "usage": self.usage}


def _check_usage(usage: Json, where: str) -> None:
    total = usage["prompt_tokens"] + usage["completion_tokens"]
    require(usage["total_tokens"] == total, "usage", where, "the total is not the sum")
    cached = usage.get("prompt_tokens_details", {}).get("cached_tokens", 0)
    require(cached <= usage["prompt_tokens"], "usage", where, "more cached than sent")


def _check_verdict(choice: Json, where: str) -> None:
    calls, reason = choice["message"].get("tool_calls"), choice["finish_reason"]
    require(calls != [], "verdict", where, "an empty list of calls")
    if calls:
        require(reason != "stop", "verdict", where, "`stop` beside calls: clients would not run them")
        ids = [call["id"] for call in calls]
        require(len(set(ids)) == len(ids), "identity", where, f"an id stands twice in {ids}")
    else:
        require(reason != "tool_calls", "verdict", where, "`tool_calls` without calls")


def check_response(obj: Json) -> None:
    """A whole answer that was not streamed."""
    COMPLETION(obj, "completion")
    require(len(obj["choices"]) == 1, "index", "completion.choices", "one choice was asked for")
    _check_verdict(obj["choices"][0], "completion.choices[0]")
    if obj["usage"] is not None:
        _check_usage(obj["usage"], "completion.usage")


def check_chunks(chunks: list[Json]) -> Json | None:
    """The chunks of a whole stream without framing; what they amount to, None where they end in an error."""
    walk = _Walk()
    for position, chunk in enumerate(chunks):
        walk.feed(position, chunk)
    if walk.failed:
        return None
    completion = walk.completion()
    _check_verdict(completion["choices"][0], "the whole stream")
    return completion


def check_stream(body: bytes) -> Json | None:
    """The body of a whole stream; the completion that it amounts to, None where it ends in an error."""
    frames = framing.split(body, comments=True)
    chunks = []
    for position, frame in enumerate(frames):
        where = f"frame {position}"
        require(frame.event is None, "event-name", where, "chunks have no event names")
        if frame.data == "[DONE]":
            require(position == len(frames) - 1, "done", where, "`[DONE]` before the end")
        else:
            chunks.append(framing.parse_object(frame.data, where))
    completion = check_chunks(chunks)
    done = bool(frames) and frames[-1].data == "[DONE]"
    require(
        done == (completion is not None), "done", "last frame", "`[DONE]` says that the answer is whole, and only then"
    )
    return completion
