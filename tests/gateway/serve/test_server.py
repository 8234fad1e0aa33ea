"""Generations of the gateway in one process: how a new one is opened, and that one that fails holds up no other.

From the first signal to the last answer, with `dragoman serve` as a child, is `tests/whole/test_life.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import weakref
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from dragoman.backends import registry
from dragoman.backends.base import Backend, Health
from dragoman.backends.registry import Options
from dragoman.gateway.calls.conversation_memo import Memos
from dragoman.gateway.calls.prompt_prefix import Prefix
from dragoman.gateway.calls.request_memo import LEAST
from dragoman.gateway.config import Config
from dragoman.gateway.keys.secrets import Secrets
from dragoman.gateway.serve import server as serving
from dragoman.gateway.serve.app import Gateway
from dragoman.gateway.serve.server import Server, drain
from dragoman.gateway.serve.sockets import listen
from dragoman.translators.ir import Message, Request, Text
from tests.gateway_fakes import FakeBackend
from tests.waiting import LIMIT, until


class Opener:
    """Opens `fake:` URLs; while it is `held`, in a thread that waits."""

    def __init__(self) -> None:
        self.threads: list[int] = []
        self.backends: list[FakeBackend] = []
        self.entered = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def __call__(self, url: str, options: Options) -> Backend:
        self.threads.append(threading.get_ident())
        self.entered.set()
        assert self.go_on.wait(LIMIT), "the event loop waits for this thread"
        self.backends.append(FakeBackend(name=str(options.name)))
        return self.backends[-1]


@pytest.fixture
def opener(monkeypatch: pytest.MonkeyPatch) -> Opener:
    made = Opener()
    monkeypatch.setitem(registry.SCHEMES, "fake", made)
    monkeypatch.setattr(serving, "configure", lambda *_: None)  # the log belongs to the tests
    monkeypatch.setattr(serving, "with_seal_key", lambda _, secrets: secrets)
    monkeypatch.setattr(serving, "LINGER_POLL", 0.005)
    return made


def config(number: int, **more: Any) -> Config:
    return Config(port=0, backends=[{"url": f"fake:{number}", "name": f"b{number}"}], **more)


@contextlib.asynccontextmanager
async def opened(*numbers: int) -> AsyncIterator[tuple[Server, str]]:
    """A server with a generation for each number, and its URL."""
    sockets = await listen("127.0.0.1", 0)
    server = Server(sockets)
    try:
        for number in numbers:
            await server.open(config(number), Secrets())
        yield server, f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    finally:
        await server.close()


async def readiness(url: str) -> Any:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/readyz") as answer:
        return await answer.json()


async def test_while_a_reload_opens_backends_the_loop_goes_on(opener: Opener) -> None:
    async with opened(1) as (server, url):
        opener.entered.clear()
        opener.go_on.clear()
        reload = asyncio.create_task(server.reload(lambda: (config(2), Secrets())))
        await until(opener.entered.is_set)
        assert (await readiness(url))["backends"] == {"b1": "ready"}
        assert not reload.done()
        opener.go_on.set()
        await reload
        assert (await readiness(url))["backends"] == {"b2": "ready"}
        assert threading.get_ident() not in opener.threads


async def test_a_reload_reads_its_configuration_and_makes_its_seal_key_in_a_thread(
    opener: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: dict[str, int] = {}

    def sealed(_: Config, secrets: Secrets) -> Secrets:
        threads["seal key"] = threading.get_ident()
        return secrets

    def certificates(_: object) -> None:
        threads["certificates"] = threading.get_ident()

    def reread() -> tuple[Config, Secrets]:
        threads["configuration"] = threading.get_ident()
        return config(2), Secrets()

    async with opened(1) as (server, _):
        monkeypatch.setattr(serving, "with_seal_key", sealed)
        monkeypatch.setattr(serving, "for_clients", certificates)
        await server.reload(reread)
        assert set(threads) == {"seal key", "certificates", "configuration"}
        assert threading.get_ident() not in threads.values()


async def test_an_older_generation_that_has_ended_is_freed(opener: Opener) -> None:
    gc.disable()
    try:
        async with opened(1) as (server, url):
            await readiness(url)
            older = weakref.ref(server.gateway)
            await server.open(config(2), Secrets())
            await until(lambda: older() is None)
    finally:
        gc.enable()


def remember(server: Server) -> Memos:
    """As if a client had sent a long conversation."""
    memos = server.gateway.handler.memos
    messages = [{"role": "user", "content": "a" * LEAST}]
    memos.conversations.keep("ann", orjson.dumps({"messages": messages}), {"messages": messages})
    assert memos.memory.size
    assert goes_on(memos) is None
    return memos


def goes_on(memos: Memos) -> Prefix | None:
    return memos.prompts.follow("ann", Request("id", "m", (Message("user", (Text("hi"),)),)))


async def test_what_is_kept_of_requests_outlives_a_reload_under_the_same_limits(opener: Opener) -> None:
    async with opened(1) as (server, _):
        memos = remember(server)
        await server.open(config(2), Secrets())
        await until(lambda: len(server._generations) == 1)
        assert server.gateway.handler.memos is memos
        assert memos.memory.size
        assert goes_on(memos) == Prefix()


async def test_what_is_kept_of_requests_goes_with_its_generation_under_other_limits(opener: Opener) -> None:
    """At once: what was there at the start is never collected."""
    async with opened(1) as (server, _):
        memos = remember(server)
        await server.open(config(2, limits={"json_depth": 20}), Secrets())
        await until(lambda: len(server._generations) == 1)
        assert server.gateway.handler.memos is not memos
        assert not memos.memory.size
        assert goes_on(memos) is None


async def test_an_older_generation_that_cannot_be_ended_is_logged_and_those_after_it_end(
    opener: Opener, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cleanup = web.AppRunner.cleanup
    broken: list[web.BaseRunner] = []

    async def failing(runner: web.AppRunner) -> None:
        await cleanup(runner)
        if not broken:
            broken.append(runner)
            raise RuntimeError("broken")

    monkeypatch.setattr(web.AppRunner, "cleanup", failing)
    async with opened(1, 2, 3) as (server, url):
        await until(lambda: len(server._generations) == 1)
        assert (await readiness(url))["backends"] == {"b3": "ready"}
        assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
            "a generation could not be ended cleanly"
        ]
    assert [backend.closed for backend in opener.backends] == [1, 1, 1]


async def test_a_drain_that_fails_is_logged_and_cuts_no_other(
    opener: Opener, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    drained: list[Gateway] = []

    async def failing(gateway: Gateway, *rest: Any) -> None:
        if gateway.config.named_backends[0].name == "b1":
            raise RuntimeError("broken")
        await asyncio.sleep(0.01)
        await drain(gateway, *rest)
        drained.append(gateway)

    monkeypatch.setattr(serving, "drain", failing)
    async with opened(1, 2) as (server, _):
        await server.leave(0, asyncio.get_running_loop().create_future())
        assert drained == [server.gateway]
        assert "a generation could not be drained" in caplog.text


async def test_a_part_that_cannot_be_closed_keeps_no_other_open(opener: Opener) -> None:
    async with opened(1) as (server, _):

        async def broken() -> None:
            raise RuntimeError("broken")

        server.gateway.models.close = broken  # type: ignore[method-assign]
    assert opener.backends[0].closed == 1


# --------------------------------------------------------------------------------------------------- health on reload


def pooled(*numbers: int, drain: float = 600) -> Config:
    servers = [{"url": f"fake:{number}", "name": f"b{number}", "pool": "p"} for number in numbers]
    return Config(port=0, backends=servers, timeouts={"drain": drain})


def states(server: Server) -> dict[tuple[str, str], float]:
    """The samples of the servers of pools that are not zero, by server and state."""
    return {
        (sample.labels["backend"], sample.labels["state"]): sample.value
        for family in server.gateway.metrics.registry.collect()
        for sample in family.samples
        if sample.name == "dragoman_replica_state" and sample.value
    }


async def test_a_group_that_has_not_changed_keeps_its_health_and_others_are_opened_anew(opener: Opener) -> None:
    async with opened() as (server, url):
        await server.open(pooled(1, 2), Secrets())
        await until(lambda: states(server) == {("b1", "ready"): 1, ("b2", "ready"): 1})
        opener.backends[1].state = Health("asleep")
        first = server.gate.groups["p"]
        await first.replicas[1].probe()
        await server.open(pooled(1, 2, drain=5), Secrets())
        assert server.gate.groups["p"] is first
        assert states(server) == {("b1", "ready"): 1, ("b2", "asleep"): 1}
        assert [backend.closed for backend in opener.backends] == [0, 0]
        await server.open(pooled(1), Secrets())
        await until(lambda: [backend.closed for backend in opener.backends] == [1, 1, 0])
        assert (await readiness(url))["backends"] == {"p": "ready"}
        assert states(server) == {("b1", "ready"): 1}
