"""What is known of a client that can be launched: how it is started, and which keys of its own files do the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KEY_VARIABLE = "DRAGOMAN_CLIENT_KEY"
NO_KEY = "any"  # the clients want some key, also where the gateway wants none


class LaunchError(Exception):
    """Why nothing is launched: one line, or a line for each reason."""


@dataclass(frozen=True, slots=True)
class Served:
    """What a client is pointed at: the gateway's address without a path, a model and its window in tokens, the
    client's key, None where the gateway wants none, and whether the gateway searches the web for a model."""

    base: str
    model: str = "any"
    window: int | None = None
    key: str | None = None
    web_search: bool = False


@dataclass(frozen=True, slots=True)
class Start:
    """A command with what its environment needs, and without the variables that would lead it elsewhere. In
    `environment` the key stands as the text `$DRAGOMAN_CLIENT_KEY`, so that it can be shown."""

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    without: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FileChange:
    """Keys of one of the user's files; a key is the way to it. With `whole`, the file is ours alone."""

    path: Path
    keys: Mapping[tuple[str, ...], Any] = field(default_factory=dict)
    whole: str | None = None


@dataclass(frozen=True, slots=True)
class Agent:
    """`start` gets a folder for temporary files, or None to show what would be started without making any.
    `first_prompt` is in tokens, 0 where it was not measured, and `smaller` says what helps where it does not fit."""

    program: str
    install: str
    start: Callable[[Served, str, Path | None], Start]
    changes: Callable[[Served, str | None, Mapping[str, str]], list[FileChange]]
    first_prompt: int = 0
    smaller: str = ""


KEY_REFERENCE = f"${KEY_VARIABLE}"


def key_or_any(served: Served) -> str:
    return NO_KEY if served.key is None else KEY_REFERENCE


def home(environ: Mapping[str, str]) -> Path:
    try:
        return Path(environ.get("HOME") or Path.home())
    except RuntimeError:  # a user under a number, without an entry in passwd
        raise LaunchError("there is no home for the client's own files: HOME is not set") from None
