"""Reads lock files for the tests, by other means than what is tested."""

from __future__ import annotations

import re
from dataclasses import dataclass

from packaging.markers import Marker

ENTRY = re.compile(r"(?P<name>[\w.-]+)==(?P<version>[^\s;\\]+)(?: ; (?P<marker>[^\\\n]+))?")


@dataclass(frozen=True, slots=True)
class Locked:
    version: str
    hashes: frozenset[str]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def installed_here(text: str) -> dict[str, Locked]:
    """By name, what the lock file installs on this platform and Python."""
    found = {}
    for entry in re.split(r"\n(?=\S)", text.strip()):
        match = ENTRY.match(entry)
        assert match, entry
        if match["marker"] is None or Marker(match["marker"]).evaluate():
            hashes = frozenset(re.findall(r"--hash=sha256:([0-9a-f]{64})", entry))
            found[canonical(match["name"])] = Locked(match["version"], hashes)
    return found
