"""A folder with a model's own chat template and tokenizer: its files read, and long prompts made off the event loop.

This is where the files, the threads and today's date of `backends.prompts` are, which itself is pure. The packages come
with the extra `tokenizer` and are not imported until they are needed; where they are missing, the error says what
installs them. Reading a large vocabulary takes a second and a hundred megabytes, so it happens once for each folder, in
a thread.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import os
import stat
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dragoman.backends.prompts.rendering import Rendering
from dragoman.backends.prompts.tokenizer_config import chat_templates, eos_ids, special_tokens, unusable
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Image, Request, Text, ToolCall, ToolResult

if TYPE_CHECKING:
    from dragoman.backends.prompts.prompt import Prompt, Rendered
    from dragoman.backends.prompts.template import ChatTemplate
    from dragoman.backends.prompts.tokenizer import Tokenizer

log = logging.getLogger(__name__)

INSTALL = "pip install 'dragoman[tokenizer]'"
RENDER_IN_THREAD = 16_384  # characters of a conversation from which on it is rendered off the event loop
ENCODE_IN_THREAD = 8_192  # characters of a text from which on it is encoded off the event loop


def module(name: str) -> Any:
    """`backends.prompts.name`, or `GatewayError` INVALID with the command that installs what it needs."""
    try:
        return importlib.import_module(f"dragoman.backends.prompts.{name}")
    except ImportError as error:
        said = str(error).removesuffix(f": {INSTALL}")
        message = f"packages for prompts are not installed ({said}): {INSTALL}"
        raise GatewayError(Kind.INVALID, message, "backend") from None


def require_packages() -> None:
    """Raises `GatewayError` INVALID where the extra is missing, before the gateway listens."""
    for name in ("template", "tokenizer", "prompt"):
        module(name)


# ------------------------------------------------------------------------------------------------------------ the files


@lru_cache(maxsize=8)
def read(folder: Path) -> tuple[ChatTemplate, Tokenizer]:
    """Template and tokenizer, shared by the replicas of a model. What the template prints is found out here, in the
    thread that reads, and what cannot be found out is logged."""
    template = read_template(folder)
    for fault in template.faults:
        log.warning("the chat template in %s fails on %s", folder, fault)
    return template, read_tokenizer(folder)


def read_template(folder: Path) -> ChatTemplate:
    """From `chat_template.jinja` or `tokenizer_config.json`; raises `GatewayError` INVALID where there is none."""
    config = read_json(folder / "tokenizer_config.json")
    templates = chat_templates(config)
    for name, file in (
        ("default", "chat_template.jinja"),
        ("tool_use", "additional_chat_templates/tool_use.jinja"),
    ):
        if (text := _read_text(folder / file)) is not None:
            templates[name] = text
    tool_use = templates.get("tool_use")
    source = templates.get("default", tool_use)
    if source is None:
        raise unusable(f"there is no chat template in {folder}: neither chat_template.jinja nor tokenizer_config.json")
    template: ChatTemplate = module("template").ChatTemplate(source, with_tools=tool_use, tokens=special_tokens(config))
    return template


def read_tokenizer(folder: Path) -> Tokenizer:
    """Raises `GatewayError` INVALID where there is no readable tokenizer.json."""
    file = folder / "tokenizer.json"
    if reason := why_unreadable(file, f"there is no tokenizer.json in {folder}"):
        raise unusable(reason)
    ends = [id for name in ("generation_config.json", "config.json") for id in eos_ids(read_json(folder / name))]
    eos_token = special_tokens(read_json(folder / "tokenizer_config.json")).get("eos_token")
    tokenizer: Tokenizer = module("tokenizer").Tokenizer.from_json(file.read_bytes(), ends, eos_token)
    return tokenizer


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object in a file; {} where there is none. Raises `GatewayError` INVALID for anything else."""
    text = _read_text(path)
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except ValueError as error:
        raise unusable(f"{path.name} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise unusable(f"{path.name} is not a JSON object")
    return value


def _read_text(path: Path) -> str | None:
    """None where there is no such file."""
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else None
    except UnicodeDecodeError:
        raise unusable(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise unusable(f"{path} cannot be read: {error.strerror}") from None


def why_unreadable(path: Path, missing: str) -> str:
    """Why a file or a folder cannot be read, `missing` where there is none; "" where it can be."""
    try:
        mode = path.stat().st_mode  # `is_dir` and `is_file` raise for some reasons and give False for others
        if stat.S_ISDIR(mode):
            os.scandir(path).close()
        elif stat.S_ISREG(mode):
            path.open("rb").close()
        else:
            return missing
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last of a path with a zero byte
        return missing
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    return ""


# -------------------------------------------------------------------------------------------------- off the event loop


async def build(prompt: Prompt, request: Request) -> Rendered:
    """`prompt.build`, in a thread where it takes long."""
    if _size(request) < RENDER_IN_THREAD:
        return prompt.build(request, strftime_now=today)
    return await asyncio.to_thread(prompt.build, request, strftime_now=today)


async def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """`tokenizer.encode`, in a thread where it takes long."""
    if len(text) < ENCODE_IN_THREAD:
        return tokenizer.encode(text)
    return await asyncio.to_thread(tokenizer.encode, text)


def today(format: str) -> str:
    """Today's midnight, for templates that print the date: a prompt with the minute in it is never a prefix of the
    next."""
    return datetime.now().replace(hour=0, minute=0, second=0, microsecond=0).strftime(format)


def _size(request: Request) -> int:
    """Characters, roughly: enough to know a question from an agent's conversation."""
    size = 1_000 * len(request.tools)
    for message in request.messages:
        for part in message.parts:
            match part:
                case ToolCall():
                    size += len(part.arguments)
                case ToolResult():
                    size += sum(len(item.text) for item in part.content if isinstance(item, Text))
                case Image():
                    pass
                case _:
                    size += len(part.text)
    return size


class PromptCounter:
    """Counts prompts for a chat server that cannot. The template here must be the one that the server uses."""

    def __init__(self, folder: Path, settings: Rendering) -> None:
        require_packages()
        missing = f"there is no folder {folder}"
        if reason := why_unreadable(folder, missing) or ("" if folder.is_dir() else missing):
            raise GatewayError(Kind.INVALID, f"setting tokenizer: {reason}", "tokenizer")
        self._folder = folder.resolve()
        self._settings = settings
        self._prompt: Prompt | None = None
        self._reading = asyncio.Lock()

    async def count(self, request: Request) -> int:
        async with self._reading:
            if self._prompt is None:
                template, tokenizer = await asyncio.to_thread(read, self._folder)
                # the server's name for a thought is not the template's; where messages go is as it is sent
                told = {
                    "reasoning_field": None,
                    "system_messages": self._settings.system_messages,
                    "turns": self._settings.turns,
                }
                settings = self._settings.model_copy(update=told)
                thoughts = self._settings.reasoning_field is not None
                self._prompt = module("prompt").Prompt(settings, template, tokenizer, thoughts=thoughts)
        assert self._prompt is not None
        return (await build(self._prompt, request)).count
