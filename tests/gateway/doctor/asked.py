"""The doctor as a function: its status, and what it found, out of its JSON document."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dragoman.gateway.config import Config, load
from dragoman.gateway.doctor import Wanted, run
from dragoman.gateway.keys.secrets import Secrets
from tests.scripted import Json


@dataclass(frozen=True)
class Told:
    status: int
    document: Json

    @property
    def findings(self) -> dict[str, Json]:
        """Of the first backend and its first model, by probe."""
        backend = self.document["backends"][0]
        found = [*self.document["gateway"], *backend["findings"]]
        found += backend["models"][0]["findings"] if backend["models"] else []
        return {each["probe"]: each for each in found}

    @property
    def bad(self) -> dict[str, str]:
        """What is not ok, by probe."""
        return {probe: each["verdict"] for probe, each in self.findings.items() if each["verdict"] != "ok"}

    @property
    def clients(self) -> dict[str, str]:
        models = self.document["backends"][0]["models"]
        return {each["client"]: each["outcome"] for each in models[0]["clients"]} if models else {}

    def reasons(self, client: str) -> str:
        clients = self.document["backends"][0]["models"][0]["clients"]
        return "; ".join(next(each["reasons"] for each in clients if each["client"] == client))

    @property
    def settings(self) -> dict[str, Any]:
        """All that helped, by key."""
        return {each["key"]: each["value"] for found in self.findings.values() for each in found["settings"]}


async def ask(
    capsys: pytest.CaptureFixture[str], config: Config, secrets: Secrets | None = None, **wanted: Any
) -> Told:
    status = await run(config, secrets or Secrets(), Wanted(json=True, **wanted))
    document = json.loads(capsys.readouterr().out)
    assert document["version"] == 1
    assert document["status"] == status
    return Told(status, document)


async def printed(capsys: pytest.CaptureFixture[str], config: Config, **wanted: Any) -> tuple[int, str]:
    status = await run(config, Secrets(), Wanted(**wanted))
    return status, capsys.readouterr().out


async def mended(
    capsys: pytest.CaptureFixture[str], config: Config, file: Path, secrets: Secrets | None = None, **wanted: Any
) -> Told:
    """What is found with the settings that a first run has written into the file."""
    first = await ask(capsys, config, secrets, write=file, **wanted)
    assert first.document["written"]
    again = await ask(capsys, load(file), secrets, source=file, **wanted)
    assert again.status == first.status
    return again


def backend(url: str, settings: Mapping[str, Any] | None = None, **more: Any) -> Config:
    return Config(backends=[{"url": url, "name": "gpu", "settings": dict(settings or {}), **more}])
