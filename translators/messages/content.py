"""`system` and `messages` → messages of the representation.

Rules: system messages keep their places; consecutive messages of one role become one; the results in a user message
become `tool` messages before the rest of it (`translators.history` then puts them in the order of the calls). What
would spoil a prefix cache, `cache_control` and Claude Code's attribution line, does not reach the prompt. Thinking is
taken from its text or, where that is empty, from our own seal in its signature; a foreign signature is not an error.
Three kinds of blocks are read elsewhere: those that change the tools (`deferred`), searches where the gateway runs them
(`searches`), and those that another system wrote (`foreign`).
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from typing import Any

from dragoman.translators.fields import Given, Unread
from dragoman.translators.ir import Image, Message, Note, Part, Reasoning, Text, ToolCall, ToolResult
from dragoman.translators.messages import media
from dragoman.translators.messages.deferred import ToolChanges
from dragoman.translators.messages.foreign import ForeignBlocks
from dragoman.translators.messages.reading import (
    INERT,
    as_object,
    expect_object,
    expect_text,
    given_element,
    given_object,
    optional_text,
    refused,
    wrong_tag,
)
from dragoman.translators.messages.searches import EarlierSearches
from dragoman.translators.messages.tools import MessagesCatalogue, dumps, upstream_name
from dragoman.translators.protocol import Context
from dragoman.translators.seen import read_each
from dragoman.translators.unreadable import Unreadable
from dragoman.translators.web_search import NAME

# Claude Code's first system block. It differs between conversations, so it would make every prefix differ.
_ATTRIBUTION = re.compile(r"x-anthropic-billing-header:[^\n]*+\s*+")


def system_text(system: object, path: str, unread: Unread) -> str:
    """A system prompt (a string or text blocks) as one text without the attribution, which is a first block and nothing
    else in it: whatever else begins like it is the client's own text."""
    if isinstance(system, str):
        texts = [system]
    elif isinstance(system, list):
        texts = []
        for index, block in enumerate(system):
            place = f"{path}.{index}"
            given = unread.given(as_object(block, place), place)
            if (kind := given.get("type")) != "text":
                raise wrong_tag(place, kind, "'text'")
            texts.append(expect_text(given, "text", place))
            given.close(INERT)
    else:
        raise refused(path, "Input should be a valid string or list of text blocks")
    if texts and _ATTRIBUTION.fullmatch(texts[0]):
        del texts[0]
    return "\n\n".join(text for text in texts if text)


class MessagesConversation:
    """Reads messages one by one into `messages`. `notes` grows with what is left out, `unread` with unknown keys.
    `key` is that of `translators.seen.read_each`."""

    def __init__(
        self,
        catalogue: MessagesCatalogue,
        context: Context,
        notes: list[Note],
        unread: Unread,
        key: Hashable = None,
    ) -> None:
        self.messages: list[Message] = []
        self.effort: str | None = None  # the last one that a system message asked for
        self._catalogue = catalogue
        self._context = context
        self._notes = notes
        self.unread = unread
        self._key = key
        self._opens = 0  # how often sealed text was looked at, which only its key can open
        self._last_user = -1  # index of the user's last message
        self._unreadable = Unreadable(context.policy, notes, "document")
        self._tools = ToolChanges(catalogue, context.policy, notes)
        self._foreign = ForeignBlocks(context.policy)
        searching = catalogue.search.tool if catalogue.search is not None else NAME
        self._searches = EarlierSearches(searching) if context.policy.web_search else None

    def read(self, messages: list[Any]) -> None:
        deferred = tuple(self._catalogue.deferred)
        self._last_user = _last_user(messages)
        read_each(messages, self, None if self._key is None else (self._key, deferred))
        self._tools.chosen()
        self._notes.extend(self._foreign.notes())
        self.messages = _joined(self.messages)
        if self._searches is not None:
            self._notes.extend(self._searches.notes())

    def element(self, value: Any, index: int) -> None:
        path = f"messages.{index}"
        given = self.unread.given(as_object(value, path), path)
        match given.get("role"):
            case "user":
                self._user(given, path)
            case "assistant":
                self._assistant(given, path)
            case "system":
                self._system(given, path, index)
            case None if "role" not in given:
                raise refused(f"{path}.role", "Field required")
            case _:
                raise refused(f"{path}.role", "Input should be 'user', 'assistant' or 'system'")
        given.close(INERT)

    def state(self) -> object:
        tools = self._catalogue
        return (
            len(self._notes), self.unread.total, len(tools.tools), len(tools.deferred), len(tools.names), self.effort,
            self._opens,
            self._foreign.total,
        )  # fmt: skip

    def plain(self, value: Any) -> bool:
        content = value.get("content", "")
        plain = isinstance(content, str) or all(block.get("type") in _PLAIN for block in content)
        return plain and value.get("clear_at") is None

    def system(self, text: str) -> None:
        if text:
            self.messages.append(Message("system", (Text(text),)))

    # ----------------------------------------------------------------------------------------------------------- system

    def _system(self, message: Given, path: str, index: int) -> None:
        """A system message in the conversation; what it says about effort counts from there on, and without anything
        else it says only that. Its text may be meant for one turn alone."""
        configures = message.get("output_config") is not None
        if configures:
            config = given_object(message, "output_config", path)
            self.effort = optional_text(config, "effort", f"{path}.output_config") or self.effort
            config.close()
        cleared = _clears(message) and index < self._last_user
        parts: list[Part] = []
        for block, place in _blocks(message, path) if "content" in message or not configures else ():
            part = self._system_part(block, place)
            if part is not None and not (cleared and block["type"] == "text"):
                parts.append(part)
            block.close(INERT)
        if parts:
            self.messages.append(Message("system", _paragraphs(parts)))

    def _system_part(self, block: Given, path: str) -> Text | None:
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

    def _user(self, message: Given, path: str) -> None:
        parts: list[Part] = []
        results = 0
        for block, place in _blocks(message, path):
            if block.get("type") == "tool_result":
                self.messages.append(Message("tool", (self._result(block, place),)))
                results += 1
            else:
                parts += self._shown(block, place, said=True)
            block.close(INERT)
        if parts or not results:
            self.messages.append(Message("user", tuple(parts or [Text("")])))  # with nothing to show, still a turn

    def _result(self, block: Given, path: str) -> ToolResult:
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
            given = given_element(block, inner, place)
            match given.get("type"):
                case "tool_reference":
                    parts.append(self._tools.reference(given, place))
                case "browser_state":
                    parts.append(Text(f"Browser state: {dumps({k: given[k] for k in given if k in _STATE_KEYS})}"))
                case _:
                    parts += self._shown(given, place, said=True)
            given.close(INERT)
        return ToolResult(call_id, tuple(parts) or (Text(""),), bool(is_error))

    # -------------------------------------------------------------------------------------------------------- assistant

    def _assistant(self, message: Given, path: str) -> None:
        parts: list[Part] = []
        for block, place in _blocks(message, path):
            match block.get("type"):
                case "thinking":
                    parts += self._thinking(block, place)
                case "redacted_thinking":
                    parts += self._redacted(block, place)
                case "tool_use":
                    parts.append(self._call(block, place))
                case "server_tool_use" if self._searches is not None and self._searches.call(block, place):
                    pass  # it is shown with its result
                case "web_search_tool_result" if self._searches is not None:
                    self.messages += self._searches.result(block, place, parts)
                    parts = []
                case "image":
                    raise wrong_tag(place, "image", "'text', 'thinking', 'redacted_thinking', 'tool_use'")
                case _:
                    parts += self._shown(block, place)
            block.close(INERT)
        if parts:
            self.messages.append(Message("assistant", tuple(parts)))

    def _thinking(self, block: Given, path: str) -> list[Part]:
        text, signature = expect_text(block, "thinking", path), optional_text(block, "signature", path)
        if text.strip():
            return [Reasoning(text)]
        return self._opened(signature or "", "thinking")

    def _redacted(self, block: Given, path: str) -> list[Part]:
        return self._opened(expect_text(block, "data", path), "redacted_thinking")

    def _opened(self, sealed: str, kind: str) -> list[Part]:
        self._opens += 1
        text = self._context.open(sealed) if sealed and self._context.open is not None else None
        if not text and sealed:
            self._notes.append(Note("item", kind))
        return [Reasoning(text)] if text else []

    def _call(self, block: Given, path: str) -> ToolCall:
        call_id, name = expect_text(block, "id", path), expect_text(block, "name", path)
        for key, value in (("id", call_id), ("name", name)):
            if not value:
                raise refused(f"{path}.{key}", "String should have at least 1 character")
        if (caller := block.get("caller")) != _DIRECT:
            self.unread.add(path, {"caller": caller})
        upstream = upstream_name(name)
        if upstream != name:
            self._catalogue.names.setdefault(upstream, name)
        self._tools.called(upstream)
        return ToolCall(call_id, upstream, dumps(expect_object(block, "input", path)))

    # ------------------------------------------------------------------------------------------------------ any content

    def _shown(self, block: Given, path: str, *, said: bool = False) -> list[Text | Image]:
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
                    return [
                        *foreign,
                        *(self._tools.compacted(block, path) if other == "compaction" and foreign else ()),
                    ]
                raise wrong_tag(path, other, "'text', 'image', 'document', 'search_result', 'tool_use', 'tool_result'")


def _last_user(messages: list[Any]) -> int:
    last = len(messages) - 1
    while last >= 0 and not (isinstance(messages[last], dict) and messages[last].get("role") == "user"):
        last -= 1
    return last


def _clears(message: Given) -> bool:
    """Whether the next message of the user's takes the place of this one's text."""
    when = message.peek("clear_at")
    if when in ("never", _NEXT_USER):
        message.pass_over("clear_at")
    return bool(when == _NEXT_USER)


def _joined(messages: Iterable[Message]) -> list[Message]:
    """Consecutive user messages as one, whose last alone is asked about. Consecutive assistant ones become one in
    `translators.history`."""
    out: list[Message] = []
    for role, group in groupby(messages, key=lambda message: message.role):
        same = list(group)
        if role != "user" or len(same) == 1:
            out += same
            continue
        *before, last = same
        past = [replace(p, past=True) if isinstance(p, Image) else p for message in before for p in message.parts]
        out.append(Message("user", (*past, *last.parts)))
    return out


def _paragraphs(parts: Iterable[Part]) -> tuple[Part, ...]:
    """Adjacent texts as one, with blank lines between them."""
    out: list[Part] = []
    for kind, group in groupby(parts, key=type):
        same = list(group)
        out += [Text("\n\n".join(part.text for part in same if isinstance(part, Text)))] if kind is Text else same
    return tuple(out)


# Blocks that change nothing but the messages, unless they name a tool or hold what is sealed.
_PLAIN = frozenset({"text", "thinking", "tool_use", "tool_result"})
_DIRECT = {"type": "direct"}  # as in every answer of ours
_STATE_KEYS = ("tabs", "state_changes")
_NEXT_USER = "next_user_message"


def _blocks(message: Given, path: str) -> Iterator[tuple[Given, str]]:
    """The blocks of `content`, each with its path, to be closed when they are read. A string is short for one text
    block."""
    content, path = message.get("content"), f"{path}.content"
    if "content" not in message:
        raise refused(path, "Field required")
    if isinstance(content, str):
        content = [{"type": "text", "text": content}] if content else []
    if not isinstance(content, list):
        raise refused(path, "Input should be a valid string or list of content blocks")
    for index, block in enumerate(content):
        yield given_element(message, block, f"{path}.{index}"), f"{path}.{index}"
