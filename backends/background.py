"""Tasks that run beside the calls: watchers, timers, the end of what is no longer needed.

asyncio reports the exception of a task that nobody waits for only when the task is collected, which is never while
somebody holds it. Here it is logged at once, with its traceback. The caller keeps the task, and ends it with `end`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger(__name__)


def in_background(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """`name` is what the log calls it."""
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_report)
    return task


async def end(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancels them and returns once they have ended, however they end; None stands for a task that was never begun."""
    begun = [task for task in tasks if task is not None]
    for task in begun:
        task.cancel()
    if begun:
        await asyncio.wait(begun)


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("the task %s has failed", task.get_name(), exc_info=error)
