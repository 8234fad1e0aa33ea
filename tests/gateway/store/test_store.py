"""The store: conversations, owners, deletion, age and size, and what happens while it cannot be reached."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from dragoman.gateway.keys.reasoning_seal import Sealer
from dragoman.gateway.store import engine as engine_module
from dragoman.gateway.store import statements
from dragoman.gateway.store import store as store_module
from dragoman.gateway.store.kept import Json, Kept, StoreDown
from dragoman.gateway.store.store import Store
from tests.real.postgres import Postgres
from tests.waiting import until

DAY = 86_400.0
GIBIBYTE = 2**30


def item(id: str, text: str = "x") -> Json:
    return {"type": "message", "id": id, "content": text}


def kept(id: str, previous: str | None = None, owner: str = "me", text: str = "x") -> Kept:
    asked, answered = [item(f"in_{id}", text)], [item(f"out_{id}", text)]
    return Kept(id, owner, previous, 1_700_000_000, {"id": id, "status": "completed"}, asked, answered)


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgresql", marks=pytest.mark.real)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        return server.database()
    return "memory" if request.param == "memory" else f"sqlite:{tmp_path / 'deep' / 'answers.db'}"


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    it = Store(url, age=DAY, size=GIBIBYTE)
    await it.start()
    yield it
    await it.close()


def ids(items: list[Json] | None) -> list[str] | None:
    return None if items is None else [item["id"] for item in items]


async def test_an_answer_is_found_again_as_it_was(store: Store) -> None:
    await store.put(kept("r1", text="h\u00e9\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16")))
    found = await store.get("me", "r1")
    assert found == kept("r1", text="h\u00e9\U0001f600")
    assert await store.get("me", "r2") is None


async def test_a_conversation_is_all_its_items_in_order_and_may_branch(store: Store) -> None:
    for each in (kept("r1"), kept("r2", "r1"), kept("r3", "r2"), kept("r2b", "r1")):
        await store.put(each)
    assert ids(await store.conversation("me", "r3")) == ["in_r1", "out_r1", "in_r2", "out_r2", "in_r3", "out_r3"]
    assert ids(await store.conversation("me", "r2b")) == ["in_r1", "out_r1", "in_r2b", "out_r2b"]
    assert await store.conversation("me", "r9") is None


@pytest.mark.parametrize("limit", ["MOST_ITEMS", "MOST_BYTES"])
async def test_what_is_too_much_is_not_kept_and_holds_up_nobody(
    limit: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, limit, 1)
    with pytest.raises(StoreDown):
        await store.put(kept("r1"))
    assert not store.down
    assert await store.get("me", "r1") is None


async def test_what_is_long_is_kept_in_less(url: str) -> None:
    store = Store(url, age=DAY, size=GIBIBYTE)
    await store.start()
    tools = [{"name": f"tool_{number}", "parameters": {"type": "object", "properties": {}}} for number in range(200)]
    whole = Kept("r1", "me", None, 1, {"id": "r1", "tools": tools}, [item("i", "\u00e4b" * 2_000)])
    await store.put(whole)
    assert await store.get("me", "r1") == whole
    assert store._engine is not None
    async with store._engine.connect() as connection:
        counted = await connection.exec_driver_sql("select size from conversations")
        assert counted.scalar_one() < 2_500
    await store.close()


async def test_fifty_turns_are_their_own_items(store: Store) -> None:
    for turn in range(50):
        await store.put(kept(f"r{turn}", f"r{turn - 1}" if turn else None))
    assert len(await store.conversation("me", "r49") or []) == 100
    assert store._engine is not None
    async with store._engine.connect() as connection:
        counted = await connection.exec_driver_sql("select count(*) from items")
        assert counted.scalar_one() == 100


async def test_nobody_but_its_owner_finds_an_answer(store: Store) -> None:
    await store.put(kept("r1"))
    assert await store.get("you", "r1") is None
    assert await store.conversation("you", "r1") is None
    assert await store.items("you", ["in_r1"]) == {}
    assert not await store.delete("you", "r1")
    assert await store.items("me", ["in_r1", "in_r1"]) == {"in_r1": item("in_r1")}


async def test_what_is_deleted_cannot_be_continued(store: Store) -> None:
    for each in (kept("r1"), kept("r2", "r1")):
        await store.put(each)
    assert await store.delete("me", "r1")
    assert not await store.delete("me", "r1")
    assert await store.get("me", "r1") is None
    assert await store.items("me", ["in_r1"]) == {}
    assert await store.get("me", "r2") is not None
    assert await store.conversation("me", "r2") is None


async def test_what_was_not_used_for_too_long_goes_as_a_whole(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    for each in (kept("old1"), kept("old2", "old1"), kept("used1")):
        await store.put(each)
    monkeypatch.setattr(time, "time", lambda: now + DAY - 10)
    await store.put(kept("used2", "used1"))
    monkeypatch.setattr(time, "time", lambda: now + DAY + 10)
    await store.clean()
    assert await store.get("me", "old1") is None
    assert await store.get("me", "old2") is None
    assert len(await store.conversation("me", "used2") or []) == 4


async def test_beyond_the_size_the_longest_unused_goes_first(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(url, age=DAY, size=25_000)
    monkeypatch.setattr(store_module, "SHORT", 100_000)  # nothing is compressed
    await store.start()
    now = time.time()
    for number in range(5):
        monkeypatch.setattr(time, "time", lambda number=number: now + number)
        await store.put(kept(f"r{number}", text="x" * 5_000))
    await store.clean()
    left = [number for number in range(5) if await store.get("me", f"r{number}") is not None]
    assert left == [3, 4]
    await store.close()


async def test_many_conversations_are_deleted_a_few_at_a_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statements, "DELETED", 2)
    now = time.time()
    for number in range(7):
        await store.put(kept(f"r{number}"))
    monkeypatch.setattr(time, "time", lambda: now + DAY + 10)
    await store.put(kept("new"))
    await store.clean()
    assert [number for number in range(7) if await store.get("me", f"r{number}") is not None] == []
    assert await store.get("me", "new") is not None


async def test_many_at_once_are_all_kept(store: Store) -> None:
    await store.put(kept("r"))
    await asyncio.gather(*(store.put(kept(f"r{number}", "r" if number % 2 else None)) for number in range(40)))
    for number in range(40):
        assert len(await store.conversation("me", f"r{number}") or []) == (4 if number % 2 else 2)


async def test_two_processes_share_one(url: str) -> None:
    if url == "memory":
        pytest.skip("what is in memory is in one process")
    one, two = Store(url, age=DAY, size=GIBIBYTE), Store(url, age=DAY, size=GIBIBYTE)
    await asyncio.gather(one.start(), two.start())
    assert not one.down
    assert not two.down
    await asyncio.gather(*(each.put(kept(f"r{place}-{id(each)}")) for each in (one, two) for place in range(20)))
    await one.put(kept("r1"))
    await two.put(kept("r2", "r1"))
    assert ids(await one.conversation("me", "r2")) == ["in_r1", "out_r1", "in_r2", "out_r2"]
    await one.close()
    await two.close()


@pytest.mark.parametrize("odd", ["", "a\0b", "\ud800", "x" * 97, "r1' or '1'='1", "r\u00e4", "%", "r1 ", "r1\n"])
async def test_an_odd_id_is_an_unknown_one(store: Store, odd: str) -> None:
    await store.put(kept("r1"))
    assert await store.get("me", odd) is None
    assert await store.conversation("me", odd) is None
    assert await store.items("me", [odd, "in_r1"]) == {"in_r1": item("in_r1")}
    assert not await store.delete("me", odd)
    assert not store.down


async def test_an_item_keeps_the_odd_id_that_its_client_gave_it(store: Store) -> None:
    odd = [item("x" * 500), item("a\0b"), {**item(""), "id": 7}]
    await store.put(Kept("r1", "me", None, 1, {"id": "r1"}, odd))
    assert await store.conversation("me", "r1") == odd


async def test_of_two_items_with_one_id_the_later_is_found(store: Store) -> None:
    for place, text in enumerate(("one", "two")):
        await store.put(Kept(f"r{place}", "me", None, place, {"id": f"r{place}"}, [item("same", text)]))
    assert await store.items("me", ["same"]) == {"same": item("same", "two")}


async def test_a_caller_that_leaves_ends_nothing_halfway(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    original, begun = statements.put, asyncio.Event()

    async def put(connection: AsyncConnection, rows: statements.Rows) -> None:
        begun.set()
        await original(connection, rows)

    monkeypatch.setattr(statements, "put", put)
    leaving = asyncio.create_task(store.put(kept("r1")))
    await begun.wait()
    leaving.cancel()
    await asyncio.wait((leaving,))
    await store.put(kept("r2"))
    await until(lambda: not store._working)
    assert await store.get("me", "r1") is not None
    assert not store.down


async def test_a_restart_loses_nothing(tmp_path: Path) -> None:
    for turn in range(3):
        store = Store(f"sqlite:{tmp_path / 'a.db'}", age=DAY, size=GIBIBYTE)
        await store.start()
        await store.put(kept(f"r{turn}", f"r{turn - 1}" if turn else None))
        await store.close()
    store = Store(f"sqlite:{tmp_path / 'a.db'}", age=DAY, size=GIBIBYTE)
    assert len(await store.conversation("me", "r2") or []) == 6
    await store.close()


async def test_sealed_it_cannot_be_read_on_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = Store(f"sqlite:{path}", age=DAY, size=GIBIBYTE, sealer=Sealer(("0" * 64,)))
    await store.put(kept("r1", text="a secret"))
    assert await store.get("me", "r1") == kept("r1", text="a secret")
    await store.close()
    with contextlib.closing(sqlite3.connect(path)) as database:
        bodies = [row[0] for row in database.execute("select body from items union select body from answers")]
    assert bodies
    assert not any(b"secret" in body or body.startswith(b"{") for body in bodies)


@pytest.mark.parametrize("spoil", ["no database", "a later version"])
async def test_a_file_that_cannot_be_used_is_reported_and_left_alone(
    spoil: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.db"
    if spoil == "no database":
        path.write_bytes(b"this is no database" * 100)
    else:
        with sqlite3.connect(path) as database:
            database.execute("create table store_version (version integer primary key)")
            database.execute("insert into store_version values (999)")
        database.close()
    store = Store(f"sqlite:{path}", age=DAY, size=GIBIBYTE)
    await store.start()
    assert "cannot be used" in caplog.text
    with pytest.raises(StoreDown):
        await store.put(kept("r1"))
    await store.close()
    if spoil == "no database":
        assert path.read_bytes() == b"this is no database" * 100
    else:
        with contextlib.closing(sqlite3.connect(path)) as database:
            assert database.execute("select * from sqlite_master").fetchall()[0][1] == "store_version"
            assert database.execute("select version from store_version").fetchall() == [(999,)]


async def test_a_store_that_failed_is_left_alone_and_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "REST", 0.05)
    folder = tmp_path / "not there"
    folder.write_text("a file where a folder should be")
    store = Store(f"sqlite:{folder / 'a.db'}", age=DAY, size=GIBIBYTE)
    with pytest.raises(StoreDown):
        await store.put(kept("r1"))
    folder.unlink()
    with pytest.raises(StoreDown):
        await store.put(kept("r1"))  # at once, without a look
    await until(lambda: not store.down)
    await store.put(kept("r1"))
    assert await store.get("me", "r1") is not None
    await store.close()


async def test_a_store_that_takes_no_writes_is_not_used_again_until_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each answer would wait for it anew."""
    monkeypatch.setattr(store_module, "REST", 0.05)
    monkeypatch.setattr(engine_module, "BUSY", 50)
    path = tmp_path / "a.db"
    store = Store(f"sqlite:{path}", age=DAY, size=GIBIBYTE)
    await store.put(kept("r1"))
    other = sqlite3.connect(path)
    other.execute("begin immediate")
    with pytest.raises(StoreDown):
        await store.put(kept("r2"))
    await asyncio.sleep(0.5)
    assert store.down
    other.rollback()
    other.close()
    await until(lambda: not store.down)
    await store.put(kept("r2"))
    assert caplog.text.count("cannot be used") == 1
    await store.close()


async def test_on_a_full_disk_what_is_kept_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pages = 60
    set_up = engine_module._set_up

    def bounded(connection: Any, record: object) -> None:
        set_up(connection, record)
        connection.cursor().execute(f"PRAGMA max_page_count={pages}")

    monkeypatch.setattr(engine_module, "_set_up", bounded)
    store = Store(f"sqlite:{tmp_path / 'a.db'}", age=DAY, size=GIBIBYTE)
    await store.put(kept("r1"))
    for _ in range(3):
        with pytest.raises(StoreDown):
            await store.put(kept("r2", text=os.urandom(200_000).hex()))
        assert await store.get("me", "r1") == kept("r1")
        assert await store.get("me", "r2") is None
    pages = 10_000
    await store._let_go()
    await store.put(kept("r2"))
    assert caplog.text.count("it has no room") == 1
    await store.close()


async def test_a_burst_of_questions_does_not_make_the_store_down(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = statements.answer

    async def slow(connection: AsyncConnection, **words: Any) -> Any:
        await asyncio.sleep(0.05)
        return await answer(connection, **words)

    monkeypatch.setattr(statements, "answer", slow)
    monkeypatch.setattr(store_module, "READ_LIMIT", 0.3)  # which all of them together exceed
    store = Store(url, age=DAY, size=GIBIBYTE)
    await store.put(kept("r1"))
    found = await asyncio.gather(*(store.get("me", "r1") for _ in range(100)))
    assert found == [kept("r1")] * 100
    await store.close()


async def test_a_file_that_was_deleted_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By somebody who wanted to forget all conversations."""
    monkeypatch.setattr(store_module, "REST", 0.05)
    path = tmp_path / "a.db"
    store = Store(f"sqlite:{path}", age=DAY, size=GIBIBYTE)
    await store.put(kept("r1"))
    for name in os.listdir(tmp_path):
        os.unlink(tmp_path / name)
    for _ in range(3):  # connections that are there know the file that is gone
        await asyncio.gather(*(store.get("me", "r1") for _ in range(8)), return_exceptions=True)
    assert store.down
    await until(lambda: not store.down)
    await store.put(kept("r2"))
    await store.close()
    assert {stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in os.listdir(tmp_path)} == {0o600}
    again = Store(f"sqlite:{path}", age=DAY, size=GIBIBYTE)
    assert await again.get("me", "r2") == kept("r2")
    await again.close()


async def test_a_question_is_bounded_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.db"
    store = Store(f"sqlite:{path}", age=DAY, size=GIBIBYTE)
    await store.put(kept("r1"))
    monkeypatch.setattr(store_module, "WRITE_LIMIT", 0.2)
    other = sqlite3.connect(path)
    other.execute("begin exclusive")
    with pytest.raises(StoreDown):
        await store.put(kept("r2"))
    other.rollback()
    other.close()
    await store.close()


async def test_what_was_sealed_with_a_lost_key_is_gone(tmp_path: Path) -> None:
    for keys, found in ((("0" * 64,), True), (("1" * 64, "0" * 64), True), (("1" * 64,), False)):
        store = Store(f"sqlite:{tmp_path / 'a.db'}", age=DAY, size=GIBIBYTE, sealer=Sealer(keys))
        if keys == ("0" * 64,):
            await store.put(kept("r1"))
        assert (await store.get("me", "r1") is not None) is found
        assert (await store.conversation("me", "r1") is not None) is found
        assert not store.down
        await store.close()
