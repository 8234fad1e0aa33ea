"""opencode without a terminal, as `dragoman launch` starts it: a home of its own, and what it printed."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.real.components import ROOT
from tests.real.program import run
from tests.scripted import Json

SECONDS = 180.0


@dataclass
class Opencode:
    """`home` is an empty folder of the test."""

    program: Path
    home: Path
    key: str = ""

    def configure(self, configuration: Json) -> None:
        """The user's own file, which what `dragoman launch` sets is merged over."""
        folder = self.home / ".config" / "opencode"
        folder.mkdir(parents=True)
        (folder / "opencode.json").write_text(json.dumps(configuration), encoding="utf-8")

    async def run(self, url: str, *words: str) -> tuple[int, str, str]:
        nobody = "http://127.0.0.1:9"  # nothing beside the gateway is asked
        variables = {
            "PATH": f"{self.program.parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT / ".dev"),
            "HOME": str(self.home),
            "TMPDIR": str(self.home),
            "HTTPS_PROXY": nobody,
            "HTTP_PROXY": nobody,
            **({"DRAGOMAN_CLIENT_KEY": self.key} if self.key else {}),
        }
        launch = (sys.executable, "-m", "dragoman", "launch", "opencode", "--url", url, "--window", "32768")
        status, output, errors = await run((*launch, "--", "run", *words), self.home, variables, SECONDS)
        return status, output.decode(), errors.decode()
