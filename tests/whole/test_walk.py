"""The walk of a request and the life of a delta are what CONTRIBUTING.md draws, file by file, and stay short.

What is drawn is compared with what runs: the files that a call enters, in the order in which it enters them first.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from dragoman.backends.chat.backend import TRANSPORTS
from dragoman.backends.http1.client import Http1Transport
from dragoman.backends.http1.connection import Connection
from tests.scripted import Script, text_stream
from tests.serving_gateway import PATHS, asking, served
from tests.waiting import until

ROOT = Path(__file__).parents[2]
MOST_FILES = {"request": 30, "delta": 9}
# What a request enters beside its road: none of it decides where the request goes or what is sent.
BESIDE = {
    "who records it": {
        "gateway/calls/access_log.py",
        "gateway/calls/client_kind.py",
        "gateway/calls/prompt_prefix.py",
        "gateway/calls/trace_attributes.py",
        "gateway/telemetry/logs.py",
        "gateway/telemetry/metrics.py",
        "gateway/telemetry/tracing.py",
    },
    "what the road back is made of": {
        "backends/pool/attempt.py",
        "backends/chat/answer.py",
        "backends/chat/call_deltas.py",
        "backends/chat/decoder.py",
        "backends/chat/known_frame.py",
        "backends/chat/split_characters.py",
        "backends/markup/unread.py",
        "backends/reader.py",
        "backends/watch.py",
        "gateway/calls/answer.py",
        "gateway/calls/delivery.py",
        "gateway/calls/exchange.py",
        "translators/framing.py",
        "translators/messages/stream.py",
        "translators/parts.py",
        "translators/protocol.py",
        "translators/sse.py",
    },
    "what several readers and writers of fields share": {
        "backends/chat/refused_fields.py",
        "backends/json_body.py",
        "backends/prompts/tools.py",
        "translators/constraints/guided.py",
        "translators/fields.py",
        "translators/guided.py",
        "translators/messages/foreign.py",
        "translators/messages/reading.py",
        "translators/messages/schema.py",
        "translators/seen.py",
        "translators/soft_words.py",
        "translators/thinking.py",
        "translators/tool_names.py",
    },
    "room for its body and what is sealed in it, and what was in it before": {
        "gateway/calls/body_memory.py",
        "gateway/calls/client_memory.py",
        "gateway/calls/conversation_memo.py",
        "gateway/calls/request_memo.py",
        "gateway/keys/reasoning_seal.py",
    },
    "the route's own method check, and how the server is": {
        "backends/chat/probe.py",
        "backends/pool/breaker.py",
        "gateway/serve/app.py",
    },
}
TOOL = {"name": "f", "description": "d", "input_schema": {"type": "object", "properties": {"a": {"type": "string"}}}}


def drawn(which: str) -> list[str]:
    """The files of a drawing, in order."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    match = re.search(rf"<!-- walk of a {which} -->\n```\n(.*?)```", text, re.DOTALL)
    assert match is not None, f"CONTRIBUTING.md does not draw the walk of a {which}"
    return re.findall(r"\b(?:gateway|backends|translators)/[\w/]+\.py", match[1])


def file_of(frame: FrameType) -> str | None:
    _, _, file = frame.f_code.co_filename.partition("/.dev/dragoman/")
    return file or None


class Trace:
    """Files in the order in which they are first entered. `until`: the function of a file with which it ends."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self.on = True
        self.received: list[set[str]] = []  # the files of each `received`, with the one that called it
        self._depth = 0

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            self._entered(frame)
        elif event == "return" and self._depth:
            self._depth -= 1

    def _entered(self, frame: FrameType) -> None:
        file = file_of(frame)
        if self._depth:
            self._depth += 1
        elif file == "backends/chat/answer.py" and frame.f_code.co_name == "received":
            self._depth = 1
            assert frame.f_back is not None
            self.received.append({file_of(frame.f_back) or ""})
        if file is None:
            return
        if self._depth:
            self.received[-1].add(file)
        read = frame.f_code.co_name in ("name", "traits")  # what a backend is called and is like; it does nothing
        if self.on and file not in self.files and not read:
            self.files.append(file)


async def traced(protocol: str, monkeypatch: pytest.MonkeyPatch) -> Trace:
    """A streamed call to a chat server, the second one on its connections; `files` ends where the server is asked."""
    monkeypatch.setitem(TRANSPORTS, "direct", Http1Transport)  # whatever this run is for: it is the one that is drawn
    script = Script(text_stream(*"abcdef"), split="frames", gap=0.02)
    tools = [TOOL] if protocol == "messages" else []
    trace = Trace()
    ask = Connection.ask

    async def request(self: Connection, head: bytes, body: bytes) -> None:
        trace.on = False
        await ask(self, head, body)

    async with served(script, script) as it:
        for number in range(2):
            if number:
                await until(lambda: not it.gateway.handler.calls)  # nothing of the first call is left to run
                monkeypatch.setattr(Connection, "ask", request)
                sys.setprofile(trace)
            try:
                body = asking(protocol, "hi", stream=True, tools=tools)
                async with it.session.post(it.url + PATHS[protocol], json=body) as answer:
                    assert answer.status == 200
                    await answer.read()
            finally:
                sys.setprofile(None)
    return trace


async def test_a_request_walks_the_files_that_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = await traced("messages", monkeypatch)
    walk, beside = drawn("request"), set().union(*BESIDE.values())
    assert [file for file in trace.files if file not in beside] == walk
    assert not beside & set(walk)
    assert len(walk) <= MOST_FILES["request"]


@pytest.mark.parametrize("protocol", PATHS)
async def test_a_delta_lives_in_the_files_that_are_drawn(protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = await traced(protocol, monkeypatch)
    life = [file.replace("messages", protocol) if "/messages/stream" in file else file for file in drawn("delta")]
    assert trace.received[4] == set(life)  # the third delta: the part is open
    assert len(life) <= MOST_FILES["delta"]
