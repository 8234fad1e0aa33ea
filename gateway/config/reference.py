"""What is made from the descriptions of the keys: the explained file, the JSON schema for editors, the page of keys.

The shipped `configs/gateway.yaml`, `configs/gateway.schema.json` and `docs/configuration.md` are these texts, word for
word (`make golden` writes them).
"""

from __future__ import annotations

import json
import textwrap
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from dragoman.backends.chat.settings import PRESETS, Settings
from dragoman.gateway.config.fields import Unit
from dragoman.gateway.config.schema import Config

WIDTH = 120
HEAD = """\
# The configuration of dragoman: every key, with its default and what it means.
#
#   dragoman serve --config gateway.yaml       start with it
#   dragoman check --config gateway.yaml       validate it and print the result, secrets masked
#   dragoman config schema > gateway.schema.json       lets an editor complete and check it
#
# Keys may be left out; those commented out below are examples or stand for "not set". Flags beat environment variables,
# these beat this file. Each key has a variable: DRAGOMAN_PORT, DRAGOMAN_TIMEOUTS__DRAIN, DRAGOMAN_LOG__LEVEL; lists may
# be written as JSON. Unknown keys, bad values or a missing file stop the start, with a line for each that says where
# and why. Secrets never stand here; the file only says where they are.
"""
PAGE = """\
# Configuration

Every key of the file, made from the code (`make golden`), as are the explained file
[configs/gateway.yaml](../configs/gateway.yaml) (`dragoman config example`) and its JSON schema,
[configs/gateway.schema.json](../configs/gateway.schema.json) (`dragoman config schema`). An editor that knows schemas
completes and checks a file that begins with

```yaml
# yaml-language-server: $schema=gateway.schema.json
```

Flags beat environment variables, these beat the file, and `dragoman check` prints the result of all three. The variable
of a key is its name in capitals after `DRAGOMAN_`, with `__` between levels: `DRAGOMAN_TIMEOUTS__DRAIN`. Lists may be
written as JSON. Secrets are not keys: `DRAGOMAN_API_KEYS`, `DRAGOMAN_BACKEND_API_KEY` and `DRAGOMAN_SEAL_KEYS` hold
them, or files that keys name.

What is wrong is reported all at once, one line each, before anything is started:

```
dragoman: gateway.yaml:2:1: prot: unknown key; did you mean `port`?
dragoman: gateway.yaml:4:14: timeouts.keepalive: '10m' is not a number of seconds; write 600
dragoman: environment: DRAGOMAN_LOG__LEVEL: 'warn' is not one of debug, info, warning, error; did you mean `warning`?
```

`dragoman check --no-secrets` does not read keys, certificates and model folders, which are elsewhere when a file for a
cluster is checked on a laptop or in CI.
"""


def example() -> str:
    blocks = [HEAD]
    for name, field in Config.model_fields.items():
        blocks.append("\n".join(_block(name, field, 0)) + "\n")
    return "\n".join(blocks)


def schema() -> str:
    """For editors: also the settings of a backend and the names of presets, which the models leave open."""
    content = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}
    content["title"] = "dragoman"
    backend = content["$defs"]["BackendConfig"]["properties"]
    settings = Settings.model_json_schema()
    content["$defs"] |= settings.get("$defs", {})
    names = {name: each for name, each in settings["properties"].items() if name != "preset"}
    backend["settings"] |= {"properties": names, "additionalProperties": False}
    for each in (backend["preset"], content["properties"]["preset"]):
        each["anyOf"][0]["enum"] = list(PRESETS)
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def page() -> str:
    top = [(name, field) for name, field in Config.model_fields.items() if _section(field) is None]
    parts = [PAGE, "## At the top\n", *_table(top, "")]
    for name, field in Config.model_fields.items():
        if (model := _section(field)) is not None:
            parts += [f"\n## {name}\n", f"{field.description}\n", *_table(list(model.model_fields.items()), name)]
    return "\n".join(parts) + "\n"


# ------------------------------------------------------------------------------------------------- the explained file


def _block(name: str, field: FieldInfo, depth: int) -> list[str]:
    """The lines of one key: its explanation, then the key with its default, or commented out with its example."""
    model = _section(field)
    lines = _comment(str(field.description), WIDTH, "  " * depth)
    if model is None:
        return lines + _entry(name, field, depth)
    if _is_list(field):
        entry = ("  - ", *["    "] * 1000)
        return [
            *lines,
            f"# {name}:",
            *(f"# {dash}{line}" for dash, line in zip(entry, _commented(model), strict=False)),
        ]
    if depth:
        return [*lines, f"{'  ' * depth}# {name}: {_flow(_given_example(field))}"]
    if all(each.default is None for each in model.model_fields.values()):
        return [*lines, f"# {name}:", *(f"#   {line}" for line in _commented(model))]
    inner = [line for key, each in model.model_fields.items() for line in _block(key, each, depth + 1)]
    return [*lines, f"{name}:", *inner]


def _commented(model: type[BaseModel]) -> list[str]:
    """The keys of a section that is not set by default, each with its example."""
    lines: list[str] = []
    for key, field in model.model_fields.items():
        lines += _comment(str(field.description), WIDTH - len("#     "))
        value = _flow(field.examples[0] if field.examples else _given_example(field))
        lines.append(f"# {key}: {value}" if key == "api_key_file" else f"{key}: {value}")  # excludes the key above it
    return lines


def _given_example(field: FieldInfo) -> Any:
    model = _section(field)
    if model is None:
        return field.default
    return {key: each.examples[0] for key, each in model.model_fields.items() if each.examples}


def _entry(name: str, field: FieldInfo, depth: int) -> list[str]:
    indent = "  " * depth
    if field.default in (None, ()) and field.examples:
        return [f"{indent}# {name}: {_flow(field.examples[0])}"]
    return [f"{indent}{name}: {_flow(_written(field.default))}"]


def _comment(text: str, width: int, indent: str = "") -> list[str]:
    mark = f"{indent}# "
    if "\n" in text:
        return [f"{mark}{line}" for line in text.splitlines()]
    return textwrap.wrap(
        text, width, initial_indent=mark, subsequent_indent=mark, break_on_hyphens=False, break_long_words=False
    )


def _written(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _flow(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...").strip()


# ------------------------------------------------------------------------------------------------------------ the page


def _table(fields: list[tuple[str, FieldInfo]], section: str) -> list[str]:
    lines = ["| key | default | value | what it is |", "|---|---|---|---|"]
    for name, field in fields:
        shown = _default(field)
        explained = str(field.description)
        if "\n" in explained:
            explained = "<br>".join(f"`{line}`" for line in (" ".join(each.split()) for each in explained.splitlines()))
        lines.append(
            f"| `{name}` | {shown} | {_kind(field.annotation, field.metadata)} | {explained} |".replace("| |", "|")
        )
    return lines


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = _written(field.default)
    return "not set" if value in (None, [], {}) else f"`{_flow(value)}`"


def _kind(annotation: Any, metadata: list[Any]) -> str:
    """What a value is, in a word: seconds, bytes, a whole number, one of some words, a path …"""
    if unit := next((each.name for each in metadata if isinstance(each, Unit)), None):
        return unit
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *own = get_args(annotation)
        return _kind(inner, own)
    if origin in (Union, UnionType):
        return next(_kind(each, []) for each in get_args(annotation) if each is not type(None))
    if origin is Literal:
        return ", ".join(f"`{each}`" for each in get_args(annotation))
    if origin is tuple:
        return f"list of {_kind(get_args(annotation)[0], [])}"
    if origin is dict:
        return "keys and values"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return ", ".join(f"`{key}`" for key in annotation.model_fields)
    return {int: "whole number", float: "number", bool: "true or false", str: "text"}.get(annotation, "path")


# ----------------------------------------------------------------------------------------------------------- the models


def _section(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a section or of a list's entries, or None where the key has a plain value."""
    for each in (field.annotation, *get_args(field.annotation)):
        if isinstance(each, type) and issubclass(each, BaseModel):
            return each
    return None


def _is_list(field: FieldInfo) -> bool:
    return get_origin(field.annotation) is tuple
