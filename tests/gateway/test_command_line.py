"""The words of the command line: what each command takes and shows, what is said of a slip, and what is loaded."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dragoman.gateway.cli import RUN, main
from dragoman.gateway.command_line import COMMANDS, Command

HEAVY = (
    "aiohttp", "argcomplete", "asyncio", "cryptography", "dragoman.backends", "dragoman.gateway.config", "jsonschema",
    "orjson", "prometheus_client", "pydantic", "pydantic_settings", "tomlkit", "yaml",
)  # fmt: skip


def test_every_command_of_the_table_does_something() -> None:
    assert [each.name for each in COMMANDS] == list(RUN)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_help_shows_what_the_command_takes_and_no_more(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command.name, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    every = {option.name for each in COMMANDS for option in each.options}
    own = {option.name for option in command.options}
    assert {name for name in every if f"{name} " in shown or f"{name}]" in shown} == own
    assert "Exit status: " in shown


def test_the_command_alone_shows_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert all(f"    {each.name}" in shown and each.summary[:20] in shown for each in COMMANDS)
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert capsys.readouterr().err == shown


@pytest.mark.parametrize(
    "arguments",
    [["--version"], ["--help"], ["serve", "--help"], ["chekc"], ["completion", "bash"]],
    ids=" ".join,
)
def test_what_needs_no_configuration_loads_nothing_heavy(arguments: list[str]) -> None:
    script = (
        "import sys\n"
        "from dragoman.gateway.cli import main\n"
        "try:\n"
        f"    main({arguments!r})\n"
        "except SystemExit:\n"
        "    pass\n"
        "print('\\n' + ' '.join(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    loaded = done.stdout.splitlines()[-1].split()
    assert "dragoman.gateway.cli" in loaded
    assert [name for name in loaded if name in HEAVY] == []
