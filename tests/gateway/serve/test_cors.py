"""Pages of other origins: none may call by default; where one may, its browser asks without a key and reads answers."""

from __future__ import annotations

import pytest

from dragoman.gateway.config.sections import CorsConfig
from tests.gateway_fakes import running

PAGE = "https://app.example.org"
ASK = {"model": "only", "input": "hi"}
QUESTION = {
    "Origin": PAGE,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization, content-type,x-stainless-os",
}


@pytest.mark.parametrize("origins", [(PAGE,), ("*",), (PAGE.upper().replace("HTTPS", "https"),)])
async def test_a_preflight_needs_no_key(origins: tuple[str, ...]) -> None:
    async with (
        running(keys=("one",), cors=CorsConfig(origins=origins)) as served,
        served.session.options(f"{served.url}/v1/plain", headers=QUESTION) as answer,
    ):
        assert (answer.status, await answer.read()) == (204, b"")
        assert answer.headers["Access-Control-Allow-Origin"] == PAGE
        assert answer.headers["Access-Control-Allow-Methods"] == "GET, POST, DELETE"
        assert answer.headers["Access-Control-Allow-Headers"] == QUESTION["Access-Control-Request-Headers"]
        assert answer.headers["Vary"] == "Origin"


@pytest.mark.parametrize(("key", "status"), [("one", 200), ("two", 401)])
async def test_a_page_reads_answers_and_refusals(key: str, status: int) -> None:
    async with running(keys=("one",), cors=CorsConfig(origins=(PAGE,))) as served:
        headers = {"Origin": PAGE, "Authorization": f"Bearer {key}"}
        async with served.session.post(f"{served.url}/v1/plain", json=ASK, headers=headers) as answer:
            assert answer.status == status
            assert answer.headers["Access-Control-Allow-Origin"] == PAGE
            shown = set(answer.headers["Access-Control-Expose-Headers"].split(", "))
            assert shown >= {"x-request-id", "x-should-retry", "x-dragoman-estimated"}


@pytest.mark.parametrize(
    ("origins", "headers"),
    [
        ((), QUESTION),
        (("https://other.example.org",), QUESTION),
        ((PAGE,), {**QUESTION, "Origin": "https://evil.example.org"}),
        ((PAGE,), {"Origin": PAGE}),
        ((PAGE,), {name: value for name, value in QUESTION.items() if name != "Origin"}),
    ],
)
async def test_anything_else_is_no_preflight(origins: tuple[str, ...], headers: dict[str, str]) -> None:
    async with (
        running(keys=("one",), cors=CorsConfig(origins=origins)) as served,
        served.session.options(f"{served.url}/v1/plain", headers=headers) as answer,
    ):
        assert answer.status == 401
        assert "Access-Control-Allow-Methods" not in answer.headers


async def test_without_origins_nothing_is_added() -> None:
    async with (
        running() as served,
        served.session.post(f"{served.url}/v1/plain", json=ASK, headers={"Origin": PAGE}) as answer,
    ):
        assert answer.status == 200
        assert not {"Vary", "Access-Control-Allow-Origin"} & answer.headers.keys()


@pytest.mark.parametrize("origin", ["app.example.org", "https://a/path", "https://", "", "https://a b"])
def test_a_wrong_origin_is_named(origin: str) -> None:
    with pytest.raises(ValueError, match="origin as browsers send it"):
        CorsConfig(origins=(origin,))
