"""A store in a real PostgreSQL: shared by gateways, stopped, frozen and started again under them."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import asyncpg
import pytest
from sqlalchemy import update

from dragoman.gateway.store import statements
from dragoman.gateway.store.kept import Kept
from dragoman.gateway.store.lazy import LazyStore
from dragoman.gateway.store.store import REST, Store
from dragoman.gateway.store.tables import conversations
from tests.real.postgres import Postgres
from tests.scripted import Script, text_stream
from tests.serving_gateway import Served, Serving, served
from tests.waiting import until

pytestmark = pytest.mark.real
Json = dict[str, Any]
AT_ONCE = 0.5  # seconds, on a busy machine


HELLOS = [Script(text_stream("hello"))] * 8


@pytest.fixture
def url(postgres: Postgres) -> str:
    return postgres.database()


async def told(url: str, question: str) -> Any:
    """By the database itself."""
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


async def ask(it: Serving, **body: Any) -> Json:
    async with it.ask(**body) as answer:
        whole: Json = await answer.json()
        return {"status": answer.status, "notes": answer.headers.get("x-dragoman-ignored"), **whole}


def store_of(it: Served) -> LazyStore:
    assert it.gateway.store is not None
    return it.gateway.store


async def test_two_gateways_on_one_database_behave_as_one(url: str) -> None:
    keeps: Json = {"store": {"url": url}}
    async with served(*HELLOS, **keeps) as one, served(*HELLOS, **keeps) as two:
        first = await ask(one, input="1")
        second = await ask(two, input="2", previous_response_id=first["id"])
        third = await ask(one, input="3", previous_response_id=second["id"])
        asked = one.server.chats[-1].body
        assert asked is not None
        assert [message["content"] for message in asked["messages"]] == ["1", "hello", "2", "hello", "3"]
        async with two.session.delete(f"{two.url}/v1/responses/{third['id']}") as gone:
            assert gone.status == 200
        async with one.session.get(f"{one.url}/v1/responses/{third['id']}") as answer:
            assert answer.status == 404


@pytest.mark.parametrize("how", ["stopped", "frozen"])
async def test_while_it_is_away_only_what_needs_it_is_refused_and_it_is_used_when_it_is_back(
    how: str, postgres: Postgres, url: str
) -> None:
    away, back = (postgres.stop, postgres.start) if how == "stopped" else (postgres.freeze, postgres.thaw)
    async with served(*HELLOS, store={"url": url}) as it:
        first = await ask(it, input="1")
        await asyncio.to_thread(away)
        try:
            begun = time.monotonic()
            unstored = await ask(it, input="2")  # this one finds out
            assert (unstored["status"], unstored["store"]) == ("completed", False)
            assert time.monotonic() - begun < 1 + AT_ONCE
            for body, status in (({"input": "3"}, "completed"), ({"previous_response_id": first["id"]}, 503)):
                begun = time.monotonic()
                answer = await ask(it, **body)
                assert answer["status"] == status, answer
                assert time.monotonic() - begun < AT_ONCE
                assert answer["notes"] == "answer:not_stored" if status == "completed" else answer["error"]
        finally:
            await asyncio.to_thread(back)
        await until(lambda: not store_of(it).down)
        second = await ask(it, input="4", previous_response_id=first["id"])
        assert second["store"] is True


async def test_a_server_that_was_restarted_unnoticed_costs_no_answer(postgres: Postgres, url: str) -> None:
    async with served(*HELLOS, store={"url": url}) as it:
        first = await ask(it, input="1")
        await asyncio.to_thread(postgres.stop)
        await asyncio.to_thread(postgres.start)
        second = await ask(it, input="2", previous_response_id=first["id"])
        assert second["store"] is True


async def test_a_database_that_lets_nobody_in_is_said_and_asked_again(
    postgres: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    missing = postgres.url("nowhere")
    async with served(*HELLOS, store={"url": missing}) as it:
        assert (await ask(it))["store"] is False
        assert 'database "nowhere" does not exist' in caplog.text
        assert caplog.text.count("cannot be used") == 1


async def test_after_a_failover_it_is_used_again_once_something_can_be_written(
    postgres: Postgres, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that was demoted reads on and writes nothing. Who connects anew finds the one that does."""
    name, keeper = url.rpartition("/")[2], postgres.url("postgres")
    async with served(*HELLOS, store={"url": url}) as it:
        assert (await ask(it))["store"] is True
        await told(keeper, f"alter database {name} set default_transaction_read_only = on")
        await told(keeper, f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'")
        assert (await ask(it))["store"] is False
        await asyncio.sleep(3 * REST)
        assert store_of(it).down
        assert caplog.text.count("cannot be used") == 1
        await told(keeper, f"alter database {name} set default_transaction_read_only = off")
        await until(lambda: not store_of(it).down)
        assert (await ask(it))["store"] is True


async def test_a_conversation_that_is_continued_as_it_becomes_too_old_is_not_deleted(url: str) -> None:
    store = Store(url, age=60, size=2**30)
    await store.put(Kept("r1", "me", None, 0, {"id": "r1"}))
    engine = await store._opened()
    async with engine.begin() as connection:
        await connection.execute(update(conversations).values(used_at=0))
    rows = store._rows(Kept("r2", "me", "r1", 0, {"id": "r2"}))
    async with engine.begin() as connection:
        await statements.put(connection, rows)
        cleaning = asyncio.create_task(store.clean())
        while await told(url, "select count(*) from pg_locks where not granted") == 0:
            assert not cleaning.done()
    await cleaning
    assert await store.conversation("me", "r2") == []
    await store.close()
