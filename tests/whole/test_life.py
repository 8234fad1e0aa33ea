"""From SIGTERM to the end, and a configuration that changes while streams run; `dragoman serve` as a child."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from pathlib import Path

import aiohttp
import orjson
import pytest

from dragoman.gateway.config import Config
from tests.scripted import Script, ScriptedServer, text_stream
from tests.serving_command import KEPT, READ_AGAIN, serving
from tests.serving_gateway import ASK
from tests.waiting import until

pytestmark = pytest.mark.slow

BODY = text_stream("a", "b", "c", "d")


async def status(session: aiohttp.ClientSession, url: str, **options: object) -> int:
    async with session.post(f"{url}/v1/responses", json={**ASK, **options}) as answer:
        await answer.read()
        return answer.status


async def ready(session: aiohttp.ClientSession, url: str) -> int:
    async with session.get(f"{url}/readyz") as answer:
        return answer.status


def logged(errors: str) -> list[str]:
    return [str(orjson.loads(line)["message"]) for line in errors.splitlines()]


# --------------------------------------------------------------------------------------------------------------- grace


def test_grace_is_for_who_is_routed_to() -> None:
    assert Config().grace == 0
    assert Config(host="0.0.0.0").grace == 5
    assert Config(host="0.0.0.0", timeouts={"grace": 0}).grace == 0
    assert Config(timeouts={"grace": 2}).grace == 2


async def test_after_sigterm_it_is_not_ready_but_serves_until_the_grace_is_over() -> None:
    async with (
        ScriptedServer(default=Script(BODY)) as server,
        serving("--backend", server.url, DRAGOMAN_TIMEOUTS__GRACE="3") as process,
        aiohttp.ClientSession() as session,
    ):
        url = await process.ready()
        assert await ready(session, url) == 200
        process.child.send_signal(signal.SIGTERM)
        await until(lambda: not_ready(session, url))
        async with session.post(f"{url}/v1/responses", json=ASK) as answer:
            assert answer.status == 200
            assert answer.headers["Connection"] == "close"
        async with session.get(f"{url}/healthz") as answer:
            assert answer.status == 200
        assert process.child.returncode is None
        assert await process.ended() == 0
        with pytest.raises(aiohttp.ClientConnectionError):
            await ready(session, url)


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_while_a_stream_drains_a_new_connection_is_refused_instead_of_never_answered(workers: str) -> None:
    async with (
        ScriptedServer(Script(BODY, split="frames", gap=0.5)) as server,
        serving("--backend", server.url, "--workers", workers) as process,
        aiohttp.ClientSession() as session,
    ):
        url = await process.ready()
        port = int(url.rpartition(":")[2])
        async with session.post(f"{url}/v1/responses", json={**ASK, "stream": True}) as answer:
            await answer.content.readany()
            process.child.send_signal(signal.SIGTERM)
            await until(lambda: refuses(port))
            assert process.child.returncode is None
            assert b"response.completed" in await answer.content.read()
        assert await process.ended() == 0


async def refuses(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


async def not_ready(session: aiohttp.ClientSession, url: str) -> bool:
    return await ready(session, url) == 503


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
async def test_sigint_and_a_second_signal_leave_the_grace_out(first: signal.Signals) -> None:
    async with (
        ScriptedServer(default=Script(BODY)) as server,
        serving("--backend", server.url, DRAGOMAN_TIMEOUTS__GRACE="60") as process,
    ):
        await process.ready()
        process.child.send_signal(first)
        if first is signal.SIGTERM:
            await process.logged("leaving")
            assert process.child.returncode is None
            process.child.send_signal(signal.SIGTERM)
        assert await process.ended() == 0


# --------------------------------------------------------------------------------------------------------------- reload


def write(path: Path, url: str, more: str = "") -> None:
    path.write_text(f"backends:\n  - url: {url}\n    name: gpu\n{more}")


async def test_a_reload_changes_what_new_requests_get_and_drops_no_stream(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    async with (
        ScriptedServer(Script(BODY, split="frames", gap=0.3)) as old,
        ScriptedServer(default=Script(BODY)) as new,
        aiohttp.ClientSession() as session,
    ):
        write(path, old.url)
        async with serving("--config", str(path)) as process:
            url = await process.ready()
            async with session.post(f"{url}/v1/responses", json={**ASK, "stream": True}) as answer:
                await answer.content.readany()
                write(path, new.url)
                await process.reload()
                async with aiohttp.ClientSession() as other:
                    assert await status(other, url) == 200
                    assert len(new.chats) == 1
                    assert b"response.completed" in await answer.content.read()
            assert old.chats[0].outcome == "completed"
            async with session.get(f"{url}/metrics") as figures:
                text = await figures.text()
                counts = re.findall(r'dragoman_requests_total\{[^}]*outcome="completed"[^}]*\} (\d+)', text)
                assert sum(map(int, counts)) == 2
            process.child.send_signal(signal.SIGTERM)
            assert await process.ended() == 0


@pytest.mark.parametrize(
    "bad", ["backends: [{url: 'http://x', nonsense: 1}]", "port: [", "backends: [{url: 'gopher://x'}]", None]
)
async def test_a_bad_new_file_keeps_the_old_one_and_is_one_line(tmp_path: Path, bad: str | None) -> None:
    path = tmp_path / "gateway.yaml"
    async with ScriptedServer(default=Script(BODY)) as server, aiohttp.ClientSession() as session:
        write(path, server.url)
        async with serving("--config", str(path)) as process:
            url = await process.ready()
            path.unlink() if bad is None else path.write_text(bad)
            await process.reload(KEPT)
            assert await status(session, url) == 200
            assert await ready(session, url) == 200
            process.child.send_signal(signal.SIGTERM)
            assert await process.ended() == 0
            assert sum("the configuration stays as it was" in each for each in logged(process.errors())) == 1


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_reload_judges_keys_by_the_address_that_stays(tmp_path: Path, workers: int) -> None:
    path, keys = tmp_path / "gateway.yaml", tmp_path / "keys"
    keys.write_text("sk-client\n")
    async with ScriptedServer(default=Script(BODY)) as server:
        write(path, server.url, f"host: 0.0.0.0\nworkers: {workers}\napi_keys_file: {keys}\ntimeouts: {{grace: 0}}\n")
        async with serving("--config", str(path)) as process:
            url = (await process.ready()).replace("0.0.0.0", "127.0.0.1")
            write(path, server.url, f"host: 127.0.0.1\nworkers: {workers}\n")
            await process.reload(KEPT)
            async with aiohttp.ClientSession() as session:
                assert await status(session, url) == 401
            # what can take over still does, with a word on what cannot change
            write(path, server.url, f"host: 127.0.0.1\nworkers: {workers}\napi_keys_file: {keys}\n")
            await process.reload(workers=workers)
            await process.logged("host: a change takes effect", workers)
            process.child.send_signal(signal.SIGINT)
            assert await process.ended() == 0
            told = logged(process.errors())
            assert sum("without client keys only a loopback" in each for each in told) == 1
            assert told.count("host: a change takes effect at the next start") == workers


async def test_a_reload_forgets_neither_what_runs_nor_what_was_spent(tmp_path: Path) -> None:
    path, keys = tmp_path / "gateway.yaml", tmp_path / "keys"
    keys.write_text("sk-one rpm=1\nsk-two\n")
    rules = f"api_keys_file: {keys}\nadmission: {{requests: 1, queue: 0}}\n"
    async with ScriptedServer(Script(BODY, split="frames", gap=0.5), default=Script(BODY)) as server:
        write(path, server.url, rules)
        async with serving("--config", str(path)) as process, aiohttp.ClientSession() as session:
            url = await process.ready()
            one, two = ({"Authorization": f"Bearer sk-{name}"} for name in ("one", "two"))
            async with session.post(f"{url}/v1/responses", json={**ASK, "stream": True}, headers=one) as answer:
                await answer.content.readany()
                write(path, server.url, rules + "timeouts: {keepalive: 5}\n")
                await process.reload()
                async with aiohttp.ClientSession(headers=two) as other:
                    assert await status(other, url) == 503  # the one place is taken
                assert b"response.completed" in await answer.content.read()
            async with aiohttp.ClientSession(headers=two) as other:
                assert await status(other, url) == 200
            async with aiohttp.ClientSession(headers=one) as other:
                assert await status(other, url) == 429


async def test_what_has_not_changed_is_kept_and_what_is_gone_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    async with ScriptedServer(default=Script(BODY)) as kept, ScriptedServer(default=Script(BODY)) as gone:
        both = (
            f"  - url: {gone.url}\n    name: other\nmodels: [{{name: a, backend: gpu}}, {{name: b, backend: other}}]\n"
        )
        write(path, kept.url, both)
        async with serving("--config", str(path)) as process:
            url = await process.ready()
            async with aiohttp.ClientSession() as session:
                for model in ("a", "b"):
                    assert await status(session, url, model=model) == 200
            write(path, kept.url, "models: [{name: a}]\n")
            await process.reload()
            async with aiohttp.ClientSession() as session:
                assert await status(session, url, model="a") == 200
                assert await status(session, url, model="b") == 404
                async with session.get(f"{url}/metrics") as figures:  # gone is not down, which would page for ever
                    assert 'dragoman_backend_ready{backend="other"} NaN' in await figures.text()
            assert kept.chats[1].connection == kept.chats[0].connection
            for _ in range(3):
                await process.reload()
            async with aiohttp.ClientSession() as session:
                assert await status(session, url, model="a") == 200
            process.child.send_signal(signal.SIGTERM)
            assert await process.ended() == 0
            assert not [each for each in logged(process.errors()) if "bug" in each or "could not" in each]


async def test_a_signal_during_a_reload_drains_the_old_generation_too(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    async with (
        ScriptedServer(Script(BODY, split="frames", gap=0.3)) as server,
        aiohttp.ClientSession() as session,
    ):
        write(path, server.url)
        async with serving("--config", str(path)) as process:
            url = await process.ready()
            async with session.post(f"{url}/v1/responses", json={**ASK, "stream": True}) as answer:
                await answer.content.readany()
                write(path, server.url, "timeouts: {keepalive: 5}\n")
                await process.reload()
                process.child.send_signal(signal.SIGTERM)
                assert b"response.completed" in await answer.content.read()
            assert await process.ended() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_reload_while_it_starts_is_one(workers: str) -> None:
    async with (
        ScriptedServer(default=Script(BODY)) as server,
        serving("--backend", server.url, "--workers", workers) as process,
    ):

        def blocks_sighup() -> bool:
            blocked = re.search(r"SigBlk:\s*(\w+)", Path(f"/proc/{process.child.pid}/status").read_text())
            assert blocked is not None
            return bool(int(blocked[1], 16) & 1 << signal.SIGHUP - 1)

        await until(blocks_sighup)
        process.child.send_signal(signal.SIGHUP)
        await process.ready()
        await process.logged(READ_AGAIN)
        process.child.send_signal(signal.SIGTERM)
        assert await process.ended() == 0


async def test_without_leaks_over_many_reloads(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    async with ScriptedServer(default=Script(BODY)) as server:
        write(path, server.url)
        async with serving("--config", str(path)) as process:
            url = await process.ready()

            def files() -> int:
                return len(os.listdir(f"/proc/{process.child.pid}/fd"))

            before = files()
            for number in range(10):
                write(path, server.url, f"timeouts: {{keepalive: {number + 1}}}\n")
                await process.reload()
                async with aiohttp.ClientSession() as session:
                    assert await status(session, url) == 200
            await until(lambda: files() <= before + 3)
            process.child.send_signal(signal.SIGTERM)
            assert await process.ended() == 0
