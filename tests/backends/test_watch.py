"""The clock of a task that drives a reader: it ends the block when it must, and only then."""

from __future__ import annotations

import asyncio

import pytest

from dragoman.backends.base import Flow, nothing
from dragoman.backends.reader import Reader, Timeouts
from dragoman.backends.watch import Watch
from dragoman.translators.ir import Event, Note
from tests.recording import Recorder
from tests.waiting import LIMIT


class Nothing:
    """A decoder of an answer of which nothing has come."""

    stopping = False
    notes: tuple[Note, ...] = ()

    def finish(self) -> list[Event]:
        return []

    def stop(self) -> list[Event]:
        return []

    def abort(self) -> list[Event]:
        return []


def reading(seconds: float) -> Reader:
    return Reader(Nothing(), Recorder(), Timeouts(first=seconds), asyncio.get_running_loop().time)


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_it_ends_the_block_at_the_deadline() -> None:
    with pytest.raises(TimeoutError):
        async with Watch(reading(0.05)):
            await asyncio.sleep(LIMIT)


async def test_it_does_nothing_after_the_block() -> None:
    async with Watch(reading(0.02)):
        pass
    await asyncio.sleep(0.05)


async def test_a_deadline_that_moves_away_needs_no_word() -> None:
    reader = reading(0.1)
    async with Watch(reader):
        for _ in range(6):
            await asyncio.sleep(0.05)
            reader.deadline = now() + 0.1


async def test_a_deadline_that_came_nearer_counts_once_it_is_followed() -> None:
    async def wait() -> None:
        async with Watch(reader) as watch:
            reader.deadline = now() + 0.05
            watch.follow()
            await asyncio.sleep(LIMIT)

    reader, begun = reading(60), now()
    with pytest.raises(TimeoutError):
        await wait()
    assert now() - begun < LIMIT


async def test_a_deadline_that_did_not_come_nearer_costs_no_timer() -> None:
    reader = reading(60)
    async with Watch(reader) as watch:
        timer = watch._timer
        reader.deadline += 10
        await watch.after(Flow.MORE)
        assert watch._timer is timer
        reader.deadline = now() + 30
        await watch.after(Flow.MORE)
        assert watch._timer is not timer


async def test_after_a_read_it_waits_where_the_sink_is_full() -> None:
    reader = reading(60)
    async with Watch(reader) as watch:
        reader.deadline = float("inf")
        waiting = asyncio.create_task(watch.after(Flow.WAIT))
        await asyncio.sleep(0.02)
        assert not waiting.done()
        reader.writable()
        await waiting


async def test_it_waits_without_a_limit_until_the_sink_can_take_more() -> None:
    reader = reading(0.05)
    async with Watch(reader) as watch:
        reader.deadline = float("inf")
        asyncio.get_running_loop().call_later(0.15, reader.writable)
        await watch.writable()
        assert reader.deadline < float("inf")


@pytest.mark.parametrize("looked", [False, True])
async def test_a_server_that_sends_nothing_more_after_the_sink_was_full_is_late_in_time(looked: bool) -> None:
    """Also where the old deadline has passed meanwhile: then nobody would look for long."""

    async def wait() -> None:
        async with Watch(reader):
            reader.deadline = float("inf")
            if looked:
                await asyncio.sleep(0.1)
            reader.writable()
            await asyncio.sleep(LIMIT)

    limits = Timeouts(first=0.05 if looked else 60, between=0.1)
    reader, begun = Reader(Nothing(), Recorder(), limits, now), now()
    with pytest.raises(TimeoutError):
        await wait()
    assert now() - begun < LIMIT / 2


async def test_a_receiver_that_left_ends_the_block_at_once() -> None:
    reader = reading(60)
    asyncio.get_running_loop().call_later(0.02, reader.left)
    with pytest.raises(TimeoutError):
        async with Watch(reader):
            await asyncio.sleep(LIMIT)
    assert reader.over
    assert reader.on_change is nothing


async def test_a_receiver_that_left_before_ends_it_as_well() -> None:
    reader = reading(60)
    reader.left()
    with pytest.raises(TimeoutError):
        async with Watch(reader):
            await asyncio.sleep(LIMIT)


async def test_cancellation_from_outside_stays_a_cancellation() -> None:
    async def wait() -> None:
        async with Watch(reading(60)):
            await asyncio.sleep(LIMIT)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_block_that_is_ending_already_is_ended_once() -> None:
    """Ending may take it a turn of the loop, in which the receiver leaves or the deadline passes."""

    async def wait() -> None:
        async with Watch(reader):
            reader.left()
            try:
                await asyncio.sleep(LIMIT)
            finally:
                reader.left()
                await asyncio.sleep(0.05)

    reader, failures = reading(0.02), list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context))
    with pytest.raises(TimeoutError):
        await wait()
    assert not failures
