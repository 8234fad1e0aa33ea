"""A call goes to another backend while nothing of its answer has gone out, and only for what servers do wrong."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from dragoman.gateway.config import Config
from dragoman.gateway.keys.secrets import Secrets
from dragoman.gateway.serve.app import build
from tests.scripted import Script, ScriptedServer, model_list, text_stream, usage
from tests.serving_gateway import PATHS, Serving, asking, listening
from tests.waiting import LIMIT, until

BODY = text_stream("hel", "lo", counts=usage(11, 2))
FALLBACK = "x-dragoman-fallback"
BUSY = Script.json({"error": {"message": "full"}}, 503)
BROKEN = Script.json({"error": {"message": "CUDA error"}}, 500)


@dataclass
class Two:
    """The model `m` is of the backend `a`; `b` is its fallback."""

    it: Serving
    a: ScriptedServer
    b: ScriptedServer

    async def ask(self, protocol: str = "chat_completions", **more: Any) -> tuple[int, str | None, str]:
        """Status, the fallback that the head names, and the body."""
        body = asking(protocol, "hi", **more)
        async with self.it.session.post(self.it.url + PATHS[protocol], json=body) as answer:
            return answer.status, answer.headers.get(FALLBACK), await answer.text()

    @property
    def fallbacks(self) -> float:
        return self.it.metric("dragoman_fallbacks_total", backend="a", fallback="b")


def refuse(server: ScriptedServer) -> None:
    """It answers that it is not well, to whoever asks for its health."""
    server.on("GET", "/v1/models", Script.json({"error": "no"}, 500))
    server.on("GET", "/health", Script.json({"error": "no"}, 500))


@contextlib.asynccontextmanager
async def two(
    a: Script | None = None, b: Script | None = None, fallback: Any = ("b",), down: bool = False, **settings: Any
) -> AsyncIterator[Two]:
    backends = settings.pop("backends", ({}, {}))
    async with ScriptedServer(default=a or Script(BODY)) as first, ScriptedServer(default=b or Script(BODY)) as second:
        urls = ("http://127.0.0.1:1/v1" if down else first.url, second.url)
        config = Config(
            backends=[{"url": url, "name": name, **more} for url, name, more in zip(urls, "ab", backends, strict=True)],
            models=[{"name": "m", "backend": "a", "fallback": fallback}],
            store={"url": "off"},
            **settings,
        )
        async with listening(build(config, secrets=Secrets())) as it:
            yield Two(it, first, second)


# ----------------------------------------------------------------------------------------------------- when it happens


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("protocol", PATHS)
@pytest.mark.parametrize(
    "a",
    [BUSY, BROKEN, Script.json({}, 429), Script(cut_at=0), Script.json({"error": "bad key"}, 401), Script(b"data: {")],
    ids=["busy", "broken", "too many", "cut", "key", "nonsense"],
)
async def test_what_a_server_does_wrong_goes_to_the_other_one(a: Script, protocol: str, stream: bool) -> None:
    async with two(a) as it:
        status, named, body = await it.ask(protocol, stream=stream)
        assert (status, named) == (200, "b")
        assert "hel" in body
        assert (len(it.a.chats), len(it.b.chats)) == (1, 1)
        assert it.fallbacks == 1


async def test_a_server_that_is_down_is_not_asked_first() -> None:
    async with two(down=True) as it:
        for _ in range(3):
            assert (await it.ask())[:2] == (200, "b")
        assert it.fallbacks == 3


async def test_a_fallback_that_hangs_costs_a_call_nothing_that_its_own_backend_serves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with two() as it:
        for path in ("/v1/models", "/health"):
            it.b.on("GET", path, Script(hang_at=0))
        await it.ask()
        monkeypatch.setattr("dragoman.backends.pool.pool.PATIENCE", LIMIT)
        monkeypatch.setattr("dragoman.backends.pool.pool.FIRST_PATIENCE", LIMIT)
        async with asyncio.timeout(3.0):  # its health is given up after five
            assert (await it.ask())[:2] == (200, None)


async def test_of_several_fallbacks_one_that_is_down_is_asked_last() -> None:
    async with ScriptedServer(default=Script(BODY)) as c, two(BUSY) as it:
        refuse(it.b)
        config = Config(
            backends=[{"url": each.url, "name": name} for each, name in ((it.a, "a"), (it.b, "b"), (c, "c"))],
            models=[{"name": "m", "backend": "a", "fallback": ["b", "c"]}],
            store={"url": "off"},
        )
        body = asking("chat_completions", "hi")
        async with (
            listening(build(config, secrets=Secrets())) as gateway,
            gateway.session.post(gateway.url + PATHS["chat_completions"], json=body) as answer,
        ):
            assert (answer.status, answer.headers[FALLBACK]) == (200, "c")
        assert [len(each.chats) for each in (it.a, it.b, c)] == [1, 0, 1]


async def test_a_call_goes_back_to_its_own_backend_when_that_is_there_again() -> None:
    async with two() as it:
        refuse(it.a)
        assert (await it.ask())[:2] == (200, "b")
        it.a.on("GET", "/v1/models", model_list("m"))
        it.a.on("GET", "/health", Script())
        (replica,) = it.it.gateway.gate.groups["a"].replicas
        await replica.probe()
        assert (await it.ask())[:2] == (200, None)


async def test_a_sleeping_server_is_left_to_its_sleep() -> None:
    async with two(backends=({"preset": "vllm"}, {})) as it:
        it.a.on("GET", "/is_sleeping", Script.json({"is_sleeping": True}))
        assert (await it.ask())[:2] == (200, "b")
        assert not it.a.chats


async def test_a_full_queue_goes_to_the_other_backend() -> None:
    async with two(Script(BODY, hang_at=0), admission={"requests": 1, "queue": 0}) as it:
        first = asyncio.create_task(it.ask())
        await it.a.until(lambda: len(it.a.chats) == 1)
        assert (await it.ask())[:2] == (200, "b")
        assert len(it.a.chats) == 1
        first.cancel()


async def test_several_fallbacks_are_tried_in_their_order_and_the_first_failure_is_told() -> None:
    slow = Script.json({"error": "b is full"}, 503, {"Retry-After": "7"})
    async with ScriptedServer(default=BUSY) as c, two(slow, BROKEN) as it:
        config = Config(
            backends=[{"url": each.url, "name": name} for each, name in ((it.a, "a"), (it.b, "b"), (c, "c"))],
            models=[{"name": "m", "backend": "a", "fallback": ["b", {"backend": "c"}]}],
            store={"url": "off"},
        )
        body = asking("messages", "hi")
        async with (
            listening(build(config, secrets=Secrets())) as gateway,
            gateway.session.post(gateway.url + PATHS["messages"], json=body) as answer,
        ):
            assert (answer.status, answer.headers["Retry-After"]) == (529, "7")
            assert FALLBACK not in answer.headers
        assert [len(each.chats) for each in (it.a, it.b, c)] == [1, 1, 1]


# ------------------------------------------------------------------------------------------------- when it does not


@pytest.mark.parametrize(
    ("a", "status"),
    [
        (Script.json({"error": {"message": "temperature is wrong"}}, 400), 400),
        (Script.json({"error": {"message": "no", "code": "model_not_found"}}, 404), 404),
        (Script.json({"error": {"message": "maximum context length is 5"}}, 400), 400),
        (Script.json({"error": "not through the filter"}, 451), 502),
    ],
)
async def test_what_the_client_does_wrong_stays(a: Script, status: int) -> None:
    async with two(a) as it:
        assert (await it.ask())[:2] == (status, None)
        assert not it.b.chats


@pytest.mark.parametrize("stream", [False, True])
async def test_after_the_first_event_nothing_is_tried_elsewhere(stream: bool) -> None:
    async with two(Script(BODY, cut_at=len(BODY) // 2)) as it:
        status, named, body = await it.ask(stream=stream)
        assert (status, named) == ((200, None) if stream else (502, None))
        assert "error" in body
        assert not it.b.chats


async def test_a_client_that_has_gone_is_not_served_elsewhere() -> None:
    async with two(Script(BODY, hang_at=0), timeouts={"first_event": 600}) as it:
        call = asyncio.create_task(it.ask())
        await it.a.until(lambda: len(it.a.chats) == 1)
        call.cancel()
        await it.a.until(lambda: it.a.chats[0].outcome == "client_gone")
        await until(lambda: not it.it.gateway.handler.calls)
        assert not it.b.chats


async def test_a_request_that_the_other_backend_cannot_serve_keeps_its_first_failure() -> None:
    async with two(BUSY, fallback=[{"backend": "b", "window": 256}], backends=({}, {"preset": "vllm"})) as it:
        it.b.on("POST", "/tokenize", Script.json({"count": 5000}))
        body = asking("chat_completions", "word " * 4000)
        async with it.it.session.post(it.it.url + PATHS["chat_completions"], json=body) as answer:
            assert (answer.status, FALLBACK in answer.headers) == (503, False)
        assert not it.b.chats


async def test_a_fallback_that_refuses_the_request_does_not_speak_for_a_backend_that_is_down() -> None:
    refusal = Script.json({"error": {"message": "temperature is wrong"}}, 400)
    async with two(down=True, b=refusal) as it:
        assert (await it.ask())[:2] == (503, None)
        assert len(it.b.chats) == 1


# ------------------------------------------------------------------------------------------- as the other one takes it


async def test_the_request_is_prepared_for_the_backend_that_answers() -> None:
    backends: Any = ({"settings": {"max_tokens_field": "max_completion_tokens"}}, {})
    fallback = [{"backend": "b", "upstream": "other-name", "window": 512}]
    async with two(BUSY, fallback=fallback, backends=backends) as it:
        status, _, _ = await it.ask(max_tokens=4000)
        assert status == 200
        (first,), (second,) = it.a.chats, it.b.chats
        assert first.body is not None
        assert second.body is not None
        assert (first.body["model"], second.body["model"]) == ("m", "other-name")
        limits = {name: size for name, size in second.body.items() if name.startswith("max_")}
        assert list(limits) == ["max_tokens"]
        assert limits["max_tokens"] < 512  # of its own window
        assert first.body["max_completion_tokens"] == 4000


async def test_only_what_the_answering_backend_leaves_out_is_reported() -> None:
    backends: Any = ({"settings": {"images": False}}, {})
    png = "data:image/png;base64,iVBORw0KGgo="
    content = [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": png}}]
    messages = [
        {"role": "user", "content": content},
        {"role": "assistant", "content": "hello"},
        {"role": "user", "content": "and now?"},
    ]
    body = {"model": "m", "messages": messages}
    async with two(BUSY, backends=backends) as it:
        async with it.it.session.post(it.it.url + PATHS["chat_completions"], json=body) as answer:
            assert (answer.status, answer.headers[FALLBACK]) == (200, "b")
            assert "x-dragoman-ignored" not in answer.headers
        assert png not in it.a.chats[0].raw.decode()
        assert png in it.b.chats[0].raw.decode()


async def test_a_count_goes_to_the_first_backend_that_can_count() -> None:
    tokenize = Script.json({"count": 42, "tokens": []})
    async with two(down=True, backends=({"preset": "vllm"}, {"preset": "vllm"})) as it:
        it.b.on("POST", "/tokenize", tokenize)
        body = asking("messages", "hi")
        async with it.it.session.post(it.it.url + "/v1/messages/count_tokens", json=body) as answer:
            assert (answer.status, await answer.json()) == (200, {"input_tokens": 42})
            assert answer.headers[FALLBACK] == "b"


async def test_the_log_names_both_backends(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="dragoman")
    async with two(BUSY) as it:
        await it.ask()
        await until(lambda: not it.it.gateway.handler.calls)
    (line,) = [each.__dict__["fields"] for each in caplog.records if each.message == "request"]
    assert (line["backend"], line["fallback_for"]) == ("b", "a")


# ---------------------------------------------------------------------------------------------- what is passed through


async def forwarded(it: Two, path: str) -> tuple[int, str | None, str]:
    body = json.dumps({"model": "m", "input": "a", "prompt": "a"})
    async with it.it.session.post(f"{it.it.url}/v1/{path}", data=body) as answer:
        return answer.status, answer.headers.get(FALLBACK), await answer.text()


@pytest.mark.parametrize(
    ("path", "upstream", "expected"),
    [
        ("completions", "other", (200, "b", "[]")),
        ("embeddings", None, (200, "b", "[]")),
        ("embeddings", "other", (503, None, '{"error": "full"}')),
    ],
)
async def test_vectors_of_one_model_are_never_mixed_with_those_of_another(
    path: str, upstream: str | None, expected: tuple[int, str | None, str]
) -> None:
    async with two(fallback=[{"backend": "b", "upstream": upstream}]) as it:
        it.a.on("POST", f"/v1/{path}", Script.json({"error": "full"}, 503))
        it.b.on("POST", f"/v1/{path}", Script.json([]))
        assert await forwarded(it, path) == expected
