"""Background tasks: a failure is in the log at once, and an end is an end."""

from __future__ import annotations

import asyncio

import pytest

from dragoman.backends.background import end, in_background


async def test_a_failure_is_logged_with_its_traceback_while_the_task_is_held(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail() -> None:
        raise RuntimeError("broken")

    held = in_background(fail(), "watcher")
    await asyncio.wait((held,))
    await asyncio.sleep(0)
    (record,) = caplog.records
    assert record.message == "the task watcher has failed"
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], RuntimeError)


async def test_neither_an_end_nor_a_cancellation_is_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    done = in_background(asyncio.sleep(0), "short")
    await asyncio.wait((done,))
    endless = in_background(asyncio.sleep(60), "long")
    await end(endless, None, done)
    assert endless.cancelled()
    assert not caplog.records


async def test_an_end_waits_for_what_a_task_does_last() -> None:
    last: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            last.append("done")

    task = in_background(work(), "work")
    await asyncio.sleep(0)
    await end(task)
    assert last == ["done"]
    await end()
