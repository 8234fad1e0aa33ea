"""`messages` → messages of the representation, in the order in which they came.

Each role has its own content: text for system and developer; text, images and files for user and tool; text, refusals,
reasoning and calls for the assistant. Reasoning is taken from `reasoning_content` or `reasoning`, the two names that
servers use for it, or from lists of it, never from two of them. Blocks of the Messages API and parts of Responses are
read too; a call or a thought that this API's own field has as well is taken once. What the API had before `tools` is
refused with the name of its replacement.
`translators.history` puts calls and results into turns.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import orjson

from dragoman.translators.chat_completions.foreign_shapes import part_of
from dragoman.translators.chat_completions.tools import ChatCatalogue
from dragoman.translators.errors import GatewayError
from dragoman.translators.fields import Given, Unread, noted
from dragoman.translators.ir import Image, Message, Note, Part, Reasoning, Refusal, Role, Text, ToolCall, ToolResult
from dragoman.translators.openai.catalogue import INERT
from dragoman.translators.openai.content import Media
from dragoman.translators.openai.reading import (
    expect_object,
    expect_text,
    filled_text,
    given_object,
    name_of,
    text_or_null,
)
from dragoman.translators.openai.refusals import missing, unsupported, wrong_type, wrong_value
from dragoman.translators.protocol import Policy
from dragoman.translators.seen import read_each

_ROLES = "'system', 'developer', 'user', 'assistant' and 'tool'"
_KINDS: dict[Role, tuple[str, ...]] = {
    "system": ("text",),
    "developer": ("text",),
    "user": ("text", "image_url", "file"),
    "assistant": ("text", "refusal"),
    "tool": ("text", "image_url", "file"),  # OpenAI takes text alone, other servers take images
}
_BLOCKS = frozenset(
    {
        ("assistant", "thinking"),
        ("assistant", "reasoning"),
        ("assistant", "tool_use"),
        ("assistant", "custom_tool_call"),
        ("user", "tool_result"),
        ("user", "image"),
        ("tool", "image"),
    }
)
_REASONING = ("reasoning_content", "reasoning")
_PREFILL = ("prefix", "partial")  # DeepSeek and Mistral, Moonshot
_DETAILS = ("reasoning_details", "thinking_blocks")
_TEXTS = ("text", "summary", "thinking")
_OF_DETAILS = frozenset({"type", "id", "index", "format", "signature"})
_NAME = Note("field", "name")  # of a participant: templates have no place for it. Noted once
# What servers of other APIs did within an answer, as LangChain keeps it: a refusal would end the session for good.
_OF_SERVERS = frozenset(
    {
        "code_interpreter_call",
        "compaction",
        "computer_call",
        "container_upload",
        "file_search_call",
        "image_generation_call",
        "mcp_approval_request",
        "mcp_call",
        "mcp_list_tools",
        "mcp_tool_use",
        "redacted_thinking",
        "server_tool_call",
        "server_tool_result",
        "server_tool_use",
        "web_search_call",
    }
)
_AUDIO_AND_VIDEO = frozenset({"input_audio", "audio_url", "video_url", "input_video"})


class ChatConversation:
    """Reads `messages` one by one. `notes` grows with what is left out, `unread` with keys that nobody reads. `key`
    is that of `translators.seen.read_each`."""

    def __init__(
        self, tools: ChatCatalogue, policy: Policy, notes: list[Note], unread: Unread, key: Hashable = None
    ) -> None:
        self.messages: list[Message] = []
        self.prefill = False  # the last message is the beginning of the answer
        self._tools = tools
        self._policy = policy
        self._notes = notes
        self.unread = unread
        self._key = key
        self._last = -1  # index of the last message
        self._media = Media(policy, notes)
        self._named = False  # a participant's name has been noted

    def read(self, messages: object) -> None:
        if not isinstance(messages, list):
            raise wrong_type("messages", "an array", messages)
        self._last = len(messages) - 1
        read_each(messages, self, self._key)

    def element(self, value: Any, index: int) -> None:
        path = f"messages[{index}]"
        if not isinstance(value, dict):
            raise wrong_type(path, "an object", value)
        given = self.unread.given(value, path)
        self._message(given, path)
        if index == self._last and any(given.peek(key) is True for key in _PREFILL):
            self.prefill = given.peek("role") == "assistant"
            if self.prefill:
                given.pass_over(*(key for key in _PREFILL if given.peek(key) is True))
        given.close(INERT)

    def state(self) -> object:
        return len(self._notes), self.unread.total, self._tools.size, self.prefill, self._named

    def plain(self, value: Any) -> bool:
        return True

    def _message(self, message: Given, path: str) -> None:
        role = expect_text(message, "role", path)
        if role != "tool" and message.get("name") is not None and not self._named:
            self._named = True
            self._notes.append(_NAME)
        match role:
            case "system" | "developer":
                self._add(role, self._content(message, path, role))
            case "user":
                self._user(message, path)
            case "assistant":
                self._add(role, self._assistant(message, path))
            case "tool":
                self._add(role, (self._result(message, path),))
            case "function":
                raise _legacy(f"{path}.role", "Messages of role 'function' are not supported: use role 'tool'.")
            case other:
                raise wrong_value(f"{path}.role", other, _ROLES)

    def _add(self, role: Role, parts: tuple[Part, ...]) -> None:
        self.messages.append(Message(role, parts))

    def _user(self, message: Given, path: str) -> None:
        """Results in the shape of the Messages API precede what else a user's message holds."""
        parts = self._content(message, path, "user")
        results = [part for part in parts if isinstance(part, ToolResult)]
        for result in results:
            self._add("tool", (result,))
        if len(results) < len(parts):
            self._add("user", tuple(part for part in parts if not isinstance(part, ToolResult)))

    def _assistant(self, message: Given, path: str) -> tuple[Part, ...]:
        if message.get("function_call") is not None:
            raise _legacy(f"{path}.function_call", "'function_call' is not supported: use 'tool_calls'.")
        if message.get("audio") is not None:
            raise unsupported(f"{path}.audio", "Audio is not supported by this gateway.")
        message.pass_over("parsed")  # what OpenAI's SDK made of an answer
        said = self._content(message, path, "assistant") if message.get("content") is not None else ()
        parts: list[Part] = []
        reasoning = _reasoning(message, path) or _reasoning_in_text(message.peek("content"))
        if reasoning and not any(isinstance(part, Reasoning) for part in said):
            parts.append(Reasoning(reasoning))
        parts += said
        if refusal := text_or_null(message, "refusal", path):
            parts.append(Refusal(refusal))
        known = {part.id for part in said if isinstance(part, ToolCall)}
        calls = self._calls(message.get("tool_calls"), f"{path}.tool_calls")
        parts += [call for call in calls if call.id not in known]
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
        call = self.unread.given(value, path)
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
                owner.pass_over("parsed_arguments")  # by OpenAI's SDK
                owner.close()
                return ToolCall(id, *self._tools.called(name, arguments))
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
        empty = "content" in message and message.get("content") is None  # of a tool that returned nothing
        parts: tuple[Part, ...] = (Text(""),) if empty else self._content(message, path, "tool")
        return ToolResult(id, tuple(part for part in parts if isinstance(part, Text | Image)))

    # ---------------------------------------------------------------------------------------------------------- parts

    def _content(self, message: Given, path: str, role: Role) -> tuple[Part, ...]:
        """`content`, a string or a list of parts that the role may have, as at least one part."""
        content, path = message.get("content"), f"{path}.content"
        if isinstance(content, str):
            return (Text(content),)
        if isinstance(content, list):
            parts = [self._part(message, part_of(part), f"{path}[{index}]", role) for index, part in enumerate(content)]
            return tuple(parts) or (Text(""),)
        if "content" not in message:
            raise missing(path)
        raise wrong_type(path, "a string or an array of content parts", content)

    def _part(self, message: Given, value: Any, path: str, role: Role) -> Part:
        if not isinstance(value, dict):
            raise wrong_type(path, "an object", value)
        part = message.inner(value, path)
        kind = expect_text(part, "type", path)
        if (role, kind) in _BLOCKS:
            read = self._block(part, kind, path)
        elif role == "assistant" and (kind in _OF_SERVERS or kind.endswith("_tool_result")):
            read = self._left_out(part, kind, path)
        else:
            read = self._read_part(part, kind, path, role)
        part.close(INERT)
        return read

    def _read_part(self, part: Given, kind: str, path: str, role: Role) -> Part:
        if kind in _AUDIO_AND_VIDEO:
            raise unsupported(f"{path}.type", f"Content of type '{kind}' is not supported by this gateway.")
        if kind not in _KINDS[role]:
            raise wrong_value(f"{path}.type", kind, ", ".join(f"'{one}'" for one in _KINDS[role]))
        match kind:
            case "text":
                if role == "assistant":
                    part.pass_over("role", *_REASONING)  # as `_reasoning_in_text` says
                return Text(expect_text(part, "text", path))
            case "refusal":
                return Refusal(expect_text(part, "refusal", path))
            case "file":
                owner = given_object(part, "file", path)
                file = self._media.file(owner, f"{path}.file")
                owner.close()
                return file
            case _:
                return _image(part, path, self._media)

    def _left_out(self, part: Given, kind: str, path: str) -> Text:
        if self._policy.hosted_tools == "reject" and kind not in ("compaction", "redacted_thinking"):
            message = f"Content of type '{kind[:64]}' cannot be taken up by this gateway."
            raise unsupported(f"{path}.type", message)
        part.pass_over(*part)  # noted as a whole
        self._notes.append(noted("item", kind))
        return Text("")

    def _block(self, part: Given, kind: str, path: str) -> Part:
        """A block of the Messages API, or an item of Responses among the parts, as LangChain has them."""
        match kind:
            case "reasoning":
                text = _item_thoughts(part)
                return Reasoning(text) if text else Text("")
            case "thinking":
                part.pass_over("signature", "closed")
                return _thought(part, path)
            case "tool_use":
                name, id = name_of(part, path), filled_text(part, "id", path)
                arguments = orjson.dumps(expect_object(part, "input", path)).decode()
                return ToolCall(id, self._tools.name("function", name), arguments)
            case "custom_tool_call":
                part.pass_over("id", "status", "index")
                name, id = name_of(part, path), filled_text(part, "call_id", path)
                arguments = orjson.dumps({"input": expect_text(part, "input", path)}).decode()
                return ToolCall(id, self._tools.name("custom", name), arguments)
            case "tool_result":
                id = filled_text(part, "tool_use_id", path)
                content = self._content(part, path, "tool") if part.get("content") is not None else (Text(""),)
                shown = tuple(one for one in content if isinstance(one, Text | Image))
                return ToolResult(id, shown, part.get("is_error") is True)
            case _:
                source = given_object(part, "source", path)
                image = self._media.source(source, f"{path}.source")
                source.close()
                return image


def _thought(part: Given, path: str) -> Reasoning:
    """A block of thought, whose text may come in chunks, as Mistral's SDK keeps it."""
    if not _are_objects(chunks := part.peek("thinking")):
        return Reasoning(expect_text(part, "thinking", path))
    part.pass_over("thinking")
    texts: list[str] = []
    for index, chunk in enumerate(chunks):
        place = f"{path}.thinking[{index}]"
        given = part.inner(chunk, place)
        if given.get("type") == "text":
            texts.append(expect_text(given, "text", place))
        given.close()  # what is not text refers to a source
    return Reasoning("".join(texts))


def _reasoning(message: Given, path: str) -> str:
    """What the model thought: from one of the two fields of servers, or as OpenRouter and LiteLLM keep it."""
    found = next((text for key in _REASONING if (text := text_or_null(message, key, path))), "")
    if not found:
        found = next((text for key in _DETAILS if (text := _thoughts(message, key, path))), "")
    if found:  # the others say the same
        message.pass_over(*_REASONING, *(key for key in _DETAILS if _are_objects(message.peek(key))))
    return found


def _reasoning_in_text(content: object) -> str:
    """The same in a text part: OpenAI's Agents SDK for JavaScript sends it back with the fields of its message."""
    parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    texts = (part.get(key) for part in parts if part.get("type") == "text" for key in _REASONING)
    return next((text for text in texts if text and isinstance(text, str)), "")


def _are_objects(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, dict) for each in value)


def _thoughts(message: Given, key: str, path: str) -> str:
    """The texts in `reasoning_details` or `thinking_blocks`; what is encrypted has none."""
    details = message.peek(key)
    texts: list[str] = []
    for detail in details if isinstance(details, list) else ():
        given = message.inner(detail if isinstance(detail, dict) else {}, f"{path}.{key}")
        if found := [text for name in _TEXTS if isinstance(text := given.get(name), str)]:
            texts += found
            given.close(_OF_DETAILS)
    return "".join(texts)


def _item_thoughts(item: Given) -> str:
    """The texts of a `reasoning` item; what is encrypted has none."""
    item.pass_over("id", "status", "index", "encrypted_content")
    lists = [item.get(key) for key in ("content", "summary")]
    found = [each.get("text") for texts in lists if _are_objects(texts) for each in texts]
    return "\n\n".join(text for text in (item.get("text"), *found) if isinstance(text, str) and text)


def _image(part: Given, path: str, media: Media) -> Image | Text:
    """`image_url` is an object; a bare string, which some clients send, means the same."""
    if isinstance(part.get("image_url"), str):
        return media.image(part, path)
    owner = given_object(part, "image_url", path)
    image = media.image(owner, f"{path}.image_url", "url")
    owner.pass_over("format")  # its type, by LiteLLM and Strands: the image itself says it
    owner.close()
    return image


def _legacy(path: str, message: str) -> GatewayError:
    return unsupported(path, message, "unsupported_parameter")
