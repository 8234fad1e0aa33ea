r"""JSON schemas as EBNF, in the dialect of xgrammar: `root ::= "{" ws "}"`.

What a schema says of types, members, items, enumerations and alternatives is kept, and what it says of numbers'
ranges, lengths and patterns is not: the grammar lets through a little too much, never too little. Members come in the
order in which they are declared, and no others come; where none are declared, any do. Schemas are data of clients: how
much of one is followed is bounded, and the rest is any JSON value.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from dragoman.backends.markup.calls import properties_of
from dragoman.backends.markup.values import resolved, types_of

MOST_RULES = 10_000
MOST_MEMBERS = 500
MOST_OPTIONS = 1_000
DEPTH = 32
# Only what the first versions of xgrammar read too; unbounded white space is a loop in which models get lost.
_BASE = r"""
ws ::= ([ \n] ([ \n] ([ \n] ([ \n])?)?)?)?
value ::= object | array | string | number | "true" | "false" | "null"
object ::= "{" ws (string ws ":" ws value (ws "," ws string ws ":" ws value)*)? ws "}"
array ::= "[" ws (value (ws "," ws value)*)? ws "]"
string ::= "\"" character* "\""
character ::= [^"\\\r\n\t] | "\\" (["\\/bfnrt] | "u" hex hex hex hex)
hex ::= [0-9a-fA-F]
integer ::= "-"? ("0" | [1-9] [0-9]*)
number ::= integer ("." [0-9]+)? ([eE] [-+]? [0-9]+)?
"""
_TYPES = {
    "string": "string",
    "integer": "integer",
    "number": "number",
    "boolean": '("true" | "false")',
    "null": '"null"',
    "array": "array",
    "object": "object",
}
# How a style writes one parameter of arguments in tags: before the name, before and after the value.
_TAGS = {
    "qwen_xml": ("<parameter=", ">\n", "\n</parameter>", "\n"),
    "minimax_xml": ('<parameter name="', '">', "</parameter>", "\n"),
    "glm_xml": ("<arg_key>", "</arg_key>\n<arg_value>", "</arg_value>", "\n"),
}


def literal(text: str) -> str:
    """A text as a terminal: `"a\\"b"`."""
    escaped = "".join(_ESCAPES.get(character, character) for character in text)
    return f'"{escaped}"'


_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


class Rules:
    """The rules of one grammar, as they are needed."""

    def __init__(self) -> None:
        self._rules: dict[str, str] = {}
        self._texts: dict[str, str] = {}  # by what closes them

    def text(self, root: str) -> str:
        lines = [f"root ::= {root}", *(f"{name} ::= {body}" for name, body in self._rules.items())]
        return "\n".join(lines) + _BASE

    @property
    def full(self) -> bool:
        return len(self._rules) > MOST_RULES

    def named(self, prefix: str, body: str = "") -> str:
        """A new rule."""
        name = f"{prefix}_{len(self._rules)}"
        self._rules[name] = body
        return name

    def define(self, name: str, body: str) -> None:
        self._rules[name] = body

    def members(self, entries: Sequence[tuple[str, bool]], separator: str) -> str:
        """Entries in their order, each with whether it must be there; between two of them the separator."""
        later = first = '""'
        for body, required in reversed(entries):
            entry = self.named("member", body)
            alone, joined = f"{entry} {later}", f"{separator} {entry} {later}"
            if not required:
                alone, joined = f"{alone} | {first}", f"{joined} | {later}"
            first, later = self.named("first", alone), self.named("later", joined)
        return first

    def until(self, closer: str) -> str:
        """Any text up to the first `closer`, and that: a rule for each beginning of it that may have been read."""
        if closer in self._texts:
            return self._texts[closer]
        names = [self.named("text") for _ in closer]
        letters = sorted(set(closer))
        others = "".join(f"\\{letter}" if letter in "\\]^-" else _ESCAPES.get(letter, letter) for letter in letters)
        for at, name in enumerate(names):
            steps = [f"[^{others}] {names[0]}"]
            for letter in letters:
                length = _overlap(closer[:at] + letter, closer)
                steps.append(literal(letter) if length == len(closer) else f"{literal(letter)} {names[length]}")
            self._rules[name] = " | ".join(steps)
        self._texts[closer] = names[0]
        return names[0]


def _overlap(text: str, closer: str) -> int:
    """How long the end of `text` is that begins `closer`."""
    return next((size for size in range(len(text), 0, -1) if closer.startswith(text[-size:])), 0)


class Arguments:
    """The rules of the arguments of one tool; references are looked up in its own schema."""

    def __init__(self, rules: Rules, schema: Mapping[str, Any]) -> None:
        self._rules = rules
        self._schema = schema
        self._known: dict[str, str] = {}  # references, by what they say
        self._unread: tuple[str, ...] = ()  # references that were followed since a character was read
        self._depth = 0

    def written(self, style: str) -> str | None:
        """As an expression; None for a style that is not known here."""
        if style == "json":
            found = self._value(self._schema)
            return "object" if found == "value" else found
        few = len(properties_of(self._schema)) <= MOST_MEMBERS
        return self._tagged(*_TAGS[style]) if style in _TAGS and few else None

    def _tagged(self, before: str, between: str, after: str, line: str) -> str:
        entries = []
        required = _required(self._schema)
        for name, schema in properties_of(self._schema).items():
            types = types_of(schema, self._schema)
            value = self._rules.until(after) if types and "string" in types else self._value(schema)
            closer = "" if types and "string" in types else f" {literal(after)}"
            entries.append((f"{literal(f'{before}{name}{between}')} {value}{closer}", name in required))
        return self._rules.members(entries, literal(line))

    def _value(self, schema: object) -> str:
        """A terminal, a name, or what stands in parentheses."""
        if not isinstance(schema, Mapping) or self._depth > DEPTH or self._rules.full:
            return "value"
        self._depth += 1
        try:
            return self._of(schema)
        finally:
            self._depth -= 1

    def _of(self, schema: Mapping[str, Any]) -> str:
        if isinstance(reference := schema.get("$ref"), str):
            return self._referred(reference)
        values = [schema["const"]] if "const" in schema else schema.get("enum")
        if isinstance(values, list | tuple) and values:
            return self._any_of([literal(json.dumps(value, ensure_ascii=False, default=dict)) for value in values])
        for word in ("anyOf", "oneOf"):
            if isinstance(options := schema.get(word), list | tuple) and options:
                return self._any_of([self._value(option) for option in options])
        if isinstance(every := schema.get("allOf"), list | tuple):
            return self._value(every[0]) if len(every) == 1 else "value"
        types = types_of(schema, self._schema)
        if types is None and "properties" in schema:
            types = frozenset({"object"})
        return "value" if types is None else self._any_of([self._typed(each, schema) for each in sorted(types)])

    def _typed(self, kind: str, schema: Mapping[str, Any]) -> str:
        unread, self._unread = self._unread, ()
        try:
            return self._of_type(kind, schema)
        finally:
            self._unread = unread

    def _of_type(self, kind: str, schema: Mapping[str, Any]) -> str:
        if kind == "object" and 0 < len(properties_of(schema)) <= MOST_MEMBERS:
            return self._object(schema)
        if kind == "array" and isinstance(items := schema.get("items"), Mapping):
            item = self._value(items)
            return self._rules.named("array", f'"[" ws ({item} (ws "," ws {item})*)? ws "]"')
        return _TYPES[kind]

    def _object(self, schema: Mapping[str, Any]) -> str:
        required = _required(schema)
        entries = [
            (f'{literal(json.dumps(str(name), ensure_ascii=False))} ws ":" ws {self._value(inner)}', name in required)
            for name, inner in properties_of(schema).items()
        ]
        members = self._rules.members(entries, 'ws "," ws')
        return self._rules.named("object", f'"{{" ws {members} ws "}}"')

    def _referred(self, reference: str) -> str:
        if reference in self._unread:  # it leads back to itself, and no grammar may
            return "value"
        if reference not in self._known:
            self._known[reference] = name = self._rules.named("ref", "value")
            self._unread = (*self._unread, reference)
            self._rules.define(name, self._value(resolved(reference, self._schema)))
            self._unread = self._unread[:-1]
        return self._known[reference]

    def _any_of(self, options: Sequence[str]) -> str:
        if "value" in options or len(options) > MOST_OPTIONS:
            return "value"
        return options[0] if len(options) == 1 else f"({' | '.join(options)})"


def _required(schema: Mapping[str, Any]) -> frozenset[str]:
    required = schema.get("required")
    return frozenset(map(str, required)) if isinstance(required, list | tuple) else frozenset()
