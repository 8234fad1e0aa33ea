"""`system` and `messages` → messages of the representation.

Rules: system messages keep their places; consecutive messages of one role become one; the results in a user message
become `tool` messages before the rest of it (`translators.history` then puts them in the order of the calls). What
would spoil a prefix cache, `cache_control` and Claude Code's attribution line, does not reach the prompt. Thinking is
taken from its text or, where that is empty, from our own seal in its signature; a foreign signature is not an error.
Two kinds of blocks are read elsewhere: those that change the tools (`deferred`), and those that another system wrote
(`foreign`).
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import orjson

from dragoman.translators.ir import Image, Message, Note, Part, Reasoning, Role, Text, ToolCall, ToolResult
from dragoman.translators.messages import media
from dragoman.translators.messages.deferred import ToolChanges
from dragoman.translators.messages.foreign import ForeignBlocks
from dragoman.translators.messages.reading import (
    as_object,
    expect_object,
    expect_text,
    optional_text,
    refused,
    wrong_tag,
)
from dragoman.translators.messages.tools import MessagesCatalogue, upstream_name
from dragoman.translators.protocol import Context, Json
from dragoman.translators.unreadable import Unreadable

# Claude Code's first system block. It differs between conversations, so it would make every prefix differ.
_ATTRIBUTION = re.compile(r"x-anthropic-billing-header:[^\n]*\s*")


def system_text(system: object, path: str) -> str:
    """A system prompt (a string or text blocks) as one text without the attribution, which is a first block and nothing
    else in it: whatever else begins like it is the client's own text."""
    if isinstance(system, str):
        texts = [system]
    elif isinstance(system, list):
        texts = []
        for index, block in enumerate(system):
            place = f"{path}.{index}"
            if (kind := as_object(block, place).get("type")) != "text":
                raise wrong_tag(place, kind, "'text'")
            texts.append(expect_text(block, "text", place))
    else:
        raise refused(path, "Input should be a valid string or list of text blocks")
    if texts and _ATTRIBUTION.fullmatch(texts[0]):
        del texts[0]
    return "\n\n".join(text for text in texts if text)


class MessagesConversation:
    """Reads messages one by one into `messages`. `notes` grows with what is left out."""

    def __init__(self, catalogue: MessagesCatalogue, context: Context, notes: list[Note]) -> None:
        self.messages: list[Message] = []
        self.effort: str | None = None  # the last one that a system message asked for
        self._catalogue = catalogue
        self._context = context
        self._notes = notes
        self._unreadable = Unreadable(context.policy, notes, "document")
        self._tools = ToolChanges(catalogue, context.policy, notes)
        self._foreign = ForeignBlocks(context.policy, notes)

    def read(self, messages: list[Any]) -> None:
        for index, message in enumerate(messages):
            path = f"messages.{index}"
            given = as_object(message, path)
            match given.get("role"):
                case "user":
                    self._user(_blocks(given, path), f"{path}.content")
                case "assistant":
                    self._assistant(_blocks(given, path), f"{path}.content")
                case "system":
                    self._system(given, path)
                case None if "role" not in given:
                    raise refused(f"{path}.role", "Field required")
                case _:
                    raise refused(f"{path}.role", "Input should be 'user', 'assistant' or 'system'")
        self._tools.chosen()

    def system(self, text: str) -> None:
        if text:
            self.messages.append(Message("system", (Text(text),)))

    def _add(self, role: Role, parts: list[Part]) -> None:
        """Consecutive user messages become one here, consecutive assistant ones in `translators.history`."""
        last = self.messages[-1] if self.messages else None
        if role == "user" and last is not None and last.role == "user":
            before = [replace(part, past=True) if isinstance(part, Image) else part for part in last.parts]
            self.messages[-1] = Message("user", (*before, *parts))
        else:
            self.messages.append(Message(role, tuple(parts)))

    # ----------------------------------------------------------------------------------------------------------- system

    def _system(self, message: Json, path: str) -> None:
        """A system message in the conversation; what it says about effort counts from there on."""
        if (config := message.get("output_config")) is not None:
            place = f"{path}.output_config"
            self.effort = optional_text(as_object(config, place), "effort", place) or self.effort
        parts: list[Part] = []
        for index, block in enumerate(_blocks(message, path)):
            place = f"{path}.content.{index}"
            part, last = self._system_part(as_object(block, place), place), parts[-1] if parts else None
            if type(part) is Text and type(last) is Text:
                parts[-1] = Text(f"{last.text}\n\n{part.text}")
            elif part is not None:
                parts.append(part)
        if parts:
            self.messages.append(Message("system", tuple(parts)))

    def _system_part(self, block: Json, path: str) -> Text | None:
        match block.get("type"):
            case "text":
                text = expect_text(block, "text", path)
                return Text(text) if text else None
            case "tool_addition":
                return self._tools.addition(block, path)
            case "tool_removal":
                return self._tools.removal(block, path)
            case other:
                if self._foreign.read(block, path) is None:
                    raise wrong_tag(path, other, "'text', 'tool_addition', 'tool_removal'")
                return None

    # ------------------------------------------------------------------------------------------------------------- user

    def _user(self, blocks: list[Any], path: str) -> None:
        parts: list[Part] = []
        results = 0
        for index, block in enumerate(blocks):
            place = f"{path}.{index}"
            given = as_object(block, place)
            if given.get("type") == "tool_result":
                self.messages.append(Message("tool", (self._result(given, place),)))
                results += 1
            else:
                parts += self._shown(given, place, said=True)
        if parts or not results:
            self._add("user", parts or [Text("")])  # a turn with nothing to show is still a turn

    def _result(self, block: Json, path: str) -> ToolResult:
        call_id = expect_text(block, "tool_use_id", path)
        if not call_id:
            raise refused(f"{path}.tool_use_id", "String should have at least 1 character")
        is_error = block.get("is_error")
        if is_error is not None and not isinstance(is_error, bool):
            raise refused(f"{path}.is_error", "Input should be a valid boolean")
        content = block.get("content")
        if content is None or isinstance(content, str):
            return ToolResult(call_id, (Text(content or ""),), bool(is_error))
        if not isinstance(content, list):
            raise refused(f"{path}.content", "Input should be a valid string or list of content blocks")
        parts: list[Text | Image] = []
        for index, inner in enumerate(content):
            place = f"{path}.content.{index}"
            given = as_object(inner, place)
            match given.get("type"):
                case "tool_reference":
                    parts.append(self._tools.reference(given, place))
                case "browser_state":
                    parts.append(Text(f"Browser state: {dumps({k: v for k, v in given.items() if k in _STATE_KEYS})}"))
                case _:
                    parts += self._shown(given, place, said=True)
        return ToolResult(call_id, tuple(parts) or (Text(""),), bool(is_error))

    # -------------------------------------------------------------------------------------------------------- assistant

    def _assistant(self, blocks: list[Any], path: str) -> None:
        parts: list[Part] = []
        for index, block in enumerate(blocks):
            place = f"{path}.{index}"
            given = as_object(block, place)
            match given.get("type"):
                case "thinking":
                    parts += self._thinking(given, place)
                case "redacted_thinking":
                    parts += self._redacted(given, place)
                case "tool_use":
                    parts.append(self._call(given, place))
                case "image":
                    raise wrong_tag(place, "image", "'text', 'thinking', 'redacted_thinking', 'tool_use'")
                case _:
                    parts += self._shown(given, place)
        if parts:
            self._add("assistant", parts)

    def _thinking(self, block: Json, path: str) -> list[Part]:
        text, signature = expect_text(block, "thinking", path), optional_text(block, "signature", path)
        if text.strip():
            return [Reasoning(text)]
        return self._opened(signature or "", "thinking")

    def _redacted(self, block: Json, path: str) -> list[Part]:
        return self._opened(expect_text(block, "data", path), "redacted_thinking")

    def _opened(self, sealed: str, kind: str) -> list[Part]:
        text = self._context.open(sealed) if sealed and self._context.open is not None else None
        if not text and sealed:
            self._notes.append(Note("item", kind))
        return [Reasoning(text)] if text else []

    def _call(self, block: Json, path: str) -> ToolCall:
        call_id, name = expect_text(block, "id", path), expect_text(block, "name", path)
        for key, value in (("id", call_id), ("name", name)):
            if not value:
                raise refused(f"{path}.{key}", "String should have at least 1 character")
        upstream = upstream_name(name)
        if upstream != name:
            self._catalogue.names.setdefault(upstream, name)
        self._tools.called(upstream)
        return ToolCall(call_id, upstream, dumps(expect_object(block, "input", path)))

    # ------------------------------------------------------------------------------------------------------ any content

    def _shown(self, block: Json, path: str, *, said: bool = False) -> list[Text | Image]:
        """`said`: by the user, or by a tool."""
        match block.get("type"):
            case "text":
                text = expect_text(block, "text", path)
                return [Text(text)] if text else []
            case "image":
                return [media.image(block, path, self._unreadable)]
            case "document":
                return media.document(block, path, self._unreadable)
            case "search_result":
                return media.search_result(block, path, self._unreadable)
            case other:
                if "type" not in block:
                    raise refused(f"{path}.type", "Field required")
                if (foreign := self._foreign.read(block, path, said=said)) is not None:
                    return [*foreign]
                raise wrong_tag(path, other, "'text', 'image', 'document', 'search_result', 'tool_use', 'tool_result'")


_STATE_KEYS = ("tabs", "state_changes")


def _content(message: Json, path: str) -> Any:
    if "content" not in message:
        raise refused(f"{path}.content", "Field required")
    return message["content"]


def _blocks(message: Json, path: str) -> list[Any]:
    """`content` as a list of blocks. A string is short for one text block."""
    content = _content(message, path)
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    if not isinstance(content, list):
        raise refused(f"{path}.content", "Input should be a valid string or list of content blocks")
    return content


def dumps(value: object) -> str:
    """JSON in one form, so that the same history always renders the same way."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # an integer beyond 64 bits or half a surrogate pair: valid JSON that orjson does not write
        return json.dumps(value, separators=(",", ":"))
