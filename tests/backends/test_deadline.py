"""The time limit that moves: it fires when it must, and not when it was moved or paused."""

import asyncio

import pytest

from dragoman.backends.deadline import Deadline


async def test_it_fires() -> None:
    with pytest.raises(TimeoutError):
        async with Deadline(0.05):
            await asyncio.sleep(5)


async def test_it_does_not_fire_after_the_block() -> None:
    async with Deadline(0.02):
        pass
    await asyncio.sleep(0.05)


async def test_moving_it_away_keeps_it_from_firing() -> None:
    async with Deadline(0.1) as deadline:
        for _ in range(6):
            await asyncio.sleep(0.05)
            deadline.move(0.1)


async def test_moving_it_nearer_counts_at_once() -> None:
    async def wait() -> None:
        async with Deadline(60) as deadline:
            deadline.move(0.05)
            await asyncio.sleep(5)

    begun = asyncio.get_running_loop().time()
    with pytest.raises(TimeoutError):
        await wait()
    assert asyncio.get_running_loop().time() - begun < 1


async def test_paused_it_does_not_fire_and_moved_again_it_does() -> None:
    async def wait() -> None:
        async with Deadline(0.05) as deadline:
            deadline.pause()
            await asyncio.sleep(0.15)
            reached.append(True)
            deadline.move(0.05)
            await asyncio.sleep(5)

    reached: list[bool] = []
    with pytest.raises(TimeoutError):
        await wait()
    assert reached


async def test_cancellation_from_outside_stays_a_cancellation() -> None:
    async def wait() -> None:
        async with Deadline(60):
            await asyncio.sleep(5)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
