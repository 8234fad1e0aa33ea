"""Calls whose tags are the names of the parameters and may nest, each with a prefix that no text holds: MiniMax M3.

Objects are tags within a tag, arrays are `<item>`s. A scalar is what the (nested) schema says; strings stream. A scalar
whose closing tag is forgotten ends at the next tag; blanks between tags do not count.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dragoman.backends.markup.argument import Argument
from dragoman.backends.markup.calls import CallReader, Calls, properties_of
from dragoman.backends.markup.text import MORE, Markers, Signal, Step, Text, markers_of
from dragoman.backends.markup.values import VALUE_LIMIT, as_json, broken_off, types_of, types_of_parameter

DEPTH_LIMIT = 64
_CALL_TAG = re.compile(r"""\s*name=["']?([^"'>]+?)["']?\s*>""")


@dataclass(frozen=True, slots=True)
class ElementCalls:
    """`prefix` begins every tag; `section` is the tag around all calls, `call` that around one."""

    prefix: str
    section: str = "tool_call"
    call: str = "invoke"

    def open(self, text: Text, calls: Calls, opener: str) -> Step:
        return _ElementReader(self, text, calls).section


class _ElementReader(CallReader):
    def __init__(self, form: ElementCalls, text: Text, calls: Calls) -> None:
        super().__init__(text, calls)
        self._form = form
        self._begin, self._close = f"{form.prefix}<", f"{form.prefix}</"
        self._call_opens = f"{form.prefix}<{form.call}"
        self._section_ends = f"{self._close}{form.section}>"
        self._call_ends = f"{self._close}{form.call}>"
        self._over = (self._call_ends, self._section_ends)
        self._tool = self._key = ""
        self._written = False
        self._argument = Argument(calls.extend, None)
        self._pieces: list[str] = []
        self._depth = 0
        self._tags: Markers = markers_of((form.prefix,))

    def section(self) -> Step | Signal:
        text = self.text
        if not text.skip_blank():
            return MORE
        found = text.literal((self._call_opens, self._section_ends))
        if found is MORE:
            return MORE
        if found is None:
            return self.leave()
        if found == self._section_ends:
            return Signal.NO_CALL if text.held.strip() else self.close(found)
        text.take(text.at + len(found))
        return self._call_tag

    def _call_tag(self) -> Step | Signal:
        text = self.text
        end = text.until(">")
        if end is MORE:
            return MORE
        match = _CALL_TAG.fullmatch(text.all, text.at, end + 1) if end is not None else None
        if match is None:
            return self.broken()
        text.take(match.end())
        self._tool, self._written = match[1], False
        return self._elements

    def _elements(self) -> Step | Signal:
        text = self.text
        if not text.skip_blank():
            return self._end() if text.over and not text.cut and self._written else MORE
        found = text.literal((self._call_ends, self._section_ends, self._call_opens, self._close, self._begin))
        if found is MORE:
            return MORE
        if found is None or found == self._close:
            return self.broken()
        if found != self._begin:
            if found == self._call_ends:
                text.take(text.at + len(found))
            return self._end()
        end = text.until(">", text.at + len(found))
        if end is MORE or end is None:
            return MORE if end is MORE else self.broken()
        self._key = text.all[text.at + len(found) : end].strip()
        text.take(end + 1)
        return self._value_begins

    def _end(self) -> Step | Signal:
        if not self._written:
            self.announce(self._tool)
        self.calls.extend("}" if self._written else "{}")
        self.end_call()
        return self.section

    def _value_begins(self) -> Step | Signal:
        text = self.text
        begin = text.past_blank(text.at)
        found = text.literal((self._close, self._begin), begin) if begin is not MORE else MORE
        if found is MORE:
            return MORE
        if not self._written:
            self.announce(self._tool)
        self.calls.extend(f"{', ' if self._written else '{'}{json.dumps(self._key, ensure_ascii=False)}: ")
        self._written = True
        if found == self._begin:
            self._pieces, self._depth = [], 0
            self._tags = markers_of((f"{self._begin}{self._key}>", f"{self._close}{self._key}>", *self._over))
            return self._nested
        types = types_of_parameter(self.calls.schema(self._tool), self._key)
        self._argument = Argument(self.calls.extend, types)
        self._tags = markers_of((self._begin,))
        return self._scalar

    def _scalar(self) -> Step | Signal:
        text = self.text
        match = self._tags.find(text.all, text.at)
        end = match.start() if match else len(text.all) if text.final else self._tags.held(text.all, text.at)
        if end > text.at:
            self._argument.add(text.take(end))
        if match is None and not (text.final and not text.cut):
            if text.final:
                self._argument.cut()
            return MORE
        closer = text.literal((f"{self._close}{self._key}>",))
        if closer is MORE:
            return MORE
        text.at += len(closer or "")
        self._argument.end()
        return self._elements

    def _nested(self) -> Step | Signal:
        text = self.text
        while (match := self._tags.find(text.all, text.at)) is not None:
            if match[0] in self._over or (match[0].startswith(self._close) and not self._depth):
                self._pieces.append(text.take(match.start()))
                text.at = match.start() if match[0] in self._over else match.end()
                return self._nested_ends()
            self._depth += -1 if match[0].startswith(self._close) else 1
            self._pieces.append(text.take(match.end()))
        self._pieces.append(text.take(len(text.all) if text.final else self._tags.held(text.all, text.at)))
        if text.cut:
            self.calls.extend(broken_off(self._nested_json()))
        return self._nested_ends() if text.final and not text.cut else MORE

    def _nested_ends(self) -> Step | Signal:
        self.calls.extend(self._nested_json())
        return self._elements

    def _nested_json(self) -> str:
        tool = self.calls.schema(self._tool) or {}
        written = "".join(self._pieces)
        if len(written) > VALUE_LIMIT:
            return json.dumps(written, ensure_ascii=False)
        return _as_json(_tree(written, self._form.prefix), properties_of(tool).get(self._key), tool)


class _Element:
    """A tag: what is in it, as text and as tags."""

    def __init__(self) -> None:
        self.text = ""
        self.children: list[tuple[str, _Element]] = []


def _tree(text: str, prefix: str) -> _Element:
    """The tags of a value; those that are forgotten at its end are closed there."""
    root = _Element()
    stack = [root]
    at = 0
    for tag in re.finditer(rf"{re.escape(prefix)}<(/?)([^>]*)>", text):
        stack[-1].text += text[at : tag.start()]
        at = tag.end()
        if tag[1]:
            if len(stack) > 1:
                stack.pop()
        elif len(stack) < DEPTH_LIMIT:
            child = _Element()
            stack[-1].children.append((tag[2].strip(), child))
            stack.append(child)
    stack[-1].text += text[at:]
    return root


def _as_json(element: _Element, schema: object, root: Mapping[str, Any]) -> str:
    schema = schema if isinstance(schema, Mapping) else None
    types = types_of(schema, root)
    if not element.children:
        return as_json(element.text, types)
    if all(name == "item" for name, _ in element.children) and (types is None or "object" not in types):
        items = schema.get("items") if schema is not None else None
        return f"[{', '.join(_as_json(child, items, root) for _, child in element.children)}]"
    properties, other = properties_of(schema), schema.get("additionalProperties") if schema is not None else None
    alike: dict[str, list[_Element]] = {}
    for name, child in element.children:
        alike.setdefault(name, []).append(child)
    members = {name: _member(found, properties.get(name, other), root) for name, found in alike.items()}
    return f"{{{', '.join(f'{json.dumps(name, ensure_ascii=False)}: {value}' for name, value in members.items())}}}"


def _member(found: list[_Element], schema: object, root: Mapping[str, Any]) -> str:
    """A tag that is written again and again is a list's, unless the schema says that there is none."""
    types = types_of(schema, root)
    if len(found) == 1 or (types is not None and "array" not in types):
        return _as_json(found[-1], schema, root)
    items = schema.get("items") if isinstance(schema, Mapping) else None
    return f"[{', '.join(_as_json(element, items, root) for element in found)}]"
