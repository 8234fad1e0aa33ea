"""A key file that changes while it is watched: what counts, when, and what is never taken."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from dragoman.backends.background import end
from dragoman.gateway.config import Config, ConfigError
from dragoman.gateway.keys import key_file
from dragoman.gateway.keys.key_file import Grants, KeyFile
from dragoman.gateway.keys.secrets import Grant, read_client_keys
from tests.waiting import until

KEPT = "the keys stay as they were"


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_file, "LOOK_EVERY", 0.005)
    monkeypatch.setattr(key_file, "AT_REST", 0.005)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "keys").write_text("first\n")
    return tmp_path / "keys"


def write(path: Path, text: str | None) -> None:
    path.unlink() if text is None else path.write_text(text)


def link(to: Path, path: Path) -> None:
    """Puts a link in the place of `path` in one step."""
    new = path.with_name("new")
    new.symlink_to(to)
    new.replace(path)


@contextlib.asynccontextmanager
async def followed(path: Path, read: Callable[[], Grants] | None = None) -> AsyncIterator[list[set[str]]]:
    """The keys that were taken, one set for each time; the first look has been taken already."""
    taken: list[set[str]] = []
    file = KeyFile(path, read or (lambda: read_client_keys(Config(api_keys_file=path), {})))
    following = asyncio.create_task(file.follow(lambda grants: taken.append(set(grants))))
    try:
        await until(lambda: taken)
        yield taken
    finally:
        await end(following)


class Time:
    """Seconds that pass only while the file's follower sleeps. `at` is what happens at which second."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept = 0
        self.to_thread = asyncio.to_thread
        self._due: list[tuple[float, Callable[[], object]]] = []

    def at(self, second: float, happens: Callable[[], object]) -> None:
        self._due.append((second, happens))

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept += 1
        due, self._due = (
            [each for each in self._due if each[0] <= self.now],
            [each for each in self._due if each[0] > self.now],
        )
        for _, happens in due:
            happens()
        await asyncio.sleep(0)


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> Time:
    monkeypatch.undo()  # the seconds as they are
    simulated = Time()
    monkeypatch.setattr(key_file, "asyncio", simulated)
    return simulated


class Watched(KeyFile):
    """Notes the seconds at which the file was looked at and read."""

    def __init__(self, path: Path, time: Time) -> None:
        super().__init__(path, self._noted_read)
        self._time = time
        self.looks: list[float] = []
        self.reads: list[tuple[float, str]] = []

    def _look(self) -> tuple[int, int, int] | None:
        self.looks.append(self._time.now)
        return super()._look()

    def _noted_read(self) -> Grants:
        self.reads.append((self._time.now, self._path.read_text()))
        return {key: Grant() for key in self.reads[-1][1].split()}


async def test_a_file_at_rest_is_looked_at_about_once_a_second_and_not_read_again(path: Path, simulated: Time) -> None:
    file, taken = Watched(path, simulated), list[Grants]()
    following = asyncio.create_task(file.follow(taken.append))
    await until(lambda: simulated.now > 60)
    await end(following)
    in_a_minute = [second for second in file.looks if second <= 60]
    assert 60 <= len(in_a_minute) <= 120
    assert len(file.reads) == len(taken) == 1


@pytest.mark.parametrize("second", [10.0, 10.2, 10.4, 10.6, 10.8])
async def test_a_change_counts_within_the_second_that_is_documented(path: Path, simulated: Time, second: float) -> None:
    file, taken = Watched(path, simulated), list[float]()
    simulated.at(second, lambda: path.write_text("another\n"))
    following = asyncio.create_task(file.follow(lambda _: taken.append(simulated.now)))
    await until(lambda: len(taken) == 2)
    await end(following)
    assert second < taken[1] < second + 1


async def test_a_writer_that_pauses_for_a_moment_is_waited_for(path: Path, simulated: Time) -> None:
    """The look falls between the two halves, between the others the file does not change."""
    look = key_file.AT_REST + 3 * key_file.LOOK_EVERY
    simulated.at(look - 0.05, lambda: path.write_text("half\n"))
    simulated.at(look + 0.05, lambda: path.write_text("half\nwhole\n"))
    file, taken = Watched(path, simulated), list[set[str]]()
    following = asyncio.create_task(file.follow(lambda grants: taken.append(set(grants))))
    await until(lambda: simulated.now > 10)
    await end(following)
    assert taken == [{"first"}, {"half", "whole"}]


async def test_each_change_is_taken_once(path: Path) -> None:
    async with followed(path) as taken:
        write(path, "second\n")
        await until(lambda: taken[-1] == {"second"})
        write(path, "second\nthird\n")
        await until(lambda: taken[-1] == {"second", "third"})
        assert len(taken) == 3


async def test_a_change_between_the_start_and_the_first_look_is_taken(path: Path) -> None:
    file = KeyFile(path, lambda: read_client_keys(Config(api_keys_file=path), {}))
    write(path, "newer\n")
    taken: list[Grants] = []
    following = asyncio.create_task(file.follow(taken.append))
    await until(lambda: taken)
    assert set(taken[0]) == {"newer"}
    await end(following)


@pytest.mark.parametrize("bad", ["key rpm=none\n", "twice\ntwice\n", "x\n", "", None])
async def test_a_file_that_cannot_be_used_changes_nothing_and_is_logged_once(
    path: Path, bad: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    async with followed(path) as taken:
        write(path, bad)
        await until(lambda: KEPT in caplog.text)
        await asyncio.sleep(0.05)  # several looks
        assert caplog.text.count(KEPT) == 1
        (said,) = [each for each in caplog.records if KEPT in each.message]
        assert "keys" in said.message.removeprefix(KEPT), "the reason, in one line"
        assert said.exc_info is None
        assert len(taken) == 1
        write(path, "mended\n")
        await until(lambda: taken[-1] == {"mended"})


async def test_a_bug_in_reading_is_logged_and_the_next_change_counts(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = False

    def read() -> Grants:
        if broken:
            raise RuntimeError("a bug")
        return {path.read_text().strip(): Grant()}

    async with followed(path, read) as taken:
        broken = True
        write(path, "unread\n")
        await until(lambda: KEPT in caplog.text)
        broken = False
        write(path, "read\n")
        await until(lambda: taken[-1] == {"read"})
        assert "RuntimeError" in caplog.text


async def test_a_mounted_secret_changes_by_its_link(path: Path, tmp_path: Path) -> None:
    for name in ("v1", "v2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "keys").write_text(f"{name}\n")
    link(tmp_path / "v1" / "keys", path)
    async with followed(path) as taken:
        link(tmp_path / "v2" / "keys", path)
        await until(lambda: taken[-1] == {"v2"})
        assert taken == [{"v1"}, {"v2"}]


async def test_a_mounted_secret_changes_by_a_link_on_the_way(tmp_path: Path) -> None:
    """As Kubernetes does it: keys → data/keys stays, data → v1 becomes data → v2."""
    for name in ("v1", "v2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "keys").write_text(f"{name}\n")
    link(tmp_path / "v1", tmp_path / "data")
    link(tmp_path / "data" / "keys", tmp_path / "linked")
    async with followed(tmp_path / "linked") as taken:
        link(tmp_path / "v2", tmp_path / "data")
        await until(lambda: taken[-1] == {"v2"})


@pytest.mark.parametrize("change", ["later", "longer", "another file"])
async def test_a_change_is_seen_by_its_time_or_its_size_or_its_file(path: Path, change: str) -> None:
    """Clocks of file systems are coarse, and a copy may keep the time."""
    os.utime(path, ns=(0, 10**18))
    async with followed(path) as taken:
        text = "first\nsecond\n" if change == "longer" else "other\n"
        into = path.with_name("new") if change == "another file" else path
        into.write_text(text)
        os.utime(into, ns=(0, 10**18 + (change == "later")))
        into.replace(path)
        await until(lambda: taken[-1] == set(text.split()))


async def test_only_a_change_is_in_the_log_as_one(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "dragoman")
    async with followed(path):
        assert "the keys were read again" not in caplog.text
        write(path, "second\n")
        await until(lambda: "the keys were read again" in caplog.text)


async def test_a_file_that_is_being_rewritten_is_not_taken_half_written(path: Path) -> None:
    """The writer is slower than a look, and writes between the looks around a read too."""
    halves = iter(("a\n", "a\nb\n", "a\nb\nc\n"))

    def read() -> Grants:
        found = {key: Grant() for key in path.read_text().split()}
        if (more := next(halves, None)) is not None:  # the writer goes on while the file is read
            path.write_text(more)
        return found

    async with followed(path, read) as taken:
        await asyncio.sleep(0.05)  # several looks
        assert taken == [{"a", "b", "c"}]


async def test_a_file_that_never_rests_is_read_but_once_it_does(path: Path) -> None:
    """It grows between all looks: nothing is read until it stays the same from one to the next."""
    growing = True
    looks = 0
    read: list[str] = []

    class Growing(KeyFile):
        def _look(self) -> tuple[int, int, int] | None:
            nonlocal looks
            looks += 1
            if growing:
                path.write_text("k" * (looks + 10))
                os.utime(path, ns=(looks, looks))
            return super()._look()

    def whole() -> Grants:
        read.append(path.read_text())
        return {read[-1]: Grant()}

    taken: list[Grants] = []
    following = asyncio.create_task(Growing(path, whole).follow(taken.append))
    await until(lambda: looks > 10)
    assert not read
    growing = False
    await until(lambda: taken)
    assert len(read) == 1
    await end(following)


async def test_the_file_is_looked_at_and_read_in_threads_and_taken_in_the_loop(path: Path) -> None:
    threads: dict[str, set[int]] = {"look": set(), "read": set(), "take": set()}

    class Noted(KeyFile):
        def _look(self) -> tuple[int, int, int] | None:
            threads["look"].add(threading.get_ident())
            return super()._look()

    def read() -> Grants:
        threads["read"].add(threading.get_ident())
        return {}

    file = Noted(path, read)
    following = asyncio.create_task(file.follow(lambda _: threads["take"].add(threading.get_ident())))
    await until(lambda: threads["take"])
    own = threading.get_ident()
    assert threads["take"] == {own}
    assert own not in threads["look"] | threads["read"]
    await end(following)


async def test_what_can_be_read_only_once_is_not_watched(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    def read() -> Grants:
        raise ConfigError("read")

    async with asyncio.timeout(10):
        await KeyFile(tmp_path / "pipe", read).follow(lambda _: None)
