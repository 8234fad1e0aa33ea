"""However a Triton answer ends early, its request is ended on the wire and stopped in the engine before `stream`
returns; tests/real/triton does the same with a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from dragoman.backends.base import nothing
from dragoman.backends.reader import Timeouts
from dragoman.backends.triton.client import Outputs
from dragoman.backends.triton.errors import failed, unreachable
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Finished
from tests.recording import Recorder, answered, ask
from tests.triton_fakes import Engine, serving
from tests.waiting import LIMIT, until

LONG = Timeouts(first=60.0, between=60.0, usage=60.0)


@dataclass
class Streaming:
    """A call that runs."""

    engine: Engine
    sink: Recorder
    task: asyncio.Task[None]

    async def ended(self) -> None:
        await asyncio.wait_for(self.task, LIMIT)

    @property
    def freed(self) -> bool:
        """Nothing of the request is left: on the wire, in the engine, in the sink."""
        stopped = {stop.id for stop in self.engine.stops}
        handed_back = (self.sink.on_left, self.sink.on_writable) == (nothing, nothing)
        return not self.engine.open_calls and stopped == {call.id for call in self.engine.calls} and handed_back


@asynccontextmanager
async def streaming(
    engine: Engine, timeouts: Timeouts = LONG, sink: Recorder | None = None
) -> AsyncIterator[Streaming]:
    backend, sink = serving(engine, timeouts), sink or Recorder()
    await backend.start()
    task = asyncio.create_task(answered(backend, ask(), sink))
    try:
        yield Streaming(engine, sink, task)
    finally:
        task.cancel()
        await asyncio.wait((task,))
        await backend.close()


async def test_an_answer_that_ends_by_itself_needs_no_stopping() -> None:
    async with streaming(Engine(["Hello"])) as it:
        await it.ended()
        assert it.sink.text == "Hello"
        assert not it.engine.open_calls
        assert not it.engine.stops


@pytest.mark.parametrize("text", ["", "Hello"])
async def test_a_receiver_that_left_is_no_error(text: str) -> None:
    async with streaming(Engine([text], hangs=True)) as it:
        await until(lambda: it.engine.calls and it.sink.text == text)
        it.sink.on_left()
        await it.ended()
        assert it.freed
        assert not any(isinstance(event, Finished) for event in it.sink.events)


async def test_a_receiver_that_leaves_while_it_is_slow_or_fed() -> None:
    slow = Recorder()
    slow.held = True
    async with streaming(Engine(["Hello"], hangs=True), sink=slow) as it:
        await it.sink.until(lambda: it.sink.waits == 1)
        await asyncio.sleep(0)
        it.sink.on_left()
        await it.ended()
        assert it.freed
    fed = Recorder(enough=lambda sink: bool(sink.on_left()))
    async with streaming(Engine(["Hello"]), sink=fed) as it:
        await it.ended()
        assert it.freed
        assert len(fed.feeds) == 1


async def test_a_slow_receiver_stops_the_reading() -> None:
    sink = Recorder()
    sink.held = True
    async with streaming(Engine(["abc"]), Timeouts(first=0.05, between=0.05), sink) as it:
        for number in range(1, 4):
            await sink.until(lambda: sink.waits == number)  # noqa: B023
            await asyncio.sleep(0.1)
            assert sink.text == "abc"[:number]
            sink.on_writable()
        await it.ended()
        assert sink.finished


async def test_a_receiver_that_has_enough() -> None:
    async with streaming(Engine(["Hello"]), sink=Recorder(enough=lambda sink: sink.text == "He")) as it:
        await it.ended()
        assert it.sink.finished.usage is not None
        assert it.sink.finished.usage.output == 2
        assert it.freed


async def test_a_server_that_is_late() -> None:
    async with streaming(Engine(["Hel"], hangs=True), Timeouts(between=0.05)) as it:
        with pytest.raises(GatewayError) as caught:
            await it.ended()
        assert caught.value.kind is Kind.TIMEOUT
        assert it.sink.text == "Hel"
        assert it.freed


async def test_a_cancelled_call() -> None:
    async with streaming(Engine(["Hel"], hangs=True)) as it:
        await it.sink.until(lambda: it.sink.text == "Hel")
        it.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await it.task
        assert it.freed


def failing_to_stop() -> Engine:
    return Engine(["Hel"], hangs=True, stop_error=RuntimeError("a bug"), stopping=asyncio.Event())


async def test_a_stop_request_that_fails_is_the_call_s_error() -> None:
    async with streaming(failing_to_stop()) as it:
        assert it.engine.stopping is not None
        it.engine.stopping.set()
        await it.sink.until(lambda: it.sink.text == "Hel")
        it.sink.on_left()
        with pytest.raises(RuntimeError, match="a bug"):
            await it.ended()


async def test_a_stop_request_that_fails_while_a_cancellation_waits_for_it_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with streaming(failing_to_stop()) as it:
        assert it.engine.stopping is not None
        await it.sink.until(lambda: it.sink.text == "Hel")
        for _ in range(2):
            it.task.cancel()
            await until(lambda: it.engine.stops)
        assert not it.task.done()
        it.engine.stopping.set()
        with pytest.raises(asyncio.CancelledError):
            await it.task
        (record,) = caplog.records
        assert record.exc_info is not None
        assert str(record.exc_info[1]) == "a bug"


@pytest.mark.parametrize(("seen", "trouble"), [("by its health", unreachable()), ("by a call", failed("It refused."))])
async def test_a_server_that_was_started_with_another_configuration_is_read_again(
    seen: str, trouble: GatewayError
) -> None:
    engine = Engine(["Hello", "again"])
    backend = serving(engine, LONG)
    await backend.start()
    await answered(backend, ask(), Recorder())
    engine.trouble, engine.decoupled = trouble, False
    if seen == "by its health":
        assert (await backend.health()).state == "down"
    else:
        with pytest.raises(GatewayError):
            await answered(backend, ask(), Recorder())
    engine.trouble = None
    await answered(backend, ask(), Recorder())
    assert [call.streamed for call in engine.calls] == [True, False]
    await backend.close()


@pytest.mark.parametrize("ids", [[-1], [2**40], [None]])
async def test_what_is_no_token_is_a_failure_of_the_server(ids: list[Any]) -> None:
    engine, sink = Odd([""], odd=ids), Recorder()
    backend = serving(engine, LONG)
    await backend.start()
    with pytest.raises(GatewayError) as caught:
        await answered(backend, ask(), sink)
    assert caught.value.kind is Kind.BACKEND_FAILED
    assert sink.text == "Hi"
    assert [stop.id for stop in engine.stops] == [call.id for call in engine.calls]
    await backend.close()


@dataclass
class Odd(Engine):
    odd: Sequence[Any] = ()

    async def _answer(self, ids: Sequence[int]) -> AsyncIterator[list[Outputs]]:
        for each in ([ord("H")], [ord("i")], self.odd):
            yield [{"output_ids": list(each), "sequence_length": [1]}]
