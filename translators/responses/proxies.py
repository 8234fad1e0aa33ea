"""The functions that stand in for tools which a chat server does not know: their descriptions and parameters.

Each takes as its arguments exactly the fields of the item that goes back to the client (`local_shell_call.action`,
`shell_call.action`, `apply_patch_call.operation`), under the same names and in the order of the specification. So an
answer is restored without guessing, and a call in the history reads as the model wrote it.
"""

from __future__ import annotations

from typing import Any

import orjson

from dragoman.translators.protocol import Json

# Field names of the items that become arguments, in the order in which they are rendered in the history.
LOCAL_SHELL_FIELDS = ("command", "env", "timeout_ms", "user", "working_directory")
SHELL_FIELDS = ("commands", "timeout_ms", "max_output_length")
APPLY_PATCH_FIELDS = ("type", "path", "diff")

LOCAL_SHELL_DESCRIPTION = "Runs one command on the user's machine and returns its output."
LOCAL_SHELL_PARAMETERS: Json = {
    "type": "object",
    "properties": {
        "command": {
            "type": "array",
            "items": {"type": "string"},
            "description": 'The program and its arguments, for example ["bash", "-lc", "ls"].',
        },
        "env": {
            "type": "object",
            "additionalProperties": {"type": "string"},
            "description": "Environment variables to set.",
        },
        "timeout_ms": {"type": "integer", "description": "Milliseconds after which the command is stopped."},
        "user": {"type": "string", "description": "The user to run the command as."},
        "working_directory": {"type": "string", "description": "The directory to run the command in."},
    },
    "required": ["command"],
    "additionalProperties": False,
}

SHELL_DESCRIPTION = "Runs shell commands on the user's machine and returns what each of them printed and how it ended."
SHELL_PARAMETERS: Json = {
    "type": "object",
    "properties": {
        "commands": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Shell commands; they may run at the same time.",
        },
        "timeout_ms": {"type": "integer", "description": "Milliseconds after which the commands are stopped."},
        "max_output_length": {"type": "integer", "description": "How many characters of output to return at most."},
    },
    "required": ["commands"],
    "additionalProperties": False,
}

APPLY_PATCH_DESCRIPTION = (
    "Creates, changes or deletes one file in the user's workspace. `diff` is a V4A diff: for `create_file` every line "
    "of the new file with `+` before it; for `update_file` sections that begin with `@@` and hold context lines (a "
    "space before them), removed lines (`-`) and added lines (`+`); `delete_file` has none."
)
APPLY_PATCH_PARAMETERS: Json = {
    "type": "object",
    "properties": {
        "type": {
            "type": "string",
            "enum": ["create_file", "update_file", "delete_file"],
            "description": "What to do with the file.",
        },
        "path": {"type": "string", "description": "The file, relative to the root of the workspace."},
        "diff": {"type": "string", "description": "The change; needed unless the file is deleted."},
    },
    "required": ["type", "path"],
    "additionalProperties": False,
}

TOOL_SEARCH_DESCRIPTION = "Finds further tools by what they do and makes them available."
TOOL_SEARCH_PARAMETERS: Json = {
    "type": "object",
    "properties": {
        "query": {"type": "string", "description": "What the tool should be able to do, in a few words."},
        "limit": {"type": "integer", "description": "How many tools to return at most."},
    },
    "required": ["query"],
    "additionalProperties": False,
}


def shell_description(skills: object) -> str:
    """Skills are folders on the client's machine that a local shell may use. The model knows them only from this
    text."""
    lines = [
        f"- {skill.get('name')}: {skill.get('description')} ({skill.get('path')})"
        for skill in (skills if isinstance(skills, list) else ())
        if isinstance(skill, dict)
    ]
    return "\n".join([SHELL_DESCRIPTION, "Skills on that machine:", *lines]) if lines else SHELL_DESCRIPTION


def fitting(given: Json, parameters: Json) -> Json:
    """What a model wrote as arguments, without null and without values of other types than `parameters` says: clients
    read the fields of an item by its type, and one that breaks it ends their run (AI SDK 7, openai-agents 0.24), where
    one that is missing is told to the model."""
    shapes = parameters["properties"]
    fitted = {name: _fitted(value, shapes[name]) if name in shapes else value for name, value in given.items()}
    return {name: value for name, value in fitted.items() if value is not None}


def _fitted(value: Any, shape: Json) -> Any:
    match shape["type"]:
        case "string":
            return value if isinstance(value, str) and value in shape.get("enum", (value,)) else None
        case "integer":
            return int(value) if type(value) is int or (type(value) is float and value.is_integer()) else None
        case "array":
            return [*map(_text, value)] if isinstance(value, list) else None
        case _:
            return {name: _text(each) for name, each in value.items()} if isinstance(value, dict) else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()
