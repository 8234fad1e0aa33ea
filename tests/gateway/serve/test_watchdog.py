"""A process whose event loop stands still: its stacks are in the log, it ends, and another one takes its place.

The gateways are processes of their own: the watchdog ends the process it watches.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.gateway.serve.test_supervisor import workers_of
from tests.scripted import Script, ScriptedServer, text_stream
from tests.serving_command import Process, serving
from tests.serving_gateway import ASK
from tests.waiting import LIMIT, until

pytestmark = pytest.mark.slow

# `dragoman` with a liveness probe that does what the environment says, in the event loop.
PROGRAM = """
import os, re, sys, time
from dragoman.gateway.serve.operations import OperationRoutes

def hold_the_interpreter():
    re.match("(a+)+$", "a" * 60 + "b")

def wait():
    time.sleep(3600)

def pause():
    time.sleep(0.4)

async def alive(self, request):
    globals()[os.environ["STANDING"]]()
    return await before(self, request)

before, OperationRoutes._alive = OperationRoutes._alive, alive
from dragoman.gateway.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def program(tmp_path: Path) -> tuple[str]:
    path = tmp_path / "standing.py"
    path.write_text(PROGRAM)
    return (str(path),)


def child_env(how: str, stall: float) -> dict[str, str]:
    return {"STANDING": how, "DRAGOMAN_TIMEOUTS__STALL": str(stall), "PYTHONPATH": os.pathsep.join(filter(None, PATHS))}


PATHS = [str(Path(__file__).parents[3] / ".dev"), os.environ.get("PYTHONPATH", "")]


async def probe(url: str) -> bytes:
    """The answer to a probe, empty where none comes. A client library would try again."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    try:
        return await asyncio.wait_for(reader.read(), LIMIT)
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def ask(session: aiohttp.ClientSession, url: str) -> int:
    async with session.post(f"{url}/v1/responses", json=ASK) as answer:
        return answer.status


@pytest.mark.parametrize("how", ["hold_the_interpreter", "wait"])
async def test_a_process_that_stands_still_shows_where_and_ends(program: tuple[str], how: str) -> None:
    async with (
        ScriptedServer() as server,
        serving("--backend", server.url, program=program, **child_env(how, 2.0)) as process,
    ):
        url = await process.ready()
        assert await probe(url) == b""
        assert await process.ended() == 1
        errors = process.errors()
        assert "Timeout (0:00:02" in errors
        assert f"in {how}" in errors
        assert "in alive" in errors


async def test_a_worker_that_stands_still_is_replaced_and_the_others_go_on(program: tuple[str]) -> None:
    async with (
        ScriptedServer(default=Script(text_stream("a"))) as server,
        serving(
            "--backend", server.url, "--workers", "2", program=program, **child_env("hold_the_interpreter", 3.0)
        ) as process,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as session,
    ):
        url = await process.ready()
        await until(lambda: len(workers_of(process)) == 2)
        before = workers_of(process)
        assert await probe(url) == b""
        await process.logged("a worker was lost")
        await until(lambda: len(workers_of(process)) == 2)
        assert len(workers_of(process) & before) == 1
        assert [await ask(session, url) for _ in range(6)] == [200] * 6
        process.child.send_signal(signal.SIGTERM)
        assert await process.ended() == 0
        assert process.errors().count("in hold_the_interpreter") == 1


@pytest.mark.parametrize(("how", "stall"), [("pause", 10.0), ("pause", 0.0)])
async def test_a_short_pause_or_no_limit_ends_nothing(program: tuple[str], how: str, stall: float) -> None:
    async with (
        ScriptedServer(default=Script(text_stream("a"))) as server,
        serving("--backend", server.url, program=program, **child_env(how, stall)) as process,
        aiohttp.ClientSession() as session,
    ):
        url = await process.ready()
        for _ in range(3):
            assert b"200 OK" in await probe(url)
        process.child.send_signal(signal.SIGHUP)
        await process.logged("read again")
        assert await ask(session, url) == 200
        process.child.send_signal(signal.SIGTERM)
        assert await process.ended() == 0
        assert "Timeout" not in process.errors()


async def test_a_reload_changes_the_limit(program: tuple[str], tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    environment = child_env("wait", 0.0)
    del environment["DRAGOMAN_TIMEOUTS__STALL"]
    async with ScriptedServer() as server:
        text = f"backends: [{{url: '{server.url}'}}]\ntimeouts: {{stall: STALL}}\n"
        path.write_text(text.replace("STALL", "0"))
        async with serving("--config", str(path), program=program, **environment) as process:
            url = await process.ready()
            path.write_text(text.replace("STALL", "2"))
            await process.reload()
            await asyncio.sleep(1.5)  # it is put off once a second while there is no limit
            assert await probe(url) == b""
            assert await process.ended() == 1


def state(process: Process) -> str:
    return Path(f"/proc/{process.child.pid}/stat").read_text().rpartition(")")[2].split()[0]


async def test_a_process_that_a_terminal_stops_goes_on_afterwards(program: tuple[str]) -> None:
    async with (
        ScriptedServer(default=Script(text_stream("a"))) as server,
        serving("--backend", server.url, program=program, **child_env("pause", 2.0)) as process,
        aiohttp.ClientSession() as session,
    ):
        url = await process.ready()
        process.child.send_signal(signal.SIGTSTP)
        await until(lambda: state(process) == "T")
        await asyncio.sleep(3)  # longer than the limit
        process.child.send_signal(signal.SIGCONT)
        assert await ask(session, url) == 200
        process.child.send_signal(signal.SIGTERM)
        assert await process.ended() == 0
