"""`local:`, the small real model on the CPU: a child process (`backends.local.child`) with the chat backend as its
client.

What is special about it is in `SETTINGS`: the model's template drops tools in silence, so a forced call is made by
constrained decoding and optional tools are left out, with a note; and the child's address changes with each
restart, so it is asked for before every request. Counting, health and errors are those of any llama.cpp server.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from dragoman.backends.base import Health, ModelInfo, Prepared, Sink, Traits
from dragoman.backends.chat.backend import ChatCompletions
from dragoman.backends.chat.settings import Settings, resolve
from dragoman.backends.local.child import MODEL_NAME, WINDOW, LocalModel
from dragoman.backends.reader import Timeouts
from dragoman.translators.ir import Request
from dragoman.translators.parts import ANSWER_BYTES

SETTINGS = {
    "max_tokens_default": 2048,  # it has no sense of an end and would ramble for minutes
    "tools": "forced_only",  # SmolLM2's template has no tools: they would be lost silently
    "force_tool": "schema",
    "images": False,
    "thinking": "none",
    "thinking_budget_field": None,
    "reasoning_field": None,
}


class Local:
    def __init__(
        self,
        overrides: dict[str, Any] | None = None,
        *,
        timeouts: Timeouts | None = None,
        answer_bytes: int = ANSWER_BYTES,
        name: str | None = None,
    ) -> None:
        self._settings: Settings = resolve("llama.cpp", SETTINGS | (overrides or {}))
        self._timeouts = timeouts or Timeouts()
        self._answer_bytes = answer_bytes
        self._name = name or "local"
        self._model = LocalModel()
        self.learned: Callable[[str], None] = lambda field: None
        self._url = ""
        self._chat = self._client("http://127.0.0.1:0/v1")  # until the child has reported its address

    @property
    def name(self) -> str:
        return self._name

    @property
    def traits(self) -> Traits:
        return self._chat.traits

    async def start(self) -> None:
        await self._model.start()
        await self._current()

    async def close(self) -> None:
        await self._chat.close()
        await self._model.close()

    async def prepare(self, request: Request) -> Prepared:
        return await self._chat.prepare(request)

    async def stream(self, prepared: Prepared, sink: Sink) -> None:
        await (await self._current()).stream(prepared, sink)

    async def health(self) -> Health:
        if not self._model.alive:
            return Health("asleep", f"the local model is {self._model.state.value}", retry_after=2.0)
        return await (await self._current()).health()

    async def models(self) -> list[ModelInfo]:
        listed = await (await self._current()).models()
        return [replace(model, window=model.window or WINDOW) for model in listed if model.id == MODEL_NAME]

    async def wake(self) -> None:
        await self._chat.wake()

    async def count(self, prepared: Prepared) -> int | None:
        return await (await self._current()).count(prepared)

    async def _current(self) -> ChatCompletions:
        """The client of the child that lives now; waits, bounded, while one starts."""
        url = await self._model.ready()
        if url != self._url:
            await self._chat.close()
            self._url, self._chat = url, self._client(url)
            await self._chat.start()
        return self._chat

    def _client(self, url: str) -> ChatCompletions:
        settings, timeouts = self._settings, self._timeouts
        client = ChatCompletions(
            url,
            settings=settings,
            model=MODEL_NAME,
            timeouts=timeouts,
            answer_bytes=self._answer_bytes,
            name=self._name,
        )
        client.learned = lambda field: self.learned(field)
        return client
