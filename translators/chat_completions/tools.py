"""`tools` and `tool_choice` of chat completions ↔ the flat list of functions that a chat server takes.

Functions pass; `custom` tools become functions, and the catalogue (`translators.openai.catalogue`) restores them. A
name changes only where servers refuse it, or where a function and a custom tool share it.
"""

from __future__ import annotations

from dragoman.translators.openai.catalogue import Catalogue, DeclaredTool, ToolKind
from dragoman.translators.openai.reading import expect_list, expect_object, expect_text, name_of, text_or_null
from dragoman.translators.openai.refusals import wrong_value
from dragoman.translators.openai.tool_choice import PARAM, Choice, allowed_tools, choose, kind_of, not_found
from dragoman.translators.openai.tools import CUSTOM_PARAMETERS, custom_description, read_function
from dragoman.translators.protocol import Json

_KINDS: dict[str, ToolKind] = {"function": "function", "custom": "custom"}


class ChatCatalogue(Catalogue):
    def _declare(self, tool: Json, path: str) -> list[str]:
        match expect_text(tool, "type", path):
            case "function":
                owner, path = expect_object(tool, "function", path), f"{path}.function"
                function = read_function(owner, path)
                declared = DeclaredTool("function", name_of(owner, path))
                return [self._add(declared, function.description, function.parameters, path, function.strict)]
            case "custom":
                owner, path = expect_object(tool, "custom", path), f"{path}.custom"
                description = custom_description(text_or_null(owner, "description", path) or "", owner, path, "grammar")
                return [self._add(DeclaredTool("custom", name_of(owner, path)), description, CUSTOM_PARAMETERS, path)]
            case hosted:
                self.leave_out(hosted, f"{path}.type")
                return []

    def choose(self, choice: object) -> Choice:
        return choose(choice, self, self._notes, named=self._named, allowed=self._allowed)

    def _allowed(self, choice: Json) -> Choice:
        allowed = expect_object(choice, "allowed_tools", PARAM)
        listed = expect_list(allowed, "tools", f"{PARAM}.allowed_tools")
        return allowed_tools(listed, allowed.get("mode"), self._notes, self._named)

    def _named(self, choice: Json) -> list[str]:
        kind = kind_of(choice)
        if kind in self.left_out:
            return []
        if kind not in _KINDS:
            raise wrong_value(PARAM, kind, "'function', 'custom' and 'allowed_tools'")
        name = name_of(expect_object(choice, kind, PARAM), f"{PARAM}.{kind}")
        upstream = self._names.get((_KINDS[kind], None, name))
        if upstream is not None and upstream in self._tools:
            return [upstream]
        if name in self.left_out:
            return []
        raise not_found(name)
