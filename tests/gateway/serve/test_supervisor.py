"""Several processes on one port: connections shared out, lost workers replaced, figures and signals of them all."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import re
import resource
import shutil
import signal
import socket
from pathlib import Path

import aiohttp
import orjson
import pytest

from dragoman.gateway.keys.spending import Spending
from dragoman.gateway.serve.supervisor import Supervisor, Worker
from dragoman.gateway.telemetry import METRICS_DIRECTORY
from tests.certificates import Authority, trusting
from tests.scripted import Script, ScriptedServer, frames, text_stream
from tests.serving_command import KEPT, READ_AGAIN, Process, serving
from tests.serving_gateway import ASK
from tests.waiting import LIMIT, until

pytestmark = pytest.mark.slow

BODY = text_stream("a", "b", "c", "d")


def workers_of(process: Process) -> set[int]:
    return {
        int(pid) for pid in Path(f"/proc/{process.child.pid}/task/{process.child.pid}/children").read_text().split()
    }


def connecting() -> aiohttp.ClientSession:
    """Every request on a connection of its own, so that the kernel shares them out."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True))


async def ask(session: aiohttp.ClientSession, url: str, **more: object) -> tuple[int, str]:
    async with session.post(f"{url}/v1/responses", json={**ASK, **more}) as answer:
        return answer.status, await answer.text()


async def figure(session: aiohttp.ClientSession, url: str, name: str) -> float:
    async with session.get(f"{url}/metrics") as answer:
        found = re.findall(rf"(?m)^{name}(?:{{[^}}]*}})? (\S+)$", await answer.text())
    return sum(map(float, found))


async def test_the_work_is_shared_and_the_figures_are_of_all_workers() -> None:
    async with (
        ScriptedServer(default=Script(BODY)) as server,
        serving("--backend", server.url, "--workers", "3") as process,
        connecting() as session,
    ):
        url = await process.ready()
        assert len(workers_of(process)) == 3
        answers = await asyncio.gather(*(ask(session, url) for _ in range(60)))
        assert [status for status, _ in answers] == [200] * 60
        for _ in range(6):  # whichever worker is asked
            assert await figure(session, url, "dragoman_requests_total") == 60
            assert await figure(session, url, "dragoman_requests_in_flight") == 0
            assert await figure(session, url, "dragoman_build_info") == 1
            assert await figure(session, url, "dragoman_loop_stall_seconds") < LIMIT
            assert await figure(session, url, "process_max_fds") == 3 * resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        process.child.send_signal(signal.SIGTERM)
        assert await process.ended() == 0
        lines = [orjson.loads(line) for line in process.errors().splitlines()]
        assert sum(line["message"] == "request" for line in lines) == 60
        # each worker has connections of its own to the server
        assert server.connections >= 3
        assert not process.lines[0].startswith("dragoman listens")


async def test_ready_is_said_once() -> None:
    async with ScriptedServer(default=Script(BODY)) as server, serving("--backend", server.url, "--workers", "3") as it:
        url = await it.ready()
        await asyncio.sleep(0.5)
        it.child.send_signal(signal.SIGTERM)
        assert await it.ended() == 0
        assert it.child.stdout is not None
        rest = (await it.child.stdout.read()).decode().splitlines()
        assert [line.split()[0] for line in rest] == ["export", "export", "codex"]
        assert all(url in line for line in rest)


async def test_it_serves_where_whoever_started_it_ignores_the_end_of_children() -> None:
    ignoring = (
        "import signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); "
        "from dragoman.gateway.cli import main; sys.exit(main())"
    )
    async with (
        ScriptedServer(default=Script(BODY)) as server,
        serving("--backend", server.url, "--workers", "2", program=("-c", ignoring)) as process,
    ):
        await process.ready()
        victim = min(workers_of(process))
        os.kill(victim, signal.SIGKILL)
        await until(lambda: len(workers_of(process)) == 2 and victim not in workers_of(process))
        process.child.send_signal(signal.SIGTERM)
        assert await process.ended() == 0


async def test_a_worker_that_is_killed_is_replaced_and_only_its_streams_are_lost() -> None:
    async with (
        ScriptedServer(default=Script(BODY)) as server,
        serving("--backend", server.url, "--workers", "2") as process,
        connecting() as session,
    ):
        url = await process.ready()
        before = workers_of(process)
        victim = min(before)
        assert (await ask(session, url))[0] == 200
        os.kill(victim, signal.SIGKILL)
        await until(lambda: len(workers_of(process)) == 2 and victim not in workers_of(process))
        # connections that waited for the lost worker are served by the one in its place
        answers = await asyncio.wait_for(asyncio.gather(*(ask(session, url) for _ in range(20))), LIMIT)
        assert [status for status, _ in answers] == [200] * 20
        assert await figure(session, url, "dragoman_requests_total") == 21
        process.child.send_signal(signal.SIGTERM)
        assert await process.ended() == 0
        assert "a worker was lost" in process.errors()


async def test_a_lost_worker_that_cannot_be_replaced_yet_ends_no_other(tmp_path: Path) -> None:
    """A certificate is renewed in that moment."""
    authority = Authority(tmp_path)
    certificate, key = authority.make("gateway")
    path = tmp_path / "gateway.yaml"
    async with ScriptedServer(default=Script(BODY)) as server:
        path.write_text(
            f"workers: 2\nbackends: [{{url: '{server.url}'}}]\ntls: {{certificate: {certificate}, key: {key}}}\n"
        )
        connector = aiohttp.TCPConnector(limit=0, force_close=True, ssl=trusting(authority))
        async with serving("--config", str(path)) as process, aiohttp.ClientSession(connector=connector) as session:
            url = await process.ready()
            good = certificate.read_bytes()
            certificate.write_bytes(b"")
            before = workers_of(process)
            victim = min(before)
            os.kill(victim, signal.SIGKILL)
            await process.logged("a worker was lost", 2)
            assert before - {victim} <= workers_of(process)
            certificate.write_bytes(good)
            await until(lambda: len(workers_of(process) - {victim}) == 2)
            answers = await asyncio.wait_for(asyncio.gather(*(ask(session, url) for _ in range(20))), LIMIT)
            assert [status for status, _ in answers] == [200] * 20
            process.child.send_signal(signal.SIGTERM)
            assert await process.ended() == 0


def test_a_worker_for_which_there_is_no_memory_is_started_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_memory() -> int:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setenv(METRICS_DIRECTORY, str(tmp_path))
    monkeypatch.setattr("os.fork", no_memory)
    worker = Worker(0, [])
    supervisor = object.__new__(Supervisor)  # without the log, the pipe and the memory that all workers share
    supervisor._spoken = False
    supervisor._start(worker)
    assert worker.pid == 0
    assert worker.due is not None
    assert "a worker cannot be started: Cannot allocate memory" in caplog.text


def test_a_supervisor_that_stops_does_not_run_in_circles_for_a_worker_that_was_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lost, running = Worker(0, [], due=1.0), Worker(1, [], pid=1)
    supervisor = object.__new__(Supervisor)
    supervisor._workers, supervisor._status, supervisor._stopping = [lost, running], 0, True
    supervisor._spending = Spending.shared()
    waits: list[float] = []

    def wait(_signals: object, seconds: float) -> None:
        waits.append(seconds)
        running.pid = 0 if len(waits) == 3 else 1

    monkeypatch.setattr("signal.sigtimedwait", wait)
    monkeypatch.setattr("signal.pthread_sigmask", lambda *_: None)
    for name in ("_start", "_reap"):
        monkeypatch.setattr(supervisor, name, lambda *_: None)
    assert supervisor.run() == 0
    assert min(waits) > 1


async def test_a_worker_is_replaced_although_the_directory_of_the_figures_is_gone(tmp_path: Path) -> None:
    """Somebody has emptied /tmp. Cleaners that respect locks do not."""
    async with (
        ScriptedServer(default=Script(BODY)) as server,
        serving("--backend", server.url, "--workers", "2", TMPDIR=str(tmp_path)) as process,
        connecting() as session,
    ):
        url = await process.ready()
        (name,) = (name for name in os.listdir(tmp_path) if name.startswith("dragoman-figures-"))
        figures = os.open(tmp_path / name, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(figures, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(figures)
        shutil.rmtree(tmp_path / name)
        before = workers_of(process)
        for victim in before:
            os.kill(victim, signal.SIGKILL)
        await until(lambda: len(workers_of(process)) == 2 and not before & workers_of(process))
        answers = await asyncio.wait_for(asyncio.gather(*(ask(session, url) for _ in range(20))), LIMIT)
        assert [status for status, _ in answers] == [200] * 20
        assert await figure(session, url, "dragoman_requests_total") == 20
        process.child.send_signal(signal.SIGTERM)
        assert await process.ended() == 0


async def test_a_rate_is_that_of_all_workers_together(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("sk-ann rpm=3\nsk-bob rpm=1000\n")
    arguments = ("--workers", "3", "--api-keys-file", str(keys))
    ann = {"x-api-key": "sk-ann"}
    async with (
        ScriptedServer(default=Script(BODY)) as server,
        serving("--backend", server.url, *arguments) as process,
        connecting() as session,
        aiohttp.ClientSession() as kept,
    ):
        url = await process.ready()

        async def statuses(asking: aiohttp.ClientSession, times: int, key: str = "sk-ann") -> list[int]:
            found = []
            for _ in range(times):
                async with asking.post(f"{url}/v1/responses", json=ASK, headers={"x-api-key": key}) as answer:
                    found.append(answer.status)
            return found

        # one connection has the whole rate, although it speaks to one worker
        assert await statuses(kept, 4) == [200, 200, 200, 429]
        # and so do those that speak to the others
        assert set(await statuses(session, 9)) == {429}
        assert set(await statuses(session, 9, "sk-bob")) == {200}
        for victim in workers_of(process):
            os.kill(victim, signal.SIGKILL)
        await until(lambda: len(workers_of(process)) == 3)
        assert set(await statuses(session, 3)) == {429}
        keys.write_text("sk-ann rpm=6000\nsk-bob\n")

        async def counts() -> bool:
            return set(await statuses(session, 9)) == {200}

        await until(counts)
        async with session.get(f"{url}/v1/models", headers=ann) as answer:
            assert answer.status == 200
        process.child.send_signal(signal.SIGTERM)
        assert await process.ended() == 0


async def test_a_session_stays_with_its_server_whichever_worker_it_comes_to() -> None:
    async with ScriptedServer(default=Script(BODY)) as one, ScriptedServer(default=Script(BODY)) as other:
        arguments = ("--backend", one.url, "--backend", other.url, "--workers", "3")
        async with serving(*arguments) as process, connecting() as session:
            url = await process.ready()
            for _ in range(6):
                for number in range(10):
                    assert (await ask(session, url, prompt_cache_key=f"thread-{number}"))[0] == 200
            seen = [{chat.headers["x-session-affinity"] for chat in server.chats} for server in (one, other)]
            assert seen[0] | seen[1] == {f"thread-{number}" for number in range(10)}
            assert not seen[0] & seen[1]
            process.child.send_signal(signal.SIGTERM)
            assert await process.ended() == 0


async def test_limits_are_shared_out_and_their_figures_are_added_up() -> None:
    turns = asyncio.Semaphore(0)
    limits = {"DRAGOMAN_ADMISSION__REQUESTS": "5", "DRAGOMAN_ADMISSION__QUEUE": "7"}
    async with (
        ScriptedServer(default=Script(frames(BODY), turns=turns)) as server,
        serving("--backend", server.url, "--workers", "2", **limits) as process,
        connecting() as session,
    ):
        url = await process.ready()

        async def shows(name: str, value: float) -> bool:
            return await figure(session, url, name) == value

        # so many that each worker gets more than it has room for
        asked = [asyncio.create_task(ask(session, url)) for _ in range(80)]
        await server.until(lambda: len(server.chats) == 5)
        await until(lambda: sum(each.done() for each in asked) == 68)
        await until(lambda: shows("dragoman_requests_in_flight", 12))
        for _ in range(6):  # whichever worker is asked
            assert await figure(session, url, "dragoman_queue_depth") == 7
            assert await figure(session, url, "dragoman_queue_refused_total") == 68
        assert len(server.chats) == 5
        for _ in range(1_000):
            turns.release()
        statuses = [status for status, _ in await asyncio.gather(*asked)]
        assert (statuses.count(200), len(server.chats)) == (12, 12)
        await until(lambda: shows("dragoman_requests_total", 80))
        await until(lambda: shows("dragoman_queue_depth", 0))
        process.child.send_signal(signal.SIGTERM)
        assert await process.ended() == 0


async def test_sigterm_lets_the_streams_of_every_worker_finish() -> None:
    async with (
        ScriptedServer(default=Script(frames(BODY), gap=0.15)) as server,
        serving("--backend", server.url, "--workers", "3") as process,
        connecting() as session,
    ):
        url = await process.ready()
        asked = [asyncio.create_task(ask(session, url, stream=True)) for _ in range(12)]
        await server.until(lambda: len(server.chats) == 12)
        process.child.send_signal(signal.SIGTERM)
        answers = await asyncio.gather(*asked)
        assert all(text.count("event: response.completed") == 1 for _, text in answers)
        assert await process.ended() == 0


async def test_a_reload_reaches_every_worker_and_a_bad_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    async with ScriptedServer(default=Script(BODY)) as old, ScriptedServer(default=Script(BODY)) as new:
        path.write_text(f"workers: 2\nbackends: [{{url: '{old.url}'}}]\n")
        async with serving("--config", str(path)) as process, connecting() as session:
            url = await process.ready()
            path.write_text("workers: !!int many\n")
            await process.reload(KEPT)
            assert (await ask(session, url))[0] == 200
            path.write_text(f"workers: 2\nbackends: [{{url: '{new.url}'}}]\n")
            await process.reload(workers=2)
            assert len(old.chats) == 1
            for _ in range(12):
                assert (await ask(session, url))[0] == 200
            assert (len(old.chats), len(new.chats)) == (1, 12)
            for victim in workers_of(process):  # a new worker has the new configuration too
                os.kill(victim, signal.SIGKILL)
            await until(lambda: len(workers_of(process)) == 2)
            assert (await asyncio.wait_for(ask(session, url), LIMIT))[0] == 200
            assert len(new.chats) == 13
            process.child.send_signal(signal.SIGTERM)
            assert await process.ended() == 0
            assert process.errors().count("the configuration stays as it was") == 1


async def test_a_configuration_that_no_worker_can_open_is_not_kept_for_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    async with ScriptedServer(default=Script(BODY)) as server:
        path.write_text(f"workers: 2\nbackends: [{{url: '{server.url}'}}]\n")
        async with serving("--config", str(path)) as process, connecting() as session:
            url = await process.ready()
            path.write_text(f"workers: 2\nbackends: [{{url: '{server.url}', preset: nonsense}}]\n")
            await process.reload(KEPT)
            before = workers_of(process)
            assert len(before) == 2
            os.kill(min(before), signal.SIGKILL)
            await until(lambda: len(workers_of(process) - {min(before)}) == 2)
            answers = await asyncio.wait_for(asyncio.gather(*(ask(session, url) for _ in range(20))), LIMIT)
            assert [status for status, _ in answers] == [200] * 20
            process.child.send_signal(signal.SIGTERM)
            assert await process.ended() == 0
            told = [line for line in process.errors().splitlines() if "stays as it was" in line]
            assert len(told) == 1
            assert "unknown preset 'nonsense'" in told[0]


async def test_a_reload_while_workers_start_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    async with ScriptedServer(default=Script(BODY)) as old, ScriptedServer(default=Script(BODY)) as new:
        path.write_text(f"workers: 2\nbackends: [{{url: '{old.url}'}}]\n")
        async with serving("--config", str(path)) as process, connecting() as session:
            await until(lambda: len(workers_of(process)) == 2, LIMIT)
            path.write_text(f"workers: 2\nbackends: [{{url: '{new.url}'}}]\n")
            for worker in workers_of(process):  # at once, before their loops run
                os.kill(worker, signal.SIGHUP)
            url = await process.ready()
            await process.logged(READ_AGAIN, 2)
            for _ in range(12):
                assert (await ask(session, url))[0] == 200
            assert (len(old.chats), len(new.chats)) == (0, 12)
            process.child.send_signal(signal.SIGTERM)
            assert await process.ended() == 0


async def test_workers_end_when_their_parent_is_killed() -> None:
    async with ScriptedServer(default=Script(BODY)) as server, serving("--backend", server.url, "--workers", "2") as it:
        await it.ready()
        workers = workers_of(it)
        it.child.kill()
        await it.child.wait()
        await until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in workers))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_port_in_use_is_one_line_even_when_its_owner_would_share(host: str) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        arguments = ("--backend", "http://127.0.0.1:9/v1", "--workers", "2", "--host", host, "--port", port)
        async with serving(*arguments) as process:
            assert await process.ended() == 1
            errors = process.errors()
            assert errors.count("\n") == 1
            assert "cannot listen" in errors
