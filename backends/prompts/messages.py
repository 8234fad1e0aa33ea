"""The conversation as chat messages: the one rendering that the chat backend and every prompt template start from.

Pure, deterministic and append-only: the rendering of a conversation is a list prefix of the rendering of the same
conversation continued by the assistant's next turn, so that the server's prefix cache keeps working (the setting
`system_messages: hoist` gives that up, and `turns: alternate` where a turn broke off in thoughts that are not sent).
Text is always one plain string, parts joined by a newline, which is what the servers themselves do with a list. Base64
never becomes text. Repairing a conversation is `translators.history`'s work, done before.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, assert_never

from dragoman.backends.prompts.rendering import Rendering
from dragoman.backends.prompts.tools import with_definitions
from dragoman.translators.ir import Image, Message, Part, Reasoning, Refusal, Text, ToolCall, ToolReference, ToolResult
from dragoman.translators.unreadable import UNSEEN_IMAGE, asked_about, unseen

Json = dict[str, Any]

BRIDGE = "I have the results."
LATER_SYSTEM = ("<system-message>\n", "\n</system-message>")


def render(messages: Sequence[Message], settings: Rendering) -> list[Json]:
    """Raises `GatewayError` UNSUPPORTED for an image that the answer is about where the model sees none; any other
    image is replaced by a text."""
    if not settings.images and (asked := asked_about(messages)):
        raise unseen(asked[0])
    if settings.deferred_tools != "listed":
        messages = [with_definitions(message, settings) for message in messages]
    out: list[Json] = []
    waiting: list[Json] = []  # image parts of the tool results so far: they may not come between two results
    for message in _placed(messages, settings):
        if waiting and message.role != "tool":
            out.append({"role": "user", "content": waiting})
            waiting = []
        match message.role:
            case "system" | "developer":
                out.append({"role": message.role, "content": _text(message.parts)})
            case "user":
                out.append({"role": "user", "content": _user_content(message.parts, settings)})
            case "assistant":
                if not _is_reasoning_only(message.parts, settings):
                    out.append(_assistant(message.parts, settings))
            case "tool":
                rendered, images = _tool(message.parts, settings)
                out += rendered
                waiting += images
            case _:
                assert_never(message.role)
    if waiting:
        out.append({"role": "user", "content": waiting})
    return _alternating(out, settings) if settings.turns == "alternate" else out


def has_unseen_images(messages: Sequence[Message], settings: Rendering) -> bool:
    """Whether `render` replaces images by a text."""
    return not settings.images and any(
        isinstance(part, Image)
        or (isinstance(part, ToolResult) and any(isinstance(item, Image) for item in part.content))
        for message in messages
        for part in message.parts
    )


def has_unsent_reasoning(messages: Sequence[Message], settings: Rendering) -> bool:
    """Whether `render` leaves out what the model thought in earlier turns."""
    return settings.reasoning_field is None and any(
        isinstance(part, Reasoning) for message in messages for part in message.parts
    )


# ---------------------------------------------------------------------------------------------------- system messages


def _placed(messages: Sequence[Message], settings: Rendering) -> list[Message]:
    """System and developer messages by the policy, with their final roles."""
    roles = messages if settings.developer_role else [_without_developer(message) for message in messages]
    policy = settings.system_messages
    if policy == "keep":
        return list(roles)
    if policy == "hoist":
        first = [message for message in roles if _is_system(message)]
        rest = [message for message in roles if not _is_system(message)]
        return _merged(first) + rest
    start = next((i for i, message in enumerate(roles) if not _is_system(message)), len(roles))
    rest = list(roles[start:])
    if policy == "user":
        rest = _as_users(rest)
    return _merged(roles[:start]) + rest


def _is_system(message: Message) -> bool:
    return message.role in ("system", "developer")


def _without_developer(message: Message) -> Message:
    return Message("system", message.parts) if message.role == "developer" else message


def _merged(messages: Sequence[Message]) -> list[Message]:
    """One message of all, blank-line separated; developer only when every one of them is, since system ranks higher."""
    texts = [text for message in messages if (text := _text(message.parts))]
    if not texts:
        return []
    role = messages[0].role if len({message.role for message in messages}) == 1 else "system"
    return [Message(role, (Text("\n\n".join(texts)),))]


def _as_users(messages: Sequence[Message]) -> list[Message]:
    """System messages as user messages, each in one with those beside it: templates that take no later system message
    mostly refuse two of the user's in a row too (Gemma's, Mistral's)."""
    out: list[Message] = []
    marked = False  # the last one holds a system message
    for message in messages:
        is_system = _is_system(message)
        said = _as_user(message) if is_system else message
        if (is_system or marked) and said.role == "user" and out and out[-1].role == "user":
            out[-1] = Message("user", (*out[-1].parts, *said.parts))
            marked = True
        else:
            out.append(said)
            marked = is_system
    return out


def _as_user(message: Message) -> Message:
    opener, closer = LATER_SYSTEM
    return Message("user", (Text(f"{opener}{_text(message.parts)}{closer}"),))


# ------------------------------------------------------------------------------------------------------ other messages


def _alternating(messages: Sequence[Json], settings: Rendering) -> list[Json]:
    """Turns of the user and of the assistant in alternation. Mistral's own tokenizer and templates, and Gemma's, refuse
    what a user says right after results (mistral-common#169), the templates two messages of the user's in a row too."""
    out: list[Json] = []
    for message in messages:
        before = out[-1]["role"] if out else ""
        if message["role"] != "user" or before not in ("user", "tool"):
            out.append(message)
        elif before == "tool":
            out += [_assistant((Text(BRIDGE),), settings), message]
        else:
            out[-1] = {"role": "user", "content": _together(out[-1]["content"], message["content"])}
    return out


def _together(first: str | list[Json], second: str | list[Json]) -> str | list[Json]:
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n{second}"
    parts = ([{"type": "text", "text": each}] if isinstance(each, str) else each for each in (first, second))
    return [*chain.from_iterable(parts)]


def _text(parts: Sequence[Part]) -> str:
    if len(parts) == 1 and isinstance(part := parts[0], Text):
        return part.text  # nearly always
    return "\n".join(part.text for part in parts if isinstance(part, Text | Refusal))


def _user_content(parts: Sequence[Part], settings: Rendering) -> str | list[Json]:
    if not any(isinstance(part, Image) for part in parts):
        return _text(parts)
    if not settings.images:
        return _text([Text(UNSEEN_IMAGE) if isinstance(part, Image) else part for part in parts])
    return [_content_part(part) for part in parts if isinstance(part, Text | Refusal | Image)]


def _content_part(part: Text | Refusal | Image) -> Json:
    if not isinstance(part, Image):
        return {"type": "text", "text": part.text}
    url: Json = {"url": part.url}
    if part.detail is not None:
        url["detail"] = (
            part.detail if part.detail in ("low", "high", "auto") else "high"
        )  # the values that the servers know
    return {"type": "image_url", "image_url": url}


def _is_reasoning_only(parts: Sequence[Part], settings: Rendering) -> bool:
    """A turn that broke off in its reasoning, where the server takes none: templates refuse a turn without content."""
    return settings.reasoning_field is None and bool(parts) and all(isinstance(part, Reasoning) for part in parts)


def _assistant(parts: Sequence[Part], settings: Rendering) -> Json:
    calls = [_call(part, settings) for part in parts if isinstance(part, ToolCall)]
    text = _text(parts)
    empty = None if calls and settings.empty_content == "null" else ""
    message: Json = {"role": "assistant", "content": text or empty}
    if settings.reasoning_field is not None:
        # On every turn or on none: opencode#25000, one message without it fails the whole conversation.
        message[settings.reasoning_field] = "\n".join(part.text for part in parts if isinstance(part, Reasoning))
    if calls:
        message["tool_calls"] = calls
    return message


def _call(call: ToolCall, settings: Rendering) -> Json:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": _call_id(call.id, settings), "type": "function", "function": function}


def _call_id(id: str, settings: Rendering) -> str:
    return short_id(id) if settings.call_ids == "short" else id


def short_id(id: str) -> str:
    """Nine letters and digits, the same for the same id."""
    if len(id) == 9 and id.isascii() and id.isalnum():
        return id
    return base64.b32encode(hashlib.sha256(id.encode("utf-8", "surrogatepass")).digest()).decode().lower()[:9]


def _tool(parts: Sequence[Part], settings: Rendering) -> tuple[list[Json], list[Json]]:
    """The tool messages, and the image parts that belong after all results of the turn."""
    rendered: list[Json] = []
    images: list[Json] = []
    for part in parts:
        if isinstance(part, ToolResult):
            references, rest = _references(part, settings)
            answers = {"role": "tool", "tool_call_id": _call_id(part.call_id, settings)}
            if rest.content or not references:
                content, later = _result_content(rest, settings)
                rendered.append({**answers, "content": content})
                images += later
            if references:
                rendered.append({**answers, "content": references})
    return rendered, images


def _references(result: ToolResult, settings: Rendering) -> tuple[list[Json], ToolResult]:
    """The tools that a result makes known, as parts of a message of their own (vllm#40190), and what else it holds."""
    if settings.deferred_tools != "native":
        return [], result
    known = [part for part in result.content if isinstance(part, ToolReference) and part.tool is not None]
    rest = tuple(part for part in result.content if not (isinstance(part, ToolReference) and part.tool is not None))
    references = [{"type": "tool_reference", "name": part.tool.name} for part in known if part.tool is not None]
    return references, replace(result, content=rest)


def _result_content(result: ToolResult, settings: Rendering) -> tuple[str | list[Json], list[Json]]:
    if len(result.content) == 1 and isinstance(only := result.content[0], Text) and not result.is_error:
        return only.text, []  # nearly always
    texts = ["Error: "] if result.is_error else []
    images = [part for part in result.content if isinstance(part, Image)]
    if images and settings.images and settings.tool_images == "inside":
        prefix: list[Json] = [{"type": "text", "text": text} for text in texts]
        return prefix + [_content_part(part) for part in result.content], []
    pieces = [UNSEEN_IMAGE if isinstance(part, Image) else part.text for part in result.content]
    if not images or not settings.images:
        return "".join(texts) + "\n".join(pieces), []
    spoken = [part.text for part in result.content if isinstance(part, Text)]
    label = {"type": "text", "text": f"Images returned by the tool call {_call_id(result.call_id, settings)}:"}
    text = "\n".join(spoken) or "The images follow in the next user message."
    return "".join(texts) + text, [label, *(_content_part(part) for part in images)]
