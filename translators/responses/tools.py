"""Tools of the Responses API ↔ the flat list of functions that a chat server takes.

Functions pass; `custom`, `namespace` members, `tool_search`, `local_shell`, `shell` and `apply_patch` become
functions and are restored through a map that lives as long as the request. A name is never split: what it stands for
is looked up. Names are given in the order in which a request mentions them, so what is appended later never changes
an earlier one:

* a member of a namespace is `namespace__member`; characters that servers refuse become `_`;
* a name longer than 64 characters, or one that is taken already, gets a hash of its full identity;
* a call in the history has the name of its tool even where that tool is no longer declared.

Tools that OpenAI would run itself (`web_search`, `mcp` …), and types that nobody knows yet, are left out and noted, or
refused, as the operator decides.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dragoman.translators.errors import invalid
from dragoman.translators.fields import noted
from dragoman.translators.ir import Note, Tool
from dragoman.translators.openai.reading import expect_list, expect_text, name_of, object_or_null, text_or_null
from dragoman.translators.openai.refusals import unsupported, wrong_type
from dragoman.translators.openai.tools import (
    CUSTOM_PARAMETERS,
    custom_description,
    free_name,
    object_schema,
    read_function,
)
from dragoman.translators.protocol import Json, Policy
from dragoman.translators.responses import proxies

_VERSION = re.compile(r"(_preview)?(_[0-9_]+)?$")

DeclaredKind = Literal["function", "custom", "tool_search", "local_shell", "shell", "apply_patch"]


@dataclass(frozen=True, slots=True)
class Declared:
    """A tool as the client declared it. `encrypted` tells that its schema marks a property so (Codex, multi-agent
    v2)."""

    kind: DeclaredKind
    name: str
    namespace: str | None = None
    encrypted: bool = False


class ToolMap:
    """What the model is offered, and what its calls mean to the client."""

    __slots__ = ("_owners", "tools")

    def __init__(self, tools: tuple[Tool, ...], owners: Mapping[str, Declared]) -> None:
        self.tools = tools
        self._owners = owners

    def restore(self, name: str) -> Declared:
        """The declaration behind an upstream name. A name that the model invented is a function of that name: the
        client will tell it so."""
        return self._owners.get(name) or Declared("function", name)


class Declarations:
    """Collects the tools of a request in the order in which they are mentioned. `notes` grows with what is left out."""

    def __init__(self, policy: Policy, notes: list[Note]) -> None:
        self._policy = policy
        self._notes = notes
        self._tools: dict[str, Tool] = {}  # declared, by upstream name
        self._owners: dict[str, Declared] = {}  # by upstream name; also tools that only the history mentions
        self._names: dict[tuple[DeclaredKind, str | None, str], str] = {}
        self._bare: dict[tuple[str | None, str], str] = {}
        self._by_name: dict[tuple[DeclaredKind, str], list[str]] = {}  # declared, whatever their namespace
        self._by_namespace: dict[str, list[str]] = {}
        self._carriers: dict[str, str] = {}  # the member that carries its namespace's description
        self.left_out: set[str] = set()  # types

    def __len__(self) -> int:
        return len(self._tools)

    def map(self, allowed: frozenset[str] | None = None) -> ToolMap:
        """The finished map; with `allowed`, the model is offered only these upstream names."""
        tools = (tool for name, tool in self._tools.items() if allowed is None or name in allowed)
        return ToolMap(tuple(tools), self._owners)

    # ------------------------------------------------------------------------------------------------------- declaring

    def declare_all(self, tools: object, path: str) -> list[str]:
        """Takes a list of tools in; gives the upstream names of those that the model may now call."""
        if not isinstance(tools, list):
            raise wrong_type(path, "an array", tools)
        names: list[str] = []
        for index, tool in enumerate(tools):
            names.extend(self._declare(tool, f"{path}[{index}]"))
        return names

    def _declare(self, tool: object, path: str) -> list[str]:
        if not isinstance(tool, dict):
            raise wrong_type(path, "an object", tool)
        match expect_text(tool, "type", path):
            case "function":
                return [self._function(tool, path, None, "")]
            case "custom":
                return [self._custom(tool, path, None, "")]
            case "namespace":
                return self._namespace(tool, path)
            case "tool_search" if tool.get("execution") == "client":
                parameters = object_or_null(tool, "parameters", path)
                shown = object_schema(parameters) if parameters else proxies.TOOL_SEARCH_PARAMETERS
                description = text_or_null(tool, "description", path) or proxies.TOOL_SEARCH_DESCRIPTION
                return [self._add(Declared("tool_search", "tool_search"), description, shown, path)]
            case "local_shell":
                shown = proxies.LOCAL_SHELL_PARAMETERS
                return [self._add(Declared("local_shell", "local_shell"), proxies.LOCAL_SHELL_DESCRIPTION, shown, path)]
            case "shell" if _is_local(tool.get("environment")):
                description = proxies.shell_description((tool.get("environment") or {}).get("skills"))
                return [self._add(Declared("shell", "shell"), description, proxies.SHELL_PARAMETERS, path)]
            case "apply_patch":
                shown = proxies.APPLY_PATCH_PARAMETERS
                return [self._add(Declared("apply_patch", "apply_patch"), proxies.APPLY_PATCH_DESCRIPTION, shown, path)]
            case hosted:
                self._leave_out(hosted, path)
                return []

    def _namespace(self, tool: Json, path: str) -> list[str]:
        namespace = name_of(tool, path)
        description = text_or_null(tool, "description", path)
        # A chat server has no place for the namespace's own description: the member that was named first carries it.
        preface = f"[{namespace}: {description}]\n" if description else ""
        names: list[str] = []
        for index, member in enumerate(expect_list(tool, "tools", path)):
            place = f"{path}.tools[{index}]"
            if not isinstance(member, dict):
                raise wrong_type(place, "an object", member)
            kind = expect_text(member, "type", place)
            if kind not in ("function", "custom"):
                self._leave_out(kind, place)
                continue
            first = self._carriers.setdefault(namespace, name_of(member, place)) == member["name"]
            declare = self._function if kind == "function" else self._custom
            names.append(declare(member, place, namespace, preface if first else ""))
        return names

    def _function(self, tool: Json, path: str, namespace: str | None, preface: str) -> str:
        function = read_function(tool, path)
        declared = Declared("function", name_of(tool, path), namespace, _marks_encrypted(tool.get("parameters")))
        return self._add(declared, preface + function.description, function.parameters, path, function.strict)

    def _custom(self, tool: Json, path: str, namespace: str | None, preface: str) -> str:
        description = custom_description(preface + (text_or_null(tool, "description", path) or ""), tool, path)
        return self._add(Declared("custom", name_of(tool, path), namespace), description, CUSTOM_PARAMETERS, path)

    def _add(
        self, declared: Declared, description: str, parameters: Json, path: str, strict: bool | None = None
    ) -> str:
        name = self._assign(declared, declaring=True)
        tool = Tool(name, description, parameters, strict)
        known = self._tools.setdefault(name, tool)
        if known is tool:
            self._owners[name] = declared
            self._by_name.setdefault((declared.kind, declared.name), []).append(name)
            if declared.namespace is not None:
                self._by_namespace.setdefault(declared.namespace, []).append(name)
            if len(self._tools) > self._policy.max_tools:
                message = f"Too many tools: at most {self._policy.max_tools} are allowed."
                raise invalid(message, path, "array_above_max_length")
        elif (
            known != tool
        ):  # the same tool, described anew: what the prompt already shows stays, or its prefix would change
            self._notes.append(noted("tool", declared.name))
        return name

    def _leave_out(self, kind: str, path: str) -> None:
        if self._policy.hosted_tools == "reject":
            raise unsupported(f"{path}.type", f"Tools of type '{kind}' are not supported by this gateway.")
        self.left_out.add(kind)
        self._notes.append(noted("tool", kind))

    # ---------------------------------------------------------------------------------------------------------- naming

    def name(self, kind: DeclaredKind, name: str, namespace: str | None = None) -> str:
        """The upstream name for a call in the history, whether or not its tool is declared (yet, or any longer)."""
        return self._assign(Declared(kind, name, namespace), declaring=False)

    def _assign(self, declared: Declared, *, declaring: bool) -> str:
        key = (declared.kind, declared.namespace, declared.name)
        if (known := self._names.get(key)) is not None:
            return known
        # The history may have named the tool under another kind before it was declared, or after it ceased to be.
        bare = self._bare.get((declared.namespace, declared.name))
        if bare is not None and not (declaring and bare in self._tools):
            self._names[key] = bare
            return bare
        upstream = self._free_name(declared)
        self._names[key] = upstream
        self._bare.setdefault((declared.namespace, declared.name), upstream)
        self._owners[upstream] = declared
        return upstream

    def _free_name(self, declared: Declared) -> str:
        flat = declared.name
        if declared.namespace is not None:
            separator = "" if declared.namespace.endswith("__") else "__"
            flat = f"{declared.namespace}{separator}{declared.name}"
        return free_name(flat, (declared.kind, declared.namespace or "", declared.name), self._owners)

    # --------------------------------------------------------------------------------------------------------- finding

    def find(self, kind: DeclaredKind, name: str, namespace: str | None) -> str | None:
        """The upstream name of a declared tool. Without a namespace, the member of any one namespace is meant; None
        where there is none, or more than one."""
        exact = self._names.get((kind, namespace, name))
        if exact in self._tools:
            return exact
        if namespace is not None:
            return None
        found = self._by_name.get((kind, name), ())
        return found[0] if len(found) == 1 else None

    def members(self, namespace: str) -> list[str]:
        return self._by_namespace.get(namespace, [])

    def was_left_out(self, kind: str) -> bool:
        """Whether a tool of this type, or of another version of it, was declared and left out."""
        return _family(kind) in map(_family, self.left_out)


def _family(kind: str) -> str:
    """`web_search_preview_2025_03_11` and `web_search_2025_08_26` are versions of `web_search`."""
    return _VERSION.sub("", kind[:64])  # no longer one is a type of OpenAI's, and the pattern looks back


def _is_local(environment: object) -> bool:
    return environment is None or (isinstance(environment, dict) and environment.get("type", "local") == "local")


def _marks_encrypted(parameters: Any) -> bool:
    properties = (parameters or {}).get("properties")
    if not isinstance(properties, dict):
        return False
    return any(isinstance(one, dict) and one.get("encrypted") is True for one in properties.values())


def echo(tools: list[Any]) -> list[Any]:
    """The declared tools as the response object shows them: as they came, with the keys of functions that strict
    readers of the answer insist on."""
    out: list[Any] = []
    for tool in tools:
        if tool["type"] == "function":
            tool = {**tool, **{key: tool.get(key) for key in ("description", "parameters", "strict")}}
        out.append(tool)
    return out
