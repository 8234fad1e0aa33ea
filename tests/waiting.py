"""Tests wait for events, not for seconds: a limit is a generous upper bound that only a failure reaches."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

LIMIT = 20.0  # seconds; nothing that works takes a tenth of it, but a loaded machine is slow
INTERVAL = 0.005


async def until(happened: Callable[[], Any], seconds: float = LIMIT) -> Any:
    """What `happened`, a function or a coroutine function, returns once that is true; fails after `seconds`."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while True:
        found = happened()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return found
        assert loop.time() < end, f"it did not happen within {seconds:g} s"
        await asyncio.sleep(INTERVAL)
