"""Shapes of other protocols that clients send to chat completions (Cursor's agent sends all of them).

Tools as Responses and Messages declare them, `input` in place of `messages`, blocks of the Messages API and parts of
Responses in `content`.
Each becomes what this protocol has for the same thing; the readers in `content` and `tools` do the rest.
"""

from __future__ import annotations

from typing import Any

_PARTS = {"input_text": "text", "output_text": "text", "input_image": "image_url", "input_file": "file"}


def messages_of(value: Any) -> Any:
    """`input` as `messages`."""
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    return [_message(item) for item in value] if isinstance(value, list) else value


def _message(item: Any) -> Any:
    if not isinstance(item, dict):
        return item
    match item.get("type"):
        case "function_call":
            rest = {key: value for key, value in item.items() if key not in _CALL}
            function = {key: item[key] for key in ("name", "arguments") if key in item}
            call = {"id": item.get("call_id"), "type": "function", "function": function}
            return {**rest, "role": "assistant", "tool_calls": [call], "content": None}
        case "custom_tool_call":
            rest = {key: value for key, value in item.items() if key not in _CUSTOM_CALL}
            custom = {key: item[key] for key in ("name", "input") if key in item}
            call = {"id": item.get("call_id"), "type": "custom", "custom": custom}
            return {**rest, "role": "assistant", "tool_calls": [call], "content": None}
        case "function_call_output" | "custom_tool_call_output":
            rest = {key: value for key, value in item.items() if key not in ("type", "call_id", "output", *_OWN)}
            content = _content(item.get("output"))
            return {**rest, "role": "tool", "tool_call_id": item.get("call_id"), "content": content}
        case "reasoning":
            return {"role": "assistant", "content": [item]}
        case "message" | None:
            rest = {key: value for key, value in item.items() if key not in ("type", *_OWN)}
            return {**rest, "content": _content(item["content"])} if "content" in item else rest
        case _:
            return item


_OWN = ("id", "status")  # what the client or an earlier answer wrote about an item
_CALL = ("type", "call_id", "name", "arguments", *_OWN)
_CUSTOM_CALL = ("type", "call_id", "name", "input", *_OWN)


def _content(content: Any) -> Any:
    return [part_of(part) for part in content] if isinstance(content, list) else content


def part_of(part: Any) -> Any:
    """A part of Responses' content as this protocol has it; any other as it is."""
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str) or kind not in _PARTS:
        return part
    known = {key: value for key, value in part.items() if key not in ("type", "annotations", "logprobs")}
    if kind == "input_image":
        image = {name: known.pop(key) for key, name in (("image_url", "url"), ("detail", "detail")) if key in known}
        return {**known, "type": "image_url", "image_url": image}
    if kind == "input_file":
        return {"type": "file", "file": known}
    return {**known, "type": "text"}


def is_flat(tool: Any) -> bool:
    """A function whose fields stand beside `type`, as Responses and (with `input_schema`) Messages write it."""
    return "name" in tool and "function" not in tool and (tool.get("type") == "function" or "input_schema" in tool)


def is_flat_custom(tool: Any) -> bool:
    """A free-form tool as Responses writes it."""
    return tool.get("type") == "custom" and "name" in tool and "custom" not in tool


def choice_of(choice: Any) -> Any:
    """`tool_choice` of Messages, and the flat one of Responses."""
    if not isinstance(choice, dict):
        return choice
    match choice.get("type"):
        case "auto" | "none" as word:
            return word
        case "any":
            return "required"
        case "tool" | "function" if "name" in choice and "function" not in choice:
            rest = {key: value for key, value in choice.items() if key not in ("type", "name")}
            return {**rest, "type": "function", "function": {"name": choice["name"]}}
        case "custom" if "name" in choice and "custom" not in choice:
            rest = {key: value for key, value in choice.items() if key != "name"}
            return {**rest, "custom": {"name": choice["name"]}}
        case _:
            return choice
