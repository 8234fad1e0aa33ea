"""Streams of chat completions and what the decoder makes of them, whole and byte by byte."""

import json
from collections.abc import Iterable
from typing import Any

from dragoman.backends.chat.decoder import ChatDecoder
from dragoman.translators.constraints.parallel import FirstCallOnly
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Event, Request, StopReason, Tool
from tests.event_grammar import apart, check

STOP, LENGTH, FILTER = StopReason.STOP, StopReason.LENGTH, StopReason.CONTENT_FILTER
TOOLS = tuple(Tool(name, "", {"type": "object"}) for name in ("f", "g"))
REQUEST = Request(id="s", model="m", messages=(), tools=TOOLS)


def classify(status: int, error: object) -> GatewayError:
    assert status == 200
    return GatewayError(Kind.BACKEND_FAILED, "classified", source="backend")


def decoder(**fields: Any) -> ChatDecoder:
    known = {"id": "s", "model": "m", "messages": (), "tools": TOOLS}
    return ChatDecoder(Request(**(known | fields)), classify)


def frame(payload: object) -> bytes:
    return b"data: " + json.dumps(payload).encode() + b"\n\n"


def chunk(finish: object = None, /, **delta: Any) -> bytes:
    return frame({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


def call(
    arguments: object = None, /, name: str | None = None, id: str | None = None, index: int | None = 0
) -> dict[str, Any]:
    return {"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def calls(*deltas: dict[str, Any]) -> bytes:
    return chunk(tool_calls=list(deltas))


DONE = b"data: [DONE]\n\n"
END = chunk("stop") + DONE


def decode(reads: Iterable[bytes], **fields: Any) -> tuple[list[Event], GatewayError | None]:
    """All events of a stream, and the error that broke it."""
    machine, events = decoder(**fields), list[Event]()
    try:
        for data in reads:
            events += machine.feed(data)
        events += machine.finish()
    except GatewayError as error:
        events += machine.abort()
        check(events, ended=False)
        return apart(events), error
    check(events)
    return apart(events), None


def whole(*data: bytes, **fields: Any) -> list[Event]:
    """The events of a stream that does not break, the same whole and byte by byte."""
    stream = b"".join(data)
    events, error = decode([stream], **fields)
    assert error is None, error
    assert decode([bytes([byte]) for byte in stream], **fields) == (events, None)
    return events


def broken(*data: bytes) -> tuple[list[Event], GatewayError]:
    stream = b"".join(data)
    events, error = decode([stream])
    assert error is not None
    assert error.source == "backend"
    again, same = decode([bytes([byte]) for byte in stream])
    assert (again, repr(same)) == (events, repr(error))
    return events, error


def first_only(events: list[Event]) -> list[Event]:
    return FirstCallOnly().feed(events)


def spent(tokens: int) -> bytes:
    return frame({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": tokens}}) + DONE


# Two calls, and a stream in which they come interleaved.
F, G = '{"a":1}', '{"b":2}'
CALL_F, CALL_G = ("call", "f", F), ("call", "g", G)
T3 = [calls(call('{"a":', "f", "x", 0)), calls(call(G, "g", "y", 1)), calls(call("1}", index=0)), END]
