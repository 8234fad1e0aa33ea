"""Codex CLI without a terminal: a home of its own, a clean environment, and what a turn said.

The configuration is a text that the test brings along, as a rule the README's own; nothing is added to it. Whatever
else Codex would ask (its vendor's plugins and figures) goes to a proxy that refuses, so that nothing leaves loopback.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.real.components import ROOT
from tests.real.program import run
from tests.scripted import Json

CODEX_VERSIONS = ("codex", "codex-0.171")  # components; tests run with the last one, some with each
EACH_CODEX = pytest.mark.parametrize("codex", CODEX_VERSIONS, indirect=True)
TURN_SECONDS = 180.0  # a few seconds where nothing else runs
KEY = "dummy-key"

README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = ROOT / "configs" / "codex"
ADDRESS = "http://127.0.0.1:8080"


@dataclass(frozen=True, slots=True)
class Turn:
    """What `codex exec --json` said: its exit status, the events in order, and the rest."""

    status: int
    events: Sequence[Json]
    errors: str

    @property
    def answers(self) -> list[str]:
        """The texts of the assistant, in order."""
        return [item["text"] for item in self.items("agent_message")]

    @property
    def complaints(self) -> list[str]:
        """What went wrong by Codex's own account: retries and the reason of the end."""
        told = [event["message"] for event in self.events if event["type"] == "error"]
        failed = [event["error"]["message"] for event in self.events if event["type"] == "turn.failed"]
        return told + failed

    def items(self, kind: str) -> list[Json]:
        done = [event["item"] for event in self.events if event["type"] == "item.completed"]
        return [item for item in done if item["type"] == kind]

    @property
    def usage(self) -> Json:
        return next((event["usage"] for event in self.events if event["type"] == "turn.completed"), {})


@dataclass
class Codex:
    """`home` is an empty folder of the test; Codex works in `work` below it."""

    program: Path
    home: Path
    proxy: str = "http://127.0.0.1:9"
    work: Path = field(init=False)
    variables: dict[str, str] = field(default_factory=dict)  # of the environment, beside what every run has

    def __post_init__(self) -> None:
        self.work = self.home / "work"
        for folder in (self.work, self.home / ".codex", self.home / "tmp"):
            folder.mkdir(parents=True)

    def configure(self, text: str) -> None:
        (self.home / ".codex" / "config.toml").write_text(text, encoding="utf-8")

    def take_up(self, key: str) -> None:
        """Takes the mark of a comment from a key of the configuration, as its comment asks for."""
        text = (self.home / ".codex" / "config.toml").read_text(encoding="utf-8")
        assert text.count(f"\n# {key} = ") == 1
        self.configure(text.replace(f"\n# {key} = ", f"\n{key} = "))

    async def run(self, *command: str, within: float = TURN_SECONDS) -> bytes:
        """Any program in Codex's place: its output."""
        status, output, errors = await self._run(command, within)
        assert status == 0, errors.decode()
        return output

    async def exec(self, prompt: str, *flags: str, sandbox: str | None = None, within: float = TURN_SECONDS) -> Turn:
        chosen = ("--sandbox", sandbox) if sandbox else ()
        no_repository = "--skip-git-repo-check"
        given = flags if no_repository in flags else (no_repository, *flags)
        command = (str(self.program), "exec", "--json", *chosen, *given, prompt)
        status, output, errors = await self._run(command, within)
        events = [json.loads(line) for line in output.decode().splitlines() if line.startswith("{")]
        return Turn(status, events, errors.decode())

    async def _run(self, command: Sequence[str], within: float) -> tuple[int, bytes, bytes]:
        variables = {"HOME": str(self.home), "TMPDIR": str(self.home / "tmp"), "GW_API_KEY": KEY}
        proxies = {"HTTPS_PROXY": self.proxy, "HTTP_PROXY": self.proxy, "NO_PROXY": "127.0.0.1"}
        return await run(command, self.work, variables | proxies | self.variables, within)


def readme_block(language: str) -> str:
    """The block of that language in the README's chapter about Codex."""
    chapter = README.split("\n## Codex\n")[1].split("\n## ")[0]
    found = re.search(rf"```{language}\n(.*?)```", chapter, re.DOTALL)
    assert found is not None
    return found[1]


def configuration(url: str, extra: str = "") -> str:
    """The README's configuration for a gateway at `url`; `extra` are keys of the top level."""
    text = readme_block("toml")
    assert text.count(ADDRESS) == 1
    return f"{extra}\n{text.replace(ADDRESS, url)}"


def full_configuration(url: str) -> str:
    text = (EXAMPLES / "config.toml").read_text(encoding="utf-8")
    assert text.count(ADDRESS) == 1
    return text.replace(ADDRESS, url)


async def catalogue(codex: Codex, **changes: Any) -> None:
    """The catalogue as the script of configs/codex makes it from this very Codex, where config.toml looks for it once
    it is told to."""
    script = (sys.executable, str(EXAMPLES / "model_catalog.py"), "any", "--context-window", "32768")
    made = json.loads(await codex.run(*script, "--codex", str(codex.program)))
    made["models"][0] |= changes
    (codex.home / ".codex" / "dragoman-models.json").write_text(json.dumps(made), encoding="utf-8")
    codex.take_up("model_catalog_json")
