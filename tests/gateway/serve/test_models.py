"""The list of models says which tools the gateway runs itself."""

from __future__ import annotations

import pytest

from dragoman.gateway.config import SearchConfig
from tests.gateway_fakes import running

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
