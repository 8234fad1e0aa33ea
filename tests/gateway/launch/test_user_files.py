"""The user's own files: comments stay, what was written can be taken out again, and nothing else is touched."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from dragoman.gateway.launch import user_files
from dragoman.gateway.launch.agent import FileChange, LaunchError
from dragoman.gateway.launch.user_files import undo, write

TOML = """\
# mine
model = "gpt-5"  # the good one

[features]
goals = true

[model_providers.other]
name = "other"
"""
KEYS: dict[tuple[str, ...], Any] = {
    ("model",): "any",
    ("features", "plugins"): False,
    ("analytics", "enabled"): False,
    ("model_providers", "dragoman"): {"name": "dragoman", "base_url": "http://h/v1"},
}
ENV: dict[tuple[str, ...], Any] = {("env", "ANTHROPIC_BASE_URL"): "http://h", ("env", "ANTHROPIC_MODEL"): "any"}


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return tmp_path / "state" / "codex.json"


def test_comments_and_what_else_is_there_stay(tmp_path: Path, record: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(TOML)
    path.chmod(0o640)
    assert write([FileChange(path, KEYS)], record) == [f"changed {path}"]
    text = path.read_text()
    for line in (
        "# mine",
        'model = "any"  # the good one',
        "goals = true",
        "plugins = false",
        "[model_providers.other]",
    ):
        assert line in text
    assert path.stat().st_mode & 0o777 == 0o640
    assert record.stat().st_mode & 0o777 == 0o600
    assert undo(record) == [f"restored {path}"]
    assert path.read_text() == TOML
    assert not record.exists()


def test_a_file_that_was_edited_meanwhile_loses_only_what_was_written(tmp_path: Path, record: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(TOML)
    write([FileChange(path, KEYS)], record)
    path.write_text(path.read_text().replace('model = "any"', 'model = "mine now"') + "\n[mcp_servers.new]\n# theirs\n")
    undo(record)
    text = path.read_text()
    assert 'model = "mine now"' in text
    assert "# theirs" in text
    assert not [word for word in ("dragoman", "plugins", "analytics") if word in text]
    assert "goals = true" in text


def test_a_former_value_comes_back_in_an_edited_file(tmp_path: Path, record: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_text('{\n    "env": {"ANTHROPIC_MODEL": "opus"}\n}\n')
    write([FileChange(path, ENV)], record)
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"theme": "dark"}, indent=4))
    undo(record)
    assert json.loads(path.read_text()) == {"env": {"ANTHROPIC_MODEL": "opus"}, "theme": "dark"}
    assert '\n    "env"' in path.read_text()


def test_a_file_that_was_not_there_is_removed_and_one_that_is_gone_is_said_so(tmp_path: Path, record: Path) -> None:
    new, whole = tmp_path / "folder" / "settings.json", tmp_path / "folder" / "models.json"
    changes = [FileChange(new, ENV), FileChange(whole, whole="{}\n")]
    assert write(changes, record) == [f"wrote {new}", f"wrote {whole}"]
    whole.unlink()
    assert undo(record) == [f"removed {new}", f"{whole} is gone already"]
    assert not new.exists()


def test_a_second_write_keeps_the_first_way_back(tmp_path: Path, record: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(TOML)
    write([FileChange(path, KEYS)], record)
    write([FileChange(path, {**KEYS, ("model",): "other"})], record)
    undo(record)
    assert path.read_text() == TOML


@pytest.mark.parametrize(
    "before",
    [
        'model_providers.other.name = "other"\nfeatures.plugins = true  # mine\nanalytics.enabled = true\n',
        'model_providers.dragoman.base_url = "http://old"\nmodel = "gpt-5"\n',
        'model_providers = {other = {name = "other"}}\nfeatures = {plugins = true, goals = true}\n',
        '\ufeffmodel = "gpt-5"\r\n[features]\r\ngoals = true\r\n',
    ],
)
def test_dotted_keys_sections_in_one_line_and_a_byte_order_mark_are_no_obstacle(
    tmp_path: Path, record: Path, before: str
) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(before.encode())
    write([FileChange(path, KEYS)], record)
    wanted = held(before)
    wanted["model"] = "any"
    wanted.setdefault("features", {})["plugins"] = False
    wanted.setdefault("analytics", {})["enabled"] = False
    wanted.setdefault("model_providers", {})["dragoman"] = KEYS[("model_providers", "dragoman")]
    assert held(path.read_text("utf-8")) == wanted
    path.write_bytes(path.read_bytes() + b"[new]\nkey = 1\n")
    undo(record)
    assert held(path.read_text("utf-8")) == held(before) | {"new": {"key": 1}}


def test_a_settings_file_with_a_byte_order_mark_keeps_it(tmp_path: Path, record: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_bytes(b'\xef\xbb\xbf{"theme": "dark"}\n')
    write([FileChange(path, ENV)], record)
    assert path.read_bytes().startswith(b"\xef\xbb\xbf{")
    env = {"ANTHROPIC_BASE_URL": "http://h", "ANTHROPIC_MODEL": "any"}
    assert json.loads(path.read_text("utf-8-sig")) == {"theme": "dark", "env": env}


def held(text: str) -> dict[str, Any]:
    return tomllib.loads(text.removeprefix("\ufeff"))


def test_a_link_stays_a_link(tmp_path: Path, record: Path) -> None:
    real, link = tmp_path / "dotfiles.toml", tmp_path / "config.toml"
    real.write_text(TOML)
    link.symlink_to(real)
    write([FileChange(link, KEYS)], record)
    assert link.is_symlink()
    assert "dragoman" in real.read_text()
    undo(record)
    assert (link.is_symlink(), real.read_text()) == (True, TOML)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("settings.json", "{", "cannot be read"),
        ("settings.json", "[]", "holds no settings"),
        ("settings.json", '{"env": 5}', "env is not a section"),
        ("config.toml", "model = ", "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_changed_safely_is_left(
    tmp_path: Path, record: Path, name: str, text: str, told: str
) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(LaunchError, match=told):
        write([FileChange(path, ENV if name.endswith("json") else KEYS)], record)
    assert path.read_text() == text
    assert not record.exists()


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), UnicodeEncodeError("utf-8", "x", 0, 1, "no")]
)
def test_where_one_file_cannot_be_written_none_is_changed(
    error: Exception, tmp_path: Path, record: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed, made, locked = tmp_path / "config.toml", tmp_path / "models.json", tmp_path / "locked.json"
    changed.write_text(TOML)
    locked.write_text('{"a":1}')
    replace = user_files._replace

    def refuse(path: Path, text: str, mode: int | None = None) -> None:
        if path == locked:
            raise error
        replace(path, text, mode)

    monkeypatch.setattr(user_files, "_replace", refuse)
    changes = [FileChange(changed, KEYS), FileChange(made, whole="[]"), FileChange(locked, ENV)]
    with pytest.raises(LaunchError, match=r"locked\.json cannot be written"):
        write(changes, record)
    assert changed.read_text() == TOML
    assert locked.read_text() == '{"a":1}'
    assert not made.exists()
    assert not record.exists()
