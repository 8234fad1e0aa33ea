"""Single values set in the text of a YAML file, with its comments, its order and its quotes kept.

The text is changed only where the value stands, or has to stand. Afterwards it is read again: if it does not hold
exactly what it held before and the new values, nothing is returned but an error. Anchors and merges are therefore safe,
though they often cannot be edited.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from typing import Any

import yaml

from dragoman.gateway.config.fields import ConfigError

Key = tuple[str | int, ...]
INDENT = 2


def edited(text: str, changes: Mapping[Key, Any]) -> str:
    """Raises `ConfigError` where the text cannot be changed without the loss of something."""
    expected = copy.deepcopy(_load(text)) or {}
    for key, value in changes.items():
        put(expected, key, value)
        text = _set(text, key, value)
        if _load(text) != expected:
            named = ".".join(map(str, key))
            raise ConfigError(f"{named} cannot be set without a loss: change it by hand")
    return text


def put(content: Any, key: Key, value: Any) -> None:
    """Sets the value in parsed content, with the sections and lists that lead to it; raises `ConfigError` where a value
    stands in the way."""
    for depth, (step, following) in enumerate(itertools.pairwise(key)):
        empty: Any = [] if isinstance(following, int) else {}
        _check(content, key, depth)
        if isinstance(content, list):
            if step == len(content):
                content.append(empty)
        elif content.get(step) is None:
            content[step] = empty
        elif isinstance(content[step], tuple):
            content[step] = list(content[step])
        content = content[step]
    _check(content, key, len(key) - 1)
    if isinstance(content, list) and key[-1] == len(content):
        content.append(value)
    else:
        content[key[-1]] = value


def _check(content: Any, key: Key, depth: int) -> None:
    step = key[depth]
    listed = isinstance(content, list) and isinstance(step, int) and step <= len(content)
    if not listed and not (isinstance(content, dict) and isinstance(step, str)):
        raise ConfigError(f"{'.'.join(map(str, key[:depth]))} is not what {'.'.join(map(str, key))} needs it to be")


def _load(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None


def _set(text: str, key: Key, value: Any) -> str:
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    if node is None or _is_null(node):  # comments alone, or `~`, or `---` with nothing after it
        nothing = text if node is None else text[: node.start_mark.index] + text[node.end_mark.index :]
        return _joined(nothing, _block(_nested(key, value), 0))
    parent: yaml.Node = node
    for depth, step in enumerate(key):
        found = _entry(parent, step)
        if found is None or (_is_null(found) and depth < len(key) - 1):
            inner = _nested(key[depth + 1 :], value)
            return _replaced(text, parent, step, found, inner) if found else _added(text, parent, step, inner)
        parent = found
    return text[: parent.start_mark.index] + _flow(value) + text[_end(parent) :]


def _entry(node: yaml.Node, step: str | int) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        return next((value for name, value in node.value if name.value == step), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step]  # type: ignore[no-any-return]
    return None


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def _nested(key: Key, value: Any) -> Any:
    for step in reversed(key):
        value = [value] if isinstance(step, int) else {step: value}
    return value


def _replaced(text: str, parent: yaml.Node, step: str | int, found: yaml.Node, value: Any) -> str:
    """In place of nothing: `settings:` with no value, or an explicit null."""
    gap = "" if text[found.start_mark.index - 1 : found.start_mark.index] in (" ", "\n") else " "
    return text[: found.start_mark.index] + gap + _flow(value) + text[found.end_mark.index :]


def _added(text: str, parent: yaml.Node, step: str | int, value: Any) -> str:
    """A new entry after the last one of what holds it."""
    assert isinstance(parent, yaml.CollectionNode)
    if parent.flow_style:
        entry = _flow(value) if isinstance(step, int) else _flow({step: value})[1:-1]
        close = parent.end_mark.index - 1
        before = text[:close].rstrip().removesuffix(",")
        return f"{before}{', ' if parent.value else ''}{entry}{text[close:]}"
    column = parent.start_mark.column
    block = _block([value] if isinstance(step, int) else {step: value}, column)
    end = text.find("\n", _end(parent))
    at = len(text) if end < 0 else end + 1
    return _joined(text[:at], block) + text[at:]


def _end(node: yaml.Node) -> int:
    """Where the node's own text ends: a block's mark stands after the comments and blank lines that follow it."""
    if isinstance(node, yaml.MappingNode) and not node.flow_style and node.value:
        return _end(node.value[-1][1])
    if isinstance(node, yaml.SequenceNode) and not node.flow_style and node.value:
        return _end(node.value[-1])
    if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">"):
        return int(node.end_mark.index) - 1
    return int(node.end_mark.index)


def _joined(before: str, block: str) -> str:
    return before + ("" if not before or before.endswith("\n") else "\n") + block


def _block(value: Any, column: int) -> str:
    dumped = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, indent=INDENT, width=10_000)
    return "".join(f"{' ' * column}{line}\n" for line in dumped.splitlines())


def _flow(value: Any) -> str:
    dumped = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, default_flow_style=True, width=10_000)
    return dumped.removesuffix("...\n").rstrip("\n")
