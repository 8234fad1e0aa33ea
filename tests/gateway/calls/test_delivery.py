"""How a streamed answer reaches its client: in which packets, to which version of HTTP, and for how long it waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import cast

import pytest
from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_writer import StreamWriter

from dragoman.backends.base import Flow, Sink
from dragoman.gateway.calls.delivery import LARGE, EventStream, at_once
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import (
    Delta,
    Event,
    Finished,
    PartEnded,
    PartStarted,
    Request,
    Started,
    StopReason,
    Usage,
)
from dragoman.translators.registry import PROTOCOLS
from tests.gateway_fakes import FakeBackend, Play, Running, post_bytes, running
from tests.recording import feed
from tests.serving_gateway import PATHS, asking
from tests.waiting import LIMIT, until

PLAIN = {"route": "plain", "client_kind": "other"}
STREAM = {"model": "only", "input": "hi", "stream": True}


async def asked(served: Running, version: bytes = b"HTTP/1.1") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(post_bytes(STREAM).replace(b"HTTP/1.1", version))
    return reader, writer


async def test_the_head_leaves_with_the_first_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    packets: list[bytes] = []

    def watched(protocol: BaseProtocol, transport: asyncio.BaseTransport) -> None:
        connected(protocol, transport)
        write = cast(asyncio.Transport, transport).write

        def keep(data: bytes) -> None:
            packets.append(bytes(data))
            write(data)

        monkeypatch.setattr(transport, "write", keep)

    connected = BaseProtocol.connection_made
    monkeypatch.setattr(BaseProtocol, "connection_made", watched)
    async with running() as served:
        reader, writer = await asked(served)
        first = await asyncio.wait_for(reader.read(65_536), LIMIT)
        head, _, body = first.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"created\npart=text\ntext=hel\n" in body
        assert packets[0].startswith(b"HTTP/1.1 200 OK\r\n")
        assert packets[0].endswith(b"created\npart=text\ntext=hel\n\r\n")
        writer.close()


@pytest.mark.parametrize("wish", [b"", b"\r\nConnection: keep-alive", b"\r\nConnection: Keep-Alive\r\nKeep-Alive: 60"])
async def test_a_client_of_http_1_0_gets_the_frames_without_chunks_and_the_end_of_the_connection(wish: bytes) -> None:
    """Also one that would keep the connection: nothing else ends such a body."""
    async with running() as served:
        reader, writer = await asked(served, b"HTTP/1.0" + wish)
        head, _, body = (await asyncio.wait_for(reader.read(), LIMIT)).partition(b"\r\n\r\n")
        assert b"chunked" not in head
        assert b"keep-alive" not in head.lower()
        assert body == b"created\npart=text\ntext=hel\ntext=lo\nfinished=stop\n"
        writer.close()


async def test_every_write_is_a_chunk_and_the_connection_can_be_used_again() -> None:
    async with running() as served:
        reader, writer = await asked(served)
        for again in (True, False):
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), LIMIT)
            assert b"\r\nTransfer-Encoding: chunked\r\n" in head
            chunks = [chunk async for chunk in each_chunk(reader)]
            assert b"".join(chunks) == b"created\npart=text\ntext=hel\ntext=lo\nfinished=stop\n"
            assert len(chunks) > 1
            if again:
                writer.write(post_bytes(STREAM))
        assert served.metric("dragoman_requests_total", outcome="completed", status="200", **PLAIN) == 2
        writer.close()


async def each_chunk(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while size := int((await asyncio.wait_for(reader.readuntil(b"\r\n"), LIMIT)).removesuffix(b"\r\n"), 16):
        yield await reader.readexactly(size)
        assert await reader.readexactly(2) == b"\r\n"
    assert await reader.readexactly(2) == b"\r\n"


class Transport:
    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closing = False

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def writelines(self, pieces: Sequence[bytes]) -> None:
        self.writes.extend(pieces)

    def is_closing(self) -> bool:
        return self.closing


class Client:
    """A client's connection whose answer has begun already, as `EventStream` sees it."""

    def __init__(self, *, chunked: bool) -> None:
        self.transport: Transport | None = Transport()
        self.protocol = self
        self.keeps_up = True
        self.writer = StreamWriter(cast(BaseProtocol, self), asyncio.get_running_loop())
        self.writer.chunked, self.writer.output_size = chunked, 100
        self.stream = EventStream(cast(web.Request, self), dict)
        self.stream._writer = self.writer


@pytest.mark.parametrize(("chunked", "sent"), [(True, b"a\r\ndata: xyz\n\r\n"), (False, b"data: xyz\n")])
async def test_the_frames_of_one_write_are_one_chunk_or_none_at_all(chunked: bool, sent: bytes) -> None:
    client = Client(chunked=chunked)
    assert client.transport is not None
    client.stream.write([b"data: ", b"xyz\n"])
    client.stream.write([b""])  # as a chunk it would end the answer
    client.stream.write([])
    client.stream.write([b"data: xyz\n"])
    assert client.transport.writes == [sent, sent]
    assert client.writer.output_size == 100 + 2 * len(sent)
    assert not client.stream.gone


async def test_large_frames_are_not_joined() -> None:
    client = Client(chunked=True)
    assert client.transport is not None
    frames = [b"a" * LARGE, b"b", b"c" * (LARGE + 1)]
    client.stream.write(frames)
    assert client.transport.writes[1:-1] == frames
    assert all(sent is frame for sent, frame in zip(client.transport.writes[1:], frames, strict=False))
    whole = b"".join(frames)
    expected = b"%x\r\n%b\r\n" % (len(whole), whole)
    assert b"".join(client.transport.writes) == expected
    assert client.writer.output_size == 100 + len(expected)


@pytest.mark.parametrize("lost", [True, False])
async def test_a_connection_that_is_closing_or_lost_takes_nothing(lost: bool) -> None:
    client = Client(chunked=True)
    transport = client.transport
    assert transport is not None
    transport.closing = True
    client.transport = None if lost else transport
    client.stream.write([b"x"])
    assert client.stream.gone
    assert not transport.writes


async def test_a_client_that_catches_up_is_sent_the_rest() -> None:
    pieces = 60
    flows: list[Flow] = []

    async def play(request: Request, sink: Sink) -> None:
        sink.feed([Started(), PartStarted("text")])
        for _ in range(pieces):
            flows.append(await feed(sink, [Delta("x" * 100_000)]))
        sink.feed([PartEnded(), Finished(StopReason.STOP)])

    async with running(FakeBackend(play)) as served:
        reader, writer = await asked(served)
        await asyncio.sleep(0.1)
        body = b""
        while not body.endswith(b"\r\n0\r\n\r\n"):
            body += await asyncio.wait_for(reader.read(1_000_000), LIMIT)
        assert body.count(b"x" * 100_000) == pieces
        assert Flow.WAIT in flows
        writer.close()


async def test_a_receiver_that_has_gone_has_enough() -> None:
    go_on, told = asyncio.Event(), asyncio.Event()
    flows: list[Flow] = []

    async def play(request: Request, sink: Sink) -> None:
        sink.on_left = told.set
        sink.feed([Started(), PartStarted("text"), Delta("a")])
        await go_on.wait()
        flows.append(sink.feed([Delta("b")]))

    backend = FakeBackend(play)
    async with running(backend) as served:
        reader, writer = await asked(served)
        await asyncio.wait_for(reader.readuntil(b"text=a"), LIMIT)
        writer.transport.abort()
        await asyncio.wait_for(told.wait(), LIMIT)
        go_on.set()
        await until(lambda: not served.gateway.handler.calls)
        assert flows == [Flow.ENOUGH]
        assert backend.cancelled == 0  # who reads the answer ends the work: nothing else is cut off
        gone = {"route": "plain", "client_kind": "other", "status": "499", "outcome": "disconnected"}
        assert served.metric("dragoman_requests_total", **gone) == 1


# ------------------------------------------------------------------------------- a client that leaves before the end

TERMINAL = {
    "responses": b"event: response.completed\n",
    "messages": b"event: message_stop\n",
    "chat_completions": b"data: [DONE]\n",
}
GREETING: tuple[Event, ...] = (Started(), PartStarted("text"), Delta("hello"), PartEnded())
GREETED = Finished(StopReason.STOP, Usage(3, 2))


def greets_and_lingers(*end: Event) -> Play:
    """A server that is slow to close after the last of its events."""

    async def play(request: Request, sink: Sink) -> None:
        sink.feed(GREETING)
        if end:
            sink.feed(end)
        await asyncio.sleep(LIMIT)

    return play


async def leaves_after(served: Running, protocol: str, words: bytes) -> None:
    """A client that closes its connection as soon as it has read these words and the next end of a line."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(post_bytes(asking(protocol, "hi", stream=True), PATHS[protocol]))
    await asyncio.wait_for(reader.readuntil(words), LIMIT)
    await asyncio.wait_for(reader.readuntil(b"\n"), LIMIT)
    writer.close()
    await until(lambda: not served.gateway.handler.calls)


def counted(served: Running, protocol: str, status: int, outcome: str) -> float:
    return served.metric("dragoman_requests_total", route=protocol, status=str(status), outcome=outcome)


@pytest.mark.parametrize("protocol", PATHS)
async def test_who_leaves_after_the_terminal_event_has_been_served(protocol: str) -> None:
    async with running(FakeBackend(greets_and_lingers(GREETED)), protocols=PROTOCOLS) as served:
        await leaves_after(served, protocol, TERMINAL[protocol])
        assert counted(served, protocol, 200, "completed") == 1
        assert served.metric("dragoman_client_disconnects_total") == 0
        assert served.metric("dragoman_tokens_total") == 5


@pytest.mark.parametrize("protocol", PATHS)
async def test_who_leaves_one_event_earlier_has_not(protocol: str) -> None:
    async with running(FakeBackend(greets_and_lingers()), protocols=PROTOCOLS) as served:
        await leaves_after(served, protocol, b"hello")
        assert counted(served, protocol, 499, "disconnected") == 1
        assert served.metric("dragoman_client_disconnects_total", route=protocol) == 1


async def test_an_answer_that_was_cut_short_by_its_limit_stays_incomplete() -> None:
    end = Finished(StopReason.LENGTH, Usage(3, 2))
    async with running(FakeBackend(greets_and_lingers(end)), protocols=PROTOCOLS) as served:
        await leaves_after(served, "responses", b"event: response.incomplete\n")
        assert counted(served, "responses", 200, "incomplete_length") == 1


@pytest.mark.parametrize(
    ("protocol", "failure"),
    [("responses", b"event: response.failed\n"), ("messages", b"event: error\n"), ("chat_completions", b'"error"')],
)
async def test_who_leaves_after_a_failure_was_sent_has_seen_it(
    protocol: str, failure: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def late(delivery: EventStream) -> None:
        await asyncio.sleep(LIMIT)

    async def play(request: Request, sink: Sink) -> None:
        sink.feed(GREETING)
        raise GatewayError(Kind.BACKEND_FAILED, "It broke.")

    monkeypatch.setattr(EventStream, "end", late)
    async with running(FakeBackend(play), protocols=PROTOCOLS) as served:
        await leaves_after(served, protocol, failure)
        assert counted(served, protocol, 200, "failed") == 1


async def test_a_terminal_event_that_still_waits_for_the_client_was_not_sent() -> None:
    long = Delta("x" * 30_000_000)
    backend = FakeBackend(greets_and_lingers(PartStarted("text"), long, PartEnded(), GREETED))
    async with running(backend, protocols=PROTOCOLS) as served:
        _, writer = await asyncio.open_connection("127.0.0.1", served.port, limit=1024)
        writer.write(post_bytes(asking("responses", "hi", stream=True), PATHS["responses"]))
        await until(lambda: any(call.finished for call in served.gateway.handler.calls))
        writer.transport.abort()
        await until(lambda: not served.gateway.handler.calls)
        assert counted(served, "responses", 499, "disconnected") == 1


@pytest.mark.parametrize(("end", "outcome"), [((GREETED,), "completed"), ((), "disconnected")])
async def test_a_message_is_delivered_as_an_event_is(end: tuple[Event, ...], outcome: str) -> None:
    async with running(FakeBackend(greets_and_lingers(*end)), protocols=PROTOCOLS) as served:
        async with served.session.ws_connect(served.url + PATHS["responses"]) as socket:
            await socket.send_json({"type": "response.create", **asking("responses", "hi", store=False)})
            last = "response.completed" if end else "response.output_item.done"
            while (await socket.receive_json(timeout=LIMIT))["type"] != last:
                pass
        await until(lambda: not served.gateway.handler.calls)
        assert counted(served, "responses", 200 if end else 499, outcome) == 1


def test_at_once_gives_the_result_and_passes_on_what_is_raised() -> None:
    async def result() -> int:
        return 3

    async def broken() -> int:
        raise ConnectionResetError

    assert at_once(result()) == 3
    with pytest.raises(ConnectionResetError):
        at_once(broken())


async def test_a_write_that_would_have_to_wait_is_a_bug() -> None:
    closed: list[bool] = []

    async def waits(done: Callable[[], None]) -> None:
        try:
            await asyncio.sleep(1)
        finally:
            done()

    with pytest.raises(asyncio.InvalidStateError):
        at_once(waits(lambda: closed.append(True)))
    assert closed
