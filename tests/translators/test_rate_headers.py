"""How a limited key stands, in the headers of every answer it gets."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

import pytest

from dragoman.gateway.keys.secrets import Grant, Secrets
from dragoman.translators.rate_headers import Standing, anthropic, duration, openai, rate_headers
from dragoman.translators.registry import PROTOCOLS
from tests.scripted import Script, text_stream
from tests.serving_gateway import PATHS, Served, asking, served

NOON = dt.datetime(2026, 1, 2, 12, 0, 0, tzinfo=dt.UTC)
SECRETS = Secrets(
    ("limited", "requests", "free"),
    grants={"limited": Grant("ann", models=("m",), rpm=4, tpm=1_000_000), "requests": Grant(rpm=100)},
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"), (0.0001, "1ms"), (0.02, "20ms"), (0.9999, "1s"), (1, "1s"), (2.5, "2.5s"), (59.9999, "1m0s"),
        (90, "1m30s"), (90.25, "1m30.25s"), (3600, "1h0m0s"), (3661.5, "1h1m1.5s"),
    ],
)  # fmt: skip
def test_a_duration_is_written_as_go_writes_it(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_times_are_in_the_words_of_the_protocol() -> None:
    standings = {"requests": Standing(60, 3, 12.2)}
    assert rate_headers(anthropic, standings, NOON) == {
        "anthropic-ratelimit-requests-limit": "60",
        "anthropic-ratelimit-requests-remaining": "3",
        "anthropic-ratelimit-requests-reset": "2026-01-02T12:00:13Z",
    }
    assert rate_headers(openai, standings, NOON) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "3",
        "x-ratelimit-reset-requests": "12.2s",
    }
    assert rate_headers(anthropic, {}, NOON) == {}
    assert {each.name: each.rates for each in PROTOCOLS} == {
        "responses": openai,
        "messages": anthropic,
        "chat_completions": openai,
    }


def limits(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items() if "ratelimit" in name.lower()}


def remaining(headers: Mapping[str, str]) -> str:
    found = limits(headers)
    return found.get("x-ratelimit-remaining-requests") or found["anthropic-ratelimit-requests-remaining"]


async def post(it: Served, protocol: str, key: str, path: str = "", **more: Any) -> tuple[int, dict[str, str]]:
    body = asking(protocol, "hi", **more)
    async with it.session.post(it.url + PATHS[protocol] + path, json=body, headers={"x-api-key": key}) as answer:
        await answer.read()
        return answer.status, dict(answer.headers)


@pytest.mark.parametrize("protocol", PATHS)
async def test_every_answer_of_a_limited_key_says_how_it_stands(protocol: str) -> None:
    async with served(*[Script(text_stream("x"))] * 9, secrets=SECRETS, admission={"requests": 9}) as it:
        seen = []
        for more in ({}, {"stream": True}, {"model": "another"}, {"temperature": "hot"}, {}, {}, {}):
            status, headers = await post(it, protocol, "limited", **more)
            assert len(limits(headers)) == 6
            assert all(name.startswith("anthropic-") is (protocol == "messages") for name in limits(headers))
            seen.append((status, remaining(headers)))
        assert seen == [
            (200, "3"), (200, "2"), (403, "2"), (400, "2"), (200, "1"), (200, "0"), (429, "0"),
        ]  # fmt: skip
        assert len(limits((await post(it, protocol, "requests"))[1])) == 3
        for key in ("free", "unknown"):
            assert limits((await post(it, protocol, key))[1]) == {}


async def test_what_belongs_to_no_endpoint_is_in_the_words_of_the_client_that_asks() -> None:
    async with served(secrets=SECRETS) as it:
        for more, prefix in (({}, "x-"), ({"anthropic-version": "2023-06-01"}, "anthropic-")):
            for path, status in (("/v1/models", 200), ("/nothing", 404)):
                async with it.session.get(it.url + path, headers={"x-api-key": "limited", **more}) as answer:
                    assert answer.status in (status, 503)
                    assert len(limits(answer.headers)) == 6
                    assert all(name.startswith(prefix) for name in limits(answer.headers))
        async with it.session.get(it.url + "/healthz", headers={"x-api-key": "limited"}) as answer:
            assert limits(answer.headers) == {}  # nobody is asked who they are there
