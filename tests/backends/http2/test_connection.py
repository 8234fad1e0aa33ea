"""One connection and its exchanges, against h2's own server side, with nothing between them but bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, cast

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, Event, RequestReceived, StreamEnded, StreamReset
from h2.settings import SettingCodes
from hyperframe.frame import GoAwayFrame
from hypothesis import given, settings
from hypothesis import strategies as st

from dragoman.backends.base import Flow
from dragoman.backends.http2.connection import PIECE, WINDOW, Exchange, Fields, Reset, SharedConnection

ASKED = ((b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", b"/"))
HEAD = [(b":status", b"200")]
END = [(b"grpc-status", b"0")]


class Kept:
    """A receiver that writes down what it got."""

    def __init__(self, flow: Flow = Flow.MORE) -> None:
        self.heads: list[Fields] = []
        self.pieces: list[bytes] = []
        self.ends: list[Exception | None] = []
        self.flow = flow

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    def fields(self, fields: Fields) -> None:
        self.heads.append([(name, value) for name, value in fields])

    def data(self, data: bytes) -> Flow:
        self.pieces.append(data)
        return self.flow

    def closed(self, error: Exception | None) -> None:
        self.ends.append(error)


class Wire:
    """A transport: what was written goes to a server when the test says so."""

    def __init__(self, allowed: int = 100) -> None:
        self.sent = b""
        self.reading = True
        self.closed = False
        self.events: list[Event] = []
        self.server = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        self.server.initiate_connection()
        self.server.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: allowed})
        self.connection = SharedConnection()
        self.connection.connection_made(cast(asyncio.BaseTransport, self))
        self.turn()

    # what a connection does with its transport

    def write(self, data: bytes) -> None:
        self.sent += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    # what a test does with the server

    def turn(self) -> None:
        """What either side has written reaches the other."""
        while self.sent or (data := self.server.data_to_send()):
            if self.sent:
                sent, self.sent = self.sent, b""
                self.events += self.server.receive_data(sent)
            elif not self.closed:
                self.connection.data_received(data)

    def ask(self, receiver: Kept, body: bytes = b"{}") -> Exchange:
        exchange = self.connection.begin(ASKED, body, receiver)
        self.turn()
        return exchange

    def of(self, kind: type[Event], exchange: Exchange) -> list[Any]:
        return [each for each in self.events if isinstance(each, kind) and cast(Any, each).stream_id == exchange.id]


async def test_a_request_and_its_response() -> None:
    wire, kept = Wire(), Kept()
    assert wire.connection.greeted.done()
    asked = wire.ask(kept, b"question")
    assert [each.headers[0] for each in wire.of(RequestReceived, asked)] == [ASKED[0]]
    assert [each.data for each in wire.of(DataReceived, asked)] == [b"question"]
    assert wire.of(StreamEnded, asked)
    wire.server.send_headers(asked.id, HEAD)
    wire.server.send_data(asked.id, b"ans", pad_length=20)
    wire.server.send_data(asked.id, b"wer")
    wire.server.send_headers(asked.id, END, end_stream=True)
    wire.turn()
    assert (kept.heads, kept.pieces, kept.ends) == ([HEAD, END], [b"answer"], [None])
    assert not wire.closed


async def test_a_body_longer_than_the_windows_goes_out_as_they_open() -> None:
    wire, kept = Wire(), Kept()
    body = bytes(range(256)) * 1000
    asked = wire.ask(kept, body)
    got = 0
    while not wire.of(StreamEnded, asked):
        found = wire.of(DataReceived, asked)[got:]
        assert found, "it waits for a window that is open"
        got += len(found)
        for each in found:
            wire.server.acknowledge_received_data(each.flow_controlled_length, asked.id)
        wire.turn()
    assert b"".join(each.data for each in wire.of(DataReceived, asked)) == body


async def test_a_response_before_the_request_is_out_ends_it() -> None:
    wire, kept = Wire(), Kept()
    asked = wire.ask(kept, bytes(1_000_000))
    wire.server.send_headers(asked.id, [*HEAD, *END], end_stream=True)
    wire.turn()
    assert kept.ends == [None]
    assert wire.of(StreamReset, asked)


async def test_a_paused_exchange_stops_its_server_and_no_other_one() -> None:
    wire, slow, other = Wire(), Kept(Flow.WAIT), Kept()
    first, second = wire.ask(slow), wire.ask(other)
    for asked in (first, second):
        wire.server.send_headers(asked.id, HEAD)
    total = 0
    while (room := min(wire.server.local_flow_control_window(first.id), 10_000)) > 0:
        wire.server.send_data(first.id, bytes(room))
        total += room
        wire.turn()
    assert total == WINDOW
    assert len(slow.body) <= PIECE
    for _ in range(1000):
        wire.server.send_data(second.id, bytes(10_000))
        wire.turn()
    assert len(other.body) == 10_000_000
    slow.flow = Flow.MORE
    wire.connection.resume(first)
    wire.turn()
    assert len(slow.body) == total
    assert wire.server.local_flow_control_window(first.id) > WINDOW // 2


async def test_a_long_read_is_handed_on_in_pieces_over_turns_of_the_loop() -> None:
    wire, kept = Wire(), Kept()
    asked = wire.ask(kept)
    wire.server.send_headers(asked.id, HEAD)
    for n in range(10):
        wire.server.send_data(asked.id, bytes([n]) * 10_000)
    wire.server.send_headers(asked.id, END, end_stream=True)
    wire.connection.data_received(wire.server.data_to_send())
    assert (len(kept.body) <= PIECE, wire.reading, kept.ends) == (True, False, [])
    for _ in range(10):
        await asyncio.sleep(0)
    assert (kept.body, wire.reading) == (b"".join(bytes([n]) * 10_000 for n in range(10)), True)
    assert (max(map(len, kept.pieces)) <= 2 * PIECE, kept.ends) == (True, [None])


async def test_what_is_dropped_is_reset_and_heard_of_no_more() -> None:
    wire, kept, other = Wire(), Kept(Flow.ENOUGH), Kept()
    asked, second = wire.ask(kept), wire.ask(other)
    wire.server.send_headers(asked.id, HEAD)
    wire.server.send_data(asked.id, b"first")
    wire.turn()
    wire.server.send_data(asked.id, b"second")
    late = wire.server.data_to_send()
    wire.connection.drop(asked)
    wire.connection.data_received(late)
    wire.turn()
    assert (kept.pieces, kept.ends) == ([b"first"], [])
    assert [each.error_code for each in wire.of(StreamReset, asked)] == [ErrorCodes.CANCEL]
    wire.server.send_headers(second.id, [*HEAD, *END], end_stream=True)
    wire.turn()
    assert other.ends == [None]


async def test_a_reset_comes_after_what_came_before_it() -> None:
    wire, kept = Wire(), Kept()
    asked = wire.ask(kept)
    wire.server.send_headers(asked.id, HEAD)
    wire.server.send_data(asked.id, b"some")
    wire.server.reset_stream(asked.id, ErrorCodes.INTERNAL_ERROR)
    wire.turn()
    (error,) = kept.ends
    assert isinstance(error, Reset)
    assert (kept.body, error.code) == (b"some", ErrorCodes.INTERNAL_ERROR)
    assert wire.connection.usable


async def test_a_server_that_goes_away_ends_what_it_has_taken_and_nothing_else() -> None:
    wire, taken, refused = Wire(), Kept(), Kept()
    closed: list[SharedConnection] = []
    wire.connection.on_closed = closed.append
    first, second = wire.ask(taken), wire.ask(refused)
    wire.server.send_headers(first.id, HEAD)
    going = GoAwayFrame(0, last_stream_id=first.id, additional_data=b"bye").serialize()
    wire.connection.data_received(wire.server.data_to_send() + going)
    assert (closed, wire.connection.usable, wire.closed) == ([wire.connection], False, False)
    assert [cast(Reset, error).code for error in refused.ends] == [ErrorCodes.REFUSED_STREAM]
    wire.server.send_data(first.id, b"the end")
    wire.server.send_headers(first.id, END, end_stream=True)
    wire.connection.data_received(going + wire.server.data_to_send() + going)
    assert (taken.body, taken.ends, wire.closed, closed) == (b"the end", [None], True, [wire.connection])
    assert second.over


async def test_no_more_exchanges_than_the_server_allows() -> None:
    wire, kept = Wire(allowed=2), Kept()
    first = wire.ask(kept)
    wire.ask(Kept())
    assert not wire.connection.usable
    wire.connection.drop(first)
    assert wire.connection.usable


@pytest.mark.parametrize(
    "said", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x00\x00\x01\x00\x00\x00\x00\x00\x09x", b"\xff" * 9]
)
async def test_what_is_not_http_2_ends_the_connection_and_what_is_open_on_it(said: bytes) -> None:
    wire, kept = Wire(), Kept()
    wire.ask(kept)
    wire.connection.data_received(said)
    assert wire.closed
    assert [type(error) for error in kept.ends] == [ConnectionResetError]


async def test_a_connection_that_is_lost_loses_nothing_that_came() -> None:
    wire, kept, paused = Wire(), Kept(), Kept(Flow.WAIT)
    asked, second = wire.ask(kept), wire.ask(paused)
    for each in (asked, second):
        wire.server.send_headers(each.id, HEAD)
        wire.server.send_data(each.id, b"a")
    wire.turn()
    wire.server.send_data(second.id, b"b")
    wire.turn()
    wire.connection.connection_lost(None)
    assert (kept.body, [type(error) for error in kept.ends]) == (b"a", [ConnectionResetError])
    assert (paused.body, paused.ends) == (b"a", [])
    wire.connection.resume(second)
    wire.connection.resume(second)
    assert (paused.body, [type(error) for error in paused.ends]) == (b"ab", [ConnectionResetError])


async def test_a_connection_that_never_was_one_is_not_greeted() -> None:
    connection = SharedConnection()
    connection.connection_lost(None)
    with pytest.raises(ConnectionResetError):
        await connection.greeted


async def test_a_bug_of_a_receiver_is_its_own() -> None:
    class Wrong(Kept):
        def data(self, data: bytes) -> Flow:
            raise ZeroDivisionError

    wire, wrong, right = Wire(), Wrong(), Kept()
    for asked in (wire.ask(wrong), wire.ask(right)):
        wire.server.send_headers(asked.id, HEAD)
        wire.server.send_data(asked.id, b"x")
        wire.server.send_headers(asked.id, END, end_stream=True)
    wire.turn()
    assert [type(error) for error in wrong.ends] == [ZeroDivisionError]
    assert (right.body, right.ends) == (b"x", [None])


@settings(max_examples=100)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.binary(max_size=40)), max_size=12),
    st.lists(st.integers(0, 2_000), max_size=8),
)
def test_however_the_bytes_are_cut_each_exchange_gets_its_own(
    sent: Sequence[tuple[int, bytes]], cuts: Sequence[int]
) -> None:
    async def play() -> None:
        wire = Wire()
        kept = [Kept() for _ in range(3)]
        asked = [wire.ask(each) for each in kept]
        for each in asked:
            wire.server.send_headers(each.id, HEAD)
        for which, data in sent:
            wire.server.send_data(asked[which].id, data)
        for each in asked:
            wire.server.send_headers(each.id, END, end_stream=True)
        whole = wire.server.data_to_send() + GoAwayFrame(0, last_stream_id=asked[-1].id).serialize()
        for begin, end in pairwise(sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})):
            wire.connection.data_received(whole[begin:end])
        for which, got in enumerate(kept):
            assert got.body == b"".join(data for other, data in sent if other == which)
            assert (got.heads, got.ends) == ([HEAD, END], [None])
        assert wire.closed

    asyncio.run(play())
