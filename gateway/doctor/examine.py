"""The examination of a backend: the order of the probes, and the verdict.

Agents can be served only if an offered tool was called with arguments that are a JSON object, in an answer that ended
by itself, and if Codex's first prompt fits. A window that the server does not report is tried out with a prompt of that
length. A `weak` finding leaves the verdict as it is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from dragoman.backends.base import ModelInfo
from dragoman.gateway.config import Config
from dragoman.gateway.doctor.finding import Finding
from dragoman.gateway.doctor.probes import CODEX_PROMPT, TOOL_CALL, Probes
from dragoman.gateway.doctor.road import Road
from dragoman.gateway.factory import open_servers
from dragoman.gateway.keys.secrets import Secrets
from dragoman.gateway.telemetry.logs import Redactor
from dragoman.translators.errors import GatewayError

CODEX_ROOM = 16_384  # a window below this leaves an agent little beside its first prompt


async def examine_all(config: Config, keys: Secrets) -> int:
    """Examines every backend of the configuration; 0 when each can serve, else 1."""
    redact = Redactor(keys.all())  # a server may echo the key that it was sent
    reasons: list[str] = []
    for given, backend in zip(config.named_backends, open_servers(config, keys), strict=True):
        print(f"backend {backend.name}", flush=True)
        found: list[Finding] = []
        road = Road(backend, config, given)
        try:
            await road.start()
            async for finding in examine(road, given.model or config.model):
                print(redact(str(finding)), flush=True)
                found.append(finding)
        except (GatewayError, RuntimeError, OSError) as error:
            found.append(Finding("FAIL", "next probe" if found else "start", " ".join(str(error).split())))
            print(redact(str(found[-1])), flush=True)
        finally:
            await road.close()
        reasons += [f"  {backend.name}: {reason}" for reason in against(found)]
    verdict = "agents will fail here, because of" if reasons else "it can serve agents"
    print(redact("\n".join([f"verdict: {verdict}", *reasons])))
    return 1 if reasons else 0


def against(found: Sequence[Finding]) -> list[str]:
    """Why agents cannot be served. Not having obtained a tool call is a reason too, whatever the cause."""
    reasons = [
        f"{each.probe}: {each.result}" + (f" → {each.advice}" if each.advice else "")
        for each in found
        if each.verdict == "FAIL"
    ]
    if not reasons and not any(each.probe == TOOL_CALL and each.verdict == "ok" for each in found):
        reasons.append(f"{TOOL_CALL}: none was obtained")
    return reasons


async def examine(road: Road, model: str | None) -> AsyncIterator[Finding]:
    """Yields each finding as it is made; ends early where nothing else can be found out. A configured window wins over
    the one that the server reports."""
    health = await road.backend.health()
    yield Finding("ok" if health.state == "ready" else "FAIL", "health", f"{health.state} {health.detail}".strip())
    listed = await road.listed()
    asked = model or (listed[0].id if listed else "default")
    window = road.window or _listed_window(listed, asked)
    yield _window(listed, window)
    probes = Probes(road, asked)
    text = await probes.text()
    yield text
    if text.verdict == "FAIL":
        return
    for probe in (
        probes.usage,
        probes.counting,
        probes.late_system,
        probes.tool,
        probes.forced_tool,
        probes.two_tools,
        probes.schema,
        probes.reasoning,
        *([probes.first_prompt] if window is None else []),
        probes.ending,
    ):
        yield await probe()


def _listed_window(listed: Sequence[ModelInfo], asked: str) -> int | None:
    """A server with one model answers to every name."""
    named = listed if len(listed) == 1 else [model for model in listed if model.id == asked]
    return named[0].window if named else None


def _window(listed: Sequence[ModelInfo], window: int | None) -> Finding:
    listing = ", ".join(model.id for model in listed[:3]) + (", …" if len(listed) > 3 else "") if listed else "no list"
    if window is not None:
        listing += f"; context window {window}"
        if window < CODEX_PROMPT:
            advice = f"Codex's first prompt alone has {CODEX_PROMPT} tokens: serve the model with a larger window"
            return Finding("FAIL", "models", listing, advice)
    if not listed:
        return Finding("weak", "models", listing, "name the model: --model NAME, or `model` of the backend")
    if window is None:
        listing += "; context window unknown"
        return Finding("weak", "models", listing, "the server tells no context window: set `window` of the backend")
    if window < CODEX_ROOM:
        return Finding(
            "weak", "models", listing, f"Codex's first prompt takes {CODEX_PROMPT} of it: a larger one helps"
        )
    return Finding("ok", "models", listing)
