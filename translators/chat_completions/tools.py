"""`tools` and `tool_choice` of chat completions ↔ the flat list of functions that a chat server takes.

Functions pass; `custom` tools become functions and are restored through a map that lives as long as the request. A
name is never changed unless servers refuse it, or a function and a custom tool have the same one. Tools of other types
are left out and noted, or refused, as the operator decides, and a choice that needs one of them is dropped with it. Any
other choice that cannot be kept is refused with `param` `tool_choice`; `allowed_tools` is a hard rule, so the model is
offered nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dragoman.translators.errors import GatewayError, invalid
from dragoman.translators.fields import noted
from dragoman.translators.ir import Named, Note, Tool, ToolChoice
from dragoman.translators.openai.reading import expect_list, expect_object, expect_text, name_of, text_or_null
from dragoman.translators.openai.refusals import unsupported, wrong_type, wrong_value
from dragoman.translators.openai.tools import CUSTOM_PARAMETERS, custom_description, free_name, read_function
from dragoman.translators.protocol import Json, Policy

CallKind = Literal["function", "custom"]

_CALLS: dict[str, CallKind] = {"function": "function", "custom": "custom"}
_PARAM = "tool_choice"
_DROPPED = Note("field", _PARAM)


@dataclass(frozen=True, slots=True)
class Declared:
    """A tool as the client knows it."""

    kind: CallKind
    name: str


class Toolbox:
    """Collects the tools of a request in the order in which they are mentioned. `notes` grows with what is left
    out."""

    def __init__(self, policy: Policy, notes: list[Note]) -> None:
        self._policy = policy
        self._notes = notes
        self._tools: dict[str, Tool] = {}  # declared, by upstream name
        self._owners: dict[str, Declared] = {}  # by upstream name; also tools that only the history mentions
        self._names: dict[Declared, str] = {}
        self._left_out: set[str] = set()

    @property
    def owners(self) -> Mapping[str, Declared]:
        """What upstream names mean to the client. A name that the model invented is not in it."""
        return self._owners

    def offered(self, allowed: frozenset[str] | None) -> tuple[Tool, ...]:
        return tuple(tool for name, tool in self._tools.items() if allowed is None or name in allowed)

    # ------------------------------------------------------------------------------------------------------- declaring

    def declare_all(self, tools: object) -> None:
        if not isinstance(tools, list):
            raise wrong_type("tools", "an array", tools)
        for index, tool in enumerate(tools):
            path = f"tools[{index}]"
            if not isinstance(tool, dict):
                raise wrong_type(path, "an object", tool)
            self._declare(tool, path)

    def _declare(self, tool: Json, path: str) -> None:
        match expect_text(tool, "type", path):
            case "function":
                owner, path = expect_object(tool, "function", path), f"{path}.function"
                function = read_function(owner, path)
                declared = Declared("function", name_of(owner, path))
                self._add(declared, function.description, function.parameters, path, function.strict)
            case "custom":
                owner, path = expect_object(tool, "custom", path), f"{path}.custom"
                description = custom_description(text_or_null(owner, "description", path) or "", owner, path, "grammar")
                self._add(Declared("custom", name_of(owner, path)), description, CUSTOM_PARAMETERS, path)
            case hosted:
                self.leave_out(hosted, f"{path}.type")

    def _add(
        self, declared: Declared, description: str, parameters: Json, path: str, strict: bool | None = None
    ) -> None:
        name = self._assign(declared)
        tool = Tool(name, description, parameters, strict)
        if self._tools.setdefault(name, tool) != tool:  # the same name again: the first declaration stays
            self._notes.append(noted("tool", declared.name))
        if len(self._tools) > self._policy.max_tools:
            message = f"Too many tools: at most {self._policy.max_tools} are allowed."
            raise invalid(message, path, "array_above_max_length")

    def leave_out(self, kind: str, path: str) -> None:
        if self._policy.hosted_tools == "reject":
            raise unsupported(path, f"Tools of type '{kind[:64]}' are not supported by this gateway.")
        self._left_out.add(kind)
        self._notes.append(noted("tool", kind))

    def name(self, kind: CallKind, name: str) -> str:
        """The upstream name for a call in the history, whether or not its tool is declared any longer."""
        other: CallKind = "custom" if kind == "function" else "function"
        known = self._names.get(Declared(kind, name)) or self._names.get(Declared(other, name))
        return known or self._assign(Declared(kind, name))

    def _assign(self, declared: Declared) -> str:
        known = self._names.get(declared)
        if known is None:
            known = free_name(declared.name, (declared.kind, declared.name), self._owners)
            self._names[declared] = known
            self._owners[known] = declared
        return known

    # -------------------------------------------------------------------------------------------------------- choosing

    def choose(self, choice: object) -> tuple[ToolChoice, frozenset[str] | None]:
        """The choice for the server, and the upstream names to which the offer is narrowed (None: all of them)."""
        match choice:
            case None | "auto":
                return "auto", None
            case "none":
                return "none", None
            case "required":
                if not self._tools and self._left_out:
                    return self._dropped()
                if not self._tools:
                    raise invalid("Tool choice 'required' must be specified with 'tools' parameter.", _PARAM)
                return "required", None
            case dict() if choice.get("type") == "allowed_tools":
                return self._allowed(expect_object(choice, "allowed_tools", _PARAM))
            case dict():
                name = self._named(choice)
                return self._dropped() if name is None else (Named(name), None)
            case str():
                raise wrong_value(_PARAM, choice, "'none', 'auto' and 'required'")
            case _:
                raise wrong_type(_PARAM, "a string or an object", choice)

    def _allowed(self, allowed: Json) -> tuple[ToolChoice, frozenset[str]]:
        listed: list[Any] = expect_list(allowed, "tools", f"{_PARAM}.allowed_tools")
        if not listed:
            raise invalid("Tool choice 'allowed_tools' names no tools.", _PARAM, "empty_array")
        names: set[str] = set()
        for one in listed:
            if not isinstance(one, dict):
                raise wrong_type(_PARAM, "an object for each allowed tool", one)
            name = self._named(one)
            if name is not None:
                names.add(name)
            elif _DROPPED not in self._notes:
                self._notes.append(_DROPPED)
        match allowed.get("mode"):
            case None | "auto":
                return "auto", frozenset(names)
            case "required":
                return "required" if names else "auto", frozenset(names)
            case other:
                raise wrong_value(_PARAM, other, "'auto' and 'required'")

    def _dropped(self) -> tuple[ToolChoice, None]:
        self._notes.append(_DROPPED)
        return "auto", None

    def _named(self, choice: Json) -> str | None:
        """The upstream name; None for a tool that was left out."""
        kind = choice.get("type")
        if not isinstance(kind, str):
            raise wrong_type(_PARAM, "a string for 'type'", kind)
        if kind in self._left_out:
            return None
        call = _CALLS.get(kind)
        if call is None:
            raise wrong_value(_PARAM, kind, "'function', 'custom' and 'allowed_tools'")
        declared = Declared(call, name_of(expect_object(choice, kind, _PARAM), f"{_PARAM}.{kind}"))
        upstream = self._names.get(declared)
        if upstream is not None and upstream in self._tools:
            return upstream
        if declared.name in self._left_out:
            return None
        raise _not_found(declared.name)


def _not_found(name: str) -> GatewayError:
    return invalid(f"Tool choice '{name[:64]}' not found in 'tools' parameter.", _PARAM)
