"""Changes to the user's own files, and their way back.

Comments, order and the file's mode stay. A record beside the gateway's state holds each file as it was: undone, a file
that nobody has touched since is the old one byte for byte, and one that was edited loses only the keys that are still
as they were written. Links are followed, since such files are often links into a repository.
"""

from __future__ import annotations

import json
import os
import tempfile
import tomllib
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from dragoman.gateway.launch.agent import FileChange, LaunchError

Content = MutableMapping[str, Any]
BOM = "\ufeff"


def write(changes: Sequence[FileChange], record: Path) -> list[str]:
    """Makes the changes, all of them or none, after undoing earlier ones of the same record; returns what was done, a
    line for each."""
    if record.exists():
        undo(record)
    prepared = [(change.path, _read(change.path), _changed(change)) for change in changes]
    saved = []
    for change, (path, before, after) in zip(changes, prepared, strict=True):
        keys = [[list(key), _find(_content(path, before or ""), key), value] for key, value in change.keys.items()]
        saved.append({"path": str(path), "before": before, "after": after, "keys": keys})
    record.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    _replace(record, json.dumps({"files": saved}, indent=1), 0o600)  # first: a change without a record has no way back
    try:
        for path, _, after in prepared:
            path.parent.mkdir(parents=True, exist_ok=True)
            _replace(path, after)
    except (OSError, UnicodeEncodeError) as error:
        undo(record)
        raise LaunchError(f"{path} cannot be written: {error}") from None
    return [f"{'wrote' if before is None else 'changed'} {path}" for path, before, _ in prepared]


def undo(record: Path) -> list[str]:
    if not record.exists():
        raise LaunchError("there is nothing to undo")
    told = []
    for each in json.loads(record.read_text("utf-8"))["files"]:
        path, before = Path(each["path"]), each["before"]
        now = _read(path)
        if now is None or now == before:
            told.append(f"{path} is gone already" if now is None else f"{path} is as it was")
            continue
        if now != each["after"] and each["keys"]:
            rest = _without(path, now, each["keys"])
            before = rest if before is not None or _content(path, rest) else None
        if before is None:
            path.resolve().unlink()
            told.append(f"removed {path}")
        else:
            _replace(path, before)
            told.append(f"restored {path}")
    record.unlink()
    return told


# ----------------------------------------------------------------------------------------------------------- contents


def _changed(change: FileChange) -> str:
    return change.whole if change.whole is not None else _edited(change.path, _read(change.path) or "", change.keys)


def _without(path: Path, text: str, keys: list[Any]) -> str:
    """The file without what was written to it, where that is still as it was written."""
    content = _content(path, text)
    return _edited(path, text, {tuple(key): old for key, old, new in keys if _find(content, key) == new})


def _edited(path: Path, text: str, changes: Mapping[tuple[str, ...], Any]) -> str:
    """The text with each of these values, without the keys whose value is None. What it holds then is read again: a
    section under a header of its own would take in the lines of a file with dotted keys that follow it."""
    wanted = _content(path, text)
    _apply(wanted, changes, path, dict)
    for table in _tables(path):
        try:
            content = _parse(path, text)
            _apply(content, changes, path, table)
            after = (BOM if text.startswith(BOM) else "") + _dump(path, content, text)
            if _content(path, after) == wanted:
                return after
        except Exception:  # of shapes that tomlkit does not change, such as a section in one that is written in a line
            continue
    raise LaunchError(f"{path} cannot be changed without a loss; change it by hand (--print)")


def _apply(content: Content, changes: Mapping[tuple[str, ...], Any], path: Path, table: Callable[[], Content]) -> None:
    for key, value in changes.items():
        if value is None:
            _remove(content, key)
        else:
            _set(content, key, value, path, table)


def _find(content: Any, key: Sequence[str]) -> Any:
    for step in key:
        content = content.get(step) if isinstance(content, dict) else None
    return content


def _set(content: Content, key: Sequence[str], value: Any, path: Path, table: Callable[[], Content]) -> None:
    for depth, step in enumerate(key[:-1]):
        if step not in content:
            content[step] = table()
        content = content[step]
        if not isinstance(content, MutableMapping):
            raise LaunchError(f"{path}: {'.'.join(key[: depth + 1])} is not a section; change it by hand (--print)")
    if isinstance(value, dict):
        section = table()
        section.update(value)
        value = section
    content[key[-1]] = value


def _remove(content: Content, key: Sequence[str]) -> None:
    """And the sections that are empty without it."""
    if len(key) > 1:
        _remove_inner(content, key)
    else:
        content.pop(key[0], None)


def _remove_inner(content: Content, key: Sequence[str]) -> None:
    inner = content.get(key[0])
    if isinstance(inner, MutableMapping):
        _remove(inner, key[1:])
        if not inner:
            del content[key[0]]


# ------------------------------------------------------------------------------------------------------------ formats


def _toml() -> Any:
    try:
        import tomlkit
    except ImportError:
        raise LaunchError(
            "changing config.toml with its comments kept needs tomlkit: pip install 'dragoman[launch]'"
        ) from None
    return tomlkit


def _content(path: Path, text: str) -> dict[str, Any]:
    """What the file holds, as plain values."""
    bare = text.removeprefix(BOM)
    try:
        content = tomllib.loads(bare) if path.suffix == ".toml" else json.loads(bare) if bare.strip() else {}
    except ValueError as error:
        comments = "; comments would not be kept: change it by hand (--print)" if path.suffix == ".json" else ""
        raise LaunchError(f"{path} cannot be read: {error}{comments}") from None
    if not isinstance(content, dict):
        raise LaunchError(f"{path} holds no settings")
    return content


def _parse(path: Path, text: str) -> Content:
    """The same as something that can be changed and keeps its comments."""
    return _toml().parse(text.removeprefix(BOM)) if path.suffix == ".toml" else _content(path, text)


def _tables(path: Path) -> Sequence[Callable[[], Content]]:
    """How sections are made: under a header, or in one line."""
    return (_toml().table, _toml().inline_table) if path.suffix == ".toml" else (dict,)


def _dump(path: Path, content: Any, before: str) -> str:
    if path.suffix == ".toml":
        return str(_toml().dumps(content))
    indented = next((line for line in before.splitlines() if line[:1] in (" ", "\t")), "  ")
    blanks = indented[: len(indented) - len(indented.lstrip())]
    return json.dumps(content, indent="\t" if "\t" in blanks else len(blanks), ensure_ascii=False) + "\n"


# --------------------------------------------------------------------------------------------------------------- disk


def _read(path: Path) -> str | None:
    try:
        return path.read_bytes().decode("utf-8")  # without a change of its line ends
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise LaunchError(f"{path} cannot be read: {error}") from None


def _replace(path: Path, text: str, mode: int | None = None) -> None:
    """Whole or not at all, with the mode of the file that it replaces."""
    path = path.resolve()
    if mode is None and path.exists():
        mode = path.stat().st_mode & 0o777
    handle, made = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode())
        os.chmod(made, mode if mode is not None else 0o600)
        os.replace(made, path)
    except BaseException:
        os.unlink(made)
        raise
