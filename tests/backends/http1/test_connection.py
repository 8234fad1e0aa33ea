"""A connection to a server, without sockets: every form of a response, however it is cut, and everything that is none.

After a response that is not whole the reader must learn that; after one that is whole, a connection is kept only if
both sides said so.
"""

from __future__ import annotations

import asyncio
import gzip
import itertools
import tracemalloc
import zlib
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.backends.base import Flow
from dragoman.backends.http1.connection import MAX_HEAD, MAX_HELD, PIECE, Connection
from dragoman.backends.http1.inflate import INFLATED
from tests.backends.http1.wire import ASKED, EOF, LOST, End, Exchange, Outcome, bytewise, play, turns

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
LENGTH = OK + b"Content-Length: 5\r\n\r\n"


@dataclass(frozen=True)
class Form:
    """A response, how the connection ends after it, and what has to come of it."""

    raw: bytes
    body: bytes = b"hello"
    status: int = 200
    end: End = None
    kept: bool = True


RAW_DEFLATE = zlib.compress(b"hello")[2:-4]
FORMS = {
    "length": Form(LENGTH + b"hello"),
    "length zero": Form(OK + b"Content-Length: 0\r\n\r\n", b""),
    "chunked": Form(OK + CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"),
    "chunk extensions": Form(OK + CHUNKED + b'2;a=b;c="d"\r\nhe\r\n03;x\r\nllo\r\n0;y\r\n\r\n'),
    "trailers": Form(OK + CHUNKED + b"5\r\nhello\r\n0\r\nStatus: 500\r\nConnection: keep-alive\r\n\r\n"),
    "until the end": Form(OK + b"\r\nhello", end=EOF, kept=False),
    "another transfer coding": Form(OK + b"Transfer-Encoding: identity\r\n\r\nhello", end=EOF, kept=False),
    "interim responses": Form(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + LENGTH + b"hello"
    ),
    "204": Form(b"HTTP/1.1 204 No Content\r\n\r\n", b"", 204),
    "304": Form(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b"", 304),
    "refusal": Form(b"HTTP/1.1 503 Busy\r\nContent-Length: 5\r\n\r\nhello", status=503),
    "no reason": Form(b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello"),
    "close": Form(OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello", kept=False),
    "close, chunked": Form(OK + b"Connection: Close\r\n" + CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", kept=False),
    "HTTP/1.0": Form(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", kept=False),
    "HTTP/1.0 that stays": Form(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello"),
    "HTTP/1.0 until the end": Form(b"HTTP/1.0 200 OK\r\n\r\nhello", end=EOF, kept=False),
    "gzip": Form(OK + b"Content-Encoding: GZip\r\n" + CHUNKED + b"19\r\n" + gzip.compress(b"hello") + b"\r\n0\r\n\r\n"),
    "gzip in members": Form(
        OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"hel") + gzip.compress(b"lo"), end=EOF, kept=False
    ),
    "deflate": Form(OK + b"Content-Encoding: deflate\r\nContent-Length: 13\r\n\r\n" + zlib.compress(b"hello")),
    "deflate without its head": Form(OK + b"Content-Encoding: deflate\r\nContent-Length: 7\r\n\r\n" + RAW_DEFLATE),
    "identity": Form(OK + b"Content-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello"),
}  # fmt: skip


def cut(data: bytes, offsets: set[int]) -> list[bytes]:
    edges = [0, *sorted(offset for offset in offsets if 0 < offset < len(data)), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def holds(form: Form, outcome: Outcome) -> None:
    assert outcome.error is None
    assert (outcome.status, outcome.body, outcome.ended, outcome.kept) == (form.status, form.body, True, form.kept)


@pytest.mark.parametrize("name", FORMS)
def test_a_response_whole_and_byte_by_byte(name: str) -> None:
    form = FORMS[name]
    holds(form, play([form.raw], form.end))
    holds(form, play(bytewise(form.raw), form.end))


@given(st.sampled_from(sorted(FORMS)), st.sets(st.integers(1, 200), max_size=9))
def test_a_response_cut_anywhere(name: str, offsets: set[int]) -> None:
    form = FORMS[name]
    holds(form, play(cut(form.raw, offsets), form.end))


@given(st.lists(st.binary(min_size=1, max_size=50), min_size=1, max_size=9), st.sets(st.integers(1, 600), max_size=9))
def test_chunks_give_their_bytes_one_read_for_each_packet(chunks: list[bytes], offsets: set[int]) -> None:
    head = OK + CHUNKED
    raw = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    packets = cut(raw, offsets)
    outcome = play([head, *packets])
    assert outcome.body == b"".join(chunks)
    assert outcome.ended
    assert len(outcome.reads) <= len(packets)
    if len(packets) == 1:
        assert len(outcome.reads) == 1


def test_headers_are_found_in_any_case_and_trailers_are_none() -> None:
    outcome = play([OK + b"X-A: caf\xc3\xa9\r\nx-b: \xff\r\n" + CHUNKED + b"0\r\nX-A: no\r\n\r\n"])
    assert outcome.headers == {"x-a": "café", "x-b": "\udcff", "transfer-encoding": "chunked"}


# -------------------------------------------------------------------------------------------- what is not a response


@pytest.mark.parametrize(
    "raw",
    [
        b"garbage",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        OK + b"no colon\r\n\r\n",
        OK + b"Content-Length: five\r\n\r\n",
        OK + b"Content-Length: -5\r\n\r\nhello",
        OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        OK + b"Content-Length: 99999999999999999999999\r\n\r\nhello",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n\0\0",
        OK + b"X: " + b"a" * MAX_HEAD + b"\r\nContent-Length: 0\r\n\r\n",
        OK + b"X: a\r\n" * (MAX_HEAD // 2) + b"\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * MAX_HEAD,
    ],
)  # fmt: skip
def test_what_is_no_head_ends_the_connection(raw: bytes) -> None:
    for pieces in ([raw], cut(raw, {9, 20, *range(1000, len(raw), 1000)})):
        outcome = play(pieces)
        assert isinstance(outcome.error, ConnectionError)
        assert (outcome.kept, outcome.ended) == (False, False)
        assert outcome.body == b"" or b"Content-Length: 99" in raw


@pytest.mark.parametrize("broken", [b"x\r\n", b"-1\r\n", b"2\r\nabc\r\n", b"ffffffffffffffffffff\r\n", b"\r\n\r\n"])
def test_a_chunk_that_is_none_ends_the_answer_after_what_was_good(broken: bytes) -> None:
    good = b"5\r\nhello\r\n"
    for pieces in ([OK + CHUNKED, good, broken], [OK + CHUNKED, good + broken], [OK + CHUNKED + good + broken]):
        outcome = play(pieces, LOST)
        assert isinstance(outcome.error, ConnectionError)
        assert outcome.body.startswith(b"hello")
        assert (outcome.kept, outcome.ended) == (False, False)


@pytest.mark.parametrize("more", [b"garbage", b"HTTP/1.1 500 Oh\r\nContent-Length: 3\r\n\r\nbad", b"\0"])
def test_what_follows_a_whole_answer_does_not_change_it_and_ends_the_connection(more: bytes) -> None:
    for pieces in ([LENGTH + b"hello" + more], [LENGTH, b"hello" + more], [LENGTH + b"he", b"llo" + more]):
        outcome = play(pieces)
        assert (outcome.status, outcome.body, outcome.ended) == (200, b"hello", True)
        assert outcome.headers == {"content-length": "5"}
        assert (outcome.error, outcome.kept) == (None, False)


async def test_bytes_on_a_connection_that_nobody_uses_end_it() -> None:
    exchange = Exchange()
    exchange.connection.data_received(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    assert not exchange.connection.usable
    await turns()
    assert exchange.closed == [exchange.connection]
    with pytest.raises(ConnectionError):
        await exchange.connection.ask(ASKED, b"")
    assert not exchange.wire.sent


async def test_bytes_that_come_while_the_answer_is_not_taken_yet_leave_it_whole() -> None:
    exchange = Exchange()
    await exchange.begin()
    exchange.connection.data_received(LENGTH + b"hello")
    exchange.connection.data_received(b"more")
    await exchange.done()
    assert (exchange.reader.body, exchange.reader.ends) == (b"hello", 1)
    assert not exchange.connection.release()


@pytest.mark.parametrize("part", [b"a" * 4096, b"X: y\r\n" * 600])
def test_trailers_and_extensions_have_an_end(part: bytes) -> None:
    for before in (b"5;", b"5\r\nhello\r\n0\r\nX: "):
        outcome = play([OK + CHUNKED, before, *[part] * (2 * MAX_HEAD // len(part))])
        assert isinstance(outcome.error, ConnectionError)
        assert not outcome.ended


# ------------------------------------------------------------------------------------------------ connections that end

STAGES = {
    "before a byte": b"",
    "in the status": b"HTTP/1.1 2",
    "in the head": OK + b"Content-",
    "after the head": LENGTH,
    "in a length": LENGTH + b"hel",
    "in a chunk": OK + CHUNKED + b"5\r\nhel",
    "between chunks": OK + CHUNKED + b"3\r\nhel\r\n",
    "before the last line": OK + CHUNKED + b"3\r\nhel\r\n0\r\n",
    "in gzip": OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b"hello")[:15],
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("end", [EOF, LOST, ConnectionResetError("reset"), OSError("tls")], ids=str)
def test_a_connection_that_ends_too_early_is_an_error(stage: str, end: End) -> None:
    raw = STAGES[stage]
    for pieces in ([raw] if raw else [], bytewise(raw)):
        outcome = play(pieces, end)
        assert isinstance(outcome.error, ConnectionError)
        assert (outcome.ended, outcome.kept) == (False, False)
        assert b"hello".startswith(outcome.body)


@pytest.mark.parametrize("end", [LOST, ConnectionResetError()], ids=str)
def test_a_body_without_a_length_is_whole_only_after_an_orderly_end(end: End) -> None:
    outcome = play([OK + b"\r\n", b"hello"], end)
    assert isinstance(outcome.error, ConnectionError)
    assert (outcome.body, outcome.ended) == (b"hello", False)


async def test_the_words_of_an_error_reach_whoever_asked() -> None:
    exchange = Exchange()
    await exchange.begin()
    await exchange.ends(OSError("certificate required"))
    with pytest.raises(ConnectionResetError, match="certificate required"):
        await exchange.done()


async def test_a_head_that_came_with_the_end_is_a_head() -> None:
    exchange = Exchange()
    await exchange.begin()
    exchange.connection.data_received(LENGTH + b"hel")
    await exchange.ends(LOST)
    with pytest.raises(ConnectionError):
        await exchange.done()
    assert (exchange.connection.status, exchange.reader.body) == (200, b"hel")


async def test_a_bug_of_the_reader_belongs_to_the_task_that_waits() -> None:
    def broken(data: bytes) -> Flow:
        raise LookupError("bug")

    exchange = Exchange()
    exchange.reader.received = broken  # type: ignore[method-assign]
    await exchange.begin()
    await exchange.sent(LENGTH, b"hello")
    with pytest.raises(LookupError):
        await exchange.done()
    assert exchange.wire.aborted


# ------------------------------------------------------------------------------------------------------------ the flow


async def test_a_reader_that_cannot_take_more_pauses_the_socket() -> None:
    exchange = Exchange(Flow.WAIT, Flow.MORE)
    await exchange.begin()
    await exchange.sent(OK + CHUNKED)
    await exchange.sent(b"3\r\nhel\r\n")
    assert exchange.wire.paused
    exchange.clock.on_writable()
    assert not exchange.wire.paused
    await exchange.sent(b"2\r\nlo\r\n0\r\n\r\n")
    await exchange.done()
    assert exchange.reader.reads == [b"hel", b"lo"]
    assert exchange.connection.release()


async def test_what_a_paused_socket_still_gives_waits_and_so_does_the_end() -> None:
    """TLS may have decrypted more already."""
    exchange = Exchange(Flow.WAIT, Flow.MORE)
    await exchange.begin()
    await exchange.sent(LENGTH, b"hel", b"lo")
    assert exchange.reader.reads == [b"hel"]
    exchange.clock.on_writable()
    await exchange.done()
    assert (exchange.reader.body, exchange.reader.ends) == (b"hello", 1)


LARGE = bytes(range(256)) * (5 * PIECE // 512)  # two pieces and a half


async def test_a_large_read_is_handed_on_in_pieces_with_turns_for_others_in_between() -> None:
    exchange = Exchange()
    await exchange.begin()
    await exchange.sent(OK + CHUNKED)
    exchange.connection.data_received(b"%x\r\n%b\r\n0\r\n\r\n" % (len(LARGE), LARGE))
    assert exchange.reader.reads == [LARGE[:PIECE]]
    assert exchange.wire.paused
    await exchange.done()
    assert [len(read) for read in exchange.reader.reads] == [PIECE, PIECE, PIECE // 2]
    assert exchange.reader.body == LARGE
    assert not exchange.wire.paused
    assert exchange.connection.release()


async def test_the_rest_of_a_large_read_waits_for_a_reader_that_cannot_take_more() -> None:
    exchange = Exchange(Flow.MORE, Flow.WAIT)
    await exchange.begin()
    await exchange.sent(OK + b"Content-Length: %d\r\n\r\n" % len(LARGE))
    await exchange.sent(LARGE)
    assert exchange.reader.body == LARGE[: 2 * PIECE]
    exchange.clock.on_writable()
    await exchange.done()
    assert (exchange.reader.body, exchange.reader.ends) == (LARGE, 1)


@pytest.mark.parametrize("broken", [b"", b"zz\r\n"])
async def test_the_rest_of_a_large_read_comes_before_the_loss_of_the_connection(broken: bytes) -> None:
    exchange = Exchange()
    await exchange.begin()
    await exchange.sent(OK + CHUNKED)
    exchange.connection.data_received(b"%x\r\n%b\r\n%b" % (len(LARGE), LARGE, broken))
    if not broken:
        exchange.wire.abort()
    with pytest.raises(ConnectionError):
        await exchange.done()
    assert (exchange.reader.body, exchange.reader.ends) == (LARGE, 0)


async def test_a_connection_is_not_paused_any_more_when_it_is_used_again() -> None:
    exchange = Exchange(Flow.WAIT)
    await exchange.begin()
    await exchange.sent(LENGTH, b"hello")
    await exchange.done()
    assert exchange.wire.paused
    assert exchange.connection.release()
    assert not exchange.wire.paused


async def test_a_reader_that_has_enough_lets_go_and_the_connection_is_aborted() -> None:
    exchange = Exchange(Flow.ENOUGH)
    await exchange.begin()
    await exchange.sent(OK + CHUNKED)
    exchange.connection.data_received(b"3\r\nhel\r\n")
    assert exchange.wire.paused  # before the task that waits has its turn
    await exchange.done()
    assert exchange.reader.ends == 0
    assert not exchange.connection.release()
    assert exchange.wire.aborted


async def test_a_reader_that_has_enough_with_the_end_of_the_body_keeps_the_connection() -> None:
    exchange = Exchange(Flow.ENOUGH)
    await exchange.begin()
    await exchange.sent(LENGTH + b"hello")
    await exchange.done()
    assert exchange.connection.release()


async def test_the_deadline_is_followed_after_each_read() -> None:
    exchange = Exchange()
    await exchange.begin()
    await exchange.sent(LENGTH, b"h")
    for count, data in enumerate((b"e", b"l", b"lo"), 2):
        await exchange.sent(data)
        assert exchange.clock.followed == count
    await exchange.done()


async def test_whoever_waits_can_be_cancelled() -> None:
    for sent in (b"", LENGTH):
        exchange = Exchange()
        await exchange.begin()
        await exchange.sent(sent) if sent else await turns()
        assert exchange.task is not None
        exchange.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await exchange.task
        exchange.connection.data_received(b"HTTP/1.1 2" if not sent else b"hel")  # nobody reads it
        assert not exchange.connection.release()
        await turns()


async def test_a_body_that_nobody_reads_stops_the_socket() -> None:
    connection = (exchange := Exchange()).connection
    asked = asyncio.create_task(connection.ask(ASKED, b""))
    await turns()
    size = 4 * MAX_HELD
    connection.data_received(OK + b"Content-Length: %d\r\n\r\n" % size)
    sent = 0
    while not exchange.wire.paused:
        connection.data_received(b"x" * 65_536)
        sent += 65_536
    assert sent <= MAX_HELD + 65_536
    await asked
    rest = asyncio.create_task(connection.read(size))
    while sent < size:
        await turns()
        assert not exchange.wire.paused
        connection.data_received(b"x" * 65_536)
        sent += 65_536
    assert len(await rest) == size


# ------------------------------------------------------------------------------------------------------ read up to most


async def test_the_body_of_a_refusal_is_read_up_to_a_limit() -> None:
    connection = (exchange := Exchange()).connection
    for most, length, kept in ((3, 5, True), (100, 5, True), (3, 9, False)):
        exchange = Exchange()
        connection = exchange.connection
        reading = asyncio.create_task(connection.ask(ASKED, b""))
        await turns()
        connection.data_received(b"HTTP/1.1 400 Bad\r\nContent-Length: %d\r\n\r\nhe" % length)
        await reading
        body = asyncio.create_task(connection.read(most))
        await turns()
        connection.data_received(b"llo")
        assert await body == b"hello"
        assert connection.release() is kept


async def test_the_body_of_a_refusal_that_breaks_off_is_an_error() -> None:
    for end in (EOF, LOST, ConnectionResetError()):
        connection = (exchange := Exchange()).connection
        reading = asyncio.create_task(connection.ask(ASKED, b""))
        await turns()
        connection.data_received(b"HTTP/1.1 400 Bad\r\nContent-Length: 9\r\n\r\nhe")
        await exchange.ends(end)
        await reading
        with pytest.raises(ConnectionError):
            await connection.read(100)


# --------------------------------------------------------------------------------------------------- one after another


async def test_a_connection_serves_one_exchange_after_the_other() -> None:
    exchange = Exchange()
    for form in ("length", "chunked", "204", "304", "trailers", "gzip", "interim responses", "length"):
        exchange.reader.over, exchange.reader.ends = False, 0
        exchange.reader.reads.clear()
        await exchange.begin()
        assert exchange.connection.silent
        await exchange.sent(FORMS[form].raw)
        await exchange.done()
        assert exchange.reader.body == FORMS[form].body
        assert not exchange.connection.silent
        assert exchange.connection.release()
        assert exchange.connection.used
        assert exchange.connection.usable
    assert exchange.wire.sent == (ASKED + b"{}") * 8


async def test_a_connection_that_died_unused_is_told_from_one_that_had_begun_to_answer() -> None:
    for begun in (b"", b"H"):
        exchange = Exchange()
        await exchange.begin()
        await exchange.sent(LENGTH + b"hello")
        await exchange.done()
        assert exchange.connection.release()
        exchange.reader.over = False
        await exchange.begin()
        await exchange.sent(*([begun] if begun else []))
        await exchange.ends(LOST)
        with pytest.raises(ConnectionError):
            await exchange.done()
        assert exchange.connection.used
        assert exchange.connection.silent is not bool(begun)


async def test_an_answer_before_the_whole_request_was_sent_ends_the_connection() -> None:
    exchange = Exchange()
    await exchange.begin()
    exchange.wire.unsent = 1000
    await exchange.sent(LENGTH + b"hello")
    await exchange.done()
    assert not exchange.connection.release()


async def test_a_connection_that_is_being_closed_is_not_used_again() -> None:
    exchange = Exchange()
    await exchange.begin()
    await exchange.sent(LENGTH + b"hello")
    await exchange.done()
    exchange.wire.aborted = True
    assert not exchange.connection.release()
    assert not Connection().usable


# ------------------------------------------------------------------------------------------------------- compressed


@pytest.mark.parametrize("encoding", [b"br", b"zstd", b"gzip, gzip", b"compress"])
def test_an_unknown_encoding_is_a_broken_answer(encoding: bytes) -> None:
    outcome = play([OK + b"Content-Encoding: %b\r\nContent-Length: 5\r\n\r\nhello" % encoding])
    assert isinstance(outcome.error, ConnectionError)
    assert "content encoding" in str(outcome.error)
    assert (outcome.body, outcome.kept) == (b"", False)


@pytest.mark.parametrize("body", [b"hello, this is not gzip", gzip.compress(b"hello") + b"rest", b"\x1f\x8b\x08\0"])
def test_what_is_not_what_it_is_called_is_a_broken_answer(body: bytes) -> None:
    head = OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
    for pieces in ([head + body], [head, *bytewise(body)]):
        outcome = play(pieces)
        assert isinstance(outcome.error, ConnectionError)
        assert (outcome.ended, outcome.kept) == (False, False)


BOMB = gzip.compress(bytes(64 * 1024 * 1024))


async def test_a_bomb_is_inflated_only_as_far_as_it_is_read() -> None:
    exchange = Exchange(*[Flow.MORE] * 4, Flow.WAIT, Flow.MORE, Flow.ENOUGH)
    await exchange.begin()
    tracemalloc.start()
    try:
        await exchange.sent(OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(BOMB))
        exchange.connection.data_received(BOMB)
        assert len(exchange.reader.reads) == 1  # one piece in each turn of the loop
        assert exchange.wire.paused
        await turns(50)
        assert len(exchange.reader.reads) == 5
        assert exchange.reader.ends == 0  # the whole body came, but not to the reader
        exchange.clock.on_writable()
        await exchange.done()
        assert tracemalloc.get_traced_memory()[1] < 16 * INFLATED
    finally:
        tracemalloc.stop()
    assert len(exchange.reader.reads) == 7
    assert all(len(read) <= INFLATED for read in exchange.reader.reads)
    exchange.connection.abort()
    await turns()


async def test_a_bomb_of_a_refusal_is_inflated_up_to_the_limit() -> None:
    connection = Exchange().connection
    asked = asyncio.create_task(connection.ask(ASKED, b""))
    await turns()
    connection.data_received(OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(BOMB) + BOMB)
    await asked
    assert len(await connection.read(1000)) == INFLATED
    connection.abort()
    await turns()


def test_a_bomb_that_is_read_to_its_end() -> None:
    whole = bytes(3 * INFLATED)
    packed = gzip.compress(whole)
    outcome = play([OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed])
    assert outcome.body == whole
    assert outcome.ended
    assert outcome.kept


def test_a_head_of_very_many_short_fields_is_too_long() -> None:
    outcome = play([b"HTTP/1.1 200 OK\r\n" + b"a:\r\n" * 3000])
    assert isinstance(outcome.error, ConnectionError)
    assert "head" in str(outcome.error)
