"""Claude Code without a terminal: a home of its own, a clean environment, and what a turn said.

The environment that points it at the gateway is the README's own block. One switch is added that has nothing to do
with the gateway: Claude Code must not ask anybody else.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.real.components import ROOT
from tests.real.program import run
from tests.scripted import Json

# Components; tests run with the last one, some with each.
CLAUDE_CODE_VERSIONS = ("claude", "claude-2.1.332")
EACH_CLAUDE_CODE = pytest.mark.parametrize("claude", CLAUDE_CODE_VERSIONS, indirect=True)
TURN_SECONDS = 180.0  # a few seconds where nothing else runs
ADDRESS = "http://127.0.0.1:8080"
README = (ROOT / "README.md").read_text(encoding="utf-8")
QUIET = {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}


@dataclass(frozen=True, slots=True)
class Turn:
    """What `claude -p --output-format stream-json` said: its exit status and the events in order."""

    status: int
    events: Sequence[Json]
    errors: str

    @property
    def last(self) -> Json:
        """The event that ends the turn: `result`, `is_error`, `api_error_status`, `stop_reason`, `usage`."""
        assert self.events, self.errors
        last = self.events[-1]
        assert last["type"] == "result", last
        return last

    @property
    def answer(self) -> str:
        return str(self.last["result"])

    @property
    def usage(self) -> Json:
        usage: Json = self.last["usage"]
        return usage

    def told(self, subtype: str) -> list[Json]:
        """Events about the turn itself: `api_retry`, `compact_boundary`, `init`."""
        return [event for event in self.events if event["type"] == "system" and event.get("subtype") == subtype]

    def results(self) -> list[Json]:
        """What tools gave, in the order in which they were done."""
        said = [event["message"]["content"] for event in self.events if event["type"] == "user"]
        return [
            block for blocks in said if isinstance(blocks, list) for block in blocks if block["type"] == "tool_result"
        ]


@dataclass
class Claude:
    """`home` is an empty folder of the test; Claude Code works in `work` below it."""

    program: Path
    home: Path
    work: Path = field(init=False)
    session: str | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.work = self.home / "work"
        for folder in (self.work, self.home / "tmp"):
            folder.mkdir(parents=True)

    async def ask(self, url: str, prompt: str, *flags: str, within: float = TURN_SECONDS, **settings: str) -> Turn:
        """One turn with the README's environment, for a gateway at `url`; `settings` are further variables."""
        variables = {name: value.replace(ADDRESS, url) for name, value in environment().items()}
        home = {"HOME": str(self.home), "TMPDIR": str(self.home / "tmp")}
        command = (str(self.program), "-p", prompt, "--output-format", "stream-json", "--verbose", *flags)
        status, output, errors = await run(command, self.work, {**home, **QUIET, **variables, **settings}, within)
        events = [json.loads(line) for line in output.decode().splitlines() if line.startswith("{")]
        turn = Turn(status, events, errors.decode())
        self.session = turn.last.get("session_id")
        return turn

    async def go_on(self, url: str, prompt: str, *flags: str, within: float = TURN_SECONDS, **settings: str) -> Turn:
        """The next turn of the same conversation."""
        assert self.session is not None
        return await self.ask(url, prompt, "--resume", self.session, *flags, within=within, **settings)


def readme_block() -> str:
    """The shell block of the README's chapter about Claude Code."""
    chapter = README.split("\n## Claude Code\n")[1].split("\n## ")[0]
    found = re.search(r"```sh\n(.*?)```", chapter, re.DOTALL)
    assert found is not None
    return found[1]


def environment() -> dict[str, str]:
    """The variables that the README exports."""
    words = [shlex.split(line) for line in readme_block().splitlines()]
    named = [pair.partition("=") for verb, *pairs in filter(None, words) if verb == "export" for pair in pairs]
    return {name: value for name, _, value in named}


def command() -> list[str]:
    """What the README runs."""
    (line,) = [line for line in readme_block().splitlines() if line.startswith("claude ")]
    return shlex.split(line)
