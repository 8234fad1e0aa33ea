"""The gateway's description of itself is whole, and the gateway keeps to it whatever is asked.

schemathesis makes requests from the description, sound ones and others, and compares each answer with it: no fault of
ours, no status, media type or body that is not described.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from dragoman.gateway.config import Config
from dragoman.gateway.serve.app import build
from dragoman.gateway.serve.openapi import describe
from dragoman.translators.registry import FORWARDED, PROTOCOLS
from tests.gateway_fakes import FakeBackend, running
from tests.serving_gateway import listening

pytestmark = pytest.mark.slow

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


class Thread:
    """A gateway in a thread of its own: the client of the tests below blocks."""

    def __init__(self) -> None:
        self.url = ""
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))
        self._stop: asyncio.Event | None = None

    def __enter__(self) -> Thread:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        async with listening(build(Config(), [FakeBackend()])) as it:
            self.url = it.url
            self._ready.set()
            await self._stop.wait()


@pytest.fixture(scope="module")
def served() -> Iterator[str]:
    with Thread() as thread:
        yield thread.url


SCHEMA = schemathesis.openapi.from_dict(describe(PROTOCOLS, FORWARDED.values()))
SCHEMA.config.generation.update(modes=[GenerationMode.POSITIVE, GenerationMode.NEGATIVE])


@SCHEMA.parametrize()
@settings(
    max_examples=15,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_one_that_is_described(case: Any, served: str) -> None:
    case.call_and_validate(base_url=served, checks=CHECKS, timeout=10)


async def test_every_route_is_described_and_nothing_else() -> None:
    async with running(FakeBackend(), protocols=PROTOCOLS) as served:
        routes = set()
        for resource in served.runner.app.router.resources():
            path = str(resource.canonical)
            routes.add(path if path == "/" else path.rstrip("/"))
        async with served.session.get(f"{served.url}/openapi.json") as answer:
            assert answer.status == 200
            told = await answer.json()
    assert set(told["paths"]) == {route.replace("{id:.+}", "{id}") for route in routes}


def test_the_fields_of_bodies_come_from_what_checks_them() -> None:
    schemas = describe(PROTOCOLS)["components"]["schemas"]
    assert schemas["ResponsesRequest"]["properties"]["max_output_tokens"]
    assert schemas["MessagesRequest"]["required"] == ["model", "messages"]
    assert schemas["ChatCompletionsRequest"]["properties"]["temperature"]
    text = str(schemas)
    assert "#/$defs" not in text


def test_a_body_is_described_as_it_is_taken() -> None:
    """Programs that check what they send by the description do not refuse what the gateway takes."""
    schemas = describe(PROTOCOLS)["components"]["schemas"]
    body = {"model": "m", "messages": [], "stop": "x"}
    jsonschema.validate(body, {**schemas["ChatCompletionsRequest"], "components": {"schemas": schemas}})
    seed = schemas["ResponsesRequest"]["properties"]["max_output_tokens"]["anyOf"][0]
    assert (seed["minimum"], seed["type"]) == (16, "integer")


def test_the_query_of_an_operation_and_the_socket_are_described() -> None:
    paths = describe(PROTOCOLS)["paths"]
    for path, names in {
        "/v1/responses/{id}/input_items": ["id", "limit", "order", "after"],
        "/v1/models": ["limit", "after_id", "before_id"],
    }.items():
        assert [each["name"] for each in paths[path]["get"]["parameters"]] == names
    assert "101" in paths["/v1/responses"]["get"]["responses"]
    assert "get" not in paths["/v1/messages"]
