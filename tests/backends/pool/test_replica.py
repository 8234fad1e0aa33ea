"""What is known of one server, by its probe and by what becomes of calls: a server whose own health says ready may
still hang or fail. Also as a gateway over a single server shows it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from dragoman.backends.base import Health, Sink
from dragoman.backends.pool.attempt import Attempt
from dragoman.backends.pool.breaker import BreakerRules
from dragoman.backends.pool.pool import Pool, rank
from dragoman.backends.pool.replica import FRESH, PoolSettings, ReplicaState
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Delta, Event, Finished, PartEnded, PartStarted, Request, Started, StopReason
from tests.gateway_fakes import FakeBackend, Running, hello, running
from tests.recording import Recorder, answered, counted
from tests.waiting import LIMIT, until

ASK = {"model": "m", "input": "x"}
FAILURES = BreakerRules().failures


async def readiness(served: Running) -> tuple[int, Any]:
    async with served.session.get(served.url + "/readyz") as answer:
        return answer.status, (await answer.json())["backends"]["fake"]


async def status(served: Running, **more: Any) -> int:
    async with served.post({**ASK, **more}) as answer:
        await answer.read()
        return int(answer.status)


def raising(kind: Kind, *, certain: bool = True, **more: Any) -> Any:
    async def play(request: Request, sink: Sink) -> None:
        error = GatewayError(kind, "no", source="backend", **more)
        error.certain = certain
        raise error

    return play


fail = raising(Kind.BACKEND_FAILED)

# ------------------------------------------------------------------------------------------------- a single server


async def test_failures_in_a_row_end_readiness_and_an_answer_brings_it_back() -> None:
    backend = FakeBackend(fail)
    async with running(backend) as served:
        for number in range(FAILURES):
            assert await readiness(served) == (200, "ready"), number
            assert await status(served) == 502
        assert await readiness(served) == (503, "fails")
        assert served.metric("dragoman_backend_ready", backend="fake") == 0
        backend.play = hello
        assert await status(served) == 200, "requests are tried all the same"
        assert await readiness(served) == (200, "ready")
        assert served.metric("dragoman_backend_ready", backend="fake") == 1


async def test_a_server_without_requests_counts_as_ready_again_after_its_rest() -> None:
    """It has no other way to prove itself: nobody sends requests to a gateway that is not ready."""
    backend = FakeBackend(fail)
    async with running(backend, pool={"rest": 0.3}) as served:
        for _ in range(FAILURES):
            await status(served)
        assert await readiness(served) == (503, "fails")
        await until(lambda: ready(served))
        assert await status(served) == 502, "the trial"
        assert await readiness(served) == (503, "fails")


async def ready(served: Running) -> bool:
    return await readiness(served) == (200, "ready")


@pytest.mark.parametrize(
    "play",
    [
        raising(Kind.INVALID),
        raising(Kind.RATE_LIMITED),
        raising(Kind.BUSY),
        raising(Kind.BACKEND_FAILED, certain=False),
        raising(Kind.ASLEEP, certain=False),
    ],
)
async def test_what_clients_do_wrong_and_words_that_may_be_theirs_say_nothing_of_the_server(play: Any) -> None:
    async with running(FakeBackend(play)) as served:
        for _ in range(FAILURES + 1):
            assert await status(served) >= 400
        assert await readiness(served) == (200, "ready")


async def hangs(served: Running) -> bool:
    return await readiness(served) == (503, "hangs")


async def test_a_server_that_gives_no_token_while_calls_wait_is_not_ready() -> None:
    gate = asyncio.Event()

    async def hang(request: Request, sink: Sink) -> None:
        await gate.wait()
        await hello(request, sink)

    backend = FakeBackend(hang)
    async with running(backend, pool={"slow": 0.2}) as served:
        waiting = asyncio.create_task(status(served))
        await until(lambda: backend.running == 1)
        assert await readiness(served) == (200, "ready")
        await until(lambda: hangs(served))
        gate.set()
        assert await waiting == 200
        assert await readiness(served) == (200, "ready")


async def test_a_server_hangs_no_longer_when_nobody_waits_for_it() -> None:
    backend = FakeBackend(lambda request, sink: asyncio.sleep(30))
    async with running(backend, pool={"slow": 0.1}) as served:
        waiting = asyncio.create_task(status(served))
        await until(lambda: hangs(served))
        waiting.cancel()
        await until(lambda: ready(served))


async def test_a_long_prefill_beside_a_stream_that_runs_is_no_hang() -> None:
    stop = asyncio.Event()

    async def play(request: Request, sink: Sink) -> None:
        if len(backend.requests) == 2:
            await stop.wait()
        sink.feed([Started(), PartStarted("text")])
        while not stop.is_set():
            sink.feed([Delta("a")])
            await asyncio.sleep(0.02)
        sink.feed([PartEnded(), Finished(StopReason.STOP)])

    backend = FakeBackend(play)
    async with running(backend, pool={"slow": 0.2}) as served:
        calls = [asyncio.create_task(status(served)) for _ in range(2)]
        await until(lambda: backend.running == 2)
        await asyncio.sleep(0.6)
        assert await readiness(served) == (200, "ready")
        stop.set()
        assert await asyncio.gather(*calls) == [200, 200]


@pytest.mark.parametrize("works", [lambda sink: sink.prompt_read(1, 1_000_000), lambda sink: sink.at_work()])
async def test_a_server_whose_work_shows_without_an_event_is_no_hang_until_it_shows_no_more(works: Any) -> None:
    """That is how far it is with a prompt, or an answer that is withheld."""
    stop = asyncio.Event()

    async def play(request: Request, sink: Sink) -> None:
        while not stop.is_set():
            works(sink)
            await asyncio.sleep(0.01)
        await asyncio.sleep(30)

    backend = FakeBackend(play)
    pool = Pool("p", [backend], PoolSettings(slow=0.1, breaker=BreakerRules(failures=1)))
    await pool.start()
    await pool.health()
    call = asyncio.create_task(answered(pool, Request("r", "m", ()), Recorder()))
    for _ in range(30):
        await asyncio.sleep(0.01)
        assert pool.state is ReplicaState.READY
    stop.set()
    await until(lambda: pool.state in (ReplicaState.HANGS, ReplicaState.FAILS))
    call.cancel()
    await asyncio.wait((call,))
    await pool.close()


async def test_a_stream_that_falls_silent_while_another_waits_is_a_hang_until_its_next_token() -> None:
    more = asyncio.Event()

    async def play(request: Request, sink: Sink) -> None:
        if len(backend.requests) == 1:
            sink.feed([Started(), PartStarted("text"), Delta("a")])
            await more.wait()
            sink.feed([Delta("b")])
        await asyncio.sleep(30)

    backend = FakeBackend(play)
    pool = Pool("p", [backend], PoolSettings(slow=0.1, breaker=BreakerRules(failures=9)))
    await pool.start()
    await pool.health()
    calls = []
    for number in range(2):
        calls.append(asyncio.create_task(answered(pool, Request(f"r{number}", "m", ()), Recorder())))
        await until(lambda: backend.running == len(calls))
    await until(lambda: pool.state is ReplicaState.HANGS)
    more.set()
    await until(lambda: pool.state is ReplicaState.READY)
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    await pool.close()


@pytest.mark.parametrize("slow", [0.2, 60])
async def test_a_request_costs_those_that_run_nothing(slow: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The events of all are noticed now and then, and not after each new request."""
    heard = 0
    listen = Attempt.listen

    def noticing(attempt: Attempt[Event]) -> None:
        nonlocal heard
        heard += 1
        listen(attempt)

    async def play(request: Request, sink: Sink) -> None:
        if request.id == "waits":
            await asyncio.Event().wait()
        sink.feed([Started(), PartStarted("text")])
        while True:
            sink.feed([Delta("a")])
            await asyncio.sleep(0.01)

    monkeypatch.setattr(Attempt, "listen", noticing)
    pool = Pool("p", [FakeBackend(play)], PoolSettings(slow=slow))
    await pool.start()
    await pool.health()
    calls = [asyncio.create_task(answered(pool, Request(f"r{number}", "m", ()), Recorder())) for number in range(60)]
    await asyncio.sleep(0.05)
    assert heard <= 5 * len(calls)
    waits = asyncio.create_task(answered(pool, Request("waits", "m", ()), Recorder()))
    await asyncio.sleep(2.5 * slow if slow < 1 else 0)
    assert pool.state is ReplicaState.READY
    for call in (*calls, waits):
        call.cancel()
    await asyncio.wait((*calls, waits))
    await pool.close()


async def test_the_only_server_keeps_its_requests_when_it_is_too_busy_to_answer_its_probe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dragoman.backends.pool.replica.PROBE_LIMIT", 0.05)
    free = asyncio.Event()

    class Busy(FakeBackend):
        async def health(self) -> Health:
            await free.wait()
            return Health("ready")

    async def slowly(request: Request, sink: Sink) -> None:
        await free.wait()
        await hello(request, sink)

    pool = Pool("p", [Busy(slowly)], PoolSettings(down_after=1))
    await pool.start()
    recorder = Recorder()
    task = asyncio.create_task(answered(pool, Request("r", "m", ()), recorder))
    for _ in range(2):
        await pool.replicas[0].probe()
    assert pool.state is ReplicaState.DOWN
    free.set()
    await task
    assert recorder.text == "hello"
    await pool.close()


async def test_a_single_server_is_probed_only_when_somebody_asks() -> None:
    backend = FakeBackend()
    pool = Pool("p", [backend], PoolSettings(probe=0.01))
    await pool.start()
    await asyncio.sleep(0.1)
    assert backend.probes == 0
    assert (await pool.health()).state == "ready"
    await asyncio.gather(*(pool.health() for _ in range(20)))
    assert backend.probes == 1
    await pool.close()


async def test_a_change_of_state_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    backend, seen = FakeBackend(), list[str]()
    pool = Pool("p", [backend], PoolSettings(down_after=1))
    pool.changed = lambda replica: seen.append(replica.state.name)
    await pool.start()
    for answer in (Health("ready"), Health("ready"), Health("asleep"), Health("down"), Health("down")):
        backend.state = answer
        await pool.replicas[0].probe()
    assert seen == ["UNKNOWN", "READY", "ASLEEP", "DOWN"]
    told = [record.__dict__["fields"]["state"] for record in caplog.records if record.message == "backend"]
    assert told == ["ready", "asleep", "down"]
    await pool.close()


async def test_the_log_says_why_a_server_is_down_but_not_in_its_own_words(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    backend = FakeBackend()
    pool = Pool("p", [backend], PoolSettings(down_after=1))
    await pool.start()
    for answer in (Health("down", "nothing listens there"), Health("ready"), Health("down", "a prompt", quoted=True)):
        backend.state = answer
        await pool.replicas[0].probe()
    details = [record.__dict__["fields"].get("detail") for record in caplog.records if record.message == "backend"]
    assert details == ["nothing listens there", None, None]
    await pool.close()


async def test_a_start_that_fails_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    pool = Pool("p", [FakeBackend(name="a", start_error=RuntimeError("no GPU")), FakeBackend(name="b")])
    await pool.start()
    await until(lambda: pool.replicas[0].state is ReplicaState.UNSTARTED)
    assert "a: cannot be started: no GPU" in caplog.text
    await pool.close()


# ------------------------------------------------------------------------------------------------- one request on it


async def test_a_request_that_goes_elsewhere_ends_what_only_then_begins_to_read() -> None:
    connected, ended = asyncio.Event(), asyncio.Event()

    async def connects_slowly(request: Request, sink: Sink) -> None:
        await connected.wait()
        sink.on_left = ended.set
        await ended.wait()

    slow, other = FakeBackend(connects_slowly, name="a"), FakeBackend(name="b")
    pool = Pool("p", [slow, other], PoolSettings(probe=600, down_after=1))
    await pool.start()
    await until(lambda: all(each.started for each in pool.replicas))
    session = next(key for key in map(str, range(99)) if rank(key, "a") < rank(key, "b"))
    recorder = Recorder()
    task = asyncio.create_task(answered(pool, Request("r", "m", (), affinity=session), recorder))
    await until(lambda: slow.running)
    slow.state = Health("down")
    await pool.replicas[0].probe()
    connected.set()
    await asyncio.wait_for(task, LIMIT)
    assert ended.is_set()
    assert recorder.text == "hello"
    await pool.close()


async def test_a_client_that_left_early_is_not_waited_for() -> None:
    ended = asyncio.Event()

    async def waits(request: Request, sink: Sink) -> None:
        sink.on_left = ended.set
        await ended.wait()

    backend = FakeBackend(waits)
    pool = Pool("p", [backend], PoolSettings(slow=0.05, breaker=BreakerRules(failures=1)))
    await pool.start()
    await pool.health()
    recorder = Recorder()
    task = asyncio.create_task(answered(pool, Request("r", "m", ()), recorder))
    await until(lambda: backend.running)
    recorder.on_left()
    await task
    await asyncio.sleep(0.1)  # longer than a first event may take
    assert pool.state is ReplicaState.READY
    await pool.close()


async def test_after_a_request_its_receiver_is_as_it_was() -> None:
    pool = Pool("p", [FakeBackend()])
    await pool.start()
    recorder, left = Recorder(), asyncio.Event()
    own = recorder.on_left = left.set
    await answered(pool, Request("r", "m", ()), recorder)
    assert recorder.on_left == own
    await pool.close()


# ------------------------------------------------------------------------------------------------- models that sleep


async def play_awake(request: Request, sink: Sink) -> None:
    if request.model == "sleepy":
        raise GatewayError(Kind.ASLEEP, "it sleeps", source="backend", retry_after=3.0)
    await hello(request, sink)


async def test_one_model_asleep_does_not_gate_the_others() -> None:
    backend = FakeBackend(play_awake, served=None)
    async with running(backend) as served:
        for _ in range(3):
            async with served.post({**ASK, "model": "sleepy"}) as answer:
                assert (answer.status, answer.headers["Retry-After"]) == (503, "3")
            assert await status(served) == 200
        assert [request.model for request in backend.requests].count("sleepy") == 1
        assert await readiness(served) == (200, "ready")


async def test_calls_for_a_model_go_to_a_server_where_it_does_not_sleep() -> None:
    dozing, awake = FakeBackend(play_awake, name="a"), FakeBackend(name="b")
    pool = Pool("p", [dozing, awake], PoolSettings(probe=600))
    await pool.start()
    for number in range(12):
        await answered(pool, Request(f"r{number}", "sleepy", (), affinity=str(number)), Recorder())
    assert len(dozing.requests) == 1
    assert len(awake.requests) == 12
    assert (await pool.health("sleepy")).state == "ready"
    await pool.close()


async def test_what_a_refusal_said_of_a_model_is_forgotten_after_its_time() -> None:
    backend = FakeBackend(raising(Kind.ASLEEP, retry_after=0.1))
    pool = Pool("p", [backend])
    await pool.start()
    with pytest.raises(GatewayError):
        await answered(pool, Request("r", "m", ()), Recorder())
    assert (await pool.health("m")).state == "asleep"
    assert (await pool.health("other")).state == "ready"
    await asyncio.sleep(0.15)
    assert (await pool.health("m")).state == "ready"
    await pool.close()


async def test_a_count_that_is_refused_says_so_too_and_a_server_that_sleeps_gates_all() -> None:
    class Dozing(FakeBackend):
        async def count(self, prepared: Any) -> int | None:
            raise GatewayError(Kind.ASLEEP, "it sleeps", source="backend")

    backend = Dozing()
    pool = Pool("p", [backend])
    await pool.start()
    assert (await pool.health()).state == "ready"
    backend.state = Health("asleep")
    with pytest.raises(GatewayError, match="it sleeps"):
        await counted(pool, Request("r", "m", ()))
    await until(lambda: pool.state is ReplicaState.ASLEEP)
    assert (await pool.health("other")).state == "asleep"
    with pytest.raises(GatewayError) as refused:
        await answered(pool, Request("r", "other", ()), Recorder())
    assert refused.value.kind is Kind.ASLEEP
    await pool.close()


async def test_a_server_that_was_closed_changes_no_more() -> None:
    pool = Pool("p", [FakeBackend(fail)], PoolSettings(breaker=BreakerRules(failures=1, rest=0.05)))
    await pool.start()
    with pytest.raises(GatewayError):
        await answered(pool, Request("r", "m", ()), Recorder())
    assert pool.state is ReplicaState.FAILS
    await pool.close()
    await asyncio.sleep(0.1)  # its rest would be over
    assert pool.state is ReplicaState.FAILS


@pytest.mark.parametrize(("kind", "word"), [(Kind.ASLEEP, "asleep"), (Kind.BACKEND_DOWN, "down"), (Kind.BUSY, "down")])
async def test_a_probe_that_is_refused_says_how_the_server_is(kind: Kind, word: Any) -> None:
    class Refusing(FakeBackend):
        async def health(self) -> Health:
            raise GatewayError(kind, "no", retry_after=7.0, source="backend")

    pool = Pool("p", [Refusing()])
    await pool.start()
    assert await pool.health() == Health(word, "no", 7.0, quoted=True)
    await pool.close()


# --------------------------------------------------------------------------------------------------- how fresh it is


class Slow(FakeBackend):
    """Answers its probe only while `answers` is set."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.answers = asyncio.Event()

    async def health(self) -> Health:
        await self.answers.wait()
        return await super().health()


async def test_an_old_answer_counts_while_a_server_does_not_answer_its_probe() -> None:
    backend = Slow()
    backend.answers.set()
    pool = Pool("p", [backend])
    await pool.start()
    assert (await pool.health()).state == "ready"
    backend.answers.clear()
    backend.state = Health("asleep")
    await until(lambda: not pool.replicas[0].known_for(FRESH))
    before = asyncio.get_running_loop().time()
    assert (await pool.health()).state == "ready"
    assert asyncio.get_running_loop().time() - before < 1
    backend.answers.set()
    await until(lambda: pool.state is ReplicaState.ASLEEP)
    await pool.close()


async def test_of_several_servers_one_that_said_so_lately_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dragoman.backends.pool.pool.FRESH", 0.0)
    backends = [FakeBackend(name="a"), FakeBackend(name="b", state=Health("asleep"))]
    pool = Pool("p", backends, PoolSettings(probe=600))
    await pool.start()
    await until(lambda: [each.health for each in pool.replicas].count(None) == 0)
    for _ in range(5):
        assert (await pool.health()).state == "ready"
    assert [backend.probes for backend in backends] == [1, 1]
    await pool.close()


async def test_where_one_server_is_known_the_first_answer_of_another_is_not_waited_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dragoman.backends.pool.pool.FIRST_PATIENCE", 3600.0)
    monkeypatch.setattr("dragoman.backends.pool.replica.PROBE_LIMIT", 3600.0)
    pool = Pool("p", [FakeBackend(name="a", state=Health("asleep")), Slow(name="b")], PoolSettings(probe=600))
    await pool.start()
    await until(lambda: pool.replicas[0].health and pool.replicas[1].started)
    async with asyncio.timeout(LIMIT):
        assert (await pool.health()).state != "ready"
    await pool.close()


async def test_a_server_that_was_never_probed_is_asked_as_one_that_is_ready() -> None:
    session = next(each for each in map(str, range(100)) if rank(each, "b") < rank(each, "a"))
    ready, unknown = FakeBackend(name="a"), Slow(name="b")
    pool = Pool("p", [ready, unknown], PoolSettings(probe=600))
    await pool.start()
    await until(lambda: [each.state for each in pool.replicas] == [ReplicaState.READY, ReplicaState.UNKNOWN])
    await answered(pool, Request("r", "m", (), affinity=session), Recorder())
    assert (len(ready.requests), len(unknown.requests)) == (0, 1)
    await pool.close()


async def test_a_wait_for_a_start_ends_with_the_gateway() -> None:
    pool = Pool("p", [FakeBackend(start_seconds=30)])
    pool.begin()
    waiting = asyncio.create_task(pool.started(30))
    await asyncio.sleep(0)
    await pool.close()
    assert await asyncio.wait_for(waiting, LIMIT) is False
