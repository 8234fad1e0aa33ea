"""A folder with a model's own chat template and tokenizer: opened without the packages until they are needed.

The packages come with the extra `tokenizer`; where they are missing, the error says what installs them. Reading takes a
second and a hundred megabytes for a large vocabulary, so it happens once for a folder and in a thread.
"""

from __future__ import annotations

import asyncio
import importlib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dragoman.backends.chat.settings import Settings
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Request

if TYPE_CHECKING:
    from dragoman.backends.prompts.prompt import Prompt

INSTALL = "pip install 'dragoman[tokenizer]'"


def module(name: str) -> Any:
    """`backends.prompts.name`, or `GatewayError` INVALID with the command that installs what it needs."""
    try:
        return importlib.import_module(f"dragoman.backends.prompts.{name}")
    except ImportError as error:
        said = str(error).removesuffix(f": {INSTALL}")
        message = f"packages for prompts are not installed ({said}): {INSTALL}"
        raise GatewayError(Kind.INVALID, message, "backend") from None


@lru_cache(maxsize=8)
def read(folder: Path) -> tuple[Any, Any]:
    """Template and tokenizer, shared by the replicas of a model."""
    return module("template").ChatTemplate.from_directory(folder), module("tokenizer").Tokenizer.from_directory(folder)


class PromptCounter:
    """How long a prompt is, for a chat server that cannot tell. The template here must be the one that the server
    uses."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        for name in ("template", "tokenizer", "prompt"):
            module(name)  # what is missing is said before the gateway listens
        if not folder.is_dir():
            raise GatewayError(Kind.INVALID, f"setting tokenizer: there is no folder {folder}", "tokenizer")
        self._folder = folder.resolve()
        self._settings = settings
        self._prompt: Prompt | None = None
        self._reading = asyncio.Lock()

    async def count(self, request: Request) -> int:
        async with self._reading:
            if self._prompt is None:
                template, tokenizer = await asyncio.to_thread(read, self._folder)
                self._prompt = module("prompt").Prompt(self._settings, template, tokenizer)
        assert self._prompt is not None
        return await self._prompt.count(request)
