"""A store in a real PostgreSQL: shared by gateways, stopped, frozen and started again under them."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from dragoman.gateway.store.lazy import LazyStore
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
