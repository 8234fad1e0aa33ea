"""Replicas by DNS: a fake resolver, real servers on 127.0.0.1 to 127.0.0.3 with the same port."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from dragoman.backends.base import Backend, ModelInfo
from dragoman.backends.pool import discovery
from dragoman.backends.pool.discovery import CERTAIN, Discovery, Source
from dragoman.backends.pool.pool import Pool
from dragoman.backends.pool.replica import PoolSettings, Replica
from dragoman.gateway.config import Config
from dragoman.gateway.keys.secrets import Secrets
from dragoman.gateway.serve.app import build
from tests.certificates import Authority
from tests.gateway_fakes import FakeBackend
from tests.scripted import Script, ScriptedServer, text_stream
from tests.serving_gateway import Serving, listening
from tests.waiting import until

BODY = text_stream("hel", "lo")
ALL = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
NAME = "servers.test"
UNKNOWN = socket.gaierror(socket.EAI_NONAME, "no such name")
FAILED = socket.gaierror(socket.EAI_AGAIN, "try again")


class Names:
    """What DNS says; an exception is raised."""

    def __init__(self, *addresses: str) -> None:
        self.addresses: list[str] | Exception = list(addresses)
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append((host, port))
        if isinstance(self.addresses, Exception):
            raise self.addresses
        return list(self.addresses)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    made = Names(*ALL)
    monkeypatch.setattr(discovery, "resolve", made)
    return made


# ------------------------------------------------------------------------------------------------------- the membership


class Members:
    """A discovery alone, over backends that do nothing. `there` are the replicas' names by address."""

    def __init__(self, **settings: Any) -> None:
        self.opened: list[FakeBackend] = []
        self.there: dict[str, Replica] = {}
        self.settings = PoolSettings(**settings)
        source = Source("p", NAME, 80, f"http://{NAME}/v1", FakeBackend(name="p"), self._open)
        self.discovery = Discovery(source, self.settings, self._replica, self._joined, self._gone)

    def _open(self, address: str, name: str) -> Backend:
        self.opened.append(FakeBackend(name=name))
        return self.opened[-1]

    def _replica(self, backend: Backend, identity: str) -> Replica:
        return Replica(backend, identity, self.settings, lambda replica: None)

    def _joined(self, replica: Replica) -> None:
        self.there[replica.identity.rpartition(" ")[2]] = replica

    def _gone(self, replica: Replica) -> None:
        del self.there[replica.identity.rpartition(" ")[2]]

    @property
    def called(self) -> dict[str, str]:
        return {address: replica.name for address, replica in self.there.items()}

    async def close(self) -> None:
        await self.discovery.close()
        await asyncio.gather(*(each.close() for each in self.there.values()))


async def test_addresses_come_and_go_and_those_that_stay_keep_their_replica(names: Names) -> None:
    members = Members()
    await members.discovery.read()
    assert members.called == {"127.0.0.1": "p/1", "127.0.0.2": "p/2", "127.0.0.3": "p/3"}
    kept = members.there["127.0.0.3"]
    names.addresses = ["127.0.0.3", "::1"]
    await members.discovery.read()
    assert set(members.there) == {"127.0.0.3", "::1"}
    assert members.there["127.0.0.3"] is kept
    await until(lambda: [each.closed for each in members.opened[:2]] == [1, 1])
    names.addresses = ["127.0.0.3", "::1", "127.0.0.9"]
    await members.discovery.read()
    assert len(set(members.called.values())) == 3
    assert members.called["127.0.0.9"] in ("p/1", "p/2")  # names of those that have gone are used again
    await members.close()


@pytest.mark.parametrize("failure", [FAILED, OSError("down"), TimeoutError(), UnicodeError("label too long")])
async def test_a_failure_to_resolve_changes_nothing(names: Names, failure: Exception) -> None:
    members = Members()
    await members.discovery.read()
    names.addresses = failure
    for _ in range(CERTAIN + 2):
        await members.discovery.read()
    assert set(members.there) == set(ALL)
    await members.close()


async def test_a_name_that_is_gone_is_believed_the_third_time_in_a_row(names: Names) -> None:
    members = Members()
    await members.discovery.read()
    for failure in (UNKNOWN, UNKNOWN, FAILED, UNKNOWN, UNKNOWN):
        names.addresses = failure
        await members.discovery.read()
        assert set(members.there) == set(ALL)
    names.addresses = UNKNOWN
    await members.discovery.read()
    assert not members.there
    await members.close()


async def test_an_address_that_comes_back_while_it_drains_goes_on(names: Names) -> None:
    members = Members()
    await members.discovery.read()
    replica = members.there["127.0.0.2"]
    replica._idle.clear()  # a request runs
    names.addresses = ["127.0.0.1"]
    await members.discovery.read()
    assert set(members.there) == {"127.0.0.1"}
    await until(lambda: members.opened[2].closed == 1)
    names.addresses = ALL
    await members.discovery.read()
    assert members.there["127.0.0.2"] is replica
    assert len(members.opened) == 4  # that of .3 was closed and is a new one
    replica._idle.set()
    await members.close()
    assert [each.closed for each in members.opened] == [1, 1, 1, 1]


async def test_there_are_so_many_at_most_and_those_that_are_there_stay(
    names: Names, caplog: pytest.LogCaptureFixture
) -> None:
    members = Members(addresses=2)
    names.addresses = ["127.0.0.3", "127.0.0.2"]
    await members.discovery.read()
    names.addresses = ALL
    for _ in range(3):
        await members.discovery.read()
    assert set(members.there) == {"127.0.0.2", "127.0.0.3"}
    assert [each.getMessage() for each in caplog.records if "left out" in each.getMessage()] == [
        "p: 1 addresses are left out: pool.addresses"
    ]
    await members.close()


async def test_a_name_is_resolved_again_and_again(names: Names) -> None:
    members = Members(resolve=0.01)
    members.discovery.begin()
    await until(lambda: len(names.asked) > 3)
    assert set(names.asked) == {(NAME, 80)}
    await members.close()


async def test_what_a_server_listed_that_has_gone_is_not_taken_for_the_next_ones_of_its_name(names: Names) -> None:
    served = {"::1": "x", "::2": "y"}

    def opened(address: str, name: str) -> Backend:
        return FakeBackend(name=name, served=[ModelInfo(served[address])] if address in served else None)

    names.addresses = ["::1", "::2"]
    source = Source("p", NAME, 80, f"http://{NAME}/v1", FakeBackend(name="p"), opened)
    pool = Pool("p", [], PoolSettings(), sources=[source])
    await pool.start()
    await until(lambda: [each.started for each in pool.replicas] == [True, True])
    assert {each.id for each in await pool.models()} == {"x", "y"}
    names.addresses = ["::2"]
    await pool._discoveries[0].read()
    await until(lambda: not pool._discoveries[0]._leaving)
    names.addresses = ["::2", "::3"]  # the last cannot be listed
    await pool._discoveries[0].read()
    await until(lambda: all(each.started for each in pool.replicas))
    assert sorted(each.name for each in pool.replicas) == ["p/1", "p/2"]
    assert {each.id for each in await pool.models()} == {"y"}
    await pool.close()


# ---------------------------------------------------------------------------------------------------- through a gateway


class Found:
    """A gateway whose backend `g` is a name with three addresses."""

    def __init__(self, it: Serving, servers: list[ScriptedServer], names: Names) -> None:
        self.it = it
        self.servers = servers
        self._names = names

    @property
    def group(self) -> Pool:
        return self.it.gateway.gate.groups["g"]

    @property
    def there(self) -> dict[str, Replica]:
        return {each.identity.rpartition(" ")[2]: each for each in self.group.replicas}

    async def say(self, *addresses: str) -> None:
        """DNS gives these from now on, and the gateway knows."""
        self._names.addresses = list(addresses)
        await self.group._discoveries[0].read()

    async def owner(self, session: str) -> ScriptedServer:
        before = [len(each.chats) for each in self.servers]
        status, body = await self.it.answer(prompt_cache_key=session)
        assert status == 200, body
        (found,) = [each for each, count in zip(self.servers, before, strict=True) if len(each.chats) > count]
        return found


@contextlib.asynccontextmanager
async def found(names: Names, script: Script | None = None, **settings: Any) -> AsyncIterator[Found]:
    async with contextlib.AsyncExitStack() as stack:
        servers: list[ScriptedServer] = []
        for host in ALL:
            port = servers[0].port if servers else 0
            made = ScriptedServer(default=script or Script(BODY), host=host, port=port)
            servers.append(await stack.enter_async_context(made))
        backend = {"url": f"http://{NAME}:{servers[0].port}/v1", "name": "g", "discover": "dns"}
        backend |= settings.pop("backend", {})
        config = Config(backends=[backend], store={"url": "off"}, **settings)
        it = await stack.enter_async_context(listening(build(config, secrets=Secrets())))
        yield Found(it, servers, names)


@pytest.mark.usefixtures("each_http_client")
async def test_every_address_is_a_replica_and_the_host_stays_the_name(names: Names) -> None:
    async with found(names) as it:
        owners = [await it.owner(f"s{number}") for number in range(16)]
        assert len(set(map(id, owners))) == 3
        seen = [each for server in it.servers for each in server.requests]  # probes and lists too
        assert {each.headers["Host"] for each in seen} == {f"{NAME}:{it.servers[0].port}"}


async def test_sessions_stay_where_their_address_stays(names: Names) -> None:
    async with found(names) as it:
        sessions = [f"s{number}" for number in range(16)]
        before = {session: await it.owner(session) for session in sessions}
        await it.say(*ALL[:2])
        assert set(it.there) == set(ALL[:2])
        after = {session: await it.owner(session) for session in sessions}
        moved = [session for session in sessions if before[session] is not after[session]]
        assert moved == [session for session in sessions if before[session] is it.servers[2]]
        await it.say(*ALL)
        assert {session: await it.owner(session) for session in sessions} == before


async def test_what_runs_on_a_replica_that_has_gone_is_finished_there(names: Names) -> None:
    names.addresses = ALL[:1]
    half = len(BODY) // 2
    async with found(names, Script(BODY, split=(half,), gap=0.5)) as it:
        call = asyncio.create_task(it.it.answer(stream=True))
        await it.servers[0].until(lambda: [each.sent for each in it.servers[0].chats] == [half])
        gone = it.there[ALL[0]]
        await it.say(ALL[1])
        assert gone.pending == 1
        assert await it.owner("new") is it.servers[1]
        status, body = await call
        assert (status, "response.completed" in body) == (200, True)
        await until(lambda: not it.group._discoveries[0]._leaving)
        assert it.servers[0].chats[0].outcome == "completed"


async def test_a_name_without_addresses_is_503_and_comes_back_without_a_reload(names: Names) -> None:
    names.addresses = FAILED
    async with found(names) as it:
        status, body = await it.it.answer()
        assert (status, "No model server can be reached" in body) == (503, True)
        async with it.it.session.get(f"{it.it.url}/readyz") as answer:
            assert answer.status == 503
            assert (await answer.json())["replicas"] == {"g": {"known": 0, "ready": 0}}
        await it.say(*ALL)
        assert (await it.it.answer())[0] == 200


async def test_operators_see_the_replicas(names: Names) -> None:
    async with found(names) as it:
        await it.it.answer()
        await until(lambda: all(each.state.ready for each in it.group.replicas))
        async with it.it.session.get(f"{it.it.url}/readyz") as answer:
            told = await answer.json()
            assert (told["backends"], told["replicas"]) == ({"g": "ready"}, {"g": {"known": 3, "ready": 3}})
            assert "127.0.0" not in await answer.text()
        async with it.it.session.get(it.it.url) as answer:
            assert "  g/2: ready" in await answer.text()
        labels = {"pool": "g", "state": "ready"}
        replicas = ("g/1", "g/2", "g/3")
        assert [it.it.metric("dragoman_replica_state", backend=each, **labels) for each in replicas] == [1, 1, 1]
        name = it.there[ALL[2]].name
        await it.say(*ALL[:2])
        left = {each: it.it.metric("dragoman_replica_state", backend=each, **labels) for each in replicas}
        assert left == {each: each != name for each in replicas}
        await it.say()
        assert it.it.metric("dragoman_backend_ready", backend="g") == 0


async def test_a_replica_that_refuses_is_passed_by(names: Names) -> None:
    async with found(names) as it:
        await it.servers[0].__aexit__()
        for number in range(6):
            assert (await it.it.answer(prompt_cache_key=str(number)))[0] == 200
        it.servers[0] = ScriptedServer()  # so that it is not closed twice


async def test_names_and_servers_may_be_in_one_pool(names: Names) -> None:
    names.addresses = ALL[:1]
    async with ScriptedServer(default=Script(BODY)) as one, found(names) as it:
        config = Config(
            backends=[
                {"url": one.url, "name": "one", "pool": "p"},
                {"url": f"http://{NAME}:{it.servers[0].port}", "name": "more", "pool": "p", "discover": "dns"},
            ],
            store={"url": "off"},
        )
        async with listening(build(config, secrets=Secrets())) as gateway:
            for number in range(12):
                assert (await gateway.answer(prompt_cache_key=str(number)))[0] == 200
            assert {each.name for each in gateway.pool.replicas} == {"one", "more/1"}
        assert one.chats
        assert it.servers[0].chats


@pytest.mark.parametrize("http_client", ["direct", "aiohttp"])
async def test_tls_checks_the_name_and_not_the_address(names: Names, tmp_path: Path, http_client: str) -> None:
    names.addresses = ALL[1:2]
    authority = Authority(tmp_path)
    own = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    own.load_cert_chain(*authority.make("server", NAME))
    async with tls_server(own) as port:
        backend = {
            "url": f"https://{NAME}:{port}/v1", "name": "g", "discover": "dns",
            "tls": {"ca": authority.ca}, "settings": {"http_client": http_client},
        }  # fmt: skip
        config = Config(backends=[backend], store={"url": "off"})
        async with listening(build(config, secrets=Secrets())) as it:
            assert (await it.answer())[0] == 200


@contextlib.asynccontextmanager
async def tls_server(context: ssl.SSLContext) -> AsyncIterator[int]:
    async def handle(request: web.Request) -> web.Response:
        if request.method == "GET":
            return web.json_response({"data": [{"id": "m"}]})
        return web.Response(body=BODY, content_type="text/event-stream")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, ALL[1], 0, ssl_context=context).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def test_a_name_that_this_machine_knows_is_resolved() -> None:
    assert set(await discovery.resolve("localhost", 80)) <= {"127.0.0.1", "::1"}


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/v1", "http://[::1]:1/v1", "local:", "triton+http://a:1/m"])
def test_only_the_url_of_a_chat_server_with_a_name_can_be_discovered(url: str) -> None:
    with pytest.raises(ValueError, match="needs an http"):
        Config(backends=[{"url": url, "discover": "dns"}])
