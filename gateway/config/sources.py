"""Where the values of the configuration come from: flags, then the environment, then one YAML file, then defaults.

The first source that gives a key wins. Whatever is wrong (an unknown key, a bad value, a missing file) raises
`ConfigError`, whose text is one line that names the source, the key and the reason.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import EnvSettingsSource, SettingsError

from dragoman.gateway.config.schema import PREFIX, Config, ConfigError

# Variables that are not keys of the file: secrets, and the short ways to name one backend or the file itself.
OTHER_VARIABLES = frozenset({"API_KEYS", "BACKEND", "BACKEND_API_KEY", "CONFIG", "SEAL_KEYS"})
# Kubernetes sets these in every container next to a Service called dragoman; they are not settings.
SERVICE_LINKS = re.compile(r"SERVICE_(HOST|PORT\w*)|PORT_\d+_(TCP|UDP|SCTP)\w*")
SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://")


class Environment(EnvSettingsSource):
    """Variables with our prefix. A list may be written as JSON or with commas."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        found = super()._load_env_vars()
        return {name: value for name, value in found.items() if not _is_service_link(name, value or "")}

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        text = str(value).strip()
        if text.startswith(("[", "{")):
            return super().decode_complex_value(field_name, field, value)
        return split_commas(text)


class _UniqueKeys(yaml.SafeLoader):
    """Plain YAML, except that a repeated key is an error: YAML itself would silently drop the first value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", node.start_mark)
            if isinstance(key, str):
                seen.add(key)
        return super().construct_mapping(node, deep)


def _is_service_link(variable: str, value: str) -> bool:
    name = variable.upper().removeprefix(PREFIX)
    return bool(SERVICE_LINKS.fullmatch(name)) or (name == "PORT" and bool(SERVICE_ADDRESS.match(value)))


def split_commas(text: str) -> list[str]:
    return [piece.strip() for piece in text.split(",") if piece.strip()]


def read_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or type(error).__name__}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text") from None
    try:
        content = yaml.load(text, _UniqueKeys)
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}:" if error.problem_mark else ""
        raise ConfigError(f"{path}:{line} not valid YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    except (ValueError, LookupError, AttributeError, RecursionError) as error:  # as of `2024-13-45` and `!!bool x`
        reason = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise ConfigError(f"{path}: not valid YAML: {reason}") from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(f"{path}: must hold keys and values at the top, as in configs/gateway.yaml")
    return content


def read_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    known = {name.upper() for name in Config.model_fields} | OTHER_VARIABLES
    for variable, value in environ.items():
        name = variable.upper().removeprefix(PREFIX)
        if not variable.upper().startswith(PREFIX) or _is_service_link(variable, value):
            continue
        if name.split("__", 1)[0] not in known:
            raise ConfigError(f"environment: {variable}: no such setting")
    try:
        values = Environment(Config)()
    except SettingsError as error:
        reason = error.__cause__ or error
        field = next((name for name in Config.model_fields if f'"{name}"' in str(error)), "?")
        raise ConfigError(f"environment: {PREFIX}{field.upper()}: {' '.join(str(reason).split())}") from None
    if backend := environ.get(f"{PREFIX}BACKEND", "").strip():
        values["backends"] = replicas(split_commas(backend))
    return values


def replicas(urls: Sequence[str]) -> list[dict[str, Any]]:
    """Backends given by address alone: one, or several servers of one pool."""
    return [{"url": url, **({"pool": "pool"} if len(urls) > 1 else {})} for url in urls]


def load(path: Path | None = None, flags: Mapping[str, Any] | None = None) -> Config:
    """`flags` are values by key; None and empty ones count as not given. Without `path`, `DRAGOMAN_CONFIG` names the
    file. Reads `os.environ`."""
    if path is None and (named := os.environ.get(f"{PREFIX}CONFIG")):
        path = Path(named)
    sources = {
        "command line": {key: value for key, value in (flags or {}).items() if value not in (None, [], ())},
        "environment": read_environment(os.environ),
        str(path): read_file(path) if path is not None else {},
    }
    merged: dict[str, Any] = {}
    for values in reversed(sources.values()):
        merged = _merge(merged, values)
    try:
        return Config(**merged)
    except ValidationError as error:
        raise ConfigError(_explain(error, sources)) from None


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _explain(error: ValidationError, sources: Mapping[str, Mapping[str, Any]]) -> str:
    first = error.errors()[0]
    where = [step for step in first["loc"] if not str(step).startswith("function-")]
    key = ".".join(str(step) for step in where)
    reason = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        reason = "unknown key"
    if not key:  # a rule over several keys names its key itself
        key, colon, rest = reason.partition(": ")
        key, reason = (key, rest) if colon and " " not in key else (key.split(" ")[0], reason)
        where = list(key.split("."))
    source = _source_of(where, sources)
    if source == "environment" and where:
        key = PREFIX + "__".join(str(step).upper() for step in where)
    elif source == "command line" and where:
        key = f"--{str(where[0]).removesuffix('s' if where[0] == 'backends' else '')}".replace("_", "-")
    return f"{source}: {key}: {reason}"


def _source_of(where: list[Any], sources: Mapping[str, Mapping[str, Any]]) -> str:
    for source, values in sources.items():
        current: Any = values
        for depth, step in enumerate(where):
            if isinstance(current, dict) and step in current:
                current = current[step]
            elif isinstance(current, list | tuple) and str(step).isdigit() and int(step) < len(current):
                current = current[int(step)]
            else:
                # a key that is missing below a list is the fault of the source that gave the list
                if depth > 0 and isinstance(values.get(str(where[0])), list | tuple):
                    return source
                break
        else:
            return source
    return "configuration"
