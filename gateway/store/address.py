"""What the address of a store says without opening it: its place for people, and whether there can be anything yet."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

MEMORY = "memory"
SQLITE = "sqlite:"
POSTGRESQL = "postgresql:"


def place(url: str) -> str:
    """Without a name, a password or parameters."""
    if not url.startswith(POSTGRESQL):
        return url
    parts = urlsplit(url)
    return f"postgresql at {parts.netloc.rpartition('@')[2] or 'localhost'}{parts.path}"


def file_of(url: str) -> Path:
    """The file of `sqlite:PATH`."""
    return Path(os.path.expanduser(url.removeprefix(SQLITE))).absolute()


def is_new(url: str) -> bool:
    """Whether nothing has been kept there yet and nothing is in the way: memory, or a file that is still to be made. A
    file that cannot be made is not new, so that the store reports it when the gateway starts."""
    if not url.startswith(SQLITE):
        return url == MEMORY
    path = file_of(url)
    if os.path.lexists(path):
        return False
    folder = next(each for each in path.parents if os.path.lexists(each))
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
