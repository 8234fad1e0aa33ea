"""Where the values of the configuration come from: flags, then the environment, then one YAML file, then defaults.

The first source that gives a key wins. Whatever is wrong (unknown keys, bad values, a missing file) raises one
`ConfigError` with a line for each fault: where it stands (file, line and column; the variable; the flag), the key and
the reason.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import EnvSettingsSource, SettingsError

from dragoman.gateway.config.faults import DID_YOU_MEAN, Fault, faults, setting_faults
from dragoman.gateway.config.fields import ConfigError
from dragoman.gateway.config.schema import PREFIX, Config
from dragoman.gateway.nearest import nearest

if TYPE_CHECKING:
    from dragoman.gateway.config.yaml_file import Key, YamlFile

# Variables that are not keys of the file: secrets, and the short ways to name one backend or the file itself.
OTHER_VARIABLES = frozenset({"API_KEYS", "BACKEND", "BACKEND_API_KEY", "CLIENT_KEY", "CONFIG", "SEAL_KEYS"})
# Kubernetes sets these in every container next to a Service called dragoman; they are not settings.
SERVICE_LINKS = re.compile(r"SERVICE_(HOST|PORT\w*)|PORT_\d+_(TCP|UDP|SCTP)\w*")
SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://")
SHORT = {"store": "url"}  # sections that may be written as one word, and the key that it stands for
COMMAND_LINE, ENVIRONMENT = "command line", "environment"


class Environment(EnvSettingsSource):
    """Variables with our prefix. A list may be written as JSON or with commas; what is no list stays a text."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        found = super()._load_env_vars()
        return {name: value for name, value in found.items() if not _is_service_link(name, value or "")}

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        text = str(value).strip()
        if text.startswith(("[", "{")):
            return super().decode_complex_value(field_name, field, value)
        return split_commas(text) if get_origin(field.annotation) is tuple else _written_out(field_name, text)


def _is_service_link(variable: str, value: str) -> bool:
    name = variable.upper().removeprefix(PREFIX)
    return bool(SERVICE_LINKS.fullmatch(name)) or (name == "PORT" and bool(SERVICE_ADDRESS.match(value)))


def split_commas(text: str) -> list[str]:
    return [piece.strip() for piece in text.split(",") if piece.strip()]


def replicas(urls: Sequence[str]) -> list[dict[str, Any]]:
    """Backends given by address alone: one, or several servers of one pool."""
    return [{"url": url, **({"pool": "pool"} if len(urls) > 1 else {})} for url in urls]


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    known = {name.upper() for name in Config.model_fields} | OTHER_VARIABLES
    found = []
    for variable, value in environ.items():
        name = variable.upper().removeprefix(PREFIX)
        if not variable.upper().startswith(PREFIX) or _is_service_link(variable, value):
            continue
        section, _, rest = name.partition("__")
        if section not in known:
            hint = nearest(section, known)
            if near := DID_YOU_MEAN.search(hint):
                hint = hint.replace(near[1], PREFIX + near[1] + (f"__{rest}" if rest else ""))
            found.append(f"{ENVIRONMENT}: {variable}: no such setting{hint}")
    return found


def read_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """The values of known variables; raises `ConfigError` for one that cannot be read."""
    try:
        values = Environment(Config)()
    except SettingsError as error:
        reason = error.__cause__ or error
        field = next((name for name in Config.model_fields if f'"{name}"' in str(error)), "?")
        raise ConfigError(f"{ENVIRONMENT}: {PREFIX}{field.upper()}: {' '.join(str(reason).split())}") from None
    if backend := environ.get(f"{PREFIX}BACKEND", "").strip():
        values["backends"] = replicas(split_commas(backend))
    return {name: value for name, value in values.items() if name in Config.model_fields}


@dataclass(frozen=True, slots=True)
class Sources:
    """What each source gives, and where a fault of a key is to be mended."""

    flags: Mapping[str, Any]
    environment: Mapping[str, Any]
    file: YamlFile | None
    variables: frozenset[str] = frozenset()  # the environment's own names, without the prefix

    @property
    def merged(self) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for values in (self.file.content if self.file else {}, self.environment, self.flags):
            merged = _merge(merged, {key: _written_out(key, value) for key, value in values.items()})
        return merged

    def line(self, fault: Fault) -> str:
        """The fault in one line: its place, its key and the reason."""
        key, reason = fault.key, fault.reason
        if _gives(self.flags, key):
            return f"{COMMAND_LINE}: {_flag(key)}: {reason}"
        if _gives(self.environment, key):
            variable = self._variable(key)
            if near := DID_YOU_MEAN.search(reason):
                *above, last = variable.split("__")
                if str(key[-1]).upper() == last and reason.startswith("unknown key"):
                    reason = reason.replace(near[1], "__".join([*above, near[1].upper()]))
            return f"{ENVIRONMENT}: {variable}: {reason}"
        named = ".".join(str(step) for step in key)
        if self.file is None or not _gives(self.file.content, key):
            return f"configuration: {named}: {reason}" if named else f"configuration: {reason}"
        return f"{self.file.place(key, fault.of_value)}: {named}: {reason}"

    def _variable(self, key: Key) -> str:
        """The variable that gives the key: the deepest that is set, since a list may come in one as JSON."""
        if key[0] == "backends" and "BACKEND" in self.variables:
            return f"{PREFIX}BACKEND"
        steps = [str(step).upper() for step in key]
        for depth in range(len(steps), 0, -1):
            if (name := "__".join(steps[:depth])) in self.variables:
                rest = ".".join(str(step) for step in key[depth:])
                return PREFIX + name + (f": {rest}" if rest else "")
        return PREFIX + "__".join(steps)

    def placed(self, error: ConfigError) -> ConfigError:
        """The error with the place of the key that it names at its beginning: `backends: gpu: api_key_env: …`."""
        return ConfigError("\n".join(self._placed(line) for line in str(error).splitlines()))

    def _placed(self, line: str) -> str:
        key: list[str | int] = []
        current: Any = self.merged
        rest = line.removeprefix("configuration: ")
        while ": " in rest:
            step, _, after = rest.partition(": ")
            found = _find(current, step, isinstance(current, list) and key[-1:] == ["backends"])
            if found is None:
                break
            key += found
            for each in found:
                current = current[each]
            rest = after
        return self.line(Fault(tuple(key), rest)) if key else line


def _find(current: Any, step: str, backends: bool) -> list[str | int] | None:
    """The way down that a word names: a key, a backend by its name, `setting X` of a backend."""
    if isinstance(current, dict):
        setting = step.removeprefix("setting ")
        if step != setting and setting in (current.get("settings") or {}):
            return ["settings", setting]
        return [step] if step in current else None
    if backends:
        names = [each.name for each in Config(backends=tuple(current)).named_backends]
        return [names.index(step)] if step in names else None
    return None


def _gives(values: Mapping[str, Any], key: Key) -> bool:
    """Whether a source is where a key is to be mended: it gives the key, or the list or section that lacks it."""
    current: Any = values
    for depth, step in enumerate(key):
        listed = isinstance(current, list | tuple) and isinstance(step, int) and step < len(current)
        if listed or (isinstance(current, dict) and step in current):
            current = current[step]
        else:
            return depth > 0 and not isinstance(values.get(str(key[0])), dict)
    return bool(key)


def _flag(key: Key) -> str:
    return f"--{'backend' if key[0] == 'backends' else str(key[0])}".replace("_", "-")


def load(path: Path | None = None, flags: Mapping[str, Any] | None = None) -> Config:
    """`flags` are values by key; None and empty ones count as not given. Without `path`, `DRAGOMAN_CONFIG` names the
    file. Reads `os.environ`."""
    return load_with_sources(path, flags)[0]


def load_with_sources(path: Path | None, flags: Mapping[str, Any] | None) -> tuple[Config, Sources]:
    if path is None and (named := os.environ.get(f"{PREFIX}CONFIG")):
        path = Path(named)
    told: list[str] = []
    file: YamlFile | None = None
    environment: dict[str, Any] = {}
    try:
        if path is not None:
            from dragoman.gateway.config.yaml_file import read_yaml  # not every gateway has a file

            file = read_yaml(path)
            told += file.faults
    except ConfigError as error:
        told.append(str(error))
    told += unknown_variables(os.environ)
    try:
        environment = read_environment(os.environ)
    except ConfigError as error:
        told.append(str(error))
    given = {key: value for key, value in (flags or {}).items() if value not in (None, [], ())}
    variables = frozenset(each.upper().removeprefix(PREFIX) for each in os.environ)
    sources = Sources(given, environment, file, variables)
    told += [sources.line(fault) for fault in setting_faults(sources.merged)]
    try:
        config = Config(**sources.merged)
    except ValidationError as error:
        told += [sources.line(fault) for fault in faults(error)]
    if told:
        raise ConfigError("\n".join(_ordered(told)))
    return config, sources


def _ordered(lines: Iterable[str]) -> list[str]:
    """By line and column within a file, other sources after it as they came."""
    found = re.compile(r"^(.*?):(\d+):(\d+): ")

    def place(line: str) -> tuple[int, int, int]:
        match = found.match(line)
        return (0, int(match[2]), int(match[3])) if match else (1, 0, 0)

    return sorted(dict.fromkeys(lines), key=place)


def _written_out(section: str, value: Any) -> Any:
    """A section that is one word with the key that it stands for, so that other sources can give its other keys."""
    return {SHORT[section]: value} if section in SHORT and (value is False or isinstance(value, str)) else value


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
