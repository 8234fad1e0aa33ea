"""What is installed: one package, `dragoman`, the same from a checkout and from the source archive."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from dragoman.gateway.cli import FILES

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
SHIPPED = "from dragoman.gateway.shipped import shipped; print(shipped('codex/model_catalog.py'))"


def build(source: Path, target: Path, kind: str) -> Path:
    """The path of the built archive; `kind` is wheel or sdist."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", str(target)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (archive,) = target.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return archive


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("wheel"), "wheel")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked source archive."""
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(build(ROOT, folder, "sdist")) as archive:
        archive.extractall(folder, filter="data")
    return next(path for path in folder.iterdir() if path.is_dir())


def names(wheel: Path) -> list[str]:
    return sorted(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_holds_one_package(wheel: Path) -> None:
    assert {name.partition("/")[0].partition("-")[0] for name in names(wheel)} == {"dragoman"}
    assert {"dragoman/__main__.py", "dragoman/gateway/cli.py", "dragoman/gateway/configs/gateway.yaml"} <= set(
        names(wheel)
    )
    shipped = ("gateway.schema.json", "codex/config.toml", "codex/model_catalog.py", "claude-code/settings.json")
    assert {f"dragoman/gateway/configs/{name}" for name in shipped} <= set(names(wheel))
    modules = {
        str(path.relative_to(ROOT))
        for top in ("gateway", "backends", "translators")
        for path in (ROOT / top).rglob("*.py")
    }
    assert modules - {"gateway/__main__.py"} <= {name.removeprefix("dragoman/") for name in names(wheel)}


def test_what_the_wheel_prints_for_people_names_no_file_of_a_checkout() -> None:
    for name in FILES.values():
        assert "configs/" not in (ROOT / "configs" / name).read_text("utf-8"), name


def test_the_source_archive_builds_the_same_wheel(wheel: Path, source: Path, tmp_path: Path) -> None:
    assert not (source / ".dev").exists()
    again = build(source, tmp_path, "wheel")
    assert names(again) == names(wheel)
    assert again.read_bytes() == wheel.read_bytes()


def test_the_command_runs_where_nothing_but_the_wheel_and_its_requirements_are_installed(
    wheel: Path, tmp_path: Path
) -> None:
    venv.create(tmp_path / "env", with_pip=False, system_site_packages=False)
    (packages,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    zipfile.ZipFile(wheel).extractall(packages)
    requirements = next(Path(path) for path in sys.path if path.endswith("site-packages"))
    for each in requirements.iterdir():  # without the checkout, which is installed there as a link
        if each.suffix != ".pth" and "dragoman" not in each.name:
            (packages / each.name).symlink_to(each)
    python = tmp_path / "env" / "bin" / "python"

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(python), "-I", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    assert run("-m", "dragoman", "--version").stdout.startswith("dragoman ")
    assert run("-m", "dragoman", "check").returncode == 0
    assert run("-m", "dragoman", "config", "example").stdout == (ROOT / "configs" / "gateway.yaml").read_text("utf-8")
    assert run("-m", "dragoman", "config", "codex").stdout == (ROOT / "configs/codex/config.toml").read_text("utf-8")
    assert str(packages) in run("-c", SHIPPED).stdout
    for name in ("gateway", "backends", "translators"):
        assert "ModuleNotFoundError" in run("-c", f"import {name}").stderr
