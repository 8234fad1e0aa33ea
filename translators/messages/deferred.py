"""Tools that a conversation makes known: found by a search, added or removed on the way.

A deferred tool is no part of the prompt until something names it: a `tool_reference` in a result, a `tool_addition` in
a system message, a call, or the request's `tool_choice`. From there on it stands at the end of the list, in the order
of the first mentions, however the client has sorted it: so the tools of a turn are the beginning of the next turn's. A
removed tool stays in the list, for the same reason, and a text in its place says that it is gone.

A definition inside the conversation joins the list in the same way. One whose name is taken already changes nothing.
A compaction names the changes of what it sums up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dragoman.translators.fields import Given, noted
from dragoman.translators.ir import Named, Note, Text, Tool, ToolReference
from dragoman.translators.messages.hosted import LeftOut
from dragoman.translators.messages.reading import INERT, expect_text, given_object, refused
from dragoman.translators.messages.tools import MessagesCatalogue, read_tool, upstream_name
from dragoman.translators.protocol import Policy

KNOWN = "Tool that can be called now: {name}"
GONE = "Tool that can no longer be called: {name}"


class ToolChanges:
    """Follows a conversation from its beginning and keeps `catalogue.tools` up to date."""

    def __init__(self, catalogue: MessagesCatalogue, policy: Policy, notes: list[Note]) -> None:
        self._catalogue = catalogue
        self._policy = policy
        self._notes = notes
        self._by_name = {tool.name: tool for tool in reversed(catalogue.tools)}

    def reference(self, block: Given, path: str) -> ToolReference:
        """A `tool_reference` in a result or in an addition."""
        return self._known(_name(block, path))

    def called(self, name: str) -> None:
        """The model has called the tool `name`, so it knows it, wherever that was said."""
        if (tool := self._catalogue.deferred.pop(name, None)) is not None:
            self._append(replace(tool, deferred=False))

    def addition(self, block: Given, path: str) -> Text | None:
        """What is said at the place of a `tool_addition`, None where the tool cannot be called here."""
        tool, place = given_object(block, "tool", path), f"{path}.tool"
        match tool.get("type"):
            case "tool_reference":
                said: Text | None = self.reference(tool, place)
            case "tool_definition":
                said = self._defined(tool, place)
            case _:
                self._left_out(tool, "tool_addition")
                said = None
        tool.close()
        return said

    def removal(self, block: Given, path: str) -> Text | None:
        """What is said at the place of a `tool_removal`, None for tools of MCP servers, which are not shown here."""
        tool, place = given_object(block, "tool", path), f"{path}.tool"
        said: Text | None = None
        if tool.get("type") in (None, "tool_reference"):
            said = Text(GONE.format(name=_name(tool, place)))
        else:
            self._left_out(tool, "tool_removal")
        tool.close()
        return said

    def compacted(self, block: Given, path: str) -> list[Text]:
        """What is said of the changes for which a `compaction` stands: with what it sums up, they have left the
        conversation. Its server has written them, so nothing that is odd about them is refused."""
        changes, said = block.peek("tool_changes"), list[Text | None]()
        if not isinstance(changes, list) or not all(map(_is_change, changes)):
            return []
        block.pass_over("tool_changes")
        for index, change in enumerate(changes):
            place = f"{path}.tool_changes.{index}"
            given = block.inner(change, place)
            read = self.addition if given.get("type") == "tool_addition" else self.removal
            said.append(read(given, place))
            given.close(INERT)
        return [text for text in said if text is not None]

    def _left_out(self, tool: Given, kind: str) -> None:
        tool.pass_over(*tool)
        self._notes.append(noted("item", kind))

    def chosen(self) -> None:
        """The request itself names a tool that must be called."""
        if isinstance(choice := self._catalogue.choice, Named):
            self.called(choice.name)

    def _defined(self, owner: Given, path: str) -> Text | None:
        definition = given_object(owner, "definition", path)
        read, _ = read_tool(definition, f"{path}.definition", self._catalogue, self._policy, self._notes)
        if isinstance(read, LeftOut):
            return None
        if read.name not in self._catalogue.deferred:
            other = self._by_name.get(read.name)
            if other is None:
                self._catalogue.deferred[read.name] = replace(read, deferred=True)
            elif not _is_same(other, read):
                self._notes.append(noted("tool", read.name))
        return self._known(read.name)

    def _known(self, name: str) -> ToolReference:
        tool = self._catalogue.deferred.pop(name, None)
        if tool is not None:
            self._append(tool)
        return ToolReference(KNOWN.format(name=name), tool)

    def _append(self, tool: Tool) -> None:
        if len(self._catalogue.tools) >= self._policy.max_tools:
            raise refused("tools", f"List should have at most {self._policy.max_tools} items after validation")
        self._catalogue.tools += (tool,)
        self._by_name.setdefault(tool.name, tool)


def _is_change(value: object) -> bool:
    """Whether it is a `tool_addition` or a `tool_removal` that can be read."""
    if not isinstance(value, dict) or value.get("type") not in ("tool_addition", "tool_removal"):
        return False
    match value.get("tool"):
        case {"type": "tool_definition", "definition": definition}:
            return isinstance(definition, dict)
        case {"type": "tool_definition"}:
            return False
        case dict() as tool:
            return tool.get("type") not in (None, "tool_reference") or isinstance(tool.get("name"), str)
        case _:
            return False


def _name(reference: Given, path: str) -> str:
    """The name as the server knows it. In results it has another key than in additions and removals."""
    return upstream_name(expect_text(reference, "tool_name" if "tool_name" in reference else "name", path))


def _is_same(tool: Tool, other: Tool) -> bool:
    return _plain(tool) == _plain(other)


def _plain(tool: Tool) -> tuple[str, Mapping[str, Any], bool | None]:
    return tool.description, tool.parameters, tool.strict
