"""`messages` → messages of the representation, in the order in which they came.

Each role has its own content: text for system and developer; text, images and files for user and tool; text, refusals,
reasoning and calls for the assistant. Reasoning is taken from `reasoning_content` or `reasoning`, the two names that
servers use for it, never from both. What the API had before `tools` is refused with the name of its replacement.
`translators.history` puts calls and results into turns.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import orjson

from dragoman.translators.errors import GatewayError
from dragoman.translators.fields import Given, Unread
from dragoman.translators.ir import Image, Message, Note, Part, Reasoning, Refusal, Text, ToolCall, ToolResult
from dragoman.translators.openai.catalogue import INERT, Catalogue
from dragoman.translators.openai.content import Media
from dragoman.translators.openai.reading import expect_text, filled_text, given_object, name_of, text_or_null
from dragoman.translators.openai.refusals import missing, unsupported, wrong_type, wrong_value
from dragoman.translators.protocol import Policy

_ROLES = "'system', 'developer', 'user', 'assistant' and 'tool'"
_TEXT_ONLY = ("text",)
_OF_USERS = ("text", "image_url", "file")
_OF_ASSISTANTS = ("text", "refusal")
_OF_TOOLS = _OF_USERS  # OpenAI takes text alone, other servers take images
_REASONING = ("reasoning_content", "reasoning")
_NAME = Note("field", "name")  # of a participant: templates have no place for it. Noted once
_AUDIO_AND_VIDEO = frozenset({"input_audio", "audio_url", "video_url", "input_video"})


class ChatConversation:
    """Reads `messages` one by one. `notes` grows with what is left out, `unread` with keys that nobody reads."""

    def __init__(self, tools: Catalogue, policy: Policy, notes: list[Note], unread: Unread) -> None:
        self.messages: list[Message] = []
        self._tools = tools
        self._notes = notes
        self._unread = unread
        self._media = Media(policy, notes)

    def read(self, messages: object) -> None:
        if not isinstance(messages, list):
            raise wrong_type("messages", "an array", messages)
        for index, message in enumerate(messages):
            path = f"messages[{index}]"
            if not isinstance(message, dict):
                raise wrong_type(path, "an object", message)
            given = self._unread.given(message, path)
            self.messages.append(self._message(given, path))
            given.close(INERT)

    def _message(self, message: Given, path: str) -> Message:
        role = expect_text(message, "role", path)
        if role != "tool" and message.get("name") is not None and _NAME not in self._notes:
            self._notes.append(_NAME)
        match role:
            case "system" | "developer":
                return Message(role, _content(message, path, _TEXT_ONLY, self._media))
            case "user":
                return Message(role, _content(message, path, _OF_USERS, self._media))
            case "assistant":
                return Message(role, self._assistant(message, path))
            case "tool":
                return Message(role, (self._result(message, path),))
            case "function":
                raise _legacy(f"{path}.role", "Messages of role 'function' are not supported: use role 'tool'.")
            case other:
                raise wrong_value(f"{path}.role", other, _ROLES)

    def _assistant(self, message: Given, path: str) -> tuple[Part, ...]:
        if message.get("function_call") is not None:
            raise _legacy(f"{path}.function_call", "'function_call' is not supported: use 'tool_calls'.")
        if message.get("audio") is not None:
            raise unsupported(f"{path}.audio", "Audio is not supported by this gateway.")
        parts: list[Part] = []
        reasoning = next((text for key in _REASONING if (text := text_or_null(message, key, path))), None)
        if reasoning:
            parts.append(Reasoning(reasoning))
        if message.get("content") is not None:
            parts += _content(message, path, _OF_ASSISTANTS, self._media)
        if refusal := text_or_null(message, "refusal", path):
            parts.append(Refusal(refusal))
        parts += self._calls(message.get("tool_calls"), f"{path}.tool_calls")
        return tuple(parts) or (Text(""),)

    def _calls(self, calls: object, path: str) -> list[ToolCall]:
        if calls is None:
            return []
        if not isinstance(calls, list):
            raise wrong_type(path, "an array", calls)
        return [self._call(call, f"{path}[{index}]") for index, call in enumerate(calls)]

    def _call(self, value: Any, path: str) -> ToolCall:
        if not isinstance(value, dict):
            raise wrong_type(path, "an object", value)
        call = self._unread.given(value, path)
        call.pass_over("index")  # of the delta that it came in
        read = self._read_call(call, path)
        call.close()
        return read

    def _read_call(self, call: Given, path: str) -> ToolCall:
        id = filled_text(call, "id", path)
        match text_or_null(call, "type", path):
            case None | "function":
                owner, place = given_object(call, "function", path), f"{path}.function"
                arguments, name = expect_text(owner, "arguments", place), name_of(owner, place)
                owner.close()
                return ToolCall(id, self._tools.name("function", name), arguments)
            case "custom":
                owner, place = given_object(call, "custom", path), f"{path}.custom"
                text, name = expect_text(owner, "input", place), name_of(owner, place)
                owner.close()
                return ToolCall(id, self._tools.name("custom", name), orjson.dumps({"input": text}).decode())
            case other:
                raise wrong_value(f"{path}.type", other, "'function' and 'custom'")

    def _result(self, message: Given, path: str) -> ToolResult:
        id = filled_text(message, "tool_call_id", path)
        message.pass_over("name")  # of the tool, which the call has
        parts = _content(message, path, _OF_TOOLS, self._media)
        return ToolResult(id, tuple(part for part in parts if isinstance(part, Text | Image)))


def _content(message: Given, path: str, kinds: Collection[str], media: Media) -> tuple[Text | Refusal | Image, ...]:
    """`content`, a string or a list of parts of these kinds, as at least one part."""
    content, path = message.get("content"), f"{path}.content"
    if isinstance(content, str):
        return (Text(content),)
    if isinstance(content, list):
        parts = [_part(message, part, f"{path}[{index}]", kinds, media) for index, part in enumerate(content)]
        return tuple(parts) or (Text(""),)
    if "content" not in message:
        raise missing(path)
    raise wrong_type(path, "a string or an array of content parts", content)


def _part(message: Given, value: Any, path: str, kinds: Collection[str], media: Media) -> Text | Refusal | Image:
    if not isinstance(value, dict):
        raise wrong_type(path, "an object", value)
    part = message.inner(value, path)
    read = _read_part(part, path, kinds, media)
    part.close(INERT)
    return read


def _read_part(part: Given, path: str, kinds: Collection[str], media: Media) -> Text | Refusal | Image:
    kind = expect_text(part, "type", path)
    if kind in _AUDIO_AND_VIDEO:
        raise unsupported(f"{path}.type", f"Content of type '{kind}' is not supported by this gateway.")
    if kind not in kinds:
        raise wrong_value(f"{path}.type", kind, ", ".join(f"'{one}'" for one in kinds))
    match kind:
        case "text":
            return Text(expect_text(part, "text", path))
        case "refusal":
            return Refusal(expect_text(part, "refusal", path))
        case "file":
            owner = given_object(part, "file", path)
            file = media.file(owner, f"{path}.file")
            owner.close()
            return file
        case _:
            return _image(part, path, media)


def _image(part: Given, path: str, media: Media) -> Image | Text:
    """`image_url` is an object; a bare string, which some clients send, means the same."""
    if isinstance(part.get("image_url"), str):
        return media.image(part, path)
    owner = given_object(part, "image_url", path)
    image = media.image(owner, f"{path}.image_url", "url")
    owner.close()
    return image


def _legacy(path: str, message: str) -> GatewayError:
    return unsupported(path, message, "unsupported_parameter")
