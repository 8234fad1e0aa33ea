"""Which server of a group is asked, which one instead, and what is prepared for it: over fake backends, at a time that
only the test moves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from dragoman.backends.base import Forwarded, Health, ModelInfo, Prepared, Sink, Traits
from dragoman.backends.pool import pool as pool_module
from dragoman.backends.pool import replica as replica_module
from dragoman.backends.pool.breaker import BreakerRules
from dragoman.backends.pool.pool import Pool, rank
from dragoman.backends.pool.replica import PoolSettings, ReplicaState
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Delta, PartStarted, Request, Started
from tests.gateway_fakes import FakeBackend, Play, hello
from tests.recording import Recorder, answered
from tests.waiting import until


def refusing(kind: Kind, source: Any = "backend", **more: Any) -> Play:
    async def play(request: Request, sink: Sink) -> None:
        raise GatewayError(kind, f"no: {kind.name}", source=source, **more)

    return play


class Holding:
    """A play that answers when the test lets it, and ends without an answer when its receiver leaves."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.left = False

    async def __call__(self, request: Request, sink: Sink) -> None:
        sink.on_left = self._leave
        await self.gate.wait()
        if not self.left:
            await hello(request, sink)

    def _leave(self) -> None:
        self.left = True
        self.gate.set()


@dataclass
class Server(FakeBackend):
    """`kind` is what it shares prepared requests with; `refusal` is raised by `prepare`, `count_refusal` by `count`."""

    kind: object = "alike"
    wakes: bool = False
    refusal: GatewayError | None = None
    count_refusal: GatewayError | None = None
    prepared: list[Prepared] = field(default_factory=list)
    streamed: list[Prepared] = field(default_factory=list)
    counts: int = 0
    woken: int = 0

    @property
    def traits(self) -> Traits:
        return Traits(self.kind, self.wakes, load=self.load)

    async def prepare(self, request: Request) -> Prepared:
        if self.refusal is not None:
            raise self.refusal
        self.prepared.append(Prepared(request))
        return self.prepared[-1]

    async def stream(self, prepared: Prepared, sink: Sink) -> None:
        self.streamed.append(prepared)
        await super().stream(prepared, sink)

    async def count(self, prepared: Prepared) -> int | None:
        self.counts += 1
        if self.count_refusal is not None:
            raise self.count_refusal
        return 7

    async def wake(self) -> None:
        self.woken += 1
        self.state = Health("ready")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (pool_module, replica_module):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@contextlib.asynccontextmanager
async def group(*servers: FakeBackend, **settings: Any) -> AsyncIterator[Pool]:
    """All have started and been probed."""
    pool = Pool("p", servers, PoolSettings(probe=600, **settings))
    await pool.start()
    await until(lambda: all(each.started for each in pool.replicas))
    await asyncio.gather(*(each.probe() for each in pool.replicas))
    try:
        yield pool
    finally:
        await pool.close()


def session_of(server: str, *others: str) -> str:
    """A session that ranks the server first."""
    names = [server, *others]
    return next(key for key in map(str, range(1000)) if min(names, key=lambda each: rank(key, each)) == server)


async def ask(pool: Pool, session: str | None = None, id: str = "r", model: str = "m") -> Recorder:
    sink = Recorder()
    await answered(pool, Request(id, model, (), affinity=session), sink)
    return sink


def asked(*servers: FakeBackend) -> list[int]:
    return [len(server.requests) for server in servers]


# -------------------------------------------------------------------------------------------------------- busy servers


@pytest.mark.parametrize("kind", [Kind.BUSY, Kind.RATE_LIMITED])
@pytest.mark.parametrize(("named", "seconds"), [(3.0, 3.0), (None, 1.0), (3600.0, 10.0)])
async def test_a_server_that_has_said_it_is_busy_is_avoided_for_the_time_it_named(
    clock: Clock, kind: Kind, named: float | None, seconds: float
) -> None:
    a, b = Server(refusing(kind, retry_after=named), name="a"), Server(name="b")
    session = session_of("a", "b")
    async with group(a, b) as pool:
        with contextlib.suppress(GatewayError):
            await ask(pool, session)
        assert len(a.requests) == 1
        a.play = hello
        before = len(b.requests)
        clock.now += seconds - 0.01
        await ask(pool, session)
        assert asked(a, b) == [1, before + 1]
        clock.now += 0.02
        await ask(pool, session)
        assert asked(a, b) == [2, before + 1]


async def test_when_every_server_is_busy_they_are_asked_all_the_same(clock: Clock) -> None:
    a, b = (Server(refusing(Kind.BUSY, retry_after=9), name=name) for name in "ab")
    async with group(a, b) as pool:
        for times in (1, 2):
            with pytest.raises(GatewayError, match="BUSY"):
                await ask(pool)
            assert asked(a, b) == [times, times]


# ----------------------------------------------------------------------------------------------------- another server


@pytest.mark.parametrize(("kinds", "expected"), [("xx", [1, 0]), ("xy", [1, 1])])
async def test_what_a_server_cannot_do_is_tried_only_on_one_of_another_kind(kinds: str, expected: list[int]) -> None:
    a = Server(refusing(Kind.UNSUPPORTED), name="a", kind=kinds[0])
    b = Server(name="b", kind=kinds[1])
    async with group(a, b) as pool:
        with contextlib.suppress(GatewayError):
            await ask(pool, session_of("a", "b"))
        assert asked(a, b) == expected


async def test_a_server_that_cannot_do_it_hides_neither_the_one_that_can_nor_its_state() -> None:
    """A client that is told that its image cannot be seen leaves it out for good."""
    blind = [Server(refusing(Kind.UNSUPPORTED), name=name, kind="blind") for name in "abc"]
    able = Server(name="d", kind="sees")
    async with group(*blind, able, retries=2) as pool:
        await ask(pool, session_of("a", "b", "c", "d"))
        assert asked(able) == [1]
        able.play = refusing(Kind.BUSY)
        with pytest.raises(GatewayError, match="BUSY"):
            await ask(pool, session_of("d", "a", "b", "c"))


async def test_nothing_is_tried_again_once_the_client_has_had_an_event() -> None:
    async def breaks(request: Request, sink: Sink) -> None:
        sink.feed([Started(), PartStarted("text"), Delta("x")])
        raise GatewayError(Kind.BUSY, "no", source="backend")

    a, b = Server(breaks, name="a"), Server(name="b")
    async with group(a, b) as pool:
        with pytest.raises(GatewayError):
            await ask(pool, session_of("a", "b"))
        assert asked(a, b) == [1, 0]


async def test_a_refusal_of_the_gateway_itself_is_not_tried_elsewhere() -> None:
    a, b = Server(refusing(Kind.BUSY, source="gateway"), name="a"), Server(name="b")
    async with group(a, b) as pool:
        with pytest.raises(GatewayError):
            await ask(pool, session_of("a", "b"))
        assert asked(a, b) == [1, 0]


async def test_a_retry_is_counted_for_the_server_that_could_not_serve() -> None:
    a, b = Server(refusing(Kind.BUSY), name="a"), Server(name="b")
    async with group(a, b) as pool:
        retried: list[str] = []
        pool.retried = retried.append
        await ask(pool, session_of("a", "b"))
        assert retried == ["a"]


@pytest.mark.parametrize(("retries", "moves"), [(0, False), (1, True)])
async def test_a_request_leaves_a_server_found_down_only_if_another_may_be_tried(retries: int, moves: bool) -> None:
    held = Holding()
    a, b = Server(held, name="a"), Server(name="b")
    async with group(a, b, retries=retries, down_after=1) as pool:
        task = asyncio.create_task(ask(pool, session_of("a", "b")))
        await until(lambda: a.running)
        a.state = Health("down")
        await pool.replicas[0].probe()
        assert pool.replicas[0].state is ReplicaState.DOWN
        assert held.left is moves
        held.gate.set()
        assert (await task).text == "hello"
        assert asked(a, b) == [1, moves]


class Passing(Server):
    """It has other endpoints too."""

    async def forward(self, asked: Forwarded, sink: Any) -> None:
        await self.play(asked.request, sink)


async def test_a_body_that_only_one_server_can_take_does_not_leave_it_when_it_is_found_down() -> None:
    held = Holding()
    a, b = Passing(held, name="a"), Server(name="b")
    async with group(a, b, down_after=1) as pool:
        body = Forwarded(Request("r", "m", ()), path="embeddings", body=b'{"model":"m"}', model_at=(9, 12), model="m")
        sink: Any = Recorder()
        task = asyncio.create_task(pool.forward(body, sink))
        await until(lambda: pool.replicas[0].pending)
        a.state = Health("down")
        await pool.replicas[0].probe()
        assert not held.left
        held.gate.set()
        await task
        assert sink.text == "hello"


async def test_a_count_is_asked_of_another_server_only_if_the_first_is_not_there() -> None:
    a, b = Server(name="a"), Server(name="b")
    session = session_of("a", "b")
    async with group(a, b) as pool:
        prepared = await pool.prepare(Request("r", "m", (), affinity=session))
        a.count_refusal = GatewayError(Kind.BACKEND_DOWN, "gone", source="backend")
        assert await pool.count(prepared) == 7
        assert (a.counts, b.counts) == (1, 1)
        a.count_refusal = GatewayError(Kind.INVALID, "no", source="backend")
        with pytest.raises(GatewayError, match="no"):
            await pool.count(prepared)
        assert (a.counts, b.counts) == (2, 1)


@pytest.mark.parametrize(("windows", "window"), [((None, None), None), ((None, 8), 8), ((8, 0), 0)])
async def test_the_window_of_a_model_is_the_narrowest_that_is_known(windows: tuple[Any, Any], window: Any) -> None:
    async with group(*(Server(name=f"{n}", served=[ModelInfo("m", window=w)]) for n, w in enumerate(windows))) as pool:
        assert [each.window for each in await pool.models()] == [window]


@pytest.mark.parametrize("error", [ValueError("a bug"), GatewayError(Kind.BACKEND_DOWN, "gone", source="backend")])
async def test_a_list_that_cannot_be_read_any_more_counts_as_last_read(error: Exception) -> None:
    class Forgetful(Server):
        async def models(self) -> list[ModelInfo]:
            if self.prepared:
                raise error
            return await super().models()

    a, b = Forgetful(name="a", served=[ModelInfo("x")]), Server(name="b", served=[ModelInfo("y")])
    async with group(a, b) as pool:
        for _ in range(2):
            assert {each.id for each in await pool.models()} == {"x", "y"}
            await a.prepare(Request("r", "m", ()))


# ---------------------------------------------------------------------------------------------------------------- load


async def hold(pool: Pool, number: int, session: str | None) -> list[asyncio.Task[Recorder]]:
    """So many requests, one after the other, that are not answered yet."""
    tasks = []
    for each in range(number):
        tasks.append(asyncio.create_task(ask(pool, session, f"r{each}")))
        await until(lambda: sum(replica.pending for replica in pool.replicas) == len(tasks))
    return tasks


@pytest.mark.parametrize(("number", "first"), [(4, 4), (5, 4), (20, 12)])
async def test_a_session_keeps_its_server_up_to_a_few_requests_or_its_share_with_the_spread(
    number: int, first: int
) -> None:
    """Of twenty on two servers ten are a fair share, and 12.5 with a spread of 1.25."""
    held = Holding()
    a, b = Server(held, name="a"), Server(held, name="b")
    async with group(a, b) as pool:
        tasks = await hold(pool, number, session_of("a", "b"))
        assert asked(a, b) == [first, number - first]
        held.gate.set()
        await asyncio.gather(*tasks)


async def test_a_session_is_served_where_no_server_has_less_than_its_share() -> None:
    held = Holding()
    a, b = Server(held, name="a"), Server(held, name="b")
    async with group(a, b, spread=1.0) as pool:
        tasks = await hold(pool, 11, session_of("a", "b"))
        assert sum(asked(a, b)) == 11
        held.gate.set()
        await asyncio.gather(*tasks)


async def test_what_runs_counts_where_a_server_reports_less() -> None:
    held = Holding()
    a, b = Server(held, name="a", load=0.0), Server(held, name="b")
    async with group(a, b) as pool:
        tasks = await hold(pool, 6, None)
        assert asked(a, b) == [3, 3]
        held.gate.set()
        await asyncio.gather(*tasks)


async def test_requests_without_a_session_are_spread_over_idle_servers() -> None:
    a, b = Server(name="a"), Server(name="b")
    async with group(a, b) as pool:
        for number in range(20):
            await ask(pool, id=f"r{number}")
        assert min(asked(a, b)) > 3


# ------------------------------------------------------------------------------------------------- what is prepared


async def test_servers_that_are_alike_take_what_was_prepared_once() -> None:
    a, b = Server(refusing(Kind.BUSY), name="a"), Server(name="b")
    async with group(a, b) as pool:
        await ask(pool, session_of("a", "b"))
        assert (len(a.prepared), len(b.prepared)) == (1, 0)
        assert b.streamed == a.prepared


async def test_a_request_is_prepared_once_for_each_kind_of_server_and_limited_for_all() -> None:
    a = Server(refusing(Kind.BUSY), name="a", kind="x")
    b = Server(name="b", kind="y")
    async with group(a, b) as pool:
        prepared = await pool.prepare(Request("r", "m", (), affinity=session_of("a", "b")))
        prepared.limit(5)
        for _ in range(2):
            await pool.stream(prepared, Recorder())
        assert (len(a.prepared), len(b.prepared)) == (1, 1)
        assert {each.request.max_tokens for each in (*a.streamed, *b.streamed)} == {5}


@pytest.mark.parametrize(("kinds", "tries"), [("xx", "first"), ("xy", "both")])
async def test_a_request_that_no_server_can_take_is_refused_as_by_the_first(kinds: str, tries: str) -> None:
    a, b = Server(name="a", kind=kinds[0]), Server(name="b", kind=kinds[1])
    a.refusal, b.refusal = GatewayError(Kind.UNSUPPORTED, "of a"), GatewayError(Kind.INVALID, "of b")
    async with group(a, b) as pool:
        with pytest.raises(GatewayError, match="of a"):
            await ask(pool, session_of("a", "b"))
        b.refusal = None
        if tries == "first":
            with pytest.raises(GatewayError, match="of a"):
                await ask(pool, session_of("a", "b"))
        else:
            await ask(pool, session_of("a", "b"))
        assert asked(a, b) == [0, tries == "both"]


# ------------------------------------------------------------------------------------------------------------ to wake


async def test_one_server_that_can_be_woken_is_and_the_others_sleep_on() -> None:
    servers = [Server(name=name, state=Health("asleep"), wakes=name != "a") for name in "abc"]
    async with group(*servers) as pool:
        await pool.wake("m")
        assert [each.woken for each in servers] == [0, 1, 0]
        await ask(pool)
        assert asked(*servers) == [0, 1, 0]


@pytest.mark.parametrize(("wake", "wakes"), [("", False), ("b", True), ("ab", True)])
async def test_a_group_can_be_woken_where_one_of_its_servers_can(wake: str, wakes: bool) -> None:
    async with group(*(Server(name=name, wakes=name in wake) for name in "ab")) as pool:
        assert pool.traits.wakes is wakes


async def test_a_model_that_was_woken_on_a_server_that_is_ready_sleeps_no_more() -> None:
    server = Server(refusing(Kind.ASLEEP, retry_after=9.0), wakes=True)
    async with group(server) as pool:
        with pytest.raises(GatewayError):
            await ask(pool)
        assert (await pool.health("m")).state == "asleep"
        await pool.wake("m")
        assert server.woken == 1
        assert (await pool.health("m")).state == "ready"


async def test_a_server_that_did_not_wake_is_called_again_only_after_a_while(clock: Clock) -> None:
    class Deaf(Server):
        async def wake(self) -> None:
            self.woken += 1
            raise GatewayError(Kind.ASLEEP, "It cannot be woken.", source="backend")

    server = Deaf(state=Health("asleep"), wakes=True)
    async with group(server) as pool:
        for seconds, calls in ((0.0, 1), (4.9, 1), (0.2, 2)):
            clock.now += seconds
            with pytest.raises(GatewayError):
                await pool.wake("m")
            assert server.woken == calls


async def test_a_server_that_woke_and_fell_asleep_again_is_woken_again_at_once(clock: Clock) -> None:
    server = Server(state=Health("asleep"), wakes=True)
    async with group(server) as pool:
        for calls in (1, 2):
            await pool.wake("m")
            assert server.woken == calls
            assert await probed(pool, server, "asleep") is ReplicaState.ASLEEP


# ------------------------------------------------------------------------------------------------- what is remembered


async def probed(pool: Pool, server: FakeBackend, *states: Any) -> ReplicaState:
    for state in states:
        server.state = Health(state)
        await pool.replicas[0].probe()
    return pool.replicas[0].state


async def test_only_probes_in_a_row_find_a_server_down() -> None:
    server = Server()
    async with group(server, Server(name="other"), down_after=2) as pool:
        assert await probed(pool, server, "down", "ready", "down") is ReplicaState.READY
        assert await probed(pool, server, "down") is ReplicaState.DOWN


async def test_failures_from_before_a_server_was_down_are_forgotten_when_it_is_back() -> None:
    server = Server(refusing(Kind.BACKEND_FAILED))
    async with group(server, Server(name="other"), down_after=1) as pool:
        session = session_of("fake", "other")
        for _ in range(2):
            with pytest.raises(GatewayError):
                await ask(pool, session)
        assert await probed(pool, server, "down", "ready") is ReplicaState.READY
        for _ in range(2):
            with pytest.raises(GatewayError):
                await ask(pool, session)
        assert pool.replicas[0].state is ReplicaState.READY


async def test_a_server_that_wakes_has_no_model_asleep() -> None:
    server = Server(refusing(Kind.ASLEEP, retry_after=9))
    async with group(server, Server(name="other")) as pool:
        await ask(pool, session_of("fake", "other"))
        assert pool.replicas[0].sleeps("m")
        await probed(pool, server, "asleep", "ready")
        assert not pool.replicas[0].sleeps("m")


async def fails(pool: Pool, server: FakeBackend, *plays: Play) -> ReplicaState:
    """What a lone server is after requests that were played so, each of which fails."""
    for play in plays:
        server.play = play
        with pytest.raises(GatewayError):
            await ask(pool)
    return pool.state


async def test_a_refusal_of_a_request_shows_that_the_server_works() -> None:
    server, fail = Server(), refusing(Kind.BACKEND_FAILED)
    async with group(server) as pool:
        assert await fails(pool, server, fail, fail, refusing(Kind.INVALID), fail, fail) is ReplicaState.READY
        assert await fails(pool, server, fail) is ReplicaState.FAILS


async def test_a_client_that_leaves_says_nothing_of_the_server() -> None:
    server, fail = Server(), refusing(Kind.BACKEND_FAILED)
    async with group(server) as pool:
        await fails(pool, server, fail, fail)
        server.play = held = Holding()
        sink = Recorder()
        task = asyncio.create_task(answered(pool, Request("r", "m", ()), sink))
        await until(lambda: server.running)
        sink.on_left()
        await task
        assert held.left
        assert await fails(pool, server, fail) is ReplicaState.FAILS


async def test_a_trial_counts_from_its_first_event_and_again_if_it_breaks_later(clock: Clock) -> None:
    seen: list[ReplicaState] = []

    async def breaks(request: Request, sink: Sink) -> None:
        sink.feed([])
        seen.append(pool.state)
        sink.feed([Started(), PartStarted("text"), Delta("x")])
        seen.append(pool.state)
        raise GatewayError(Kind.BACKEND_FAILED, "no", source="backend")

    server = Server()
    async with group(server, breaker=BreakerRules(failures=1, rest=5)) as pool:
        assert await fails(pool, server, refusing(Kind.BACKEND_FAILED)) is ReplicaState.FAILS
        clock.now += 6
        assert await fails(pool, server, breaks) is ReplicaState.FAILS
        assert [state is ReplicaState.READY for state in seen] == [False, True]


@pytest.mark.parametrize("kind", [Kind.TIMEOUT, Kind.BACKEND_DOWN, Kind.BACKEND_FAILED])
async def test_a_failure_that_the_gateway_has_found_is_the_servers(kind: Kind) -> None:
    server = Server()
    async with group(server) as pool:
        assert await fails(pool, server, *[refusing(kind, source="gateway")] * 3) is ReplicaState.FAILS


async def test_a_request_is_late_again_when_the_others_have_fallen_silent_too() -> None:
    talking = True

    async def play(request: Request, sink: Sink) -> None:
        if request.id == "talks":
            sink.feed([Started(), PartStarted("text")])
            while talking:
                sink.feed([Delta("a")])
                await asyncio.sleep(0.005)
        await asyncio.Event().wait()

    server = Server(play)
    async with group(server, slow=0.1, breaker=BreakerRules(failures=1)) as pool:
        tasks = [asyncio.create_task(ask(pool, id=id)) for id in ("talks", "waits")]
        await until(lambda: pool.state is ReplicaState.FAILS)
        talking = False
        await until(lambda: pool.state is ReplicaState.HANGS)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def doubtful(kind: Kind) -> Play:
    async def play(request: Request, sink: Sink) -> None:
        error = GatewayError(kind, "words that may be a client's", source="backend", retry_after=5)
        error.certain = False
        raise error

    return play


@pytest.mark.parametrize("kind", [Kind.BACKEND_FAILED, Kind.BACKEND_DOWN, Kind.ASLEEP])
async def test_words_that_may_be_a_clients_are_only_a_reason_to_ask_again(kind: Kind, clock: Clock) -> None:
    server = Server()
    async with group(server) as pool:
        before = server.probes
        server.state = Health("asleep", "zzz")
        await fails(pool, server, doubtful(kind))
        assert not pool.replicas[0].sleeps("m")  # not yet
        assert (await pool.health("m")).detail == "zzz"
        assert server.probes == before + 1


@pytest.mark.parametrize(("named", "seconds"), [(3.0, 3.0), (None, 5.0), (3600.0, 10.0)])
async def test_a_model_asleep_is_believed_for_the_time_that_was_named(
    clock: Clock, named: float | None, seconds: float
) -> None:
    server = Server()
    async with group(server) as pool:
        await fails(pool, server, refusing(Kind.ASLEEP, retry_after=named))
        for passed, sleeps in ((seconds - 0.01, True), (0.02, False)):
            clock.now += passed
            assert pool.replicas[0].sleeps("m") is sleeps


async def test_models_asleep_are_remembered_up_to_a_number(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_module, "MOST_MODELS", 3)
    server = Server(refusing(Kind.ASLEEP, retry_after=9))
    async with group(server) as pool:
        names = [f"m{number}" for number in range(6)]
        for name in names:
            with pytest.raises(GatewayError):
                await ask(pool, model=name)
        assert [pool.replicas[0].sleeps(name) for name in names] == [True] * 3 + [False] * 3
        clock.now += 10
        with pytest.raises(GatewayError):
            await ask(pool, model="later")
        assert pool.replicas[0].sleeps("later")
