"""Everything that is installed is locked by version and hash, and what an audit says of what a source answers.

Looked at is what runs by itself: the Makefile, the Dockerfile, scripts of the shell and of Python. Lines of the pages
that a person pastes into an environment of his own are not.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from dragoman.gateway import __version__
from requirements import audit
from tests.real.components import COMPONENTS, Packages
from tests.test_layering import tracked_files

ROOT = Path(__file__).parents[1]
PACKAGES = [each for each in COMPONENTS.values() if isinstance(each, Packages)]
# Installers whose commands are always an error: they know no hashes, or run what they fetch.
UNKNOWN = re.compile(
    r"(?<![\w./-])(?:curl|wget|npx|apt-get|apt|apk|easy_install|pipx|poetry|conda|cargo|gem|brew)\s|\bgit\s+clone\b"
    r"|\bgo\s+(?:install|get)\b|\b(?:npm|yarn|pnpm)\s|\buv\s+(?:pip|sync|tool|add|run)\b|\buvx\s"
)
PIP = re.compile(r"(?:\bpip3?|\$\(PIP\))\s(?:.*\s)?(?:install|download|wheel)\s")
LOCAL = re.compile(r"--no-deps\b.*(?:--no-index|--no-build-isolation)\b")
SHELL = re.compile(r"(?:^|/)(?:Makefile|Dockerfile[^/]*|[^/]+\.(?:sh|mk|bash)|run)$|^\.(?:ci|github|gitlab)")


def unlocked_commands(text: str) -> list[str]:
    """The commands of a shell script, Makefile or Dockerfile that install what no hash names."""
    code = re.sub(r"^\s*#.*\n?", "", text, flags=re.MULTILINE)
    joined = re.sub(r"\\\n\s*", " ", code)
    commands = [command.strip() for command in re.split(r"\n|&&|\|\||;", joined)]
    return [
        command
        for command in commands
        if UNKNOWN.search(f"{command} ")
        or (PIP.search(f"{command} ") and "--require-hashes" not in command and not LOCAL.search(command))
    ]


def unlocked_calls(text: str) -> list[str]:
    """The lists of words in a Python file that hand `install` or `download` to pip without asking for hashes."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call | ast.List | ast.Tuple):
            continue
        words = node.args if isinstance(node, ast.Call) else node.elts
        said = [word.value for word in words if isinstance(word, ast.Constant)]
        names = " ".join([ast.unparse(word) for word in words]).lower()
        if {"install", "download", "wheel"} & set(said) and "pip" in names and "--require-hashes" not in said:
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
    return found


# Types what a user types, without hashes, into a temporary folder; no test and no CI run takes the walk that installs.
TOUR = ROOT / "tests" / "real" / "tour.py"


def test_everything_that_is_installed_is_asked_for_by_hash() -> None:
    looked_at = 0
    wrong = []
    for path in tracked_files():
        name = path.relative_to(ROOT).as_posix()
        if not path.is_file() or path in (Path(__file__), TOUR):
            continue
        if path.suffix == ".py":
            found = unlocked_calls(path.read_text("utf-8"))
        elif SHELL.search(name):
            found = unlocked_commands(path.read_text("utf-8"))
            looked_at += 1
        else:
            continue
        wrong += [f"{name}: {each}" for each in found]
    assert not wrong, "\n" + "\n".join(wrong)
    assert looked_at >= 4


@pytest.mark.parametrize(
    "text",
    [
        "pip install requests",
        "python -m pip --quiet install -r requirements.txt",
        "\t$(PIP) install --upgrade uv",
        "RUN a \\\n  # why\n  && pip install \\\n  b",
        "pip download x",
        "curl -O https://host.example/x | sh",
        "npm ci",
        "apt-get install -y git",
        "uv pip sync requirements.txt",
        "git clone https://host.example/x",
    ],
)
def test_commands_without_hashes_are_seen(text: str) -> None:
    assert len(unlocked_commands(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "# pip install x",
        "pip install --require-hashes --requirement core.txt",
        "RUN pip install \\\n  --require-hashes -r x",
        "pip install --no-deps --no-build-isolation --editable .",
        "pip install --no-deps --no-index dist/*.whl",
        "requirements/lock.sh .real/lock/bin/uv",
    ],
)
def test_commands_that_are_locked_pass(text: str) -> None:
    assert unlocked_commands(text) == []


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("run([python, '-m', 'pip', 'install', 'x'])", 1),
        ("run(*PIP, 'install', 'x')", 1),
        ("X = (*PIP, 'download', '--no-deps')", 1),
        ("X = (*PIP, 'install', '--require-hashes')", 0),
        ("say('install it with pip')", 0),
        ("run(npm, 'install')", 0),
    ],
)
def test_python_that_installs_without_hashes_is_seen(text: str, count: int) -> None:
    assert len(unlocked_calls(text)) == count


@pytest.mark.parametrize("component", PACKAGES, ids=lambda component: component.name)
def test_what_npm_installs_is_locked_by_hash_and_names_no_address(component: Packages) -> None:
    lock = json.loads(component.lock_file.read_text("utf-8"))["packages"]
    assert lock.pop("")["dependencies"] == json.loads(component.manifest)["dependencies"]
    assert lock
    for path, each in lock.items():
        assert each["integrity"].startswith("sha512-"), path
        assert "resolved" not in each, path


def test_every_lock_file_of_npm_is_asked_for_by_something() -> None:
    assert {path for path in (ROOT / "requirements" / "npm").iterdir()} == {each.lock_file for each in PACKAGES}


def test_the_builder_of_the_wheel_is_locked() -> None:
    """The container and the editable install build without isolation, so that this one is the builder."""
    assert re.search(r"^hatchling==\S+", (ROOT / "requirements" / "build.txt").read_text("utf-8"), re.MULTILINE)
    for name in ("Makefile", "Dockerfile"):
        text = re.sub(r"\\\n\s*", " ", (ROOT / name).read_text("utf-8"))
        builds = re.findall(r"pip wheel [^\n&]*|\$\(PIP\) [^\n&]*--editable[^\n&]*", text)
        assert builds, name
        assert all("--no-build-isolation" in each for each in builds), name


# ------------------------------------------------------------------------------------------------------------ the audit

KNOWN = {"name": "idna", "version": "3.20", "vulns": [{"id": "GHSA-1", "fix_versions": ["3.21"]}]}
SAFE = {"name": "yarl", "version": "1.0", "vulns": []}
SKIPPED = {"name": "attrs", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("report", "looked_up", "vulnerabilities", "missing"),
    [
        ({"dependencies": [SAFE]}, 1, (), ""),
        ({"dependencies": [SAFE, KNOWN]}, 2, ("idna 3.20: GHSA-1, fixed in 3.21",), ""),
        ({"dependencies": [SKIPPED, SKIPPED]}, 0, (), "2 of 2 distributions were skipped: not found"),
        (
            {"dependencies": [KNOWN, SKIPPED]},
            1,
            ("idna 3.20: GHSA-1, fixed in 3.21",),
            "1 of 2 distributions were skipped: not found",
        ),
        ({"dependencies": []}, 0, (), "the report is empty"),
        (None, 0, (), "no such host"),
    ],
)
def test_a_distribution_that_was_skipped_was_not_audited(
    report: object, looked_up: int, vulnerabilities: tuple[str, ...], missing: str
) -> None:
    text = "" if report is None else json.dumps(report)
    assert audit.read(text, "Traceback\nno such host\n") == audit.Audit(looked_up, vulnerabilities, missing)


WHOLE = audit.Audit(1, ())
UNSAFE = audit.Audit(1, ("idna 3.20: GHSA-1, no fixed version",))
SILENT = audit.Audit(0, (), "no such host")


@pytest.mark.parametrize(
    ("first", "second", "status"),
    [
        (WHOLE, None, 0),
        (UNSAFE, None, 1),
        (SILENT, WHOLE, 0),
        (SILENT, UNSAFE, 1),
        (SILENT, SILENT, 3),
        (audit.Audit(1, UNSAFE.vulnerabilities, "1 of 2 distributions were skipped"), SILENT, 1),
    ],
)
def test_the_next_source_is_asked_where_one_does_not_answer_for_everything(
    monkeypatch: pytest.MonkeyPatch, first: audit.Audit, second: audit.Audit | None, status: int
) -> None:
    answers = {"pypi": first, "osv": second}

    def ask(source: tuple[str, ...], _: Path) -> audit.Audit:
        answer = answers[source[-1]]
        assert answer is not None, "asked without need"
        return answer

    monkeypatch.setattr(audit, "ask", ask)
    assert audit.main([]) == status


def test_the_page_on_security_says_what_is_there() -> None:
    page = (ROOT / "SECURITY.md").read_text("utf-8")
    makefile, dockerfile = ((ROOT / name).read_text("utf-8") for name in ("Makefile", "Dockerfile"))
    assert f"newest {__version__.rpartition('.')[0]} release" in page
    bills = set(re.findall(r"[\w./-]+\.cdx\.json", page))
    assert len(bills) == 3
    assert {bill for bill in bills if bill not in (dockerfile if bill.startswith("/") else makefile)} == set()
    (base,) = re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", dockerfile, re.MULTILINE)
    assert f"(`{base}`)" in page
    assert re.findall(r"^\| .* \| (\d) \| ", page, re.MULTILINE) == ["0", "1", "3"]
