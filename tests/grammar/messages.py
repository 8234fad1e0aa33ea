"""The grammar of the Messages API: what a whole streamed or plain answer must be.

    ping* message_start (start delta* stop)* message_delta message_stop        `ping` may stand anywhere before the end,
                                                                               `error` ends the stream at any point

Written from the Messages reference (API of 2026-10-21), the published OpenAPI and from what clients were seen to do.
Blocks are strictly sequential and their indexes count from 0; every nullable key is there; deltas fit their block, and
a thinking block is signed once, last. One deviation from the reference is allowed because clients execute a block as
soon as it is stopped: a `tool_use` that the budget cut stays open. Blocks that are open when an `error` comes stay open
too. A text block without citations says so with an empty list, since AI SDK 5 and 6 refuse null. `valid_input` demands
that the input of finished calls is an object; without it a model's broken JSON may pass, as clients can tell the model
of it. Of the tools that Anthropic's servers run, the grammar knows calls, what a web search found, and the results that
say that they failed; citations are outside it.

Rules by name: framing, json, event-name, unknown-event, order, index, open, delta, signature, unique, input, verdict,
usage, leak, http-status, error-type; and of shapes: missing, unknown-key, type.
"""

import json
from dataclasses import dataclass, field
from typing import Any

from tests.grammar import framing
from tests.grammar.shapes import (
    Check,
    Violation,
    anything,
    array,
    count,
    either,
    mapping,
    nullable,
    one_of,
    record,
    require,
    string,
    tagged,
    text,
)

Json = dict[str, Any]

STOP_REASONS = ("end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal", "model_context_window_exceeded")
_STATUS = {
    401: ("authentication_error",),
    402: ("billing_error",),
    403: ("permission_error",),
    404: ("not_found_error",),
    413: ("request_too_large",),
    429: ("rate_limit_error",),
    503: ("api_error", "overloaded_error"),
    504: ("timeout_error",),
    529: ("overloaded_error",),
}
_ERROR_TYPES = sorted({"invalid_request_error", "api_error", *(kind for kinds in _STATUS.values() for kind in kinds)})

# ---------------------------------------------------------------------------------------------------------- the shapes

_TEXT = {"type": one_of("text"), "text": string, "citations": one_of([])}
_THINKING = {"type": one_of("thinking"), "thinking": string, "signature": string}
_TOOL_USE = {
    "type": one_of("tool_use"),
    "id": text,
    "name": text,
    "input": mapping,
    "caller": record({"type": one_of("direct")}),
}
_SERVER_TOOL_USE = {
    "type": one_of("server_tool_use"),
    "id": text,
    "name": one_of("web_search", "web_fetch", "code_execution"),
    "input": mapping,
    "caller": record({"type": one_of("direct")}),
}


def _error(tool: str) -> Check:
    return record({"type": one_of(f"{tool}_tool_result_error"), "error_code": text})


def _failed(tool: str, content: Check | None = None, **more: Check) -> Check:
    shape = content or _error(tool)
    return record({"type": one_of(f"{tool}_tool_result"), "tool_use_id": text, "content": shape, **more})


_FOUND = array(
    record(
        {
            "type": one_of("web_search_result"),
            "url": text,
            "title": text,
            "encrypted_content": text,
            "page_age": nullable(text),
        }
    )
)


_CALLED = {"caller": record({"type": one_of("direct")})}
_RESULTS = {
    "web_search_tool_result": _failed("web_search", either(_FOUND, _error("web_search")), **_CALLED),
    "web_fetch_tool_result": _failed("web_fetch", **_CALLED),
    "code_execution_tool_result": _failed("code_execution"),
}
_BLOCK = tagged(
    {
        "text": record(_TEXT),
        "thinking": record(_THINKING),
        "tool_use": record(_TOOL_USE),
        "server_tool_use": record(_SERVER_TOOL_USE),
        **_RESULTS,
    }
)
_CALLS = ("tool_use", "server_tool_use")
_DETAILS = record({"type": one_of("refusal"), "category": nullable(text), "explanation": nullable(text)})
_TOKENS = nullable(record({"thinking_tokens": count}))
_DELTA_USAGE = {
    "input_tokens": nullable(count),
    "output_tokens": count,
    "cache_creation_input_tokens": nullable(count),
    "cache_read_input_tokens": nullable(count),
    "output_tokens_details": _TOKENS,
    "server_tool_use": nullable(record({"web_search_requests": count, "web_fetch_requests": count})),
}
_USAGE = record(
    {
        **_DELTA_USAGE,
        "input_tokens": count,
        "cache_creation": nullable(mapping),
        "inference_geo": nullable(text),
        "service_tier": one_of(None, "standard", "priority", "batch"),
    }
)
_ENDING = {
    "stop_reason": one_of(None, *STOP_REASONS),
    "stop_sequence": nullable(string),
    "stop_details": nullable(_DETAILS),
    "container": one_of(None),
}
MESSAGE = record(
    {
        "id": text,
        "type": one_of("message"),
        "role": one_of("assistant"),
        "model": text,
        "content": array(_BLOCK),
        "usage": _USAGE,
        **_ENDING,
    }
)
ERROR = record(
    {
        "type": one_of("error"),
        "error": record({"type": one_of(*_ERROR_TYPES), "message": text}, {"details": nullable(mapping)}),
        "request_id": text,
    }
)
_DELTAS: dict[str, tuple[str, tuple[str, ...]]] = {  # the delta's kind → its key, and the blocks that it fits
    "text_delta": ("text", ("text",)),
    "thinking_delta": ("thinking", ("thinking",)),
    "signature_delta": ("signature", ("thinking",)),
    "input_json_delta": ("partial_json", _CALLS),
}
_DELTA = tagged({kind: record({"type": anything, key: string}) for kind, (key, _) in _DELTAS.items()})
EVENTS = {
    "ping": record({"type": anything}),
    "message_start": record({"type": anything, "message": MESSAGE}),
    "content_block_start": record({"type": anything, "index": count, "content_block": _BLOCK}),
    "content_block_delta": record({"type": anything, "index": count, "delta": _DELTA}),
    "content_block_stop": record({"type": anything, "index": count}),
    "message_delta": record({"type": anything, "delta": record(_ENDING), "usage": record(_DELTA_USAGE)}),
    "message_stop": record({"type": anything}),
    "error": ERROR,
}

# --------------------------------------------------------------------------------------------------------- the sequence


@dataclass(slots=True)
class _Open:
    block: Json
    pieces: dict[str, list[str]] = field(default_factory=dict)

    def text(self, key: str) -> str:
        return "".join(self.pieces.get(key, ()))


class _Walk:
    """Follows the events of one answer; `where` names the event in hand."""

    def __init__(self, valid_input: bool) -> None:
        self.valid_input = valid_input
        self.where = "start"
        self.message: Json | None = None
        self.open: _Open | None = None
        self.content: list[Json] = []
        self.ending: Json | None = None
        self.ended = False
        self.error: Json | None = None

    def feed(self, position: int, event: Json) -> None:
        name = event.get("type")
        self.where = f"event {position} ({name})"
        require(not self.ended, "order", self.where, "an event after the end")
        require(isinstance(name, str) and name in EVENTS, "unknown-event", self.where, "no such event")
        EVENTS[str(name)](event, self.where)
        match name:
            case "ping":
                return
            case "error":
                _check_message_text(event["error"]["message"], self.where)
                self.error, self.ended = event, True
            case "message_start":
                self._message_start(event["message"])
            case "message_stop":
                require(self.ending is not None, "order", self.where, "message_stop before message_delta")
                self.ended = True
            case _:
                require(self.message is not None, "order", self.where, "before message_start")
                require(self.ending is None, "order", self.where, "between message_delta and message_stop")
                self._inside(str(name), event)

    def _message_start(self, message: Json) -> None:
        require(self.message is None, "order", self.where, "message_start stands once")
        require(message["content"] == [], "open", f"{self.where}.message.content", "a new message is empty")
        for key in _ENDING:
            require(message[key] is None, "verdict", f"{self.where}.message.{key}", "nothing is decided yet")
        self.message = message

    def _inside(self, name: str, event: Json) -> None:
        if name == "message_delta":
            self._message_delta(event)
        elif name == "content_block_start":
            require(self.open is None, "open", self.where, "the block before is still open")
            require(event["index"] == len(self.content), "index", self.where, f"index {event['index']} is not next")
            self._block_start(event["content_block"])
        else:
            if self.open is None:
                raise Violation("open", self.where, "no block is open")
            require(event["index"] == len(self.content), "index", self.where, f"block {event['index']} is not open")
            if name == "content_block_delta":
                self._delta(self.open, event["delta"])
            else:
                self._block_stop(self.open)

    def _block_start(self, block: Json) -> None:
        for key in ("text", "thinking", "signature", "input"):
            require(not block.get(key), "open", f"{self.where}.content_block.{key}", "a new block is empty")
        taken = {other["id"] for other in self.content if other["type"] in _CALLS}
        if block["type"] in _CALLS:
            require(block["id"] not in taken, "unique", self.where, f"the call id {block['id']} is taken")
        elif block["type"] in _RESULTS:
            require(block["tool_use_id"] in taken, "order", self.where, "a result before its call")
        self.open = _Open(block)

    def _delta(self, opened: _Open, delta: Json) -> None:
        key, fits = _DELTAS[delta["type"]]
        require(opened.block["type"] in fits, "delta", self.where, f"inside a {opened.block['type']} block")
        require("signature" not in opened.pieces, "signature", self.where, "after the signature of its block")
        if key == "signature":
            require(delta[key] != "", "signature", self.where, "an empty signature")
        opened.pieces.setdefault(key, []).append(delta[key])

    def _block_stop(self, opened: _Open) -> None:
        block = dict(opened.block)
        match block["type"]:
            case "text":
                block["text"] = opened.text("text")
            case "thinking":
                require("signature" in opened.pieces, "signature", self.where, "thinking without a signature")
                block |= {"thinking": opened.text("thinking"), "signature": opened.text("signature")}
            case "tool_use" | "server_tool_use":
                block["input"] = self._input(opened.text("partial_json"))
            case _:
                pass
        self.content.append(block)
        self.open = None

    def _input(self, arguments: str) -> Any:
        """None for arguments that are no JSON object."""
        try:
            value = json.loads(arguments or "{}")
        except ValueError:
            value = None
        if self.valid_input:
            require(isinstance(value, dict), "input", self.where, f"not an object: {arguments[:60]!r}")
        return value if isinstance(value, dict) else None

    def _message_delta(self, event: Json) -> None:
        delta, usage = event["delta"], event["usage"]
        if self.open is not None:
            may = self.open.block["type"] == "tool_use" and delta["stop_reason"] in ("max_tokens", "refusal")
            require(may, "open", self.where, "a block is still open")
        _check_ending(delta, self.content, f"{self.where}.delta")
        _check_usage(usage, f"{self.where}.usage")
        assert self.message is not None
        least = self.message["usage"]["output_tokens"]
        require(usage["output_tokens"] >= least, "usage", self.where, "the counts are cumulative")
        self.ending = event


# ------------------------------------------------------------------------------------------------------------ verdicts


def _check_ending(ending: Json, content: list[Json], where: str) -> None:
    """The reason, and what must or must not stand beside it."""
    reason, calls = ending["stop_reason"], [block for block in content if block["type"] == "tool_use"]
    require(reason is not None, "verdict", f"{where}.stop_reason", "an answer that ended says why")
    if reason == "tool_use":
        require(bool(calls), "verdict", f"{where}.stop_reason", "tool_use without a call")
    elif reason in ("end_turn", "stop_sequence"):
        require(not calls, "verdict", f"{where}.stop_reason", f"{reason} beside a call")
    for key, belongs in (("stop_sequence", "stop_sequence"), ("stop_details", "refusal")):
        fits = (ending[key] is not None) == (reason == belongs)
        require(fits, "verdict", f"{where}.{key}", f"does not fit {reason}")
    if reason == "stop_sequence":
        require(ending["stop_sequence"] != "", "verdict", f"{where}.stop_sequence", "the matched sequence is not empty")


def _check_usage(usage: Json, where: str) -> None:
    details = usage["output_tokens_details"]
    if details is not None:
        fits = details["thinking_tokens"] <= usage["output_tokens"]
        require(fits, "usage", where, "more tokens thought than made")


def _check_message_text(message: str, where: str) -> None:
    leak = next((mark for mark in ("Traceback (most recent", 'File "/', '.py", line') if mark in message), None)
    require(leak is None, "leak", where, f"a stack trace is shown to the client ({leak})")


def check_response(obj: Json) -> None:
    """A whole answer that was not streamed."""
    MESSAGE(obj, "message")
    _check_ending(obj, obj["content"], "message")
    _check_usage(obj["usage"], "message.usage")
    ids = [block["id"] for block in obj["content"] if block["type"] in _CALLS]
    require(len(set(ids)) == len(ids), "unique", "message.content", f"a call id stands twice in {ids}")
    for index, block in enumerate(obj["content"]):
        if block["type"] == "thinking":
            signed = block["signature"] != ""
            require(signed, "signature", f"message.content[{index}]", "thinking without a signature")


def check_events(events: list[Json], *, valid_input: bool = False) -> Json:
    """The events of a whole stream, without framing; the message that they amount to, or the error event."""
    walk = _Walk(valid_input)
    for position, event in enumerate(events):
        walk.feed(position, event)
    require(walk.ended, "order", f"after event {len(events) - 1}", "the stream ends neither in message_stop nor error")
    if walk.error is not None:
        return walk.error
    assert walk.message is not None
    assert walk.ending is not None
    usage = {key: value for key, value in walk.ending["usage"].items() if value is not None}
    return {
        **walk.message,
        **walk.ending["delta"],
        "content": walk.content,
        "usage": walk.message["usage"] | usage,
    }


def check_stream(body: bytes, *, valid_input: bool = False) -> Json:
    """The body of a whole stream; the message that it amounts to, or the error event."""
    events = []
    for position, frame in enumerate(framing.split(body)):
        where = f"event {position} ({frame.event})"
        event = framing.parse_object(frame.data, where)
        # clients drop frames without the name, and others those without `type`
        require(frame.event == event.get("type"), "event-name", where, f"the data says {event.get('type')!r}")
        events.append(event)
    return check_events(events, valid_input=valid_input)


def check_error(status: int, body: Json) -> None:
    """An error answer: the body, the status, and that they say the same."""
    ERROR(body, "body")
    require(400 <= status <= 599, "http-status", "status", f"{status} is not an error")
    expected = _STATUS.get(status, ("invalid_request_error",) if status < 500 else ("api_error",))
    kind = body["error"]["type"]
    require(kind in expected, "error-type", "body.error.type", f"{kind} with status {status}")
    _check_message_text(body["error"]["message"], "body.error.message")
