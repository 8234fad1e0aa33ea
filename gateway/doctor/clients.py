"""What the findings mean for each client: works, works with settings that were tried, or does not, and why.

Agents offer tools in every request, so they cannot work without a call that they can use, and their first prompt must
fit. A plain SDK asks for what its program needs: without tools it goes on with text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dragoman.gateway.doctor.finding import Finding
from dragoman.gateway.doctor.stream_probes import LEAVING, STREAM
from dragoman.gateway.doctor.text_probes import SCHEMA, SYSTEM, USAGE
from dragoman.gateway.doctor.tool_probes import FORCED, TOOL_CALL, TURNS, TWO_CALLS
from dragoman.gateway.doctor.window_probes import PROMPT, WINDOW, Windows
from dragoman.gateway.first_prompts import CLAUDE_PROMPT, CODEX_PROMPT

CODEX, CLAUDE, SDK = "Codex", "Claude Code", "plain SDK"
CLIENTS: Mapping[str, str] = {"codex": CODEX, "claude": CLAUDE, "sdk": SDK}  # as the command line calls them
AGENTS = (CODEX, CLAUDE)
FIRST_PROMPT = {CODEX: CODEX_PROMPT, CLAUDE: CLAUDE_PROMPT, SDK: 0}
Outcome = Literal["works", "works with settings", "does not"]

_OF_AGENTS = frozenset({TOOL_CALL, FORCED, TWO_CALLS, SYSTEM, TURNS})  # whose failure an agent does not survive
_OF_WINDOW = frozenset({WINDOW, PROMPT})
NOT_READ = "a prompt of 5,000 tokens is not answered"
_MISSED: Mapping[str, Mapping[str, str]] = {
    CODEX: {
        PROMPT: NOT_READ,
        USAGE: "without usage it never compacts by itself",
        SCHEMA: "--output-schema is not kept",
        STREAM: "answers come all at once",
        LEAVING: "a turn that is interrupted goes on on the GPU",
    },
    CLAUDE: {
        PROMPT: NOT_READ,
        USAGE: "without usage it never compacts by itself",
        STREAM: "answers come all at once",
        LEAVING: "a turn that is interrupted goes on on the GPU",
    },
    SDK: {
        TOOL_CALL: "tools do not work",
        FORCED: "a forced tool is not called",
        SYSTEM: "a later system message is refused",
        TURNS: "turns that do not alternate are refused",
        USAGE: "there is no usage",
        SCHEMA: "JSON schemas are not kept",
        STREAM: "answers come all at once",
        PROMPT: NOT_READ,
    },
}


@dataclass(frozen=True, slots=True)
class ClientVerdict:
    """`reasons`: why it does not work, else what it has to do without."""

    client: str
    outcome: Outcome
    reasons: tuple[str, ...] = ()

    def __str__(self) -> str:
        reasons = "; ".join(self.reasons)
        if self.outcome == "does not":
            return f"does not work: {reasons}"
        works = "works" if self.outcome == "works" else "works with the settings found"
        return f"{works}, but {reasons}" if reasons else works


def judged(findings: Sequence[Finding], windows: Windows) -> tuple[ClientVerdict, ...]:
    """`findings` are those of the server and of one model."""
    return tuple(_judged(client, findings, windows) for client in CLIENTS.values())


def _judged(client: str, findings: Sequence[Finding], windows: Windows) -> ClientVerdict:
    against = [each for each in findings if each.verdict == "FAIL" and _breaks(client, each.probe)]
    reasons = [f"{each.probe}: {each.result}" for each in against if not each.mended]
    reasons += _window(client, findings, windows)
    called = any(each.probe == TOOL_CALL for each in findings)
    if client in AGENTS and not reasons and not called:
        reasons.append(f"{TOOL_CALL}: none was obtained")
    if reasons:
        return ClientVerdict(client, "does not", tuple(reasons))
    missed = [
        _MISSED[client][each.probe]
        for each in findings
        if each.verdict != "ok" and not each.mended and each.probe in _MISSED[client]
    ]
    if windows.best is None and windows.read < FIRST_PROMPT[client]:
        missed.append(f"its first prompt of {FIRST_PROMPT[client]:,} tokens must fit a window that is not known")
    return ClientVerdict(client, "works with settings" if against else "works", tuple(missed))


def _breaks(client: str, probe: str) -> bool:
    if probe in _OF_WINDOW:
        return False
    return client in AGENTS or probe not in _OF_AGENTS


def _window(client: str, findings: Sequence[Finding], windows: Windows) -> list[str]:
    need = FIRST_PROMPT[client]
    if windows.best is not None:
        if windows.best >= need:
            return []
        return [f"its first prompt has {need:,} tokens, the window {windows.best:,}"]
    failed = any(each.probe == PROMPT and each.verdict == "FAIL" for each in findings)
    return [f"its first prompt has {need:,} tokens, and one of 5,000 is refused"] if need and failed else []
