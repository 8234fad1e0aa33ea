"""aiohttp's client as the driver of a reader, over real sockets: back-pressure, and every way in which reading ends.

A connection that is no longer needed goes at once: that is what frees the server's GPU.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from dragoman.backends.base import nothing
from dragoman.backends.chat.answer import AnswerReader
from dragoman.backends.chat.backend import ChatCompletions
from dragoman.backends.chat.decoder import ChatDecoder
from dragoman.backends.chat.driver import drive
from dragoman.backends.reader import Timeouts
from dragoman.backends.transport import Reply
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Finished, StopReason, Usage
from tests.recording import Recorder, answered, ask
from tests.scripted import Script, ScriptedServer, chunk, sse, text_stream, usage
from tests.waiting import LIMIT, until

HELLO = text_stream("Hel", "lo")
AT_THE_END = HELLO.index(b"[DONE]")
LONG = Timeouts(first=60.0, between=60.0, usage=60.0)

pytestmark = pytest.mark.usefixtures("each_http_client")


@dataclass
class Streaming:
    """A call that runs."""

    server: ScriptedServer
    backend: ChatCompletions
    sink: Recorder
    task: asyncio.Task[None]

    async def ended(self) -> None:
        """The call returns without an error, and hands the sink back."""
        await asyncio.wait_for(self.task, LIMIT)
        assert (self.sink.on_left, self.sink.on_writable) == (nothing, nothing)

    async def gone(self) -> None:
        """The server has seen the connection go, and no task of the backend's is needed for that any more."""
        await self.server.until(lambda: self.server.chats[0].outcome == "client_gone")


@asynccontextmanager
async def streaming(
    script: Script, timeouts: Timeouts = LONG, sink: Recorder | None = None
) -> AsyncIterator[Streaming]:
    async with ScriptedServer(script) as server:
        backend = ChatCompletions(server.url, timeouts=timeouts, answer_bytes=1 << 30)
        sink = sink or Recorder()
        task = asyncio.create_task(answered(backend, ask(), sink))
        try:
            yield Streaming(server, backend, sink, task)
        finally:
            task.cancel()
            await asyncio.wait((task,))
            await backend.close()


PLACES = {
    "before the head": (Script(HELLO, head_delay=60), ""),
    "before the body": (Script(HELLO, first_delay=60), ""),
    "before the first event": (Script(HELLO, hang_at=40), ""),
    "in the middle": (Script(HELLO, split="frames", hang_at=HELLO.index(b'"lo"')), "Hel"),
    "after the finish reason": (Script(HELLO, split="frames", hang_at=AT_THE_END), "Hello"),
    "in a refusal": (Script(b"x" * 1000, 400, hang_at=10), ""),
    "in a whole answer": (Script(b'{"a": 1}', headers={"content-type": "application/json"}, hang_at=3), ""),
}
every_place = pytest.mark.parametrize("place", PLACES)


async def begun(it: Streaming, place: str) -> None:
    """The call has come to this place."""
    script, text = PLACES[place]
    await it.server.until(lambda: bool(it.server.chats))
    if script.hang_at is not None:
        await it.server.until(lambda: it.server.chats[0].sent == script.hang_at)
    await it.sink.until(lambda: it.sink.text == text)
    await asyncio.sleep(0.02)  # what the server has sent has been read
    assert not it.task.done()


# ----------------------------------------------------------------------------------------------- the receiver has left


@every_place
async def test_a_receiver_that_left_frees_the_server_and_is_no_error(place: str) -> None:
    async with streaming(PLACES[place][0]) as it:
        await begun(it, place)
        it.sink.on_left()
        await it.ended()
        await it.gone()
        assert it.sink.text == PLACES[place][1]
        assert not any(isinstance(event, Finished) for event in it.sink.events)


@asynccontextmanager
async def unanswered_syn() -> AsyncIterator[str]:
    """The URL of a listener whose queue is full, which answers no SYN, as a dead host does not."""
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = sockets.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"


async def test_a_receiver_may_leave_while_the_server_is_being_connected_to() -> None:
    async with unanswered_syn() as url:
        backend, sink = ChatCompletions(url, timeouts=Timeouts(connect=60.0)), Recorder()
        task = asyncio.create_task(answered(backend, ask(), sink))
        await until(lambda: sink.on_left is not nothing)
        await asyncio.sleep(0.02)
        sink.on_left()
        await asyncio.wait_for(task, LIMIT)
        await backend.close()


async def test_a_receiver_that_leaves_while_it_is_slow() -> None:
    async with streaming(Script(HELLO, hang_at=AT_THE_END)) as it:
        it.sink.held = True
        await it.sink.until(lambda: it.sink.waits == 1)
        await asyncio.sleep(0)
        it.sink.on_left()
        await it.ended()
        await it.gone()


async def test_a_receiver_that_leaves_while_it_is_fed() -> None:
    """A write may find that the client has gone."""
    sink = Recorder(enough=lambda sink: bool(sink.on_left()))
    async with streaming(Script(HELLO, split="frames", hang_at=AT_THE_END), sink=sink) as it:
        await it.ended()
        await it.gone()
        assert len(sink.feeds) == 1


async def test_a_receiver_that_leaves_again_while_its_connection_is_aborted() -> None:
    async with streaming(PLACES["in the middle"][0]) as it:
        await begun(it, "in the middle")
        leave = it.sink.on_left
        for _ in range(5):
            leave()
            await asyncio.sleep(0)
        await it.ended()
        await it.gone()


def reading(sink: Recorder) -> AnswerReader:
    decoder = ChatDecoder(ask(), lambda status, body: GatewayError(Kind.BACKEND_FAILED, "failed"))
    return AnswerReader(decoder, sink, LONG, asyncio.get_running_loop().time)


async def test_a_refusal_that_arrives_as_the_receiver_leaves_is_nobody_s() -> None:
    async def refusing() -> Reply:
        sink.on_left()
        raise GatewayError(Kind.BUSY, "full", source="backend")

    sink = Recorder()
    await drive(reading(sink), refusing())
    assert sink.on_left is nothing


async def test_a_receiver_that_left_before_the_server_was_asked() -> None:
    async def asking() -> Reply:
        await asyncio.sleep(LIMIT)
        raise AssertionError("the server is asked")

    sink = Recorder()
    reader = reading(sink)
    sink.on_left()
    await drive(reader, asking())
    assert sink.on_left is nothing


# ------------------------------------------------------------------------------------------- the receiver is slow


async def test_a_slow_receiver_stops_the_reading_and_goes_on_where_it_stopped() -> None:
    piece = "x" * 32 * 1024
    many = [sse(chunk({"content": piece}), done=False)] * 500
    script = Script([*many, sse(chunk({}, "stop"), chunk(None, usage=usage()))])
    async with streaming(script, Timeouts(first=0.3, between=0.3)) as it:
        it.sink.held = True
        await it.sink.until(lambda: it.sink.waits == 1)
        sent = -1
        while sent < it.server.chats[0].sent:  # until the buffers between the two are full
            sent = it.server.chats[0].sent
            await asyncio.sleep(0.4)
        assert not it.task.done(), "a limit ran while the receiver was slow"
        assert len(it.sink.feeds) == 1
        assert sent < len(many) * len(piece) / 2, "nothing held the server back"
        it.sink.release()
        await it.ended()
        assert len(it.sink.text) == len(many) * len(piece)
        assert it.sink.finished == Finished(StopReason.STOP, Usage(11, 7))


async def test_a_receiver_that_is_slow_after_every_read() -> None:
    async with streaming(Script(text_stream(*"abcdef"), split="frames", gap=0.005)) as it:
        it.sink.held, waits = True, 0
        while not it.task.done():
            await until(lambda: it.task.done() or it.sink.waits > waits)  # noqa: B023
            waits, text = it.sink.waits, it.sink.text
            await asyncio.sleep(0.02)
            assert it.sink.text == text
            it.sink.on_writable()
        await it.ended()
        assert waits > 1
        assert it.sink.text == "abcdef"
        assert it.sink.finished.usage == Usage(11, 7)


# ------------------------------------------------------------------------------------------------ limits, cancellation

QUICK = {
    "before the head": Timeouts(first=0.1),
    "before the body": Timeouts(first=0.1),
    "before the first event": Timeouts(first=0.1),
    "in the middle": Timeouts(between=0.1),
    "in a refusal": Timeouts(first=0.1),
    "in a whole answer": Timeouts(first=0.1),
}


@pytest.mark.parametrize("place", QUICK)
async def test_a_server_that_is_late_is_given_up(place: str) -> None:
    async with streaming(PLACES[place][0], QUICK[place]) as it:
        with pytest.raises(GatewayError) as caught:
            await it.ended()
        assert caught.value.kind is Kind.TIMEOUT
        await it.gone()
        assert it.sink.text == PLACES[place][1]


async def test_an_answer_whose_usage_is_late_is_whole() -> None:
    place = "after the finish reason"
    async with streaming(Script(HELLO, hang_at=HELLO.index(b'"usage"')), Timeouts(usage=0.1)) as it:
        await it.ended()
        await it.gone()
        assert it.sink.text == PLACES[place][1]
        assert it.sink.finished == Finished(StopReason.STOP, None)


async def test_a_body_without_an_end_costs_its_connection_and_nothing_else() -> None:
    async with streaming(Script(HELLO + b" ", hang_at=len(HELLO))) as it:
        await it.ended()
        await it.gone()
        assert it.sink.finished.usage == Usage(11, 7)


@every_place
async def test_a_cancelled_call_aborts_its_connection_before_it_returns(place: str) -> None:
    async with streaming(PLACES[place][0]) as it:
        await begun(it, place)
        it.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await it.task
        await it.gone()
        assert (it.sink.on_left, it.sink.on_writable) == (nothing, nothing)
        assert it.sink.text == PLACES[place][1]


async def test_a_call_that_is_cancelled_while_the_receiver_is_slow() -> None:
    async with streaming(Script(HELLO, hang_at=AT_THE_END)) as it:
        it.sink.held = True
        await it.sink.until(lambda: it.sink.waits == 1)
        it.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await it.task
        await it.gone()
