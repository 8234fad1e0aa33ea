"""`tools` and `tool_choice` of chat completions ↔ the flat list of functions that a chat server takes.

Functions pass; `custom` tools become functions, and the catalogue (`translators.openai.catalogue`) restores them. A
name changes only where servers refuse it, or where a function and a custom tool share it. Tools in the shapes of other
protocols are read too.
"""

from __future__ import annotations

from dragoman.translators.chat_completions.foreign_shapes import choice_of, is_flat
from dragoman.translators.fields import Given
from dragoman.translators.openai.catalogue import Catalogue, DeclaredTool, ToolKind
from dragoman.translators.openai.reading import expect_list, expect_text, given_object, name_of, text_or_null
from dragoman.translators.openai.refusals import wrong_value
from dragoman.translators.openai.tool_choice import PARAM, Choice, allowed_tools, choose, kind_of, not_found
from dragoman.translators.openai.tools import CUSTOM_PARAMETERS, custom_description, read_function

_KINDS: dict[str, ToolKind] = {"function": "function", "custom": "custom"}


class ChatCatalogue(Catalogue):
    def _declare(self, tool: Given, path: str) -> list[str]:
        if is_flat(tool):
            tool.pass_over("type")
            return [self._function(tool, path, "input_schema" if "input_schema" in tool else "parameters")]
        match expect_text(tool, "type", path):
            case "function":
                owner = given_object(tool, "function", path)
                name = self._function(owner, f"{path}.function")
                owner.close()
                return [name]
            case "custom":
                owner, path = given_object(tool, "custom", path), f"{path}.custom"
                description = custom_description(text_or_null(owner, "description", path) or "", owner, path, "grammar")
                declared = DeclaredTool("custom", name_of(owner, path))
                owner.close()
                return [self._add(declared, description, CUSTOM_PARAMETERS, path)]
            case hosted:
                self.leave_out(hosted, f"{path}.type")
                tool.pass_over(*tool)
                return []

    def _function(self, owner: Given, path: str, key: str = "parameters") -> str:
        function = read_function(owner, path, key)
        declared = DeclaredTool("function", name_of(owner, path))
        return self._add(declared, function.description, function.parameters, path, function.strict)

    def choose(self, choice: object) -> Choice:
        return choose(choice_of(choice), self, self._notes, self._unread, named=self._named, allowed=self._allowed)

    def _allowed(self, choice: Given) -> Choice:
        allowed = given_object(choice, "allowed_tools", PARAM)
        listed = expect_list(allowed, "tools", f"{PARAM}.allowed_tools")
        chosen = allowed_tools(allowed, listed, self._notes, self._named)
        allowed.close()
        return chosen

    def _named(self, choice: Given) -> list[str]:
        kind = kind_of(choice)
        if kind in self.left_out:
            return []
        if kind not in _KINDS:
            raise wrong_value(PARAM, kind, "'function', 'custom' and 'allowed_tools'")
        owner = given_object(choice, kind, PARAM)
        name = name_of(owner, f"{PARAM}.{kind}")
        owner.close()
        upstream = self._names.get((_KINDS[kind], None, name))
        if upstream is not None and upstream in self._tools:
            return [upstream]
        if name in self.left_out:
            return []
        raise not_found(name)
