"""Claude Code: its environment says where to ask, and its settings beat its environment.

So the same variables stand in both: somebody whose `settings.json` names another server would otherwise end there. The
window is in two variables (docs/clients.md): below 100,000 tokens 2.1.197 needs both, and 2.1.332 obeys the first and
warns of the second. A window in which its own prompt does not fit is left out: it would refuse every prompt unasked,
also one without tools.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dragoman.gateway.first_prompts import CLAUDE_PROMPT
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
# Where the second variable for the window begins to be taken, in tokens; and the first version known to warn below.
SMALLEST_COMPACT_WINDOW = 100_000
WARNS_BELOW_IT = (2, 1, 332)
VERSION_SECONDS = 10.0


def variables(served: Served, program: str | None) -> dict[str, str]:
    found = {"ANTHROPIC_BASE_URL": served.base}
    found |= dict.fromkeys(MODELS, served.model)
    if served.window is not None and served.window >= CLAUDE_PROMPT:
        found["CLAUDE_CODE_MAX_CONTEXT_TOKENS"] = str(served.window)
        if served.window >= SMALLEST_COMPACT_WINDOW or version(program) < WARNS_BELOW_IT:
            found["CLAUDE_CODE_AUTO_COMPACT_WINDOW"] = str(served.window)
    return found | {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"}


def version(program: str | None) -> tuple[int, ...]:
    """What the program says of itself; nothing where it does not."""
    if program is None:
        return ()
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=VERSION_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    found = re.match(r"(\d+)\.(\d+)\.(\d+) ", said.stdout)
    return tuple(map(int, found.groups())) if found else ()


def start(served: Served, program: str, folder: Path | None) -> Start:
    found = variables(served, program)
    environment = {**found, "ANTHROPIC_AUTH_TOKEN": key_or_any(served)}
    settings: dict[str, Any] = {"env": dict(found), "model": served.model}
    if folder is None:
        return Start((program, "--settings", json.dumps(settings)), environment, WITHOUT)
    settings["env"]["ANTHROPIC_AUTH_TOKEN"] = served.key or key_or_any(served)
    path = folder / "settings.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(settings, indent=2), encoding="utf-8")
    return Start((program, "--settings", str(path)), environment, WITHOUT)


def changes(served: Served, program: str | None, environ: Mapping[str, str]) -> list[FileChange]:
    folder = Path(environ.get("CLAUDE_CONFIG_DIR") or home(environ) / ".claude")
    keys: dict[tuple[str, ...], Any] = {("env", name): value for name, value in variables(served, program).items()}
    if served.key is None:
        keys[("env", "ANTHROPIC_AUTH_TOKEN")] = key_or_any(served)
    else:  # the key itself is never written down
        keys[("apiKeyHelper",)] = f"printenv {KEY_VARIABLE}"
    return [FileChange(folder / "settings.json", keys)]


CLAUDE_CODE = Agent(
    "claude",
    "npm install --global @anthropic-ai/claude-code",
    start,
    changes,
    CLAUDE_PROMPT,
    "; without tools (`-- --tools ''`) it may fit",
)
