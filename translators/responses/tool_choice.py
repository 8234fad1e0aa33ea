"""`tool_choice` in all its forms, checked against what was declared.

A tool is named by its type, by its name, or by its name and namespace; an entry of `allowed_tools` may name a whole
namespace.
"""

from __future__ import annotations

from typing import Any

from dragoman.translators.fields import Given, Unread
from dragoman.translators.ir import Note
from dragoman.translators.openai import tool_choice as shared
from dragoman.translators.openai.catalogue import ToolKind
from dragoman.translators.openai.reading import given_object
from dragoman.translators.openai.refusals import unsupported, wrong_type, wrong_value
from dragoman.translators.openai.tool_choice import PARAM, Choice, allowed_tools, kind_of, not_found
from dragoman.translators.responses.tools import ResponsesCatalogue, is_search

_BY_NAME: dict[str, ToolKind] = {"function": "function", "custom": "custom"}
_BY_TYPE: dict[str, ToolKind] = {
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


def choose(choice: object, tools: ResponsesCatalogue, notes: list[Note], unread: Unread) -> Choice:
    """The choice for the server, and the upstream names to which the offer is narrowed (None: all of them). `notes`
    grows with a choice that is dropped."""
    return shared.choose(
        choice,
        tools,
        notes,
        unread,
        named=lambda one: _named(one, tools),
        allowed=lambda one: _allowed(one, tools, notes),
    )


def echo(choice: object) -> Any:
    """The choice as the response object shows it."""
    if choice is None:
        return "auto"
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        return {**choice, "mode": choice.get("mode") or "auto"}
    return choice


def _allowed(choice: Given, tools: ResponsesCatalogue, notes: list[Note]) -> Choice:
    listed = choice.get("tools")
    if not isinstance(listed, list):
        raise wrong_type(PARAM, "an array of tools in 'tools'", listed)
    return allowed_tools(choice, listed, notes, lambda one: _named(one, tools, with_namespaces=True))


def _named(choice: Given, tools: ResponsesCatalogue, *, with_namespaces: bool = False) -> list[str]:
    """The upstream names that an object means: one, or for `namespace` all of its members; none for a tool that was
    left out."""
    kind = kind_of(choice)
    if kind in _BY_TYPE:
        found = tools.find(_BY_TYPE[kind], kind, None)
        if found is not None:
            return [found]
    if tools.search is not None and is_search(kind):
        return [tools.search.tool]
    if tools.was_left_out(kind):
        return []
    if kind in _BY_TYPE:
        raise not_found(kind)
    if kind in _HOSTED:
        raise unsupported(PARAM, f"Tools of type '{kind}' cannot be called through this gateway.")
    if kind not in _BY_NAME and not (with_namespaces and kind == "namespace"):
        raise wrong_value(PARAM, kind)
    if "name" not in choice and isinstance(choice.get(kind), dict):  # as in chat completions
        inner = given_object(choice, kind, PARAM)
        name, namespace = inner.get("name"), None
        inner.close()
    else:
        name, namespace = choice.get("name"), choice.get("namespace")
    if not isinstance(name, str):
        raise wrong_type(PARAM, "a string for 'name'", name)
    if namespace is not None and not isinstance(namespace, str):
        raise wrong_type(PARAM, "a string for 'namespace'", namespace)
    if kind == "namespace":
        members = tools.members(name)
        if not members:
            raise not_found(name)
        return [*members]
    found = tools.find(_BY_NAME[kind], name, namespace)
    if found is None and not tools.was_left_out(name):
        raise not_found(name)
    return [] if found is None else [found]
