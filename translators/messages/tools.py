"""Tools of the Messages API → the functions that a server takes, and back by name.

Custom tools pass. Anthropic's own client-side tools (`bash_*`, `text_editor_*`, `memory_*`), whose schemas only Claude
knows, get written-out ones. Tools that Anthropic would run itself, screens, browsers and unknown types are left out and
noted, or refused, as the operator decides; a `tool_choice` that needs one of them is dropped with it. Where the gateway
searches the web (`translators.messages.searches`), that tool is a function as any other. Functions in the
shape of OpenAI's protocols, which some clients send here too, are read as custom tools. The API allows names of 128
characters and servers 64: longer ones get a hash of the name alone, so that the history and the declaration agree.

A tool with `defer_loading` is not shown until the conversation makes it known (`translators.messages.deferred`), unless
nobody could search for it: beside a search that Anthropic would run, and where no other tool is shown.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import orjson

from dragoman.translators.fields import Given, Unread, noted
from dragoman.translators.ir import Named, Note, Tool, ToolChoice, WebSearch
from dragoman.translators.messages.hosted import LeftOut, answering_family
from dragoman.translators.messages.reading import (
    INERT,
    as_object,
    expect_object,
    expect_text,
    given_object,
    optional_text,
    refused,
    unsupported,
    wrong_tag,
)
from dragoman.translators.messages.searches import is_search, read_search
from dragoman.translators.protocol import Json, Policy
from dragoman.translators.seen import once
from dragoman.translators.tool_names import MAX_NAME, hashed_name, plain_name

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")


def upstream_name(name: str) -> str:
    """A name that every server takes. It differs from `name` only where it must."""
    plain = plain_name(name)
    return name if plain == name and len(name) <= MAX_NAME else hashed_name(plain, name)


@dataclass(slots=True)
class MessagesCatalogue:
    """`names` restores the client's name from the upstream one where they differ. `unavailable` is the family of the
    tools (`translators.messages.hosted`) where all that were offered cannot be run here. `deferred` are tools that
    nothing has made known yet, by upstream name. `search` is the web search that the gateway runs."""

    tools: tuple[Tool, ...] = ()
    deferred: dict[str, Tool] = field(default_factory=dict)
    choice: ToolChoice = "auto"
    parallel: bool = True
    names: dict[str, str] = field(default_factory=dict)
    unavailable: str | None = None
    search: WebSearch | None = None


def read_tools(
    tools: list[Any] | None, choice: object, policy: Policy, notes: list[Note], unread: Unread
) -> MessagesCatalogue:
    """What the model is offered and must call. `notes` grows with what is left out, `unread` with unknown keys."""
    declared = tools or []
    known, left_out = once(declared, ("messages", policy), partial(_declared, declared, policy), notes, unread)
    offered = known.tools
    catalogue = MessagesCatalogue(offered, names=dict(known.names), search=known.search)
    catalogue.choice, catalogue.parallel = _choice(choice, catalogue, left_out, notes, unread)
    if left_out and not offered and catalogue.choice != "none":
        catalogue.unavailable = answering_family(left_out, choice.get("name") if isinstance(choice, dict) else None)
    _defer(catalogue, left_out, notes)
    return catalogue


def _declared(
    tools: list[Any], policy: Policy, notes: list[Note], unread: Unread
) -> tuple[MessagesCatalogue, list[LeftOut]]:
    """All tools that can be called, and those that are left out."""
    catalogue = MessagesCatalogue()
    offered: dict[str, Tool] = {}
    left_out: list[LeftOut] = []
    if len(tools) > policy.max_tools:
        raise refused("tools", f"List should have at most {policy.max_tools} items after validation")
    for index, entry in enumerate(tools):
        path = f"tools.{index}"
        read, place = read_tool(unread.given(as_object(entry, path), path), path, catalogue, policy, notes)
        if isinstance(read, LeftOut):
            left_out.append(read)
        elif read.name in offered:
            raise refused(f"{place}.name", "Tool names must be unique.")
        else:
            offered[read.name] = read
    catalogue.tools = tuple(offered.values())
    return catalogue, left_out


def read_tool(
    given: Given, path: str, catalogue: MessagesCatalogue, policy: Policy, notes: list[Note]
) -> tuple[Tool | LeftOut, str]:
    """One definition of a tool, and the path of what holds its name, which the catalogue learns."""
    if policy.web_search and is_search(given.get("type")):
        found, catalogue.search = read_search(given, path, upstream_name(_checked_name(given, path)))
        given.close(INERT)
        return found, path
    tool, place = _custom_shape(given, path)
    read = _tool(tool, place)
    if read is None:
        return _left_out(given, path, policy, notes), path
    if read.name != (name := tool["name"]):
        catalogue.names[read.name] = name
    for owner in {id(given): given, id(tool): tool}.values():
        owner.close(INERT)
    return read, place


def _defer(catalogue: MessagesCatalogue, left_out: list[LeftOut], notes: list[Note]) -> None:
    """Hides the deferred tools, or shows them for good where nobody could search for them."""
    deferred = {tool.name: tool for tool in catalogue.tools if tool.deferred}
    if not deferred:
        return
    searched = any(tool.kind.startswith("tool_search_tool_") for tool in left_out)
    if searched or len(deferred) == len(catalogue.tools):
        catalogue.tools = tuple(replace(tool, deferred=False) for tool in catalogue.tools)
        notes.append(Note("field", "defer_loading"))
        return
    catalogue.deferred = deferred
    catalogue.tools = tuple(tool for tool in catalogue.tools if not tool.deferred)


# --------------------------------------------------------------------------------------------------------- declarations


def _custom_shape(tool: Given, path: str) -> tuple[Given, str]:
    """A tool in the shape of this API, and the path of what holds its name. Chat completions nest a function below
    `function`, Responses do not; both have `parameters` for `input_schema`."""
    if tool.get("type") != "function":
        return tool, path
    function, place = tool, path
    if tool.get("function") is not None:
        function, place = given_object(tool, "function", path), f"{path}.function"
    schema = function.get("input_schema", {"type": "object"})
    if function.get("parameters") is not None:
        schema = expect_object(function, "parameters", place)
    rest = {key: function[key] for key in function if key != "parameters"}
    return function.inner({**rest, "type": "custom", "input_schema": schema}, place), place


def _tool(tool: Given, path: str) -> Tool | None:
    """The function that a tool becomes, None where it cannot become one."""
    kind = optional_text(tool, "type", path)
    if kind is None or kind == "custom":
        return _custom(tool, path)
    family = next((name for name in _BUILT_IN if kind.startswith(name)), None)
    if family is None:
        return None
    description = _BUILT_IN[family]
    parameters = _editor_schema(kind) if family == "text_editor_" else _SCHEMAS[family]
    if isinstance(limit := tool.get("max_characters"), int):
        description += f" Views are cut after {limit} characters."
    return Tool(upstream_name(_checked_name(tool, path)), description, parameters, deferred=_is_deferred(tool, path))


def _custom(tool: Given, path: str) -> Tool:
    name = _checked_name(tool, path)
    schema = expect_object(tool, "input_schema", path)
    if schema.get("type", "object") != "object":
        raise refused(f"{path}.input_schema.type", "Input should be 'object'")
    strict = _switch(tool, "strict", path)
    description = optional_text(tool, "description", path) or ""
    examples = tool.get("input_examples")
    if isinstance(examples, list) and examples:
        shown = "\n".join(map(dumps, examples))
        description = f"{description}\n\nExamples of its input:\n{shown}".strip()
    parameters = {"type": "object", **schema}
    if not isinstance(schema.get("properties"), dict):  # as MCP has it for no arguments; LM Studio refuses less
        parameters["properties"] = {}
    return Tool(upstream_name(name), description, parameters, strict, _is_deferred(tool, path))


def dumps(value: object) -> str:
    """JSON in one form, so that the same request always renders the same way."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # an integer beyond 64 bits or half a surrogate pair: valid JSON that orjson does not write
        return json.dumps(value, separators=(",", ":"))


def _is_deferred(tool: Given, path: str) -> bool:
    return _switch(tool, "defer_loading", path) is True


def _switch(tool: Given, key: str, path: str) -> bool | None:
    value = tool.get(key)
    if value is not None and not isinstance(value, bool):
        raise refused(f"{path}.{key}", "Input should be a valid boolean")
    return value


def _checked_name(tool: Given, path: str) -> str:
    name = expect_text(tool, "name", path)
    if _NAME.fullmatch(name) is None:
        raise refused(f"{path}.name", f"String should match pattern '^{_NAME.pattern}$'")
    return name


def _left_out(tool: Given, path: str, policy: Policy, notes: list[Note]) -> LeftOut:
    kind = expect_text(tool, "type", path)
    tool.pass_over(*tool)  # noted as a whole
    if policy.hosted_tools == "reject":
        raise unsupported(f"{path}.type", f"Tools of type '{kind[:64]}' cannot be run through this gateway.")
    notes.append(noted("tool", kind))
    return LeftOut(kind, optional_text(tool, "name", path), path)


# --------------------------------------------------------------------------------------------------------------- choice


def _choice(
    choice: object, catalogue: MessagesCatalogue, left_out: list[LeftOut], notes: list[Note], unread: Unread
) -> tuple[ToolChoice, bool]:
    if choice is None:
        return "auto", True
    given = unread.given(as_object(choice, "tool_choice"), "tool_choice")
    chosen = _chosen(given, catalogue, left_out, notes)
    given.close(INERT)
    return chosen


def _chosen(
    given: Given, catalogue: MessagesCatalogue, left_out: list[LeftOut], notes: list[Note]
) -> tuple[ToolChoice, bool]:
    disabled = given.get("disable_parallel_tool_use")
    if disabled is not None and not isinstance(disabled, bool):
        raise refused("tool_choice.disable_parallel_tool_use", "Input should be a valid boolean")
    parallel = not disabled
    match given.get("type"):
        case "auto":
            return "auto", parallel
        case "none":
            return "none", True
        case "any":
            if not catalogue.tools and left_out:
                notes.append(Note("field", "tool_choice"))
                return "auto", parallel
            if not catalogue.tools:
                raise refused("tool_choice", "'any' needs a tool that can be called, and no such tool was declared")
            return "required", parallel
        case "tool":
            name = expect_text(given, "name", "tool_choice")
            upstream = upstream_name(name)
            if any(tool.name == upstream for tool in catalogue.tools):
                return Named(upstream), parallel
            if any(tool.name == name for tool in left_out):
                notes.append(Note("field", "tool_choice"))
                return "auto", parallel
            raise refused("tool_choice", f"Tool '{name[:128]}' not found in provided tools")
        case other:
            raise wrong_tag("tool_choice", other, "'auto', 'any', 'tool', 'none'")


# ---------------------------------------------------------------------------------------------------- built-in schemas


def _text(description: str) -> Json:
    return {"type": "string", "description": description}


def _schema(required: list[str], **properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": required}


_RANGE: Json = {
    "type": "array",
    "items": {"type": "integer"},
    "description": "First and last line to view, counted from 1; -1 as the last means to the end. Only for view.",
}
_BUILT_IN = {
    "bash_": "Runs a command in a bash session that keeps its state between calls, and returns what it printed.",
    "text_editor_": "Views, creates and edits text files. A replaced text must occur in the file exactly once.",
    "memory_": "Reads and changes files below /memories, which persist between conversations.",
}
_SCHEMAS: dict[str, Json] = {
    "bash_": _schema(
        [],
        command=_text("The command to run. Needed unless the session is restarted."),
        restart={"type": "boolean", "description": "True restarts the session instead of running a command."},
    ),
    "memory_": _schema(
        ["command"],
        command={"type": "string", "enum": ["view", "create", "str_replace", "insert", "delete", "rename"]},
        path=_text("The file or folder; for every command but rename."),
        view_range=_RANGE,
        file_text=_text("The content of the file. Only for create."),
        old_str=_text("The text to replace, which must occur exactly once. Only for str_replace."),
        new_str=_text("The text to put in its place. Only for str_replace."),
        insert_line={"type": "integer", "description": "The line behind which to insert, 0 for the top. For insert."},
        insert_text=_text("The text to insert. Only for insert."),
        old_path=_text("The path to rename. Only for rename."),
        new_path=_text("The new path. Only for rename."),
    ),
}


def _editor_schema(kind: str) -> Json:
    """Before 2025-04-29 edits could be undone, and `insert` took its text from `new_str`."""
    early = kind.rpartition("_")[2] < "20250429"
    commands = ["view", "create", "str_replace", "insert"] + (["undo_edit"] if early else [])
    new = "The text to put in its place" + (", or to insert." if early else ". Only for str_replace.")
    properties = {
        "command": {"type": "string", "enum": commands},
        "path": _text("The file, or for view also a folder."),
        "file_text": _text("The content of the new file. Only for create."),
        "old_str": _text("The text to replace, which must occur exactly once. Only for str_replace."),
        "new_str": _text(new),
        "insert_line": {"type": "integer", "description": "The line behind which to insert, 0 for the top."},
        "view_range": _RANGE,
    }
    if not early:
        properties["insert_text"] = _text("The text to insert. Only for insert.")
    return {"type": "object", "properties": properties, "required": ["command", "path"]}
