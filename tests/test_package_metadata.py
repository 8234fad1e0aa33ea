"""The README as an index shows it: nothing in it leads to a file that is not there."""

from __future__ import annotations

import email
import re
import tomllib
import zipfile
from pathlib import Path

import pytest

from requirements.package_metadata import standing_alone, urls
from tests.test_packaging import build

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
HOME = "https://host.example/them/dragoman"


def targets(text: str) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", text)


@pytest.mark.parametrize("repository", ["", HOME])
def test_no_link_of_the_readme_is_relative_outside_of_the_repository(repository: str) -> None:
    assert any(not target.startswith("http") for target in targets(README))
    text = standing_alone(README, repository, "0.1.0")
    assert [target for target in targets(text) if not target.startswith(("https://", "#"))] == []
    assert len(targets(text)) == (len(targets(README)) if repository else 0)


@pytest.mark.parametrize(
    ("text", "alone", "published"),
    [
        ("see [the\nkeys](docs/a.md)", "see the\nkeys", f"see [the\nkeys]({HOME}/blob/v1/docs/a.md)"),
        ("[a](x.md#b), [c](d)", "a, c", f"[a]({HOME}/blob/v1/x.md#b), [c]({HOME}/blob/v1/d)"),
        ("![a session](docs/s.svg)\n\nAfter", "After", f"![a session]({HOME}/raw/v1/docs/s.svg)\n\nAfter"),
        *((kept, kept, kept) for kept in ("[a](https://b/c)", "[a](#b)", "![a](https://b/c.svg)", "[a](mailto:b@c)")),
    ],
)
def test_links_become_absolute_or_their_text_and_pictures_are_left_out(text: str, alone: str, published: str) -> None:
    assert standing_alone(text, "", "1") == alone
    assert standing_alone(text, HOME, "1") == published


def test_addresses_are_made_of_the_repository_alone() -> None:
    assert urls("", "1") == {}
    assert all(each.startswith(HOME) for each in urls(HOME, "1").values())
    assert urls(HOME, "1")["Changelog"] == f"{HOME}/blob/v1/CHANGELOG.md"


@pytest.mark.slow
def test_the_wheel_has_the_readme_that_stands_alone(tmp_path: Path) -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    repository = settings["tool"]["hatch"]["metadata"]["hooks"]["custom"]["repository"]
    wheel = zipfile.ZipFile(build(ROOT, tmp_path, "wheel"))
    (name,) = [each for each in wheel.namelist() if each.endswith("METADATA")]
    metadata = email.message_from_bytes(wheel.read(name))
    version = metadata["Version"]
    payload = metadata.get_payload(decode=True)
    assert isinstance(payload, bytes)
    assert payload.decode().strip() == standing_alone(README, repository, version).strip()
    assert metadata["Description-Content-Type"] == "text/markdown"
    told = dict(each.split(", ", 1) for each in metadata.get_all("Project-URL", []))
    assert told == urls(repository, version)
