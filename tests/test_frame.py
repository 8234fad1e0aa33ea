"""The frame that everything stands in: lock files, the installation of real components, what a missing one does."""

import itertools
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import find_component
from tests.lock_files import canonical
from tests.real import components, provision
from tests.real.components import COMPONENTS, Environment, Packages, SourceFiles

ROOT = Path(__file__).parents[1]
LOCK_FILES = sorted((ROOT / "requirements").glob("*.txt"))


def locked(name: str) -> dict[str, set[str]]:
    """The versions in a lock file; a package has several when they differ by platform or Python."""
    found: dict[str, set[str]] = {}
    for line in (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8").splitlines():
        if match := re.match(r"([A-Za-z0-9._-]+)==([^ ;\\]+)", line):
            found.setdefault(canonical(match[1]), set()).add(match[2])
    return found


def project() -> Any:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def names(requirements: list[str]) -> set[str]:
    return {canonical(re.split(r"[\[<>=!~; ]", requirement)[0]) for requirement in requirements}


@pytest.mark.parametrize("path", LOCK_FILES, ids=lambda path: path.stem)
def test_a_lock_file_pins_and_hashes_all_and_names_no_address(path: Path) -> None:
    entries = re.split(r"\n(?=\S)", path.read_text(encoding="utf-8").strip())
    assert entries
    for entry in entries:
        assert re.match(r"[A-Za-z0-9._-]+==\S+", entry), entry
        assert "--hash=sha256:" in entry, entry
        assert "://" not in entry


@pytest.mark.parametrize(
    ("arguments", "variables", "named"),
    [
        ("", {}, False),
        ("--port 9000", {}, False),
        ("--backend http://gpu:8000/v1", {}, True),
        ("--config gateway.yaml", {}, True),
        ("--backend local:", {}, False),
        ("", {"DRAGOMAN_BACKEND": "http://gpu:8000/v1"}, True),
        ("--port 9000", {"DRAGOMAN_BACKEND": "local:"}, False),
    ],
)
def test_make_run_installs_the_local_model_only_where_no_server_is_named(
    arguments: str, variables: dict[str, str], named: bool
) -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("needs make")
    show = "show: ; @echo '$(NAMED)'"
    environment = {"PATH": os.environ["PATH"], **variables}
    command = [make, "--silent", "--eval", show, "show", f"ARGS={arguments}"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert bool(done.stdout.strip()) is named


def test_every_lock_file_is_asked_for_by_something() -> None:
    components = [each for each in COMPONENTS.values() if not isinstance(each, Packages)]
    used = {each.lock_file for each in components}
    used |= {each.metadata.lock_file for each in components if isinstance(each, SourceFiles) and each.metadata}
    own = {"core", "dev", "build", "extras", "lock"}
    assert {path.stem for path in LOCK_FILES} == own | {Path(each).stem for each in used}


def test_what_the_package_needs_is_locked() -> None:
    described = project()
    assert names(described["dependencies"]) | {"uvloop"} <= set(locked("core"))
    extras = described["optional-dependencies"]
    tested = [
        requirement
        for extra in ("dev", "documents", "launch", "otel", "postgres", "tokenizer", "triton", "uvloop")
        for requirement in extras[extra]
    ]
    assert names(described["dependencies"]) | names(tested) <= set(locked("dev"))


def test_tests_run_with_what_is_shipped() -> None:
    dev = locked("dev")
    for shipped in ("core", "extras"):
        assert {name: dev.get(name) for name in locked(shipped)} == locked(shipped)


def test_every_requirement_has_a_lower_bound() -> None:
    described = project()
    extras = itertools.chain.from_iterable(described["optional-dependencies"].values())
    everything = [*described["dependencies"], *extras]
    assert [requirement for requirement in everything if ">=" not in requirement and "==" not in requirement] == []


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Packages:
    """A component that is not installed and cannot be, because there is no npm."""
    component = Packages("ghost", "a program that nobody has", ("ghost@1.0.0",), ".bin/ghost")
    monkeypatch.setattr(components, "HOME", tmp_path)
    monkeypatch.setattr(components, "ROOT", tmp_path)
    monkeypatch.setitem(COMPONENTS, "ghost", component)
    component.lock_file.parent.mkdir(parents=True)
    component.lock_file.write_text('{"packages": {"node_modules/ghost": {"integrity": "sha512-one"}}}', "utf-8")
    monkeypatch.setenv("PATH", str(tmp_path))
    return component


@pytest.mark.usefixtures("missing")
def test_a_missing_component_skips_and_says_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"ghost is not installed: `make real` installs it \(a program"):
        find_component("ghost")


@pytest.mark.usefixtures("missing")
def test_a_missing_component_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="ghost is not installed"):
        find_component("ghost")


@pytest.mark.usefixtures("missing")
@pytest.mark.parametrize(("ci", "code"), [("", 0), ("true", 1)])
def test_what_cannot_be_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ci: str, code: int
) -> None:
    monkeypatch.setenv("CI", ci)
    assert provision.main(["ghost"]) == code
    printed = capsys.readouterr().out
    assert "ghost: failed: npm is not on the PATH" in printed
    assert "not installed: ghost" in printed


def test_an_installed_component_is_found_until_what_is_asked_for_changes(missing: Packages) -> None:
    missing.folder.mkdir()
    components.mark(missing)
    assert missing.installed()
    assert find_component("ghost") == missing.path
    newer = Packages("ghost", missing.what, ("ghost@1.0.1",), missing.target)
    assert not newer.installed()


def test_packages_go_stale_with_their_lock_file(missing: Packages) -> None:
    missing.folder.mkdir()
    components.mark(missing)
    assert missing.installed()
    missing.lock_file.write_text("{}", "utf-8")
    assert not missing.installed()


@pytest.mark.parametrize("integrity", ['"sha512-two"', "null"])
def test_what_npm_adds_to_the_lock_file_is_refused(missing: Packages, integrity: str) -> None:
    modules = missing.folder / "node_modules"
    modules.mkdir(parents=True)
    installed = modules / f".{provision.NPM_LOCK_NAME}"
    installed.write_text('{"packages": {"node_modules/ghost": {"integrity": "sha512-one"}}}', "utf-8")
    provision._refuse_unlocked(missing)
    installed.write_text(f'{{"packages": {{"node_modules/other": {{"integrity": {integrity}}}}}}}', "utf-8")
    with pytest.raises(provision.Impossible, match="not in its lock file: node_modules/other"):
        provision._refuse_unlocked(missing)


def test_an_environment_goes_stale_with_its_lock_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(components, "ROOT", tmp_path)
    monkeypatch.setattr(components, "HOME", tmp_path)
    (tmp_path / "requirements").mkdir()
    lock_file = tmp_path / "requirements" / "sdk.txt"
    lock_file.write_text("one", encoding="utf-8")
    environment = Environment("sdk", "an SDK", "sdk.txt")
    environment.folder.mkdir()
    components.mark(environment)
    assert environment.installed()
    lock_file.write_text("two", encoding="utf-8")
    assert not environment.installed()


def test_an_unknown_component_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert provision.main(["nothing"]) == 2
    assert "codex" in capsys.readouterr().out
