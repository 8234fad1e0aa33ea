"""What `--write` makes of a file: only the settings that helped, everything else as it was, and always valid."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from dragoman.gateway.cli import main
from dragoman.gateway.config import Config, ConfigError, load, replicas
from dragoman.gateway.doctor.finding import Changes
from dragoman.gateway.doctor.report import Report, ServerReport
from dragoman.gateway.doctor.settings_file import pasteable, write

URL = "http://gpu:8000/v1"
MARKUP: Changes = {("backends", 0, "settings", "markup"): "hermes"}


def found(changes: Changes, place: int = 0, url: str = URL) -> Report:
    return Report(servers=[ServerReport("gpu", url, place, changes=changes)])


def test_a_new_file_holds_the_backend_and_what_helped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "gateway.yaml"
    config = Config(backends=[{"url": URL}], preset="vllm", model="qwen")
    assert write(found(MARKUP), config, file, None) == [f"wrote {file}"]
    (entry,) = load(file).backends
    assert (entry.url, entry.preset, entry.model, entry.settings) == (URL, "vllm", "qwen", {"markup": "hermes"})
    assert main(["check", "--config", str(file)]) == 0
    assert "is valid" in capsys.readouterr().err


def test_a_file_keeps_its_comments_its_order_and_its_mode(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    before = f"# ours\nport: 8081   # free\nbackends:\n  - name: gpu   # below the desk\n    url: {URL}\n\n# the end\n"
    file.write_text(before)
    file.chmod(0o640)
    assert write(found(MARKUP), load(file), file, file) == [f"changed {file}"]
    added = f"    url: {URL}\n    settings:\n      markup: hermes\n"
    assert file.read_text() == before.replace(f"    url: {URL}\n", added)
    assert file.stat().st_mode & 0o777 == 0o640


def test_a_changed_address_finds_its_entry(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text("backends:\n- url: 'local:'\n- url: http://gpu:8000/v2  # old\n  name: gpu\n")
    config = Config(backends=[{"url": "http://gpu:8000/v2", "name": "gpu"}])  # as the command line named it
    write(found({("backends", 0, "url"): URL, **MARKUP}), config, file, None)
    assert [each.url for each in load(file).backends] == ["local:", URL]
    assert load(file).backends[1].settings == {"markup": "hermes"}


def test_a_server_that_is_not_in_the_file_becomes_one_more(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text("backends:\n- url: http://other:8000/v1  # stays\n")
    done = write(found(MARKUP), Config(backends=[{"url": URL, "name": "new"}]), file, None)
    assert done == [f"gpu is one more backend of {file}", f"changed {file}"]
    assert [each.url for each in load(file).backends] == ["http://other:8000/v1", URL]
    assert "# stays" in file.read_text()


def test_several_servers_of_the_command_line_are_all_written(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    urls = [URL, "http://gpu-2:8000/v1"]
    config = Config(backends=replicas(urls))
    servers = [
        ServerReport("a", urls[0], 0),
        ServerReport("b", urls[1], 1, changes={("backends", 1, "preset"): "vllm"}),
    ]
    write(Report(servers=servers), config, file, None)
    assert [each.url for each in load(file).backends] == urls
    assert [each.preset for each in load(file).backends] == [None, "vllm"]
    assert len(load(file).groups) == 1


def test_a_new_file_begins_as_a_copy_of_the_configuration_that_was_examined(tmp_path: Path) -> None:
    source, file = tmp_path / "a.yaml", tmp_path / "b.yaml"
    source.write_text(f"# ours\nbackends:\n- url: {URL}\n")
    write(found(MARKUP), load(source), file, source)
    assert file.read_text() == f"# ours\nbackends:\n- url: {URL}\n  settings:\n    markup: hermes\n"
    assert source.read_text() == f"# ours\nbackends:\n- url: {URL}\n"


def test_without_changes_a_file_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(f"backends:\n- url: {URL}\n")
    assert write(found({}), load(file), file, file) == [f"{file} needs no change"]


@pytest.mark.parametrize(
    "text",
    [f"backends: &all\n- &gpu {{url: '{URL}'}}\nport: nonsense\n", "backends: [\n", "- a list\n"],
)
def test_a_file_that_would_not_be_valid_is_not_touched(text: str, tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError):
        write(found(MARKUP), Config(backends=[{"url": URL}]), file, None)
    assert file.read_text() == text
    assert [each.name for each in tmp_path.iterdir()] == ["gateway.yaml"]


def test_what_is_printed_can_be_pasted() -> None:
    config = Config(backends=[{"url": "local:"}, {"url": URL, "name": "gpu"}], models=[{"name": "a", "backend": "gpu"}])
    changes: Changes = {
        ("backends", 1, "settings", "markup"): "hermes",
        ("models", 0, "upstream"): "b",
        ("model",): "c",
    }
    text = pasteable(found(changes, 1), config)
    assert yaml.safe_load(text) == {
        "model": "c",
        "backends": [{"url": URL, "name": "gpu", "settings": {"markup": "hermes"}}],
        "models": [{"name": "a", "upstream": "b"}],
    }
    assert pasteable(found({}), config) == ""
