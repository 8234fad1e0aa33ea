"""The list of models says which tools the gateway runs itself."""

from __future__ import annotations

import pytest

from dragoman.backends.base import ModelInfo
from dragoman.gateway.config import SearchConfig
from tests.gateway_fakes import FakeBackend, running

HEADERS: tuple[dict[str, str], ...] = ({}, {"anthropic-version": "2023-06-01"})


@pytest.mark.parametrize("headers", HEADERS, ids=["openai", "anthropic"])
@pytest.mark.parametrize(("search", "runs"), [({}, None), ({"url": "http://127.0.0.1:9"}, "web_search")])
async def test_the_list_names_the_search_only_where_the_gateway_has_one(
    headers: dict[str, str], search: dict[str, str], runs: str | None
) -> None:
    async with (
        running(search=SearchConfig.model_validate(search)) as served,
        served.session.get(f"{served.url}/v1/models", headers=headers) as answer,
    ):
        assert answer.status == 200
        assert answer.headers.get("x-dragoman-runs") == runs


@pytest.mark.parametrize(
    ("query", "ids", "more"),
    [
        ("", "abcd", False),
        ("limit=1000", "abcd", False),
        ("limit=2", "ab", True),
        ("limit=2&after_id=b", "cd", False),
        ("limit=1&after_id=b", "c", True),
        ("after_id=d", "", False),
        ("before_id=c", "ab", False),
        ("limit=1&before_id=c", "b", True),
        ("limit=1&before_id=a", "", False),
        ("after_id=&limit=", "abcd", False),
    ],
)
async def test_anthropic_clients_get_pages(query: str, ids: str, more: bool) -> None:
    backend = FakeBackend(served=[ModelInfo(id) for id in "abcd"])
    async with (
        running(backend) as served,
        served.session.get(f"{served.url}/v1/models?{query}", headers=HEADERS[1]) as answer,
    ):
        page = await answer.json()
    assert "".join(each["id"] for each in page["data"]) == ids
    assert (page["has_more"], page["first_id"], page["last_id"]) == (more, ids[:1] or None, ids[-1:] or None)


@pytest.mark.parametrize(
    "query",
    [*(f"limit={limit}" for limit in ("0", "x", "-1", "%D9%A1", "9" * 5000)), "after_id=z", "before_id=z"],
    ids=lambda query: query[:12],
)
async def test_a_wrong_page_is_refused_by_its_name(query: str) -> None:
    async with (
        running() as served,
        served.session.get(f"{served.url}/v1/models?{query}", headers=HEADERS[1]) as answer,
    ):
        assert answer.status == 400
        error = (await answer.json())["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"].startswith(query.partition("=")[0])
