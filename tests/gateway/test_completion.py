"""The completion of shells, asked of the shells themselves."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from dragoman.gateway.cli import main
from dragoman.gateway.command_line import COMMANDS, SHELLS
from dragoman.gateway.completion import script

PRINT = '_dragoman\nprintf "%s\\n" "${COMPREPLY[@]}"'
CASES = [
    ("dragoman ", {"serve", "check", "doctor", "config", "completion"}),
    ("dragoman che", {"check"}),
    ("dragoman doctor --", {"--config", "--backend", "--model", "--preset", "--client", "--deep", "--write", "--json"}),
    ("dragoman config ", {"example", "schema"}),
    ("dragoman completion f", {"fish"}),
    ("dragoman serve --preset v", {"vllm"}),
    ("dragoman check --port 1 --no-s", {"--no-secrets"}),
]


# bash is everywhere; the others are tried where they are, and what they would read is looked at everywhere.
HERE = {name: path for name in SHELLS if (path := shutil.which(name)) is not None}
ASKED = [(name, *case) for name in ("bash", "fish") if name in HERE for case in CASES]
READ = {
    "bash": ("-c", "source ./_dragoman; type -t _dragoman", "function\n"),
    "fish": ("-N", "-c", "source ./_dragoman; complete -C 'dragoman completion f'", "fish\n"),
    "zsh": (
        "-f",
        "-c",
        "autoload -Uz compinit; compinit -D -u; source ./_dragoman; whence -w _dragoman",
        "_dragoman: function\n",
    ),
}


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
    assert not done.stderr, done.stderr
    return done.stdout


@pytest.mark.parametrize(("name", "line", "offered"), ASKED)
def test_a_shell_offers_what_fits(name: str, line: str, offered: set[str], tmp_path: Path) -> None:
    words = line.split(" ")
    if name == "fish":
        printed = run(HERE[name], "-N", "-c", f"{script(name)}\ncomplete -C '{line}'", cwd=tmp_path)
        found = {each.split("\t")[0] for each in printed.splitlines()}
    else:
        ask = f"COMP_WORDS=({' '.join(word or chr(39) * 2 for word in words)})\nCOMP_CWORD={len(words) - 1}\n"
        found = set(run(HERE[name], "-c", script(name) + ask + PRINT, cwd=tmp_path).split())
    assert offered <= found
    assert all(word.startswith(words[-1]) for word in found)


def test_bash_offers_files_where_a_file_is_meant(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").touch()
    ask = "COMP_WORDS=(dragoman serve --config gat)\nCOMP_CWORD=3\n"
    assert run(HERE["bash"], "-c", script("bash") + ask + PRINT, cwd=tmp_path) == "gateway.yaml\n"


@pytest.mark.parametrize("name", HERE)
def test_a_shell_reads_its_script(name: str, tmp_path: Path) -> None:
    (tmp_path / "_dragoman").write_text(script(name), encoding="utf-8")
    *command, printed = READ[name]
    assert run(HERE[name], *command, cwd=tmp_path) == printed


@pytest.mark.parametrize("name", SHELLS)
def test_the_command_prints_a_script_that_knows_every_option(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", name]) == 0
    printed = capsys.readouterr().out
    for command in COMMANDS:
        assert command.name in printed
        for option in command.options:
            assert option.name.removeprefix("--") in printed
