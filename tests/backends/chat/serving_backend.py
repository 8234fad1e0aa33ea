"""A chat backend with a scripted server behind it, for the tests of what it sends and how it ends."""

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from dragoman.backends.chat.backend import ChatCompletions
from dragoman.backends.chat.settings import resolve
from dragoman.backends.reader import Timeouts
from dragoman.translators.errors import GatewayError
from dragoman.translators.ir import Tool
from tests.scripted import ScriptedServer, text_stream

TOOL = Tool("add", "Adds.", {"type": "object"})
HELLO = text_stream("Hel", "lo")


@asynccontextmanager
async def serving(
    *scripts: Any,
    preset: str = "generic",
    timeouts: Timeouts | None = None,
    overrides: dict[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[tuple[ScriptedServer, ChatCompletions]]:
    async with ScriptedServer(*scripts) as server:
        backend = ChatCompletions(
            server.url, settings=resolve(preset, overrides), timeouts=timeouts or Timeouts(), **options
        )
        await backend.start()
        try:
            yield server, backend
        finally:
            await backend.close()


async def failure(doing: Awaitable[Any]) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        await doing
    assert caught.value.source == "backend"
    return caught.value
