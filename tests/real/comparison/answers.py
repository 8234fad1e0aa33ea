"""What a client of the Responses API has in hand after a stream, and the few words that say what it is.

Items are those of `response.output_item.done`, which agents act on; where a stream has none, those of the terminal
event.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.scripted import Json

SECONDS = 20.0
TERMINAL = {f"response.{status}": status for status in ("completed", "incomplete", "failed")} | {"error": "failed"}
WIDTH = 60


@dataclass(slots=True)
class Answer:
    """`broken`: the connection was broken off in the body. `late`: the end did not come within `SECONDS`."""

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    events: list[Json] = field(default_factory=list)
    body: Any = None
    broken: bool = False
    late: bool = False

    @property
    def ends(self) -> list[Json]:
        return [event for event in self.events if event.get("type") in TERMINAL]

    @property
    def outcome(self) -> str:
        """`completed`, `incomplete` or `failed` as the first terminal event says, else how the answer went wrong."""
        if self.late:
            return "no end"
        if self.status != 200:
            return f"HTTP {self.status}" if self.status else "broken off"
        if self.ends:
            return TERMINAL[self.ends[0]["type"]]
        return "broken off" if self.broken else "ends without a terminal event"

    @property
    def final(self) -> Json:
        """The response of the terminal event."""
        found: Json = self.ends[0].get("response") or {} if self.ends else {}
        return found

    @property
    def items(self) -> list[Json]:
        done = [event["item"] for event in self.events if event.get("type") == "response.output_item.done"]
        return done or list(self.final.get("output") or ())

    @property
    def text(self) -> str:
        return "".join(_text(item) for item in self.items)

    @property
    def code(self) -> str | None:
        """The code of the error, from the body of a refusal or from the event that ends the stream."""
        if self.status != 200:
            error = self.body.get("error") if isinstance(self.body, dict) else None
            return str(error.get("code")) if isinstance(error, dict) else None
        for event in self.ends:
            error = (event.get("response") or {}).get("error") or event.get("error") or event
            if isinstance(error, dict) and error.get("code"):
                return str(error["code"])
        return None

    @property
    def knows_of_failure(self) -> bool:
        """Whether the client can tell that this is no whole answer."""
        return self.status >= 400 or self.broken or self.outcome in ("failed", "incomplete")

    def said(self) -> str:
        """All of it in a few words."""
        shown = [_shown(item) for item in self.items]
        return f"{self.outcome}: {', '.join(shown)}" if shown else self.outcome


async def ask(session: aiohttp.ClientSession, url: str, headers: Mapping[str, str], request: Json) -> Answer:
    answer = Answer()
    try:
        async with asyncio.timeout(SECONDS), session.post(url, json=request, headers=headers) as response:
            answer.status, answer.headers = response.status, response.headers.copy()
            if response.content_type != "text/event-stream":
                await _read_whole(response, answer)
            else:
                await _read_stream(response, answer)
    except TimeoutError:
        answer.late = True
    except aiohttp.ClientError:
        answer.broken = True
    return answer


async def _read_whole(response: aiohttp.ClientResponse, answer: Answer) -> None:
    text = await response.text()
    try:
        answer.body = json.loads(text)
    except ValueError:
        answer.body = text


async def _read_stream(response: aiohttp.ClientResponse, answer: Answer) -> None:
    async for line in response.content:
        if line.startswith(b"data:") and b"[DONE]" not in line:
            answer.events.append(json.loads(line[5:]))


def _text(item: Json) -> str:
    if item.get("type") != "message":
        return ""
    return "".join(part.get("text") or "" for part in item.get("content") or ())


def _shown(item: Json) -> str:
    if item.get("type") == "message":
        return f"“{_text(item)}”"
    given = str(item.get("arguments", item.get("input", "")))
    named = f"{item.get('name')}({given})" if item.get("name") else str(item.get("type"))
    return named if len(named) <= WIDTH else f"{named[:WIDTH]}…"
