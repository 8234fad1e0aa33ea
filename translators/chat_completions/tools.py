"""`tools` and `tool_choice` of chat completions ↔ the flat list of functions that a chat server takes.

Functions pass; `custom` tools become functions, and the catalogue (`translators.openai.catalogue`) restores them. A
name changes only where servers refuse it, or where a function and a custom tool share it. Tools in the shapes of other
protocols are read too.
"""

from __future__ import annotations

import orjson

from dragoman.translators.chat_completions.foreign_shapes import choice_of, is_flat, is_flat_custom
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
        if is_flat_custom(tool):
            tool.pass_over("type")
            return [self._custom(tool, path, called_as_function=True)]
        match expect_text(tool, "type", path):
            case "function":
                owner = given_object(tool, "function", path)
                name = self._function(owner, f"{path}.function")
                owner.close()
                return [name]
            case "custom":
                owner = given_object(tool, "custom", path)
                name = self._custom(owner, f"{path}.custom")
                owner.close()
                return [name]
            case hosted:
                self.leave_out(hosted, f"{path}.type")
                tool.pass_over(*tool)
                return []

    def _function(self, owner: Given, path: str, key: str = "parameters") -> str:
        function = read_function(owner, path, key)
        declared = DeclaredTool("function", name_of(owner, path))
        return self._add(declared, function.description, function.parameters, path, function.strict)

    def _custom(self, owner: Given, path: str, *, called_as_function: bool = False) -> str:
        description = custom_description(text_or_null(owner, "description", path) or "", owner, path, "grammar")
        declared = DeclaredTool("custom", name_of(owner, path), called_as_function=called_as_function)
        return self._add(declared, description, CUSTOM_PARAMETERS, path)

    def called(self, name: str, arguments: str) -> tuple[str, str]:
        """The upstream name and arguments of a call in the shape of a function's."""
        upstream = self.name("function", name)
        if self.restore(upstream).called_as_function:
            arguments = orjson.dumps({"input": arguments}).decode()
        return upstream, arguments

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
        if upstream is None and self.restore(bare := self._bare.get((None, name), "")).called_as_function:
            upstream = bare
        if upstream is not None and upstream in self._tools:
            return [upstream]
        if name in self.left_out:
            return []
        raise not_found(name)
