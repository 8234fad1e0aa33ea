"""Every stream in every framing: frames that stand alone, and the same events whatever stands around them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.framing import BARE, SSE, padding
from dragoman.translators.ir import Delta, Event, Finished, PartEnded, PartStarted, Started, StopReason, Usage
from dragoman.translators.protocol import Json, Protocol
from tests.golden_files import TRANSCRIPTS, upstream
from tests.grammar.framing import parse_object, split
from tests.replay import CONTEXT, PROTOCOL, replay, turn

every_protocol = pytest.mark.parametrize("protocol", PROTOCOL.values(), ids=PROTOCOL)
LOGPROB: Json = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}
ANSWER: list[Event] = [
    Started(),
    *(PartStarted("reasoning"), Delta("hm"), PartEnded()),
    *(PartStarted("text"), Delta("é", [LOGPROB]), Delta("\n\ndata: [DONE]\n\n"), PartEnded()),
    *(PartStarted("refusal"), Delta("no"), PartEnded()),
    *(PartStarted("call", "call_1", "read_file"), Delta('{"a":'), Delta("1}"), PartEnded()),
    Finished(StopReason.STOP, Usage(10, 5)),
]


def over_a_socket(data: list[str]) -> list[str]:
    """Events of a stream as they are on a connection that goes on: what fails ends with one event."""
    *others, last = data
    failed = parse_object(last, "frame")
    if failed.get("type") != "response.failed":
        return data
    number = failed["sequence_number"]
    assert parse_object(others.pop(), "frame")["type"] == "error"
    return [*others, last.replace(f'"sequence_number":{number}', f'"sequence_number":{number - 1}', 1)]


def payload(frame: bytes) -> str:
    """The data of an element that must be exactly one server-sent event."""
    [event] = split(frame)
    return event.data


def test_server_sent_events() -> None:
    assert SSE.frame("response.created", b"{}") == b"event: response.created\ndata: {}\n\n"
    assert SSE.frame("", b"{}") == b"data: {}\n\n"


def test_bare_text() -> None:
    assert BARE.frame("response.created", b"{}") == b"{}"
    assert (BARE.done, BARE.comment) == ((), ())


@every_protocol
@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_bare_frames_are_the_data_of_server_sent_events(path: Path, protocol: Protocol) -> None:
    events = replay(protocol, [upstream(path)])
    bare = replay(protocol, [upstream(path)], turn=turn(protocol, replace(CONTEXT, framing=BARE)))
    data = [payload(frame) for frame in events.frames if frame not in SSE.done]
    assert [frame.decode() for frame in bare.frames] == over_a_socket(data)
    assert all(parse_object(text, "frame") for text in data)
    assert (bare.status, bare.whole) == (events.status, events.whole)


@every_protocol
@pytest.mark.parametrize("obfuscated", [False, True])
@pytest.mark.parametrize("each", [1, 3, len(ANSWER)])
def test_each_element_is_one_frame(protocol: Protocol, obfuscated: bool, each: int) -> None:
    """However many events are fed at once, and with everything that is added to a delta on request: each protocol takes
    the fields that it knows."""
    fields: Json = {"logprobs": True, "include": ["message.output_text.logprobs"]}
    if obfuscated:
        fields |= {"stream_options": {"include_obfuscation": True}}
    streams = [turn(protocol, replace(CONTEXT, framing=framing), **fields).stream for framing in (SSE, BARE)]
    events, bare = (
        [
            *stream.start(),
            *(frame for at in range(0, len(ANSWER), each) for frame in stream.feed(ANSWER[at : at + each])),
        ]
        for stream in streams
    )
    assert [payload(frame) for frame in events if frame not in SSE.done] == [frame.decode() for frame in bare]
    assert all(parse_object(frame.decode(), "frame") for frame in bare)


@every_protocol
@pytest.mark.parametrize("before", [[], ANSWER[:5]])
def test_a_failure_and_a_keepalive_are_frames_too(protocol: Protocol, before: list[Event]) -> None:
    found: list[list[bytes]] = []
    for framing in (SSE, BARE):
        stream = turn(protocol, replace(CONTEXT, framing=framing)).stream
        fed = stream.feed(before) if before else stream.start()
        found.append([*fed, *stream.keepalive(), *stream.fail(GatewayError(Kind.BUSY, "No room."))])
    events, bare = found
    data = [payload(frame) for frame in events if frame not in (*SSE.done, *SSE.comment)]
    assert [frame.decode() for frame in bare] == over_a_socket(data)


@pytest.mark.parametrize("length", [1, 31, 32, 33, 1000])
def test_padding_fills_a_delta_up_to_32_characters(length: int) -> None:
    pad = padding(CONTEXT.id, length).decode()
    assert (length + len(pad)) % 32 == 0
    assert len(pad) < 32
    assert set(pad) <= set(CONTEXT.id)
