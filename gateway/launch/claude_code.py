"""Claude Code: its environment says where to ask, and its settings beat its environment.

So the same variables stand in both: somebody whose `settings.json` names another server would otherwise end there. The
window is in two variables: 2.1.197 needs both below 100,000 tokens, 2.1.332 obeys the first (docs/clients.md).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dragoman.gateway.launch.agent import KEY_VARIABLE, Agent, FileChange, Served, Start, home, key_or_any

# Every name under which Claude Code asks for a model by itself.
MODELS = (
    "ANTHROPIC_MODEL",
    "ANTHROPIC_DEFAULT_OPUS_MODEL",
    "ANTHROPIC_DEFAULT_SONNET_MODEL",
    "ANTHROPIC_DEFAULT_HAIKU_MODEL",
    "ANTHROPIC_SMALL_FAST_MODEL",
)
# A key of Anthropic's must not reach the gateway, and neither cloud must be asked in its place.
WITHOUT = ("ANTHROPIC_API_KEY", "CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX", "CLAUDE_CODE_USE_FOUNDRY")


def variables(served: Served) -> dict[str, str]:
    found = {"ANTHROPIC_BASE_URL": served.base}
    found |= dict.fromkeys(MODELS, served.model)
    if served.window is not None:
        found["CLAUDE_CODE_MAX_CONTEXT_TOKENS"] = found["CLAUDE_CODE_AUTO_COMPACT_WINDOW"] = str(served.window)
    return found | {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}


def start(served: Served, program: str, folder: Path | None) -> Start:
    environment = {**variables(served), "ANTHROPIC_AUTH_TOKEN": key_or_any(served)}
    settings: dict[str, Any] = {"env": dict(variables(served)), "model": served.model}
    if folder is None:
        return Start((program, "--settings", json.dumps(settings)), environment, WITHOUT)
    settings["env"]["ANTHROPIC_AUTH_TOKEN"] = served.key or key_or_any(served)
    path = folder / "settings.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(settings, indent=2), encoding="utf-8")
    return Start((program, "--settings", str(path)), environment, WITHOUT)


def changes(served: Served, _: str | None, environ: Mapping[str, str]) -> list[FileChange]:
    folder = Path(environ.get("CLAUDE_CONFIG_DIR") or home(environ) / ".claude")
    keys: dict[tuple[str, ...], Any] = {("env", name): value for name, value in variables(served).items()}
    if served.key is None:
        keys[("env", "ANTHROPIC_AUTH_TOKEN")] = key_or_any(served)
    else:  # the key itself is never written down
        keys[("apiKeyHelper",)] = f"printenv {KEY_VARIABLE}"
    return [FileChange(folder / "settings.json", keys)]


CLAUDE_CODE = Agent("claude", "npm install --global @anthropic-ai/claude-code", start, changes)
