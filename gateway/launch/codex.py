"""Codex CLI: its command line takes every key of `config.toml`, so a run needs no file but the catalogue.

A catalogue removes the warning about an unknown model and offers the patch tool; it is derived from the installed Codex
by the script that people can run themselves (`configs/codex/model_catalog.py`).
"""

from __future__ import annotations

import json
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dragoman.gateway.first_prompts import CODEX_PROMPT
from dragoman.gateway.launch.agent import KEY_VARIABLE, Agent, FileChange, Served, Start, home
from dragoman.gateway.shipped import shipped

CATALOGUE = "dragoman-models.json"


def start(served: Served, program: str, folder: Path | None) -> Start:
    keys = settings(served)
    if folder is not None and (catalogue := derive_catalogue(served, program)) is not None:
        path = folder / CATALOGUE
        path.write_text(catalogue, encoding="utf-8")
        keys[("model_catalog_json",)] = str(path)
    overrides = [part for key, value in keys.items() for part in ("-c", f"{'.'.join(key)}={_toml(value)}")]
    return Start((program, *overrides), {} if served.key is None else {KEY_VARIABLE: f"${KEY_VARIABLE}"})


def settings(served: Served) -> dict[tuple[str, ...], Any]:
    provider = {"name": "dragoman", "base_url": f"{served.base}/v1", "wire_api": "responses"}
    if served.key is not None:
        provider["env_key"] = KEY_VARIABLE
    keys: dict[tuple[str, ...], Any] = {
        ("model",): served.model,
        ("model_provider",): "dragoman",
        ("model_providers", "dragoman"): provider,
        ("web_search",): "live" if served.web_search else "disabled",
        ("analytics", "enabled"): False,
        ("features", "plugins"): False,
    }
    if served.window is not None:
        keys[("model_context_window",)] = served.window
    return keys


def derive_catalogue(served: Served, program: str) -> str | None:
    """None where the window is not known, which the catalogue must name, or where this Codex lends none."""
    if served.window is None:
        return None
    script = runpy.run_path(str(shipped("codex/model_catalog.py")))
    try:
        catalogue = script["derive"](script["own_catalogue"](program), served.model, served.window)
    except (Exception, SystemExit):  # the catalogue of another Codex version; it works without
        return None
    return json.dumps(catalogue, indent=2) + "\n"


def changes(served: Served, program: str | None, environ: Mapping[str, str]) -> list[FileChange]:
    folder = Path(environ.get("CODEX_HOME") or home(environ) / ".codex")
    keys = settings(served)
    catalogue = derive_catalogue(served, program) if program is not None else None
    if catalogue is None:
        return [FileChange(folder / "config.toml", keys)]
    keys[("model_catalog_json",)] = str(folder / CATALOGUE)
    return [FileChange(folder / "config.toml", keys), FileChange(folder / CATALOGUE, whole=catalogue)]


def _toml(value: Any) -> str:
    """As a value of TOML; strings are the same in JSON."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}={_toml(each)}" for key, each in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False)


CODEX = Agent("codex", "npm install --global @openai/codex", start, changes, CODEX_PROMPT)
