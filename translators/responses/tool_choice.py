"""`tool_choice` in all its forms, checked against what was declared.

A choice that cannot be kept is refused with `param` `tool_choice`: a tool that was not declared, `required` without
tools. One that needs a tool which was declared and left out (`translators.responses.tools`) is dropped with it and
noted. `allowed_tools` is a hard rule, so the model is offered nothing else.
"""

from __future__ import annotations

from typing import Any, Literal

from dragoman.translators.errors import GatewayError, invalid
from dragoman.translators.ir import Named, Note, ToolChoice
from dragoman.translators.openai.refusals import unsupported, wrong_type, wrong_value
from dragoman.translators.protocol import Json
from dragoman.translators.responses.tools import Declarations, DeclaredKind

_BY_NAME: dict[str, DeclaredKind] = {"function": "function", "custom": "custom"}
_BY_TYPE: dict[str, DeclaredKind] = {
    "tool_search": "tool_search",
    "local_shell": "local_shell",
    "shell": "shell",
    "apply_patch": "apply_patch",
}
_HOSTED = frozenset(
    {
        "code_interpreter",
        "computer",
        "computer_use",
        "computer_use_preview",
        "file_search",
        "image_generation",
        "mcp",
        "programmatic_tool_calling",
        "web_search",
        "web_search_2025_08_26",
        "web_search_preview",
        "web_search_preview_2025_03_11",
    }
)
_PARAM = "tool_choice"
DROPPED = Note("field", _PARAM)


def choose(choice: object, tools: Declarations, notes: list[Note]) -> tuple[ToolChoice, frozenset[str] | None]:
    """The choice for the server, and the upstream names to which the offer is narrowed (None: all of them). `notes`
    grows with a choice that is dropped."""
    match choice:
        case None | "auto":
            return "auto", None
        case "none":
            return "none", None
        case "required":
            if not len(tools) and tools.left_out:
                notes.append(DROPPED)
                return "auto", None
            if not len(tools):
                message = "Tool choice 'required' must be specified with 'tools' parameter."
                raise invalid(message, _PARAM)
            return "required", None
        case dict() if choice.get("type") == "allowed_tools":
            return _allowed(choice, tools, notes)
        case dict():
            names = _named(choice, tools)
            if not names:
                notes.append(DROPPED)
                return "auto", None
            return Named(names[0]), None
        case str():
            raise wrong_value(_PARAM, choice, "'none', 'auto' and 'required'")
        case _:
            raise wrong_type(_PARAM, "a string or an object", choice)


def echo(choice: object) -> Any:
    """The choice as the response object shows it."""
    if choice is None:
        return "auto"
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        return {**choice, "mode": choice.get("mode") or "auto"}
    return choice


def _allowed(choice: Json, tools: Declarations, notes: list[Note]) -> tuple[ToolChoice, frozenset[str]]:
    listed = choice.get("tools")
    if not isinstance(listed, list):
        raise wrong_type(_PARAM, "an array of tools in 'tools'", listed)
    if not listed:
        raise invalid("Tool choice 'allowed_tools' names no tools.", _PARAM, "empty_array")
    names: set[str] = set()
    for one in listed:
        if not isinstance(one, dict):
            raise wrong_type(_PARAM, "an object for each allowed tool", one)
        found = _named(one, tools, with_namespaces=True)
        if not found and DROPPED not in notes:
            notes.append(DROPPED)
        names.update(found)
    mode: Literal["auto", "required"]
    match choice.get("mode"):
        case None | "auto":
            mode = "auto"
        case "required":
            mode = "required" if names else "auto"
        case other:
            raise wrong_value(_PARAM, other, "'auto' and 'required'")
    return mode, frozenset(names)


def _named(choice: Json, tools: Declarations, *, with_namespaces: bool = False) -> list[str]:
    """The upstream names that an object form means: one, or with `namespace` all of its members; none for a tool that
    was left out."""
    kind = choice.get("type")
    if not isinstance(kind, str):
        raise wrong_type(_PARAM, "a string for 'type'", kind)
    if kind in _BY_TYPE:
        found = tools.find(_BY_TYPE[kind], kind, None)
        if found is not None:
            return [found]
    if tools.was_left_out(kind):
        return []
    if kind in _BY_TYPE:
        raise _not_found(kind)
    if kind in _HOSTED:
        raise unsupported(_PARAM, f"Tools of type '{kind}' cannot be called through this gateway.")
    if kind not in _BY_NAME and not (with_namespaces and kind == "namespace"):
        raise wrong_value(_PARAM, kind)
    name, namespace = choice.get("name"), choice.get("namespace")
    if not isinstance(name, str):
        raise wrong_type(_PARAM, "a string for 'name'", name)
    if namespace is not None and not isinstance(namespace, str):
        raise wrong_type(_PARAM, "a string for 'namespace'", namespace)
    if kind == "namespace":
        members = tools.members(name)
        if not members:
            raise _not_found(name)
        return members
    found = tools.find(_BY_NAME[kind], name, namespace)
    if found is None and not tools.was_left_out(name):
        raise _not_found(name)
    return [] if found is None else [found]


def _not_found(name: str) -> GatewayError:
    return invalid(f"Tool choice '{name[:64]}' not found in 'tools' parameter.", _PARAM)
