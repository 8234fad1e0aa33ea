"""The functions that stand in for tools which a chat server does not know: what the model is told, and how to call
them.

Each takes as its arguments exactly the fields of the item that goes back to the client (`local_shell_call.action`,
`shell_call.action`, `apply_patch_call.operation`, `custom_tool_call.input`), under the same names and in the order of
the specification. So an answer is restored without guessing, and a call in the history reads as the model wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from translators.protocol import Json

NO_PARAMETERS: Json = {"type": "object", "properties": {}}

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

CUSTOM_PARAMETERS: Json = {
    "type": "object",
    "properties": {
        "input": {"type": "string", "description": "The whole input of the tool, as plain text."},
    },
    "required": ["input"],
    "additionalProperties": False,
}


def custom_description(description: str, grammar: Mapping[str, Any] | None) -> str:
    """What the tool does, and the grammar of its text where the client gave one: a chat server cannot enforce it, so
    the model is told. `grammar` is the tool's `format` of type `grammar`."""
    if grammar is None:
        return description
    syntax, definition = grammar.get("syntax"), grammar.get("definition")
    rule = f"The text in `input` must follow this {syntax} grammar:\n{definition}"
    return f"{description}\n\n{rule}" if description else rule


def shell_description(skills: object) -> str:
    """Skills are folders on the client's machine that a local shell may use; the model knows of them only by this
    text."""
    lines = [
        f"- {skill.get('name')}: {skill.get('description')} ({skill.get('path')})"
        for skill in (skills if isinstance(skills, list) else ())
        if isinstance(skill, dict)
    ]
    return "\n".join([SHELL_DESCRIPTION, "Skills on that machine:", *lines]) if lines else SHELL_DESCRIPTION


# --------------------------------------------------------------------------------------------------------- JSON schemas

_MAPS_OF_SCHEMAS = frozenset({"properties", "$defs", "definitions", "patternProperties", "dependentSchemas"})
_SCHEMAS = frozenset(
    {
        "additionalProperties",
        "allOf",
        "anyOf",
        "contains",
        "else",
        "if",
        "items",
        "not",
        "oneOf",
        "prefixItems",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)


def canonical_schema(schema: Any) -> Any:
    """The schema as every turn of a session shall show it to the model.

    `required` is sorted, because some clients keep it in a set and its order then changes from run to run, which
    costs the server's whole prefix cache. Codex's mark `encrypted` is left out: servers that check schemas refuse it.
    The order of keys and of `enum` carries meaning for the model and stays."""
    if isinstance(schema, list):
        return [canonical_schema(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    out: Json = {}
    for key, value in schema.items():
        if key in _SCHEMAS:
            out[key] = canonical_schema(value)
        elif key in _MAPS_OF_SCHEMAS and isinstance(value, dict):
            out[key] = {name: canonical_schema(one) for name, one in value.items()}
        elif key == "required" and isinstance(value, list) and all(isinstance(name, str) for name in value):
            out[key] = sorted(value)
        elif not (key == "encrypted" and isinstance(value, bool)):
            out[key] = value
    return out


def object_schema(schema: Mapping[str, Any] | None) -> Json:
    """A function's `parameters`, always an object schema with `type` and `properties`: some servers refuse less."""
    if not schema:
        return dict(NO_PARAMETERS)
    out: Json = canonical_schema(schema)
    if not isinstance(out.get("properties"), dict):
        out["properties"] = {}
    if "type" not in out:
        return {"type": "object", **out}
    out["type"] = "object"  # also where it was null, or a list with "object" in it
    return out
