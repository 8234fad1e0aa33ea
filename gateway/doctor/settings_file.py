"""The settings that helped: as YAML to paste, and written into a configuration file.

A file that exists keeps its comments and everything else that it holds. What was written is read again as a
configuration, and only then takes the file's place. A backend that was named on the command line and is not in the file
becomes one more of its backends.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from dragoman.gateway.config import Config, ConfigError, load
from dragoman.gateway.config.yaml_edit import edited, put
from dragoman.gateway.config.yaml_file import read_yaml
from dragoman.gateway.doctor.address import base_of
from dragoman.gateway.doctor.finding import Changes, Key
from dragoman.gateway.doctor.report import Report, ServerReport

HEADING = "# Written by `dragoman doctor`; `dragoman config example` explains every key.\n"


def pasteable(report: Report, config: Config) -> str:
    """The changes, each backend with what it is known by; "" where there are none."""
    if not report.changes:
        return ""
    content: dict[str, Any] = {}
    for key, value in report.changes.items():
        if key[0] not in ("backends", "models"):
            put(content, key, value)
    for name in ("backends", "models"):
        places = sorted({int(key[1]) for key in report.changes if key[0] == name})
        entries = [_known_by(config, name, place) for place in places]
        for entry, place in zip(entries, places, strict=True):
            for key, value in report.changes.items():
                if key[:2] == (name, place):
                    put(entry, key[2:], value)
        if entries:
            content[name] = entries
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)


def _known_by(config: Config, name: str, place: int) -> dict[str, Any]:
    if name == "models":
        entry = config.models[place].model_dump(exclude_unset=True, mode="json")
    else:
        backends = config.backends or config.named_backends
        entry = backends[place].model_dump(exclude_unset=True, mode="json")
    return {key: value for key, value in entry.items() if key in ("url", "name", "aliases", "prefixes")}


def write(report: Report, config: Config, path: Path, source: Path | None) -> list[str]:
    """Puts the changes into the file and returns what was done, a line for each. Without that file, it begins as a copy
    of `source`, the configuration that was examined. Raises `ConfigError` and writes nothing where it cannot."""
    copied = source if not path.exists() and source is not None else None
    text = _read(copied or path)
    content = read_yaml(copied or path).content if text is not None else {}
    changes: dict[Key, Any] = {}
    done: list[str] = []
    for server in report.servers:
        found, added = _placed(server, config, content)
        changes |= found
        done += [f"{server.name} is one more backend of {path}"] if added and content.get("backends") else []
    changes |= {key: value for key, value in report.changes.items() if key[0] != "backends"}
    missing = [key for key in changes if key[0] == "models" and not content.get("models")]
    if missing:
        raise ConfigError(f"{path}: has no models table to correct; write to the file that was examined")
    after = edited(text if text is not None else HEADING, changes)
    if text is not None and after == text and not copied:
        return [*done, f"{path} needs no change"]
    _replace(path, after)
    verb = "changed" if text is not None and not copied else "wrote"
    return [*done, f"{verb} {path}" + (f", a copy of {copied} with the changes" if copied else "")]


def _placed(server: ServerReport, config: Config, content: Mapping[str, Any]) -> tuple[Changes, bool]:
    """The changes of a server by their keys in the file, and whether the file does not have the server yet."""
    given = (config.backends or config.named_backends)[server.place]
    own = {key[2:]: value for key, value in server.changes.items() if key[0] == "backends"}
    there = content.get("backends") or []
    wanted = {_comparable(given.url), _comparable(str(own.get(("url",), given.url)))}
    for place, entry in enumerate(there):
        if isinstance(entry, dict) and _comparable(str(entry.get("url", ""))) in wanted:
            return {("backends", place, *key): value for key, value in own.items()}, False
    entry = given.model_dump(exclude_unset=True, mode="json", exclude_none=True)
    if config.preset is not None and content.get("preset") != config.preset:
        entry.setdefault("preset", config.preset)
    if config.model is not None and content.get("model") != config.model:
        entry.setdefault("model", config.model)
    for key, value in own.items():
        put(entry, key, value)
    if not there:
        place = server.place
        return ({("backends",): [entry]} if place == 0 else {("backends", place): entry}), True
    return {("backends", len(there)): entry}, True


def _comparable(url: str) -> str:
    return base_of(url) if url.lower().startswith("http") else url


def _read(path: Path) -> str | None:
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None


def _replace(path: Path, text: str) -> None:
    """Whole or not at all, once it has been read as a configuration; with the mode of the file that it replaces."""
    path = path.resolve()
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
    try:
        handle, made = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode())
        load(Path(made))
        os.chmod(made, mode)
        os.replace(made, path)
    except ConfigError as error:
        os.unlink(made)
        raise ConfigError(str(error).replace(made, str(path))) from None
    except BaseException:
        os.unlink(made)
        raise
