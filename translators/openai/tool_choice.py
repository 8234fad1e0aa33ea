"""What the two OpenAI protocols share of `tool_choice`.

A choice that needs a tool which was left out is dropped with it and noted. Any other choice that cannot be kept is
refused with `param` `tool_choice`. `allowed_tools` is a hard rule, so the model is offered nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dragoman.translators.errors import GatewayError, invalid
from dragoman.translators.fields import Given, Unread
from dragoman.translators.ir import Named, Note, ToolChoice
from dragoman.translators.openai.catalogue import Catalogue
from dragoman.translators.openai.refusals import wrong_type, wrong_value

PARAM = "tool_choice"
DROPPED = Note("field", PARAM)

Choice = tuple[ToolChoice, frozenset[str] | None]


def choose(
    choice: object,
    tools: Catalogue,
    notes: list[Note],
    unread: Unread,
    *,
    named: Callable[[Given], Sequence[str]],
    allowed: Callable[[Given], Choice],
) -> Choice:
    """The choice for the server, and the upstream names to which the offer is narrowed (None: all of them). `notes`
    grows with a choice that is dropped. `named` gives the upstream names that an object means, none where the tool was
    left out; `allowed` reads `allowed_tools`."""
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
                raise invalid("Tool choice 'required' must be specified with 'tools' parameter.", PARAM)
            return "required", None
        case dict():
            given = unread.given(choice, PARAM)
            chosen = allowed(given) if given.get("type") == "allowed_tools" else _one(named(given), notes)
            if DROPPED not in notes:
                given.close()
            return chosen
        case str():
            raise wrong_value(PARAM, choice, "'none', 'auto' and 'required'")
        case _:
            raise wrong_type(PARAM, "a string or an object", choice)


def _one(names: Sequence[str], notes: list[Note]) -> Choice:
    if not names:
        notes.append(DROPPED)
        return "auto", None
    return Named(names[0]), None


def allowed_tools(
    owner: Given, listed: list[Any], notes: list[Note], named: Callable[[Given], Sequence[str]]
) -> Choice:
    """`owner` holds the `mode` and the tools `listed`."""
    if not listed:
        raise invalid("Tool choice 'allowed_tools' names no tools.", PARAM, "empty_array")
    names: set[str] = set()
    for one in listed:
        if not isinstance(one, dict):
            raise wrong_type(PARAM, "an object for each allowed tool", one)
        given = owner.inner(one, f"{PARAM}.tools")
        found = named(given)
        if found:
            given.close()
        if not found and DROPPED not in notes:
            notes.append(DROPPED)
        names.update(found)
    match owner.get("mode"):
        case None | "auto":
            return "auto", frozenset(names)
        case "required":
            return "required" if names else "auto", frozenset(names)
        case other:
            raise wrong_value(PARAM, other, "'auto' and 'required'")


def kind_of(choice: Given) -> str:
    kind = choice.get("type")
    if not isinstance(kind, str):
        raise wrong_type(PARAM, "a string for 'type'", kind)
    return kind


def not_found(name: str) -> GatewayError:
    return invalid(f"Tool choice '{name[:64]}' not found in 'tools' parameter.", PARAM)
