"""opencode: one variable takes a whole configuration, which is merged over the user's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dragoman.gateway.launch.agent import KEY_VARIABLE, NO_KEY, Agent, FileChange, LaunchError, Served, Start, home

ANSWER = 32_000  # what opencode leaves for an answer, where the window is larger


def settings(served: Served) -> dict[tuple[str, ...], Any]:
    # What the model thought is shown and sent back only where the model is said to think.
    model: dict[str, Any] = {"name": served.model, "reasoning": True, "options": {"reasoningSummary": "auto"}}
    if served.window is not None:
        model["limit"] = {"context": served.window, "output": min(ANSWER, served.window // 4)}
    provider = {
        "npm": "@ai-sdk/openai",  # Responses
        "name": "dragoman",
        "options": {
            "baseURL": f"{served.base}/v1",
            "apiKey": NO_KEY if served.key is None else f"{{env:{KEY_VARIABLE}}}",
        },
        "models": {served.model: model},
    }
    return {
        ("provider", "dragoman"): provider,
        ("model",): f"dragoman/{served.model}",
        ("small_model",): f"dragoman/{served.model}",
        ("share",): "disabled",
    }


def start(served: Served, program: str, _: Path | None) -> Start:
    content: dict[str, Any] = {"autoupdate": False}
    for key, value in settings(served).items():
        within = content
        for step in key[:-1]:
            within = within.setdefault(step, {})
        within[key[-1]] = value
    environment = {
        "OPENCODE_CONFIG_CONTENT": json.dumps(content),
        "OPENCODE_DISABLE_AUTOUPDATE": "1",
        "OPENCODE_DISABLE_MODELS_FETCH": "1",
    }
    if served.key is not None:
        environment[KEY_VARIABLE] = f"${KEY_VARIABLE}"
    return Start((program,), environment)


def changes(served: Served, _: str | None, environ: Mapping[str, str]) -> list[FileChange]:
    folder = Path(environ.get("XDG_CONFIG_HOME") or home(environ) / ".config") / "opencode"
    if (folder / "opencode.jsonc").exists():
        raise LaunchError(f"{folder / 'opencode.jsonc'} may hold comments, which would be lost; --print shows the keys")
    return [FileChange(folder / "opencode.json", settings(served))]


OPENCODE = Agent("opencode", "npm install --global opencode-ai", start, changes)
