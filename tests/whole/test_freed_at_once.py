"""A call that is over leaves nothing to the collector of garbage, however it ended.

The gateway lets the collector run seldom, since a run holds up every stream. So a call whose objects refer to each
other in a circle would stay, with its request, for minutes.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from dragoman.backends.chat.backend import TRANSPORTS
from dragoman.backends.markup import FAMILIES
from dragoman.backends.reader import Timeouts
from dragoman.gateway.config import Config
from dragoman.gateway.keys.secrets import Secrets
from dragoman.gateway.serve.app import build
from tests import triton_fakes
from tests.conftest import BOTH
from tests.scripted import Script, call_stream, text_stream
from tests.scripted_search import searching
from tests.serving_gateway import PATHS, Serving, asking, listening, served
from tests.waiting import until

BODY = text_stream("hel", "lo", " and", " good", "bye")
HALF = len(BODY) // 2
ERROR = {"error": {"message": "no"}}
SCRIPTS = {
    "whole": Script(BODY, split="frames"),
    "cut": Script(BODY, cut_at=HALF),
    "reset": Script(BODY, split="frames", cut_at=HALF, reset=True),
    "closed": Script(BODY, cut_at=0),
    "unterminated": Script(BODY, unterminated=True),
    "silent": Script(BODY, hang_at=0),
    "stops": Script(BODY, hang_at=HALF),
    "refuses": Script.json(ERROR, 400),
    "fails": Script.json(ERROR, 500),
    "busy": Script.json(ERROR, 503),
    "no chunk": Script(b"data: {nonsense\n\n"),
    "error event": Script(b'data: {"error": {"message": "no", "code": 500}}\n\n'),
}
TOOL = {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "string"}}}}
TOOLS = {
    "responses": [{"type": "function", **TOOL}, {"type": "custom", "name": "patch"}, {"type": "web_search"}],
    "messages": [
        {"name": "f", "input_schema": TOOL["parameters"]},
        {"type": "web_search_20250305", "name": "web_search"},
    ],
    "chat_completions": [{"type": "function", "function": TOOL}],
}
SCHEMA = {"name": "s", "schema": TOOL["parameters"], "strict": True}
FORMATS: dict[str, dict[str, Any]] = {
    "responses": {"text": {"format": {"type": "json_schema", **SCHEMA}}},
    "messages": {"output_config": {"format": {"type": "json_schema", "schema": TOOL["parameters"]}}},
    "chat_completions": {"response_format": {"type": "json_schema", "json_schema": SCHEMA}},
}
ARGUMENTS = '{"a": "b"}'
MARKUP = '<think>hm</think>Let me see.<tool_call>{"name": "f", "arguments": {"a": "b"}}</tool_call>'
WITH_TOOLS = {
    "text": Script(BODY),
    "call in the text": Script(text_stream(MARKUP)),
    "half a call in the text": Script(text_stream(MARKUP[:-20]), cut_at=HALF),
    "thoughts": Script(text_stream("Hello", " there", reasoning=["Let me", " think"])),
    "a call": Script(call_stream(("f", ARGUMENTS), text="Let me see.")),
    "two calls": Script(call_stream(("f", ARGUMENTS), ("f", ARGUMENTS))),
    "a call of no tool": Script(call_stream(("g", ARGUMENTS))),
    "half a call": Script(call_stream(("f", ARGUMENTS)), cut_at=HALF),
    "a search": Script(call_stream(("web_search", '{"query": "one"}'))),
    "out of room": Script(text_stream("Hello", finish="length")),
}
BEFORE, TIMES = 3, 3  # calls that fill caches and pools, and calls that are looked at
TIMEOUTS = {"first_event": 0.2, "between_events": 0.2}
OURS = "dragoman.", "httptools.", "sqlalchemy."  # and what only we make


@pytest.fixture(autouse=True)
def own_http_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Aiohttp's keeps the error of a connection that broke."""
    monkeypatch.setitem(TRANSPORTS, "direct", BOTH["direct"])


@contextlib.contextmanager
def left_to_the_collector() -> Iterator[Counter[str]]:
    """What of ours became unreachable in the body and was not freed, by type; filled as the body ends."""
    found: Counter[str] = Counter()
    gc.collect()
    gc.disable()
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        kinds = (f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.garbage)
        found.update(kind for kind in kinds if kind.startswith(OURS))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


async def asked(it: Serving, path: str, body: dict[str, Any]) -> None:
    async with it.session.post(it.url + path, json=body) as answer:
        await answer.read()


async def left(it: Serving, path: str, body: dict[str, Any], after: float = 0) -> None:
    """The client goes as soon as it has the head, or some seconds later."""
    async with it.session.post(it.url + path, json=body) as answer:
        await asyncio.sleep(after)
        answer.close()


async def over(it: Serving) -> None:
    await until(lambda: not it.gateway.handler.calls)
    await asyncio.sleep(0.02)  # the connections of both sides end after the call


async def leftovers(it: Serving, call: Callable[[], Awaitable[None]]) -> Counter[str]:
    for _ in range(BEFORE):
        await call()
    await over(it)
    with left_to_the_collector() as found:
        for _ in range(TIMES):
            await call()
        await over(it)
    return found


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("protocol", PATHS)
@pytest.mark.parametrize("script", SCRIPTS)
async def test_a_call(script: str, protocol: str, stream: bool) -> None:
    body = asking(protocol, "hi", stream=stream)
    async with served(*[SCRIPTS[script]] * 20, timeouts=TIMEOUTS) as it:
        assert not await leftovers(it, partial(asked, it, PATHS[protocol], body))


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("protocol", PATHS)
@pytest.mark.parametrize("script", WITH_TOOLS)
@pytest.mark.parametrize(
    "more", [{}, {"markup": "hermes"}, {"force_tool": "prompt"}], ids=["parsed", "markup", "prompt"]
)
async def test_a_call_with_tools(script: str, protocol: str, stream: bool, more: dict[str, Any]) -> None:
    body = asking(protocol, "hi", stream=stream, tools=TOOLS[protocol])
    scripts = [WITH_TOOLS[script], *([WITH_TOOLS["text"]] if script == "a search" else [])] * 20
    async with (
        searching() as service,
        served(*scripts, search={"url": service.url}, backend={"settings": more}) as it,
    ):
        assert not await leftovers(it, partial(asked, it, PATHS[protocol], body))
        assert len(it.server.chats) <= len(scripts)


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("protocol", PATHS)
@pytest.mark.parametrize("text", ['{"a": "b"}', "no JSON", '{"a": '])
@pytest.mark.parametrize("schema", ["enforced", "prompt"])
async def test_a_call_with_a_schema(schema: str, text: str, protocol: str, stream: bool) -> None:
    body = asking(protocol, "hi", stream=stream) | FORMATS[protocol]
    script = Script(text_stream(*text))
    async with served(*[script] * 40, backend={"settings": {"json_schema": schema}}) as it:
        assert not await leftovers(it, partial(asked, it, PATHS[protocol], body))


async def test_a_conversation_that_is_stored(tmp_path: Path) -> None:
    async with served(*[SCRIPTS["whole"]] * 20, store={"url": f"sqlite:{tmp_path}/answers.db"}) as it:
        ids: list[str] = []

        async def turn() -> None:
            previous = {"previous_response_id": ids[-1]} if ids else {}
            async with it.ask(**previous) as answer:
                assert answer.status == 200
                ids.append((await answer.json())["id"])

        assert not await leftovers(it, turn)


@pytest.mark.parametrize("protocol", PATHS)
@pytest.mark.parametrize("script", ["text", "call in the text", "thoughts", "a call"])
@pytest.mark.parametrize("with_tools", [False, True], ids=["plain", "with tools"])
async def test_a_client_that_leaves(with_tools: bool, script: str, protocol: str) -> None:
    body = asking(protocol, "hi", stream=True) | ({"tools": TOOLS[protocol]} if with_tools else {})
    slow = replace(WITH_TOOLS[script], split="frames", gap=0.03)
    async with served(*[slow] * 20) as it:
        assert not await leftovers(it, partial(left, it, PATHS[protocol], body))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("opened", ["call", "thought", "nothing"])
async def test_a_client_that_leaves_while_its_text_is_read(opened: str, family: str) -> None:
    """Whatever the reader of the text waits for."""
    found = FAMILIES[family]
    openers = {
        "call": [*found.openers, *(found.headers.openers if found.headers else ())],
        "thought": [*found.thinking],
        "nothing": [],
    }[opened]
    text = text_stream("Hi", *openers[:1], '{"name": "f", "argu', 'ments": {', "}")
    body = asking("responses", "hi", stream=True, tools=TOOLS["responses"])
    slow = Script(text, split="frames", gap=0.01)
    async with served(*[slow] * 20, backend={"settings": {"markup": family}}) as it:
        assert not await leftovers(it, partial(left, it, PATHS["responses"], body, after=0.04))


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("protocol", PATHS)
@pytest.mark.parametrize("hangs", [False, True], ids=["ends", "hangs"])
@pytest.mark.parametrize("text", ["hello", MARKUP, MARKUP[:-20]], ids=["text", "call", "half a call"])
async def test_a_call_over_triton(text: str, hangs: bool, protocol: str, stream: bool) -> None:
    body = asking(protocol, "hi", stream=stream, tools=TOOLS[protocol])
    engine = triton_fakes.Engine([text] * 20, hangs=hangs)
    backend = triton_fakes.serving(engine, Timeouts(first=0.05, between=0.05))
    config = Config(backends=[{"url": "http://127.0.0.1:9"}], store={"url": "off"})
    async with listening(build(config, [backend], Secrets(()))) as it:
        assert not await leftovers(it, partial(asked, it, PATHS[protocol], body))
        assert len(engine.calls) == BEFORE + TIMES


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("/v1/responses", {"temperature": "hot"}),
        ("/v1/responses", {"model": "unknown", "input": "hi"}),
        ("/v1/responses", {"previous_response_id": "resp_none"}),
        ("/v1/responses/input_tokens", {}),
        ("/v1/embeddings", {}),
        ("/v1/embeddings", {"model": "unknown"}),
    ],
    ids=["refused", "unknown model", "unknown response", "counted", "forwarded", "forwarded to nobody"],
)
@pytest.mark.parametrize("status", [200, 500])
async def test_other_calls(path: str, more: dict[str, Any], status: int) -> None:
    body = {"model": "m", "input": "hi", **more}
    script = Script.json({"object": "list", "data": []}, status)
    async with served(*[script] * 20, models=[{"name": "m", "backend": "gpu"}]) as it:
        assert not await leftovers(it, partial(asked, it, path, body))


@pytest.mark.parametrize("script", ["whole", "cut", "fails"])
async def test_a_web_socket(script: str) -> None:
    async def talk() -> None:
        async with it.session.ws_connect(it.url + "/v1/responses") as socket:
            await socket.send_json({"type": "response.create", **asking("responses", "hi")})
            while (message := await socket.receive()).type is aiohttp.WSMsgType.TEXT:
                if message.json()["type"] in ("response.completed", "response.failed", "error"):
                    break

    async with served(*[SCRIPTS[script]] * 20) as it:
        assert not await leftovers(it, talk)
