"""Our answers to every recorded upstream stream, read by an SDK in an environment of its own.

A driver is a script that runs there with the standard library and the SDK alone: it asks a server on this side for each
case by name (the request's `model`), streamed and whole, and prints a report of what it saw as JSON.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from tests.golden_files import TRANSCRIPTS, upstream
from tests.real.program import report
from tests.replay import PROTOCOL, Answer, replay
from tests.scripted import Json, Script, ScriptedServer

CASES = [path.stem for path in TRANSCRIPTS]
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class SdkAnswers:
    """`path` is what the SDK posts to; `base` names the property of the server that its base URL is."""

    protocol: str
    driver: str
    path: str
    base: Literal["url", "root"] = "url"
    _reports: dict[Path, Json] = field(default_factory=dict)

    @cached_property
    def _answers(self) -> dict[str, Answer]:
        return {path.stem: replay(PROTOCOL[self.protocol], [upstream(path)]) for path in TRANSCRIPTS}

    def streamed(self, case: str) -> bytes:
        return self._answers[case].stream

    def events(self, case: str) -> list[Json]:
        """The payloads of the stream, without `[DONE]`."""
        lines = [line[6:] for line in self.streamed(case).decode().split("\n") if line.startswith("data: ")]
        return [json.loads(line) for line in lines if line != "[DONE]"]

    def whole(self, case: str) -> Json:
        """`status` and `body`."""
        answer = self._answers[case]
        return {"status": answer.status, "body": answer.whole}

    def report(self, python: Path) -> Json:
        """What the driver saw in the environment of that interpreter; each is run once."""
        if python not in self._reports:
            with tempfile.TemporaryDirectory() as folder:
                for case in CASES:
                    Path(folder, f"{case}.sse").write_bytes(self.streamed(case))
                self._reports[python] = asyncio.run(self._read(python, folder))
        return self._reports[python]

    def _play(self, asked: Json) -> Script:
        if asked.get("stream"):
            return Script(self.streamed(asked["model"]))
        answer = self._answers[asked["model"]]
        return Script.json(answer.whole, answer.status)

    async def _read(self, python: Path, folder: str) -> Json:
        async with ScriptedServer() as server:
            server.on("POST", self.path, self._play)
            driver = Path(__file__).with_name(self.driver)
            address = getattr(server, self.base)
            read: Json = await report(python, driver, address, folder, *CASES, imports=ROOT)
            return read
