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
from functools import partial
from typing import Any

import aiohttp
import pytest

from dragoman.backends.chat.backend import TRANSPORTS
from tests.conftest import BOTH
from tests.scripted import Script, text_stream
from tests.serving_gateway import PATHS, Served, asking, served
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
BEFORE, TIMES = 3, 3  # calls that fill caches and pools, and calls that are looked at
TIMEOUTS = {"first_event": 0.2, "between_events": 0.2}


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
        found.update(kind for kind in kinds if kind.startswith(("dragoman.", "httptools.")))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


async def asked(it: Served, path: str, body: dict[str, Any]) -> None:
    async with it.session.post(it.url + path, json=body) as answer:
        await answer.read()


async def left(it: Served, path: str, body: dict[str, Any]) -> None:
    """The client goes as soon as it has the head."""
    async with it.session.post(it.url + path, json=body) as answer:
        answer.close()


async def over(it: Served) -> None:
    await until(lambda: not it.gateway.handler.calls)
    await asyncio.sleep(0.02)  # the connections of both sides end after the call


async def leftovers(it: Served, call: Callable[[], Awaitable[None]]) -> Counter[str]:
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


@pytest.mark.parametrize("protocol", PATHS)
async def test_a_client_that_leaves(protocol: str) -> None:
    body = asking(protocol, "hi", stream=True)
    async with served(*[Script(BODY, split="frames", gap=0.05)] * 20) as it:
        assert not await leftovers(it, partial(left, it, PATHS[protocol], body))


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
