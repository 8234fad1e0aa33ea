"""When a store is loaded, how often, and what calls see of it until then."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from dragoman.gateway.store import lazy
from dragoman.gateway.store.kept import Kept, Sealing, StoreDown
from dragoman.gateway.store.lazy import LazyStore
from dragoman.gateway.store.store import Store
from tests.waiting import until


def kept(id: str, previous: str | None = None) -> Kept:
    return Kept(id, "me", previous, 1_700_000_000, {"id": id}, [{"id": f"in_{id}"}])


def lazy_store(url: str) -> LazyStore:
    return LazyStore(url, age=86_400.0, size=2**30)


class Loading:
    """Counts what is loaded, and lets the first `failures` of them fail. None goes on before `go` is set."""

    def __init__(self, failures: int = 0) -> None:
        self.threads: list[threading.Thread] = []
        self.stores: list[Store] = []
        self.failures = failures
        self.go = threading.Event()
        self.go.set()

    def __call__(self, url: str, age: float, size: int, most: float, sealer: Sealing | None) -> Store:
        self.threads.append(threading.current_thread())
        self.go.wait()
        if len(self.threads) <= self.failures:
            raise ImportError("a library that is broken")
        self.stores.append(Store(url, age=age, size=size, most=most, sealer=sealer))
        return self.stores[-1]


@pytest.fixture
def loading(monkeypatch: pytest.MonkeyPatch) -> Loading:
    it = Loading()
    monkeypatch.setattr(lazy, "_load", it)
    return it


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory" if request.param == "memory" else f"sqlite:{tmp_path / 'deep' / 'answers.db'}"


async def test_a_store_that_nobody_uses_is_not_loaded(url: str, loading: Loading, tmp_path: Path) -> None:
    store = lazy_store(url)
    await store.start()
    assert not store.down
    await store.close()
    assert loading.threads == []
    assert os.listdir(tmp_path) == []


async def test_first_uses_at_the_same_time_share_one_opening_outside_of_the_loop(url: str, loading: Loading) -> None:
    store = lazy_store(url)
    await store.start()
    loading.go.clear()
    store.expect()
    puts = [asyncio.create_task(store.put(kept(f"r{number}"))) for number in range(20)]
    reads = [asyncio.create_task(store.get("me", "other")), asyncio.create_task(store.conversation("me", "other"))]
    await until(lambda: bool(loading.threads))
    assert not any(task.done() for task in (*puts, *reads))
    loading.go.set()
    await asyncio.gather(*puts, *reads)
    assert [await store.get("me", f"r{number}") for number in range(20)] == [kept(f"r{number}") for number in range(20)]
    assert len(loading.threads) == 1
    assert threading.main_thread() not in loading.threads
    await store.close()


@pytest.mark.parametrize("use", ["put", "conversation", "get", "items", "delete"])
async def test_every_use_opens_it(use: str, url: str, loading: Loading) -> None:
    store = lazy_store(url)
    await store.start()
    match use:
        case "put":
            await store.put(kept("r1"))
        case "items":
            assert await store.items("me", ["in_r1"]) == {}
        case _:
            assert not await getattr(store, use)("me", "r1")
    assert len(loading.stores) == 1
    await store.close()


async def test_a_file_that_is_there_is_opened_at_the_start(tmp_path: Path, loading: Loading) -> None:
    url = f"sqlite:{tmp_path / 'a.db'}"
    first, again = lazy_store(url), lazy_store(url)
    await first.start()
    await first.put(kept("r1"))
    await first.close()
    await again.start()
    assert len(loading.stores) == 2
    assert await again.get("me", "r1") == kept("r1")
    await again.close()


async def test_another_process_may_have_made_the_file_meanwhile(tmp_path: Path, loading: Loading) -> None:
    one, two = (lazy_store(f"sqlite:{tmp_path / 'a.db'}") for _ in range(2))
    await one.start()
    await two.start()
    await one.put(kept("r1"))
    assert len(loading.stores) == 1
    await two.put(kept("r2", "r1"))
    assert len(await one.conversation("me", "r2") or []) == 2
    await one.close()
    await two.close()


async def test_two_that_make_the_file_at_the_same_time_share_it(tmp_path: Path) -> None:
    stores = [lazy_store(f"sqlite:{tmp_path / 'a.db'}") for _ in range(4)]
    for store in stores:
        await store.start()
    await asyncio.gather(*(store.put(kept(f"r{number}")) for number, store in enumerate(stores)))
    for store in stores:
        assert [await store.get("me", f"r{number}") is not None for number in range(4)] == [True] * 4
        await store.close()


async def test_generations_share_it_until_the_last_has_ended(url: str, loading: Loading) -> None:
    store = lazy_store(url)
    await store.start()
    await store.put(kept("r1"))
    await store.start()
    await store.close()
    assert await store.get("me", "r1") is not None
    await store.close()
    assert len(loading.stores) == 1
    assert loading.stores[0]._engine is None


async def test_what_is_in_the_way_of_the_file_is_reported_at_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "folder").write_text("a file where a folder should be")
    store = lazy_store(f"sqlite:{tmp_path / 'folder' / 'a.db'}")
    await store.start()
    assert store.down
    assert "cannot be used" in caplog.text
    await store.close()


async def test_a_file_that_cannot_be_made_at_the_first_use_is_a_store_that_is_down(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    store = lazy_store(f"sqlite:{folder / 'a.db'}")
    await store.start()
    folder.write_text("a file where a folder should be")
    with pytest.raises(StoreDown):
        await store.put(kept("r1"))
    assert store.down
    folder.unlink()
    await until(lambda: not store.down)
    await store.put(kept("r1"))
    await store.close()


async def test_loading_that_fails_makes_a_store_that_is_down_and_is_tried_again(
    url: str, loading: Loading, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loading.failures = 1
    monkeypatch.setattr(lazy, "REST", 1e9)
    store = lazy_store(url)
    await store.start()
    failing = await asyncio.gather(*(store.put(kept("r1")) for _ in range(5)), return_exceptions=True)
    assert {type(error) for error in failing} == {StoreDown}
    assert store.down
    with pytest.raises(StoreDown):
        await store.get("me", "r1")  # at once, without another attempt
    assert len(loading.threads) == 1
    assert caplog.text.count("cannot be opened") == 1
    store._rests_until = 0.0
    assert not store.down
    await store.put(kept("r1"))
    assert await store.get("me", "r1") == kept("r1")
    await store.close()


async def test_loading_that_takes_too_long_is_waited_for_no_longer_and_goes_on(
    url: str, loading: Loading, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lazy, "OPEN_LIMIT", 0.05)
    store = lazy_store(url)
    await store.start()
    loading.go.clear()
    with pytest.raises(StoreDown):
        await store.put(kept("r1"))
    loading.go.set()
    await until(lambda: bool(loading.stores))
    monkeypatch.undo()
    await store.put(kept("r1"))
    assert len(loading.stores) == 1
    await store.close()


async def test_a_caller_that_leaves_ends_no_opening(url: str, loading: Loading) -> None:
    store = lazy_store(url)
    await store.start()
    loading.go.clear()
    leaving = asyncio.create_task(store.put(kept("r1")))
    staying = asyncio.create_task(store.put(kept("r2")))
    await until(lambda: bool(loading.threads))
    leaving.cancel()
    await asyncio.wait((leaving,))
    loading.go.set()
    await staying
    assert await store.get("me", "r2") is not None
    assert len(loading.threads) == 1
    await store.close()


async def test_a_gateway_that_ends_while_it_is_loaded_leaves_nothing_open(url: str, loading: Loading) -> None:
    store = lazy_store(url)
    await store.start()
    loading.go.clear()
    waiting = asyncio.create_task(store.put(kept("r1")))
    await until(lambda: bool(loading.threads))
    await store.close()
    with pytest.raises(StoreDown):
        await waiting
    loading.go.set()
    await until(lambda: bool(loading.stores))
    assert loading.stores[0]._engine is None
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "store"]
