"""Tools of the Responses API ↔ the flat list of functions that a chat server takes.

Functions pass; `custom` tools, members of a `namespace`, `tool_search`, `local_shell`, `shell` and `apply_patch` become
functions, and the catalogue (`translators.openai.catalogue`) restores them. A member of a namespace is called
`namespace__member`. So does `web_search`, where the gateway runs it.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any

import orjson

from dragoman.translators.fields import Given, Unread
from dragoman.translators.ir import Note, WebSearch
from dragoman.translators.openai.catalogue import Catalogue, DeclaredTool, ToolKind, free_name
from dragoman.translators.openai.reading import expect_list, expect_text, name_of, object_or_null, text_or_null
from dragoman.translators.openai.refusals import wrong_type
from dragoman.translators.openai.tools import (
    CUSTOM_PARAMETERS,
    custom_description,
    object_schema,
    read_function,
)
from dragoman.translators.protocol import Json, Policy
from dragoman.translators.responses import proxies
from dragoman.translators.responses.searches import is_live_search, read_search
from dragoman.translators.seen import once
from dragoman.translators.web_search import NAME, function

_VERSION = re.compile(r"(_preview)?(_[0-9_]+)?$")


class ResponsesCatalogue(Catalogue):
    def __init__(self, policy: Policy, notes: list[Note], unread: Unread) -> None:
        super().__init__(policy, notes, unread)
        self.search: WebSearch | None = None  # which the gateway runs
        self._by_name: dict[tuple[ToolKind, str], tuple[str, ...]] = {}  # declared, whatever their namespace
        self._by_namespace: dict[str, tuple[str, ...]] = {}
        self._carriers: dict[str, str] = {}  # the member that carries its namespace's description

    # ------------------------------------------------------------------------------------------------------- declaring

    def _take(self, declared: Catalogue) -> None:
        assert isinstance(declared, ResponsesCatalogue)
        super()._take(declared)
        self.search = declared.search
        self._by_name = dict(declared._by_name)
        self._by_namespace = dict(declared._by_namespace)
        self._carriers = dict(declared._carriers)

    def _declare(self, tool: Given, path: str) -> list[str]:
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
                return self._proxy("tool_search", description, shown, path)
            case "local_shell":
                return self._proxy("local_shell", proxies.LOCAL_SHELL_DESCRIPTION, proxies.LOCAL_SHELL_PARAMETERS, path)
            case "shell" if is_local(tool.get("environment")):
                description = proxies.shell_description((tool.get("environment") or {}).get("skills"))
                return self._proxy("shell", description, proxies.SHELL_PARAMETERS, path)
            case "apply_patch":
                return self._proxy("apply_patch", proxies.APPLY_PATCH_DESCRIPTION, proxies.APPLY_PATCH_PARAMETERS, path)
            case search if self._policy.web_search and is_search(search) and is_live_search(tool):
                return [self._web_search(tool, path)]
            case hosted:
                self.leave_out(hosted, f"{path}.type")
                tool.pass_over(*tool)
                return []

    def _proxy(self, kind: ToolKind, description: str, parameters: Json, path: str) -> list[str]:
        return [self._add(DeclaredTool(kind, kind), description, parameters, path)]

    def _web_search(self, tool: Given, path: str) -> str:
        shown = function()
        name = self._add(DeclaredTool("web_search", NAME), shown.description, dict(shown.parameters), path)
        self.search = read_search(tool, name, path)
        return name

    def _namespace(self, tool: Given, path: str) -> list[str]:
        namespace = name_of(tool, path)
        description = text_or_null(tool, "description", path)
        # A chat server has no place for the namespace's own description: the first member to be named carries it.
        preface = f"[{namespace}: {description}]\n" if description else ""
        names: list[str] = []
        for index, value in enumerate(expect_list(tool, "tools", path)):
            place = f"{path}.tools[{index}]"
            if not isinstance(value, dict):
                raise wrong_type(place, "an object", value)
            member = tool.inner(value, place)
            kind = expect_text(member, "type", place)
            if kind not in ("function", "custom"):
                self.leave_out(kind, f"{place}.type")
                continue
            first = self._carriers.setdefault(namespace, name_of(member, place)) == member["name"]
            declare = self._function if kind == "function" else self._custom
            names.append(declare(member, place, namespace, preface if first else ""))
            member.close(self._inert)
        return names

    def _function(self, tool: Given, path: str, namespace: str | None, preface: str) -> str:
        function = read_function(tool, path)
        declared = DeclaredTool("function", name_of(tool, path), namespace, _marks_encrypted(tool.get("parameters")))
        return self._add(declared, preface + function.description, function.parameters, path, function.strict)

    def _custom(self, tool: Given, path: str, namespace: str | None, preface: str) -> str:
        description = custom_description(preface + (text_or_null(tool, "description", path) or ""), tool, path)
        return self._add(DeclaredTool("custom", name_of(tool, path), namespace), description, CUSTOM_PARAMETERS, path)

    def _add(
        self, declared: DeclaredTool, description: str, parameters: Json, path: str, strict: bool | None = None
    ) -> str:
        before = len(self)
        name = super()._add(declared, description, parameters, path, strict)
        if len(self) > before:
            key = declared.kind, declared.name
            self._by_name[key] = (*self._by_name.get(key, ()), name)
            if declared.namespace is not None:
                self._by_namespace[declared.namespace] = (*self.members(declared.namespace), name)
        return name

    def _free_name(self, declared: DeclaredTool) -> str:
        flat = declared.name
        if declared.namespace is not None:
            separator = "" if declared.namespace.endswith("__") else "__"
            flat = f"{declared.namespace}{separator}{declared.name}"
        return free_name(flat, (declared.kind, declared.namespace or "", declared.name), self._declared)

    # --------------------------------------------------------------------------------------------------------- finding

    def find(self, kind: ToolKind, name: str, namespace: str | None) -> str | None:
        """The upstream name of a declared tool, None where there is none. Without a namespace, a tool of any namespace
        is found, unless there is more than one."""
        exact = self._names.get((kind, namespace, name))
        if exact in self._tools:
            return exact
        if namespace is not None:
            return None
        found = self._by_name.get((kind, name), ())
        return found[0] if len(found) == 1 else None

    def restore(self, name: str) -> DeclaredTool:
        """Models also write a member of a namespace as `member` or `namespace.member`. That is the tool, where only one
        is called so; Codex refuses a call without its namespace."""
        if name in self._declared:
            tool = self._declared[name]
            # where the gateway does not run it now, the model must not have called it: the client will refuse it
            return tool if tool.kind != "web_search" else DeclaredTool("function", tool.name)
        found = [tool for tool in map(self._declared.__getitem__, self._tools) if name in _other_names(tool)]
        return found[0] if len(found) == 1 else super().restore(name)

    def members(self, namespace: str) -> tuple[str, ...]:
        return self._by_namespace.get(namespace, ())

    def was_left_out(self, kind: str) -> bool:
        """Whether a tool of this type or of another version of it was declared and left out."""
        return _family(kind) in map(_family, self.left_out)


def _other_names(tool: DeclaredTool) -> tuple[str, ...]:
    namespace = tool.namespace
    return () if namespace is None else (tool.name, *(f"{namespace}{separator}{tool.name}" for separator in "./:"))


def is_search(kind: str) -> bool:
    return _family(kind) == NAME


def _family(kind: str) -> str:
    """`web_search_preview_2025_03_11` and `web_search_2025_08_26` are versions of `web_search`."""
    return _VERSION.sub("", kind[:64])  # OpenAI has no longer one, and the pattern backtracks


def is_local(environment: object) -> bool:
    return environment is None or (isinstance(environment, dict) and environment.get("type", "local") == "local")


def _marks_encrypted(parameters: Any) -> bool:
    properties = (parameters or {}).get("properties")
    if not isinstance(properties, dict):
        return False
    return any(isinstance(one, dict) and one.get("encrypted") is True for one in properties.values())


class Shown(list[Any]):
    """`fragment` is its text, made once: it is in three events of each answer, and an agent's are some ten thousand
    bytes."""

    @cached_property
    def fragment(self) -> orjson.Fragment:
        text = memoryview(orjson.dumps(self))
        return orjson.Fragment(bytes(text))  # a copy: what the encoder returns may hold more memory than its length


def echo(tools: list[Any]) -> Shown:
    """The declared tools as the response object shows them: as they came, with the keys that strict readers of the
    answer require of functions."""
    return once(tools, "echo", lambda notes, unread: Shown(map(_shown, tools)), [], Unread())


def _shown(tool: Json) -> Json:
    if tool["type"] != "function":
        return tool
    return {**tool, **{key: tool.get(key) for key in ("description", "parameters", "strict")}}
