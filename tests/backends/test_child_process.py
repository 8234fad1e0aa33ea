"""Work in child processes: answered, killed in time, bounded in memory, and gone with the gateway."""

import asyncio
import os
import signal
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dragoman.backends.child_process import Children, NoReply
from tests.waiting import until

LONG = 60.0
ME = "tests.backends.test_child_process"


def work(question: bytes) -> bytes:
    """Runs in the child."""
    name, _, argument = question.decode().partition(" ")
    match name:
        case "pid":
            return str(os.getpid()).encode()
        case "spin":
            while True:
                pass
        case "sleep":
            time.sleep(float(argument))
            return b"slept"
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "fail":
            raise LookupError(argument)
        case "fill":
            return str(len(bytearray(int(argument)))).encode()
        case "many":
            return b"x" * int(argument)
        case "print":
            print(argument, flush=True)
            return b"printed"
        case "environment":
            return " ".join(sorted(os.environ)).encode()
        case "write":
            Path(argument).write_text("x" * 10)
        case _:
            pass
    return question


@pytest.fixture
async def children() -> AsyncIterator[Children]:
    children = Children(f"{ME}:work", most=2, memory=512 * 1024 * 1024, max_reply=1000)
    yield children
    await children.close()


def runs(pid: bytes) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    return True


async def gone(pid: bytes) -> None:
    await until(lambda: not runs(pid))


async def test_a_child_is_kept_and_answers_again_and_again(children: Children) -> None:
    first = await children.ask(b"pid", LONG)
    assert await children.ask(b"echo me", LONG) == b"echo me"
    assert await children.ask(b"print what is no reply", LONG) == b"printed"
    assert await children.ask(b"pid", LONG) == first != str(os.getpid()).encode()


async def test_a_child_that_is_late_is_killed_and_another_takes_its_place(children: Children) -> None:
    first = await children.ask(b"pid", LONG)
    with pytest.raises(NoReply, match="no answer within") as caught:
        await children.ask(b"spin", 0.1)
    assert caught.value.late
    await gone(first)
    assert await children.ask(b"pid", LONG) != first


async def test_no_more_children_run_than_may_and_the_wait_is_within_the_time(children: Children) -> None:
    pids = {await children.ask(b"pid", LONG)}
    busy = [asyncio.create_task(children.ask(b"sleep 60", LONG)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(NoReply, match="no child was free") as caught:
        await children.ask(b"pid", 0.1)
    assert not caught.value.late
    assert len(children._running) <= 2
    for task in busy:
        task.cancel()
    await asyncio.gather(*busy, return_exceptions=True)
    pids.add(await children.ask(b"pid", LONG))
    assert len(pids) == 2  # what nobody waited for any more was killed


@pytest.mark.parametrize("question", [b"die", b"fail x", b"fill 2000000000", b"many 1001"])
async def test_a_child_that_breaks_costs_its_own_answer_only(children: Children, question: bytes) -> None:
    with pytest.raises(NoReply) as caught:
        await children.ask(question, LONG)
    assert not caught.value.late
    assert await children.ask(b"fill 1000", LONG) == b"1000"


async def test_a_child_that_died_idle_is_noticed(children: Children) -> None:
    first = await children.ask(b"pid", LONG)
    os.kill(int(first), signal.SIGKILL)
    await gone(first)
    await until(lambda: not children._idle[0].runs)
    assert await children.ask(b"echo", LONG) == b"echo"


async def test_a_child_has_no_environment_and_writes_no_files(children: Children, tmp_path: Path) -> None:
    os.environ["DRAGOMAN_API_KEYS"] = "secret"
    try:
        names = (await children.ask(b"environment", LONG)).decode().split()
    finally:
        del os.environ["DRAGOMAN_API_KEYS"]
    assert set(names) <= {"PATH", "LD_LIBRARY_PATH", "SYSTEMROOT", "LANG", "LC_ALL", "LC_CTYPE", "TZ"}
    with pytest.raises(NoReply, match="OSError"):
        await children.ask(f"write {tmp_path}/file".encode(), LONG)


async def test_closed_children_are_gone_and_answer_nobody(children: Children) -> None:
    pid = await children.ask(b"pid", LONG)
    waiting = [asyncio.create_task(children.ask(b"spin", LONG)) for _ in range(4)]
    await asyncio.sleep(0.05)
    await children.close()
    for result in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(result, NoReply)
    assert not runs(pid)
    with pytest.raises(NoReply, match="closed"):
        await children.ask(b"pid", LONG)


@pytest.mark.parametrize("busy", [False, True])
async def test_a_child_ends_when_the_gateway_is_gone(busy: bool) -> None:
    """Idle at once, since its input ends; while it works, by the alarm of its time limit."""
    script = f"""
        import asyncio
        from dragoman.backends.child_process import Children

        async def main() -> None:
            children = Children("{ME}:work")
            print((await children.ask(b"pid", 60)).decode(), flush=True)
            {'await children.ask(b"spin", 2.0)' if busy else "await asyncio.sleep(60)"}

        asyncio.run(main())
    """
    gateway = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        textwrap.dedent(script),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert gateway.stdout is not None
    pid = (await gateway.stdout.readline()).strip()
    assert runs(pid)
    if busy:
        await asyncio.sleep(0.3)
    gateway.kill()
    await gateway.wait()
    await gone(pid)
