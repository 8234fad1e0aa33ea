"""What the built package says of itself beyond pyproject.toml: the README as an index shows it, and the addresses.

An index shows the README without the repository around it, where a relative link leads nowhere and a relative picture
is a broken one. Where pyproject.toml names the repository, links become absolute (`REPOSITORY/blob/vVERSION/…`) and the
usual `project.urls` are made of it; where it names none, as in a fork that is not published, a link becomes its text
and a picture is left out. The result depends on nothing but the two files, so that a build is the same everywhere.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|mailto:|#)([^)\s]+)\)")
PICTURE = re.compile(r"!\[([^\]]*)\]\((?!https?:)([^)\s]+)\)\n*")


class PackageMetadata(MetadataHookInterface):
    def update(self, metadata: dict[str, Any]) -> None:
        repository = str(self.config.get("repository", "")).rstrip("/")
        text = Path(self.root, "README.md").read_text("utf-8")
        version = str(metadata["version"])
        metadata["readme"] = {"content-type": "text/markdown", "text": standing_alone(text, repository, version)}
        metadata["urls"] = urls(repository, version)


def standing_alone(text: str, repository: str, version: str) -> str:
    """The README without relative links."""
    if not repository:
        return LINK.sub(r"\1", PICTURE.sub("", text))
    files, raw = f"{repository}/blob/v{version}", f"{repository}/raw/v{version}"
    text = PICTURE.sub(rf"![\1]({raw}/\2)\n\n", text)
    return LINK.sub(rf"[\1]({files}/\2)", text)


def urls(repository: str, version: str) -> dict[str, str]:
    if not repository:
        return {}
    return {
        "Repository": repository,
        "Documentation": f"{repository}/tree/v{version}/docs",
        "Changelog": f"{repository}/blob/v{version}/CHANGELOG.md",
        "Issues": f"{repository}/issues",
    }
