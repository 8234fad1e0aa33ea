"""Routes, models, keys and the sleep gate, over real sockets."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import orjson
import pytest
from yarl import URL

from dragoman.backends.base import Health, ModelInfo, Traits
from dragoman.gateway.telemetry.metrics import Metrics
from dragoman.translators.errors import GatewayError, Kind
from tests import serving_gateway
from tests.gateway_fakes import FakeBackend, running
from tests.scripted import Script, text_stream
from tests.waiting import until

ASK = {"model": "only", "input": "hi"}
COMPLETED = {"client_kind": "other", "outcome": "completed", "status": "200"}


# ------------------------------------------------------------------------------------------------------------- routes


def spelled(endpoint: str) -> list[str]:
    """The paths that clients ask when a person has pasted the base URL of another client."""
    bases = ("/v1/", "/", "/v1/v1/", "/v1/v1/v1/", "//", "/v1//", "//v1/")
    return [f"{base}{endpoint}{end}" for base in bases for end in ("", "/", "?beta=true", "/?beta=true")]


@pytest.mark.parametrize("path", [*spelled("plain"), *spelled("plain/other"), "/v1/plain//other"])
async def test_an_endpoint_is_served_below_every_base_that_people_paste(path: str) -> None:
    async with running() as served:
        async with served.post(ASK, path) as answer:
            assert answer.status == 200
        route = "other" if "other" in path else "plain"
        assert served.metric("dragoman_requests_total", route=route, **COMPLETED) == 1


@pytest.mark.parametrize("path", [path for path in spelled("models") if "?" not in path])
async def test_models_are_listed_and_described_below_every_base(path: str) -> None:
    async with running(FakeBackend(served=[ModelInfo("org/name"), ModelInfo("v1")])) as served:
        async with served.session.get(served.url + path) as answer:
            assert [model["id"] for model in (await answer.json())["data"]] == ["org/name", "v1"]
        for name, id in (("org/name", "org/name"), ("org%2Fname", "org/name"), ("v1", "v1"), ("v1/", "v1")):
            address = URL(f"{served.url}{path.rstrip('/')}/{name}", encoded=True)
            async with served.session.get(address) as answer:
                assert (answer.status, (await answer.json())["id"]) == (200, id)


@pytest.mark.parametrize("base", ["", "/v1", "/v1/v1"])
@pytest.mark.parametrize("end", ["", "/"])
async def test_every_protocol_is_served_below_every_base(base: str, end: str) -> None:
    async with serving_gateway.served(*[Script(text_stream("hello"))] * len(serving_gateway.PATHS)) as it:
        for protocol, path in serving_gateway.PATHS.items():
            address = f"{it.url}{base}{path.removeprefix('/v1')}{end}"
            async with it.session.post(address, json=serving_gateway.asking(protocol, "hi")) as answer:
                assert (answer.status, "hello" in await answer.text()) == (200, True), address
        async with it.session.post(
            f"{it.url}{base}/messages/count_tokens{end}", json=serving_gateway.asking("messages", "hi")
        ) as answer:
            assert (answer.status, list(await answer.json())) == (200, ["input_tokens"])
        assert len(it.server.chats) == len(serving_gateway.PATHS)


@pytest.mark.parametrize("path", [path for path in spelled("plain") if "?" not in path])
async def test_what_is_refused_on_such_a_path_is_in_the_protocols_words(path: str) -> None:
    async with running(keys=("one",)) as served:
        key = {"x-api-key": "one"}
        for method, below, headers, status, kind in (
            ("POST", "", {}, 401, "UNAUTHENTICATED"),
            ("PUT", "", key, 405, "METHOD"),
            ("GET", "", {**key, "Connection": "Upgrade", "Upgrade": "websocket"}, 426, "UPGRADE"),
            ("GET", "/nothing", key, 404, "NOT_FOUND"),
        ):
            asked = path.rstrip("/") + below
            async with served.session.request(method, served.url + asked, headers=headers) as answer:
                told = await answer.json()
            assert (answer.status, told["plain"]) == (status, kind)
            assert asked in told["message"] or status in (401, 426)
            assert answer.headers.get("Allow") == ("POST" if status == 405 else None)


@pytest.mark.parametrize(
    "path", ["/v1/healthz", "/v1/v1/metrics", "/healthz/", "//readyz", "/v1/", "/v1/v1", "/x/plain"]
)
async def test_what_is_no_endpoint_has_one_path_only_and_needs_a_key(path: str) -> None:
    async with running(keys=("one",), metrics_public=True) as served:
        for headers, status in (({}, 401), ({"x-api-key": "one"}, 404)):
            async with served.session.get(URL(served.url + path, encoded=True), headers=headers) as answer:
                assert answer.status == status
                assert (await answer.json())["error"]["message"]


async def test_an_upgrade_to_websocket_is_426_in_the_protocols_words() -> None:
    async with running() as served:
        headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        for path in ("/v1/plain", "/v1/plain/"):
            async with served.session.get(served.url + path, headers=headers) as answer:
                assert (answer.status, (await answer.json())["plain"]) == (426, "UPGRADE")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_a_wrong_method_is_405_in_json_with_the_right_one(method: str) -> None:
    async with running() as served, served.session.request(method, served.url + "/v1/plain") as answer:
        assert answer.status == 405
        assert answer.headers["Allow"] == "POST"
        assert (await answer.json())["plain"] == "METHOD"
        assert answer.headers["x-request-id"]
        assert answer.headers["Server"] == "dragoman"


async def test_a_wrong_method_elsewhere_is_405_in_json() -> None:
    async with running() as served, served.session.post(served.url + "/v1/models") as answer:
        assert answer.status == 405
        assert answer.headers["Allow"] == "GET, HEAD"
        assert (await answer.json())["error"]["code"] == "method_not_allowed"


@pytest.mark.parametrize("path", ["/v1/audio/speech", "/v1/moderations", "/", "/v2/plain", "/v1/plain/x/y", "/v1"])
async def test_an_unknown_path_is_404_in_json_naming_what_exists(path: str) -> None:
    async with running() as served, served.post(ASK, path) as answer:
        if path == "/":
            assert answer.status == 405
            return
        assert answer.status == 404
        told = await answer.text()
        assert "POST /v1/plain" in told
        assert orjson.loads(told)


async def test_a_bug_outside_the_protocols_is_a_500_in_json_that_names_the_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(_: Metrics) -> bytes:
        raise ValueError("a bug")

    monkeypatch.setattr(Metrics, "render", broken)
    async with running() as served, served.session.get(served.url + "/metrics") as answer:
        error = (await answer.json())["error"]
        assert (answer.status, error["type"]) == (500, "api_error")
        assert answer.headers["x-request-id"] in error["message"]
        assert "a bug" not in error["message"]


async def test_errors_below_a_protocols_path_are_in_its_words() -> None:
    async with running() as served, served.session.get(served.url + "/v1/plain/abc") as answer:
        assert (answer.status, (await answer.json())["plain"]) == (404, "NOT_FOUND")


async def answers(asked: Any, status: int) -> bool:
    async with asked as answer:
        return bool(answer.status == status)


async def test_liveness_never_depends_on_the_backend_but_readiness_does() -> None:
    backend = FakeBackend(state=Health("down"))
    async with running(backend) as served:
        async with served.session.get(served.url + "/healthz") as answer:
            assert answer.status == 200
        assert backend.probes == 0
        async with served.session.get(served.url + "/readyz") as answer:
            assert answer.status == 503
            assert (await answer.json())["backends"] == {"fake": "down"}
        backend.state = Health("ready")
        await until(lambda: answers(served.session.get(served.url + "/readyz"), 200))


async def test_figures_and_the_status_page() -> None:
    async with running() as served:
        async with served.post(ASK):
            pass
        async with served.session.get(served.url + "/metrics") as answer:
            assert answer.status == 200
            text = await answer.text()
        (counted,) = (line for line in text.splitlines() if line.startswith("dragoman_requests_total"))
        labels = ("fake", "other", "only", "completed", "plain", "200")
        names = ("backend", "client_kind", "model", "outcome", "route", "status")
        shown = ",".join(f'{name}="{label}"' for name, label in zip(names, labels, strict=True))
        assert counted == f"dragoman_requests_total{{{shown}}} 1.0"
        async with served.session.get(served.url + "/") as answer:
            assert "backend fake: ready" in await answer.text()


async def test_a_proven_family_shows_in_the_figures_and_on_the_status_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeBackend, "traits", Traits("fake", markup={"org/m": "hermes"}))
    async with running() as served:
        async with served.session.get(served.url + "/metrics") as answer:
            assert 'dragoman_markup_proven{backend="fake",family="hermes",model="org/m"} 1.0' in (await answer.text())
        async with served.session.get(served.url + "/") as answer:
            assert "markup of org/m at fake: hermes, proven" in await answer.text()


# ------------------------------------------------------------------------------------------------------------- models


async def test_the_list_of_models_suits_openai_clients_and_codex() -> None:
    async with running() as served:
        for path in ("/v1/models", "/v1/models/"):
            async with served.session.get(served.url + path) as answer:
                body = await answer.json()
            assert body["object"] == "list"
            (model,) = body["data"]
            assert (model["id"], model["object"], model["created"]) == ("only", "model", 1_700_000_000)
            assert body["models"] == []
            assert b"instructions" not in orjson.dumps(body)


async def test_the_list_of_models_suits_anthropic_clients() -> None:
    async with running() as served:
        async with served.session.get(served.url + "/v1/models?limit=9", headers={"anthropic-version": "x"}) as answer:
            body = await answer.json()
        assert (body["first_id"], body["last_id"], body["has_more"]) == ("only", "only", False)
        (model,) = body["data"]
        assert (model["type"], model["id"], model["display_name"]) == ("model", "only", "only")
        assert model["created_at"] == "2023-11-14T22:13:20Z"


async def test_one_model_by_name_also_with_a_slash_in_it() -> None:
    backend = FakeBackend(served=[ModelInfo("org/name"), ModelInfo("b")])
    async with running(backend) as served:
        for path in ("org/name", "org%2Fname", "b", "b/"):
            async with served.session.get(f"{served.url}/v1/models/{path}") as answer:
                assert answer.status == 200, path
                assert (await answer.json())["object"] == "model"
        async with served.session.get(f"{served.url}/v1/models/c") as answer:
            assert answer.status == 404
            error = (await answer.json())["error"]
            assert "org/name, b" in error["message"]
        async with served.session.get(f"{served.url}/v1/models/c", headers={"anthropic-version": "x"}) as answer:
            body = await answer.json()
            assert (body["type"], body["error"]["type"]) == ("error", "not_found_error")


async def sent(served: Any, name: str) -> str | int:
    """The name that went upstream, or the status; the answer echoes the client's name."""
    async with served.post({**ASK, "model": name}) as answer:
        if answer.status != 200:
            return int(answer.status)
        assert (await answer.json())["model"] == name
        return str(served.backend.requests[-1].model)


async def test_a_single_listed_model_takes_every_name() -> None:
    async with running() as served:
        for name in ("only", "any", "gpt-5"):
            assert await sent(served, name) == "only"
            async with served.session.get(f"{served.url}/v1/models/{name}") as answer:
                assert (answer.status, (await answer.json())["id"]) == (200, name)


async def test_with_several_models_an_unknown_name_is_404_with_the_valid_ones() -> None:
    backend = FakeBackend(served=[ModelInfo("a"), ModelInfo("b")])
    async with running(backend) as served:
        assert [await sent(served, name) for name in ("a", "b", "c")] == ["a", "b", 404]
        async with served.post({**ASK, "model": "c"}) as answer:
            told = await answer.json()
            assert told["plain"] == "MODEL_NOT_FOUND"
            assert "a, b" in told["message"]


async def test_a_model_that_came_later_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dragoman.gateway.calls.model_table.RELOAD_UNKNOWN", 0.0)
    backend = FakeBackend(served=[ModelInfo("a"), ModelInfo("b")])
    async with running(backend) as served:
        assert [await sent(served, name) for name in ("a", "c")] == ["a", 404]
        backend.served = [ModelInfo("a"), ModelInfo("c")]
        assert await sent(served, "c") == "c"


async def test_when_the_list_cannot_be_read_names_go_unchanged() -> None:
    async with running(FakeBackend(served=None)) as served:
        assert await sent(served, "whatever") == "whatever"
        async with served.session.get(served.url + "/v1/models") as answer:
            assert answer.status == 503


async def test_the_configured_name_is_what_every_name_becomes() -> None:
    async with running(FakeBackend(served=None), model="fixed") as served:
        assert [await sent(served, name) for name in ("fixed", "any")] == ["fixed", "fixed"]
        async with served.session.get(served.url + "/v1/models") as answer:
            assert [model["id"] for model in (await answer.json())["data"]] == ["fixed"]


async def test_the_models_table_decides_alone() -> None:
    table = [
        {"name": "qwen", "aliases": ["opus"], "upstream": "Qwen/Q3"},
        {"name": "plain"},
        {"prefixes": ["claude-"], "upstream": "short"},
        {"prefixes": ["claude-opus-"], "upstream": "long"},
        {"prefixes": ["raw-"]},
    ]
    async with running(models=table) as served:
        names = ("qwen", "opus", "plain", "claude-x", "claude-opus-2026", "raw-1", "only")
        assert [await sent(served, name) for name in names] == [
            "Qwen/Q3",
            "Qwen/Q3",
            "plain",
            "short",
            "long",
            "raw-1",
            404,
        ]
        async with served.session.get(served.url + "/v1/models") as answer:
            assert [model["id"] for model in (await answer.json())["data"]] == ["qwen", "opus", "plain"]
        for name, status in (("opus", 200), ("claude-x", 200), ("raw-1", 404), ("only", 404)):
            async with served.session.get(f"{served.url}/v1/models/{name}") as answer:
                assert answer.status == status, name


async def test_each_of_several_backends_gets_the_models_it_lists() -> None:
    first = FakeBackend(name="first", served=[ModelInfo("a")])
    second = FakeBackend(name="second", served=[ModelInfo("b")])
    async with running(first, second) as served:
        for name in ("a", "b"):
            async with served.post({**ASK, "model": name}) as answer:
                assert answer.status == 200
        assert [request.model for request in first.requests] == ["a"]
        assert [request.model for request in second.requests] == ["b"]


@pytest.mark.parametrize("hanging", [1, 3])
async def test_a_list_that_hangs_keeps_no_call_of_another_backend_waiting(
    hanging: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hangs(FakeBackend):
        async def models(self) -> list[ModelInfo]:
            await asyncio.Event().wait()
            return []

        async def health(self) -> Health:
            await asyncio.Event().wait()
            return Health("down")

    monkeypatch.setattr("dragoman.backends.pool.pool.FIRST_PATIENCE", 0.1)
    monkeypatch.setattr("dragoman.gateway.calls.model_table.LIST_LIMIT", 1.0)
    monkeypatch.setattr("dragoman.gateway.calls.model_table.FRESH_FAILURE", 0.1)
    silent = [Hangs(name=f"silent-{number}") for number in range(hanging)]
    last = FakeBackend(name="last", served=[ModelInfo("a"), ModelInfo("b")])
    async with running(*silent, last) as served:
        begun = time.monotonic()
        async with served.post({**ASK, "model": "a"}) as answer:
            assert answer.status == 200
        assert time.monotonic() - begun < 1.0 * 2  # at first all are waited for, together
        monkeypatch.setattr("dragoman.gateway.calls.model_table.LIST_LIMIT", 2.0)
        monkeypatch.setattr("dragoman.backends.pool.pool.FIRST_PATIENCE", 3.0)
        monkeypatch.setattr("dragoman.backends.pool.pool.PATIENCE", 3.0)
        await asyncio.sleep(0.15)  # after which they are asked again
        for name in ("b", "a", "b"):
            async with asyncio.timeout(1.5), served.post({**ASK, "model": name}) as answer:
                assert answer.status == 200
        assert [request.model for request in last.requests] == ["a", "b", "a", "b"]
        begun = time.monotonic()
        async with served.session.get(served.url + "/v1/models") as answer:
            assert [model["id"] for model in (await answer.json())["data"]] == ["a", "b"]
        assert time.monotonic() - begun < 2.0 * 1.5


# --------------------------------------------------------------------------------------------------------------- keys


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Basic one"}, 401),
        ({"x-api-key": ""}, 401),
        ({"Authorization": "Bearer one"}, 200),
        ({"Authorization": "bearer  two"}, 200),
        ({"x-api-key": "two"}, 200),
        ({"Authorization": "Basic x", "x-api-key": "two"}, 200),
        ({"Authorization": "Bearer another's", "x-api-key": "two"}, 200),
        ({"Authorization": "Bearer one", "x-api-key": "another's"}, 200),
        ({"Authorization": "Bearer another's", "x-api-key": "another's"}, 401),
    ],
)
async def test_with_keys_every_call_needs_one(headers: dict[str, str], status: int) -> None:
    async with running(keys=("one", "two")) as served:
        async with served.post(ASK, headers=headers) as answer:
            assert answer.status == status
            if status == 401:
                assert (await answer.json())["plain"] == "UNAUTHENTICATED"
        for path in ("/v1/models", "/metrics", "/", "/nowhere"):
            async with served.session.get(served.url + path, headers=headers) as answer:
                assert (answer.status == 401) == (status == 401), path
        for path in ("/healthz", "/readyz"):
            async with served.session.get(served.url + path) as answer:
                assert answer.status == 200


async def test_every_refusal_of_a_key_reads_the_same() -> None:
    async with running(keys=("one",)) as served:
        told = set()
        for headers in ({}, {"x-api-key": "onf"}, {"Authorization": "Bearer one1"}):
            async with served.session.get(served.url + "/v1/models", headers=headers) as answer:
                told.add(await answer.text())
        assert len(told) == 1
        assert "one" not in orjson.loads(told.pop())["error"]["message"]


async def test_figures_can_be_public() -> None:
    async with (
        running(keys=("one",), metrics_public=True) as served,
        served.session.get(served.url + "/metrics") as answer,
    ):
        assert answer.status == 200


# --------------------------------------------------------------------------------------------------------- sleep gate


@pytest.mark.parametrize("path", ["/v1/plain", "/v1/plain/", "/v1/plain/other", "/v1/plain/other/"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_backend_that_sleeps_is_503_with_a_time_on_every_route(path: str, stream: bool) -> None:
    backend = FakeBackend(state=Health("asleep", "it sleeps", 3.0))
    async with running(backend) as served, served.post({**ASK, "stream": stream}, path) as answer:
        assert answer.status == 503
        assert answer.headers["Retry-After"] == "3"
        assert (await answer.json())["plain"] == "ASLEEP"
        assert not backend.requests


async def test_the_probe_costs_nothing_per_request_and_sees_sleep_and_waking() -> None:
    backend = FakeBackend()
    async with running(backend) as served:
        for _ in range(20):
            async with served.post(ASK) as answer:
                assert answer.status == 200
        assert backend.probes <= 2
        backend.state = Health("asleep")
        await until(lambda: answers(served.post(ASK), 503))
        backend.state = Health("ready")
        await until(lambda: answers(served.post(ASK), 200))


async def test_an_error_that_says_asleep_closes_the_gate_at_once() -> None:
    async def play(request: object, sink: object) -> None:
        raise GatewayError(Kind.ASLEEP, "sleeping", source="backend")

    backend = FakeBackend(play)
    async with running(backend) as served:
        for _ in range(3):
            async with served.post(ASK) as answer:
                assert (answer.status, (await answer.json())["plain"]) == (503, "ASLEEP")
                assert int(answer.headers["Retry-After"]) >= 1
        assert len(backend.requests) == 1


async def test_a_probe_that_hangs_or_fails_does_not_stop_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = FakeBackend()

    async def hang() -> Health:
        await asyncio.sleep(30)
        raise AssertionError

    monkeypatch.setattr(backend, "health", hang)
    monkeypatch.setattr("dragoman.backends.pool.pool.FIRST_PATIENCE", 0.1)
    async with running(backend) as served, served.post(ASK) as answer:
        assert answer.status == 200


async def test_requests_wait_for_a_model_that_starts() -> None:
    backend = FakeBackend(start_seconds=0.4)
    async with running(backend) as served:
        async with served.session.get(served.url + "/readyz") as ready:
            assert ready.status == 503
        async with served.post(ASK) as answer:
            assert answer.status == 200


async def test_the_wait_for_a_start_is_bounded_and_streams_get_keepalives_meanwhile() -> None:
    backend = FakeBackend(start_seconds=30)
    timeouts = {"start": 0.5, "head_after": 0.1, "keepalive": 0.1}
    async with running(backend, timeouts=timeouts) as served:
        whole = asyncio.create_task(served.post(ASK).__aenter__())
        async with served.post({**ASK, "stream": True}) as answer:
            body = await answer.read()
        assert body.startswith(b"created\nkeepalive\n")
        assert body.endswith(b"failed=ASLEEP\n")
        refused = await whole
        assert refused.status == 503
        refused.release()


async def test_a_start_that_fails_is_503_and_not_ready() -> None:
    backend = FakeBackend(start_error=RuntimeError("no weights in /somewhere"))
    async with running(backend) as served:
        await until(lambda: served.gateway.gate.groups["fake"].start_error)
        async with served.post(ASK) as answer:
            assert answer.status == 503
            assert "somewhere" not in await answer.text()
        async with served.session.get(served.url + "/readyz") as ready:
            assert ready.status == 503
