"""The search service: what it is asked, what of its answer is taken, and what becomes of one that does not behave."""

from __future__ import annotations

import asyncio
import gzip
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from dragoman.gateway.calls.search_client import SearchClient
from dragoman.gateway.config import Config, ConfigError, SearchConfig, load
from dragoman.gateway.effective import effective
from dragoman.gateway.keys.secrets import Secrets, read
from dragoman.translators.ir import SearchEnded, SearchError, WebSearch
from tests.scripted_search import Answering, Json, ScriptedSearch, found, page, searching
from tests.waiting import until

WANTED = WebSearch("web_search")


async def search(
    at: ScriptedSearch, query: str = "q", key: str | None = None, wanted: WebSearch = WANTED, **settings: Any
) -> SearchEnded:
    client = SearchClient(SearchConfig(**{"url": at.url, **settings}), key)
    try:
        return await client.search(query, wanted)
    finally:
        await client.close()


def answering(value: object) -> Answering:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response(value)

    return answer


async def test_searxng_is_asked_for_json_and_told_nothing_of_the_client() -> None:
    async with searching() as service:
        ended = await search(service, "old maps & more", parameters={"language": "de", "safesearch": 1})
    (asked,) = service.asked
    assert (asked["method"], asked["path"]) == ("GET", "/search")
    assert asked["query"] == {"q": "old maps & more", "format": "json", "language": "de", "safesearch": "1"}
    assert set(asked["headers"]) == {"host", "user-agent", "accept", "accept-encoding"}
    assert [each.url for each in ended.results] == ["https://example.org/1", "https://example.org/2"]


@pytest.mark.parametrize("written", ["", "/", "/search", "/search/"])
async def test_the_address_of_searxng_may_be_that_of_its_page(written: str) -> None:
    async with searching() as service:
        assert (await search(service, url=f"{service.url}{written}")).results
        assert await search(service, service="json", url=f"{service.url}{written}") is not None
    assert [asked["path"] for asked in service.asked] == ["/search", written or "/"]


async def test_a_searxng_that_refuses_json_is_said_to_lack_it(caplog: pytest.LogCaptureFixture) -> None:
    async with searching(status(403)) as service:
        await search(service)
        await search(service, service="json")
    first, second = caplog.messages
    assert "status 403: its settings.yml must list json below search.formats" in first
    assert second.endswith("status 403")


SHAPES: dict[str, tuple[str, str, str, Json]] = {
    "brave": (
        "GET",
        "x-subscription-token",
        "K",
        {"web": {"results": [{"url": "http://a.b/", "title": "T", "description": "<strong>X</strong>", "age": "1 d"}]}},
    ),
    "tavily": (
        "POST",
        "authorization",
        "Bearer K",
        {"results": [{"url": "http://a.b/", "title": "T", "content": "X"}]},
    ),
    "serper": ("POST", "x-api-key", "K", {"organic": [{"link": "http://a.b/", "title": "T", "snippet": "X"}]}),
}


@pytest.mark.parametrize("name", SHAPES)
async def test_the_services_that_need_a_key(name: str) -> None:
    method, header, value, answer = SHAPES[name]
    async with searching(answering(answer)) as service:
        ended = await search(service, key="K", service=name, api_key_env="X", results=5)
    (asked,) = service.asked
    assert (asked["method"], asked["headers"][header]) == (method, value)
    assert "q" in str(asked.get("body") or asked["query"])
    assert "5" in str(asked.get("body") or asked["query"])
    ((result),) = ended.results
    assert (result.url, result.title, result.text) == ("http://a.b/", "T", "X")
    async with searching(answering({})) as service:  # what they answer where nothing was found
        assert await search(service, key="K", service=name, api_key_env="X") == SearchEnded()


async def test_any_other_service_in_json() -> None:
    shape = {"method": "POST", "query": "term", "header": "X-Key", "results": "data.items", "url": "link", "text": "t"}
    async with searching(answering({"data": {"items": [{"link": "https://a.b/c", "t": "X"}]}})) as service:
        ended = await search(service, key="K", service="json", shape=shape, parameters={"deep": True})
    (asked,) = service.asked
    assert (asked["path"], asked["headers"]["x-key"]) == ("/", "K")
    assert asked["body"] == {"term": "q", "deep": True}
    ((result),) = ended.results
    assert (result.url, result.title, result.text) == ("https://a.b/c", "a.b", "X")


async def test_what_is_no_result_is_left_out_and_the_rest_is_plain_text() -> None:
    odd: list[Any] = [
        page(1, url="javascript:alert(1)"),
        page(2, url="https://"),
        page(3, url="https://a.b/ c"),
        page(4, url="file:///etc/passwd"),
        page(5, url=None),
        page(6, url="https://[::1"),
        page(7, url="https://a.b/" + "x" * 3000),
        page(8, title="<b>Bold</b> &amp;\n\x1b[31m red\u202e", content={"a": 1}),
        "nothing",
        page(9, title=None, content="a &lt; b"),
        page(9, content="the same page again"),
    ]
    async with searching(found(*odd)) as service:
        ended = await search(service)
    assert [(each.url, each.title, each.text) for each in ended.results] == [
        ("https://example.org/8", "Bold & [31m red", ""),
        ("https://example.org/9", "example.org", "a < b"),
    ]


@pytest.mark.parametrize("results", [1, 3, 8])
async def test_results_and_characters_are_bounded(results: int) -> None:
    pages = [page(number, content="word " * 2000) for number in range(1, 9)]
    async with searching(found(*pages)) as service:
        ended = await search(service, results=results, text=1000)
    assert len(ended.results) == results
    assert sum(len(each.url) + len(each.title) + len(each.text) for each in ended.results) <= 1000
    assert all(each.text.endswith("…") for each in ended.results)


async def test_a_client_may_want_fewer_results() -> None:
    async with searching(found(*map(page, range(8)))) as service:
        ended = await search(service, wanted=WebSearch("w", results=3))
    assert len(ended.results) == 3


async def redirecting(request: web.Request) -> web.Response:
    raise web.HTTPFound("http://127.0.0.1:1/")


async def compressed(request: web.Request) -> web.Response:
    body = gzip.compress(b'{"results": []}')
    return web.Response(body=body, headers={"Content-Encoding": "gzip", "Content-Type": "application/json"})


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b'{"results": [' + b" " * 8192)


async def silent(request: web.Request) -> web.Response:
    await asyncio.sleep(3600)
    raise AssertionError


def status(code: int) -> Answering:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=code, text="the words of the service")

    return answer


FAULTS: dict[str, tuple[Answering, SearchError]] = {
    "no JSON": (answering(None), "unavailable"),
    "a list": (answering([]), "unavailable"),
    "no results": (answering({"results": {"a": 1}}), "unavailable"),
    "a page": (status(200), "unavailable"),
    "403": (status(403), "unavailable"),  # what SearXNG answers where its settings do not list json
    "429": (status(429), "too_many_requests"),
    "500": (status(500), "unavailable"),
    "redirect": (redirecting, "unavailable"),
    "compressed": (compressed, "unavailable"),
    "endless": (endless, "unavailable"),
    "silent": (silent, "unavailable"),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_service_that_does_not_behave_fails_the_search_alone(
    fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer, error = FAULTS[fault]
    limit = 0.05 if fault == "silent" else 60
    async with searching(answer) as service:
        assert await search(service, "a private query", bytes=4096, timeout=limit) == SearchEnded(error=error)
        assert len(service.asked) == 1
        await until(lambda: service.running == 0)
    assert "private" not in caplog.text
    assert "words of the service" not in caplog.text


async def test_a_service_that_is_not_there() -> None:
    async with searching() as service:
        port = service.port
    service.port = port
    assert await search(service) == SearchEnded(error="unavailable")


async def test_only_so_many_searches_run_at_once() -> None:
    go_on = asyncio.Event()

    async def slow(request: web.Request) -> web.StreamResponse:
        await go_on.wait()
        return await found(page(1))(request)

    async with searching(slow) as service:
        client = SearchClient(SearchConfig(url=service.url, at_once=2))
        tasks = [asyncio.create_task(client.search(f"q{number}", WANTED)) for number in range(4)]
        await until(lambda: service.running == 2)
        assert len(service.asked) == 2
        go_on.set()
        assert [len((await task).results) for task in tasks] == [1, 1, 1, 1]
        await client.close()


# ------------------------------------------------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("search: {url: 'ftp://a'}", "http"),
        ("search: {url: 'http://user:word@a'}", "no user"),
        ("search: {url: 'http://a/?api_key=word'}", "no user, password or query"),
        ("search: {service: brave}", "needs api_key_env or api_key_file"),
        ("search: {service: brave, api_key_env: A, api_key_file: /b}", "exclude each other"),
        ("search: {service: google}", "searxng"),
        ("search: {service: json, shape: {query: term}}", "needs a url"),
    ],
)
def test_what_cannot_work_is_refused(text: str, fault: str, tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=fault) as refused:
        load(path)
    assert "word" not in str(refused.value).replace("password", "")


def test_it_is_off_unless_a_service_is_named() -> None:
    assert not Config().search.runs
    assert SearchConfig(url="http://searxng:8080").runs
    assert SearchConfig(service="brave", api_key_env="A").runs


def test_the_key_is_read_from_where_it_is_and_never_shown(tmp_path: Path) -> None:
    config = Config(search={"service": "brave", "api_key_env": "SEARCH_KEY"})
    with pytest.raises(ConfigError, match="search: api_key_env: the variable SEARCH_KEY is not set"):
        read(config, {})
    secrets = read(config, {"SEARCH_KEY": "very-secret"})
    assert secrets.search_key == "very-secret"
    assert "very-secret" in secrets.all()  # so that the log removes it
    shown = effective(
        config.model_copy(update={"search": config.search.model_copy(update={"parameters": {"token": "x1"}})}), secrets
    )
    assert "very-secret" not in shown + repr(secrets)
    assert "x1" not in shown  # where it does not belong
    assert "# key sent to the search service: ****" in shown
    path = tmp_path / "key"
    path.write_text("# the key\nfrom-a-file\n")
    config = Config(search={"service": "tavily", "api_key_file": path})
    assert read(config, {}).search_key == "from-a-file"
    assert Secrets().search_key is None
