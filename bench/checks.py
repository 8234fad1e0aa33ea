"""What a system makes of a stream, put together again: figures of other work than what was asked for do not count.

Reads the streams of all three protocols just far enough to know the text, the reasoning and the arguments of calls.
"""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

import orjson

from bench.children import Broken
from bench.rig import Rig
from bench.scripts import CHECKED
from bench.systems import DIRECT, System

SECONDS = 30.0


@dataclass(slots=True)
class Said:
    text: str = ""
    reasoning: str = ""
    arguments: str = ""


async def check(rig: Rig, system: System) -> None:
    """Raises `Broken` unless the system says what the scripted server says. Of a peer only text is compared."""
    for kind, script in CHECKED.items():
        if kind != "text" and not system.ours:
            continue
        asked = (await asyncio.to_thread(_answer, rig, each, script.model) for each in (DIRECT, system))
        expected, said = [each async for each in asked]
        if expected != said or expected == Said():
            raise Broken(f"{system.title} says {said} of {script.model}, and the server said {expected}")


def _answer(rig: Rig, system: System, model: str) -> Said:
    body = rig.body(system, next(each for each in CHECKED.values() if each.model == model)).read_bytes()
    headers = {"content-type": "application/json", **dict(each.split(": ", 1) for each in system.headers)}
    if system.protocol == "messages":
        headers["anthropic-version"] = "2023-06-01"
    request = urllib.request.Request(rig.child(system).url + system.path, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            raw: bytes = answer.read()
    except (OSError, urllib.error.URLError) as error:
        shown = error.read()[:300] if isinstance(error, urllib.error.HTTPError) else b""
        raise Broken(f"{system.title} answered {error} {shown!r}") from error
    said = Said()
    for line in raw.splitlines():
        if line.startswith(b"data:") and b"[DONE]" not in line:
            _READERS[system.protocol](said, orjson.loads(line[5:]))
    return said


def _responses(said: Said, event: dict[str, Any]) -> None:
    kind = event.get("type")
    if kind == "response.output_text.delta":
        said.text += event["delta"]
    elif kind in ("response.reasoning_summary_text.delta", "response.reasoning_text.delta"):
        said.reasoning += event["delta"]
    elif kind == "response.function_call_arguments.delta":
        said.arguments += event["delta"]


def _messages(said: Said, event: dict[str, Any]) -> None:
    if event.get("type") == "content_block_delta":
        delta = event["delta"]
        said.text += delta.get("text", "")
        said.reasoning += delta.get("thinking", "")
        said.arguments += delta.get("partial_json", "")


def _chat(said: Said, event: dict[str, Any]) -> None:
    for choice in event.get("choices") or ():
        said.text += choice["delta"].get("content") or ""
        said.reasoning += choice["delta"].get("reasoning_content") or ""
        for call in choice["delta"].get("tool_calls") or ():
            said.arguments += call["function"].get("arguments") or ""


_READERS = {"responses": _responses, "messages": _messages, "chat": _chat}
