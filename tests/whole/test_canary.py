"""Nothing leaks: secrets and prompt text are put into every field there is, and then searched for in every log line
(level debug), every metric, every span and every error body.

Each field gets a word of its own, so that a failure says what leaked. Two things are no leak: what a client chose as
the name of a model or a parameter comes back to that client in the refusal that is about it, and so does what a server
said of the request; keys never do.
"""

from __future__ import annotations

import io
import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from dragoman.gateway.config import LogConfig
from dragoman.gateway.keys.secrets import Secrets
from dragoman.gateway.telemetry.logs import configure
from dragoman.gateway.telemetry.tracing import OpenTelemetry
from tests.scripted import Script, chunk, model_list, sse, text_stream
from tests.serving_gateway import PATHS, Served, served

CLIENT_KEY, BACKEND_KEY, SEAL_KEY = "canaryclientkey0001", "canarybackendkey0002", "canarysealkey0003"
SECRETS = (CLIENT_KEY, BACKEND_KEY, SEAL_KEY)


@dataclass
class Words:
    """Words that stand for secrets or prompts, one for each place; all begin with `canary`."""

    made: list[str] = field(default_factory=list)

    def __call__(self, place: str) -> str:
        word = f"canary{len(self.made):04d}{place}"
        self.made.append(word)
        return word


@dataclass
class Watched:
    """Everything that anybody but the asking client can read."""

    it: Served
    log: io.StringIO
    spans: InMemorySpanExporter
    errors: list[bytes] = field(default_factory=list)

    async def post(self, path: str, body: Any, headers: dict[str, str]) -> int:
        sent = {"Authorization": f"Bearer {CLIENT_KEY}", **headers}
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        async with self.it.session.post(self.it.url + path, data=data, headers=sent) as answer:
            said = await answer.read()
            self.errors += [said] if answer.status >= 400 else failures(said)
            for name, value in answer.headers.items():
                self.errors.append(f"{name}: {value}".encode())
            return answer.status

    def leaks(self, words: list[str]) -> dict[str, list[str]]:
        places = {
            "log": self.log.getvalue(),
            "metrics": self.it.gateway.metrics.render().decode(),
            "traces": "".join(span.to_json() for span in self.spans.get_finished_spans()),
        }
        return {place: found for place, text in places.items() if (found := [word for word in words if word in text])}

    def told(self, words: tuple[str, ...] | list[str]) -> list[str]:
        return [word for word in words if any(word.encode() in said for said in self.errors)]


def failures(stream: bytes) -> list[bytes]:
    """The errors in a stream; the rest of it gives the client back what it asked, as the protocols want it."""
    lines = [line.removeprefix(b"data: ") for line in stream.splitlines() if line.startswith(b"data: {")]
    events = [orjson.loads(line) for line in lines]
    return [orjson.dumps(event.get("error") or event.get("response", {}).get("error")) for event in events]


@pytest.fixture
def log_stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in ("asyncio", "aiohttp")}
    stream = io.StringIO()
    configure(LogConfig(level="debug"), SECRETS, stream)
    yield stream
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture
async def watched(log_stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watched]:
    spans = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    monkeypatch.setattr("dragoman.gateway.serve.app.open_tracing", lambda _: OpenTelemetry(provider))
    monkeypatch.setenv("CANARY_BACKEND_KEY", BACKEND_KEY)
    secrets = Secrets((CLIENT_KEY,), {"gpu": BACKEND_KEY}, (SEAL_KEY,))
    async with served(secrets=secrets, limits={"tools": 8}) as it:
        it.server.on("GET", "/v1/models", model_list("m"))
        yield Watched(it, log_stream, spans)


def headers_of(word: Words) -> dict[str, str]:
    return {
        "Cookie": f"session={word('cookie')}",
        "Proxy-Authorization": f"Basic {word('proxy')}",
        "x-custom": word("header"),
        "User-Agent": f"agent/{word('agent')}",
        "traceparent": word("traceparent"),
        "x-dragoman-anything": word("own"),
    }


def body_of(protocol: str, word: Words, stream: bool) -> dict[str, Any]:
    """Every field that may hold text, filled."""
    schema = {"type": "object", "properties": {"p": {"type": "string", "description": word("schema")}}}
    image = f"data:image/png;base64,{word('image')}"
    common: dict[str, Any] = {"model": word("model"), "stream": stream, "metadata": {"user_id": word("metadata")}}
    if protocol == "responses":
        content = [{"type": "input_text", "text": word("text")}, {"type": "input_image", "image_url": image}]
        return common | {
            "instructions": word("instructions"),
            "input": [
                {"type": "message", "role": "user", "content": content},
                {"type": "function_call", "call_id": "c1", "name": "t", "arguments": f'{{"p": "{word("arguments")}"}}'},
                {"type": "function_call_output", "call_id": "c1", "output": word("output")},
                {"type": "function_call_output", "call_id": "orphan", "output": word("orphan")},
            ],
            "tools": [
                {"type": "function", "name": "t", "description": word("description"), "parameters": schema},
                {"type": "web_search", "filters": {"allowed_domains": [word("domain")]}},
            ],
            "prompt_cache_key": word("cache_key"),
            "user": word("user"),
            "safety_identifier": word("safety"),
        }
    if protocol == "messages":
        content = [{"type": "text", "text": word("text")}]
        call = {"type": "tool_use", "id": "c1", "name": "t", "input": {"p": word("arguments")}}
        result = {"type": "tool_result", "tool_use_id": "c1", "content": word("output")}
        return common | {
            "max_tokens": 64,
            "system": word("system"),
            "messages": [
                {"role": "user", "content": content},
                {"role": "assistant", "content": [call]},
                {"role": "user", "content": [result]},
            ],
            "tools": [{"name": "t", "description": word("description"), "input_schema": schema}],
            "stop_sequences": [word("stop")],
        }
    call = {"id": "c1", "type": "function", "function": {"name": "t", "arguments": f'{{"p": "{word("arguments")}"}}'}}
    function = {"name": "t", "description": word("description"), "parameters": schema}
    parts = [{"type": "text", "text": word("text")}, {"type": "image_url", "image_url": {"url": image}}]
    return common | {
        "messages": [
            {"role": "system", "content": word("system")},
            {"role": "user", "content": parts, "name": word("name")},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": word("output")},
        ],
        "tools": [{"type": "function", "function": function}],
        "user": word("user"),
        "stop": [word("stop")],
    }


def scripts(word: Words) -> list[Script]:
    """What a server may do with it: answer, fail in every way, and echo what it was asked and its key."""
    echo = f"{word('upstream')} Authorization: Bearer {BACKEND_KEY}"
    whole = text_stream(word("answer"), reasoning=[word("thought")])
    failing = {"error": {"message": f"failed on {echo}", "type": "BadRequestError", "code": 400}}
    return [
        Script(whole),
        Script(whole, cut_at=len(whole) // 2),
        Script.json(failing, status=400),
        Script(echo.encode(), status=500),
        Script(f"<html>{echo}</html>".encode(), status=502),
        Script.json({"error": echo}, status=401),
        Script(sse(chunk({"content": word("piece")}), failing)),
        Script(f"data: {echo}\n\n".encode()),
        Script(b"data: {" + echo.encode() + b"\n\n"),
    ]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("protocol", PATHS)
async def test_nothing_of_a_call_leaks_whatever_the_server_does(watched: Watched, protocol: str, stream: bool) -> None:
    word = Words()
    for script in scripts(word):
        watched.it.server.add(script, script, script)  # some are tried again
        path = f"{PATHS[protocol]}?api_key={word('query')}&{word('parameter')}"
        await watched.post(path, body_of(protocol, word, stream), headers_of(word))
        watched.it.server.queue.clear()
    assert len(word.made) > 100
    assert watched.it.server.chats, "nothing was asked of the server"
    assert watched.leaks([*word.made, *SECRETS]) == {}
    assert watched.told(SECRETS) == []
    private = [each for each in word.made if not each.endswith(("upstream", "answer", "thought", "piece"))]
    assert watched.told(private) == []


def faults(protocol: str, word: Words) -> list[Any]:
    """Requests that are refused, each with words where the fault is and around it."""
    good = body_of(protocol, word, False)
    history = "input" if protocol == "responses" else "messages"
    part: Any = [word("part")] if protocol == "messages" else word("part")  # a type that is a word is left out there
    kind: Any = [word("type")] if protocol == "responses" else word("type")  # and so is one of an item there
    nested: Any = word("nested")
    for _ in range(100):
        nested = [nested]
    return [
        b'{"model": "' + word("torn").encode(),
        word("text").encode(),
        orjson.dumps([word("list")]),
        b'{"a": "\xff' + word("bytes").encode() + b'"}',
        good | {history: word("history") if protocol == "messages" else {"text": word("object")}},
        good | {history: [{"role": "user", "content": {"x": word("content")}}]},
        good | {history: [{"role": word("role"), "content": word("content")}]},
        good | {history: [{"type": kind, "role": "user", "content": [{"type": part}]}]},
        good | {"tools": [{"type": "function", "name": {"x": word("name")}}]},
        good | {"tools": word("tools")},
        good | {"tool_choice": {"type": "function", "name": {"x": word("choice")}}},
        good | {"temperature": word("temperature"), "metadata": word("metadata")},
        good | {"extra": nested},
        good | {"tools": [good["tools"][0]] * 20},
    ]


@pytest.mark.parametrize("protocol", PATHS)
async def test_nothing_of_a_refused_request_leaks(watched: Watched, protocol: str) -> None:
    word = Words()
    statuses: list[int] = []
    for body in faults(protocol, word):
        watched.it.server.queue.clear()
        watched.it.server.add(Script(text_stream("fine")))  # some of it one protocol or another takes
        statuses.append(await watched.post(PATHS[protocol], body, headers_of(word)))
        assert statuses[-1] < 500, body
    assert statuses.count(400) >= 8
    assert watched.leaks([*word.made, *SECRETS]) == {}
    assert watched.told(SECRETS) == []


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/models/{}", "/{}", "/v1/messages/{}", "/metrics?{}"])
async def test_nothing_of_who_is_turned_away_leaks(watched: Watched, path: str) -> None:
    word = Words()
    where = path.format(word("path"))
    for offered in (word("key"), f"sk-{word('key')}"):
        headers = headers_of(word) | {"Authorization": f"Bearer {offered}", "x-api-key": word("key")}
        assert await watched.post(where, {"input": word("text")}, headers) in (401, 404, 405)
    assert watched.leaks([*word.made, *SECRETS]) == {}
    assert watched.told([*word.made, *SECRETS]) == []


async def test_a_name_that_nobody_serves_is_in_no_log(watched: Watched) -> None:
    watched.it.server.on("GET", "/v1/models", model_list("m", "n"))
    word = Words()
    for protocol in PATHS:
        body = body_of(protocol, word, False)
        assert await watched.post(PATHS[protocol], body, headers_of(word)) in (200, 404, 500, 502)
    assert watched.leaks([*word.made, *SECRETS]) == {}
