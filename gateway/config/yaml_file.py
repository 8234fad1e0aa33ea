"""The configuration's YAML file: what it holds, and at which line and column each key and value stands.

Plain YAML, except that a key given twice is a fault: YAML itself would silently drop the first value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dragoman.gateway.config.fields import ConfigError

Key = tuple[str | int, ...]  # the way to a value: ("backends", 0, "url")


class _Loader(yaml.SafeLoader):
    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.doubled: list[tuple[yaml.Mark, str]] = []

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Keys are compared as they are written: a key that comes by a merge (`<<`) may be given again."""
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag == "tag:yaml.org,2002:str":
                if key.value in seen:
                    self.doubled.append((key.start_mark, key.value))
                seen.add(key.value)
        return node


@dataclass(frozen=True, slots=True)
class YamlFile:
    path: Path
    content: dict[str, Any] = field(default_factory=dict)
    node: yaml.Node | None = None
    faults: tuple[str, ...] = ()

    def place(self, key: Sequence[str | int], of_value: bool = False) -> str:
        """`FILE:LINE:COLUMN` of the key, or of its value; of what is around it where it is not in the file."""
        mark = None
        node, found = self.node, self.node.start_mark if self.node is not None else None
        for step in key:
            mark, node = _step(node, step)
            if node is None:
                break
            found = node.start_mark if of_value else mark
        return str(self.path) if found is None else _at(self.path, found)


def _step(node: yaml.Node | None, step: str | int) -> tuple[yaml.Mark | None, yaml.Node | None]:
    """Where the entry begins, and the node of its value."""
    if isinstance(node, yaml.MappingNode):
        for key, value in reversed(node.value):  # what was merged in stands before the mapping's own keys
            if isinstance(key, yaml.ScalarNode) and key.value == step:
                return key.start_mark, value
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step].start_mark, node.value[step]
    return None, None


def _at(path: Path, mark: yaml.Mark) -> str:
    return f"{path}:{mark.line + 1}:{mark.column + 1}"


def read_yaml(path: Path) -> YamlFile:
    """Raises `ConfigError` for a file that cannot be read or is not YAML; what else is wrong is in `faults`."""
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or type(error).__name__}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text") from None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        content = loader.construct_document(node) if node is not None else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        tab = ": a tab cannot indent; use spaces" if "'\\t'" in str(error.problem) else ""
        reason = f"not valid YAML: {error.problem or error.context}{tab}"
        raise ConfigError(f"{_at(path, mark) if mark else path}: {reason}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    except (ValueError, LookupError, AttributeError, RecursionError) as error:  # as of `2024-13-45` and `!!bool x`
        reason = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise ConfigError(f"{path}: not valid YAML: {reason}") from None
    if content is None:
        return YamlFile(path)
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(f"{path}: must hold keys and values at the top; `dragoman config example` prints them all")
    doubled = tuple(f"{_at(path, mark)}: the key {key!r} is given twice" for mark, key in loader.doubled)
    return YamlFile(path, content, node, doubled)
