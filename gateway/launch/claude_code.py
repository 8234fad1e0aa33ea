"""Claude Code: its environment says where to ask, and its settings beat its environment.

So the same variables stand in both, and what would lead it elsewhere stands empty in the settings: a variable that is
left out keeps the value that the user's `settings.json` or environment has for it. Two sources of a key are sent both,
or one alone when `apiKeyHelper` is slow (a busy machine is enough), so one of them is always empty. The
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
from dragoman.gateway.launch.agent import (
    KEY_REFERENCE,
    KEY_VARIABLE,
    NO_KEY,
    Agent,
    FileChange,
    Served,
    Start,
    home,
    key_or_any,
)

# Every name under which Claude Code asks for a model by itself.
MODELS = (
    "ANTHROPIC_MODEL",
    "ANTHROPIC_DEFAULT_OPUS_MODEL",
    "ANTHROPIC_DEFAULT_SONNET_MODEL",
    "ANTHROPIC_DEFAULT_HAIKU_MODEL",
    "ANTHROPIC_SMALL_FAST_MODEL",
)
# A key of Anthropic's must not reach the gateway, and no cloud must be asked in its place.
EMPTY = (
    "ANTHROPIC_API_KEY",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "CLAUDE_CODE_USE_ANTHROPIC_AWS",
    "CLAUDE_CODE_USE_ANTHROPIC_GOOGLE_CLOUD",
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_FOUNDRY",
    "CLAUDE_CODE_USE_GATEWAY",
    "CLAUDE_CODE_USE_MANTLE",
    "CLAUDE_CODE_USE_VERTEX",
)
WITHOUT = (*EMPTY, "ANTHROPIC_UNIX_SOCKET")  # which is taken from the environment alone
TOKEN = "ANTHROPIC_AUTH_TOKEN"
HELPER = "apiKeyHelper"  # the command in the settings whose output is the key
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


def settings(served: Served, found: Mapping[str, str], token: str | None = None) -> dict[str, Any]:
    """What beats the user's own settings. Without a `token`, a key that is wanted is read from its variable."""
    token = token or (NO_KEY if served.key is None else "")
    return {
        "env": {**found, **dict.fromkeys(EMPTY, ""), TOKEN: token},
        HELPER: "" if token else f"printenv {KEY_VARIABLE}",
    }


def start(served: Served, program: str, folder: Path | None) -> Start:
    found = variables(served, program)
    if folder is None:
        beating = settings(served, found) | {"model": served.model}
        key = {TOKEN: NO_KEY} if served.key is None else {KEY_VARIABLE: KEY_REFERENCE}
        return Start((program, "--settings", json.dumps(beating)), {**found, **key}, WITHOUT)
    path = folder / "settings.json"
    path.touch(mode=0o600)
    beating = settings(served, found, served.key) | {"model": served.model}
    path.write_text(json.dumps(beating, indent=2), encoding="utf-8")
    return Start((program, "--settings", str(path)), {**found, TOKEN: key_or_any(served)}, WITHOUT)


def changes(served: Served, program: str | None, environ: Mapping[str, str]) -> list[FileChange]:
    folder = Path(environ.get("CLAUDE_CONFIG_DIR") or home(environ) / ".claude")
    written = settings(served, variables(served, program))
    keys: dict[tuple[str, ...], Any] = {("env", name): value for name, value in written["env"].items()}
    return [FileChange(folder / "settings.json", {**keys, (HELPER,): written[HELPER]})]


CLAUDE_CODE = Agent(
    "claude",
    "npm install --global @anthropic-ai/claude-code",
    start,
    changes,
    CLAUDE_PROMPT,
    "; without tools (`-- --tools ''`) it may fit",
)
