"""Endpoints that are passed through: every byte in both directions, and everything else as for model calls."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any, Literal

import aiohttp
import pytest

from dragoman.backends.base import Forwarded
from dragoman.gateway.calls.forwarding import found_usage
from dragoman.gateway.keys.secrets import Secrets
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Usage
from tests.gateway_fakes import FakeBackend, running
from tests.scripted import Script, ScriptedServer
from tests.serving_gateway import Served, over
from tests.waiting import until

ASKED = b'{ "input":["a", "\\u00e9"],\t"model" : "m" , "x":1.50e0}\n'
TOLD = (
    b'{"object":"list","data":[{"embedding":[0.10,-2e-3]}],"model":"m",  "usage":{"prompt_tokens":5,"total_tokens":5}}'
)
STREAM = (
    b'data: {"choices":[{"text":"a"}]}\n\n',
    b': a comment\n\ndata: {"choices":[{"text":"b"}]}\r\n\r\n',
    b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\ndata: [DONE]\n\n',
)
COMPLETION = {"model": "m", "prompt": "a", "stream": True}
ENDPOINTS = ("embeddings", "completions", "rerank")
JSON = {"content-type": "application/json"}
SSE = {"content-type": "text/event-stream; charset=utf-8"}


def embedding(**how: Any) -> Script:
    return Script(TOLD, headers=JSON, **how)


@contextlib.asynccontextmanager
async def serving(script: Script, path: str = "embeddings", **settings: Any) -> AsyncIterator[Served]:
    """A gateway over one server that has one more endpoint."""
    async with ScriptedServer() as server, over(server.url, **settings) as it:
        server.on("POST", f"/v1/{path}", script)
        yield Served(it.runner, it.session, it.port, server)


def posts(server: ScriptedServer) -> list[Any]:
    return [seen for seen in server.requests if seen.method == "POST"]


# ----------------------------------------------------------------------------------------------------------- the bytes


@pytest.mark.parametrize("spelling", ["/v1/{}", "/{}", "/v1/{}/", "/v1/v1/{}", "//v1//{}"])
@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_bodies_pass_byte_for_byte_under_every_spelling(endpoint: str, spelling: str) -> None:
    async with (
        serving(embedding(), endpoint) as it,
        it.session.post(it.url + spelling.format(endpoint), data=ASKED, headers={"x-request-id": "mine"}) as answer,
    ):
        assert (answer.status, await answer.read()) == (200, TOLD)
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.headers["x-request-id"] == "mine"
        (seen,) = posts(it.server)
        assert (seen.path, seen.raw) == (f"/v1/{endpoint}", ASKED)


async def test_only_the_models_name_is_replaced_where_the_table_renames_it() -> None:
    models = [{"name": "small", "upstream": 'BAAI/"bge"'}]
    async with (
        serving(embedding(), models=models) as it,
        it.session.post(f"{it.url}/v1/embeddings", data=ASKED.replace(b'"m"', b'"small"')) as answer,
    ):
        assert await answer.read() == TOLD
        assert posts(it.server)[0].raw == ASKED.replace(b'"m"', b'"BAAI/\\"bge\\""')


async def test_a_compressed_body_goes_upstream_out_of_its_compression() -> None:
    async with serving(embedding()) as it:
        headers = {"Content-Encoding": "gzip"}
        async with it.session.post(f"{it.url}/v1/embeddings", data=gzip.compress(ASKED), headers=headers) as answer:
            assert answer.status == 200
        assert posts(it.server)[0].raw == ASKED


async def test_headers_neither_way_but_the_type_and_our_own() -> None:
    extra = {"set-cookie": "upstream=1", "x-internal-host": "gpu7", "server": "uvicorn", "keep-alive": "timeout=5"}
    secrets = Secrets(("client-key",), backend_keys={"b0": "upstream-key"})
    async with serving(Script(TOLD, headers={**JSON, **extra}), secrets=secrets) as it:
        headers = {"Authorization": "Bearer client-key", "Cookie": "a=b", "x-mine": "1", "x-api-key": "client-key"}
        async with it.session.post(f"{it.url}/v1/embeddings", data=ASKED, headers=headers) as answer:
            assert answer.status == 200
            assert not {"set-cookie", "x-internal-host", "keep-alive"} & {name.lower() for name in answer.headers}
            assert answer.headers["Server"] == "dragoman"
        (seen,) = posts(it.server)
        assert seen.headers["Authorization"] == "Bearer upstream-key"
        assert not {"cookie", "x-mine", "x-api-key"} & {name.lower() for name in seen.headers}


@pytest.mark.parametrize("split", ["given", "bytes"])
async def test_a_stream_passes_as_it_comes(split: Any) -> None:
    async with (
        serving(Script(STREAM, headers=SSE, split=split), "completions") as it,
        it.session.post(f"{it.url}/v1/completions", json=COMPLETION) as answer,
    ):
        assert await answer.read() == b"".join(STREAM)
        assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"


async def test_the_first_bytes_of_a_stream_are_there_before_the_next_ones_exist() -> None:
    script = Script(STREAM, headers=SSE, hang_at=len(STREAM[0]))
    async with (
        serving(script, "completions") as it,
        it.session.post(f"{it.url}/v1/completions", json=COMPLETION) as answer,
    ):
        assert await answer.content.readexactly(len(STREAM[0])) == STREAM[0]
        (call,) = it.gateway.handler.calls
        assert isinstance(call.prepared, Forwarded)
        assert call.prepared.body == b""  # a long stream does not keep what nobody will ask again


async def test_a_client_that_has_gone_ends_the_servers_work() -> None:
    script = Script(STREAM, headers=SSE, hang_at=len(STREAM[0]))
    async with serving(script, "completions") as it:
        async with it.session.post(f"{it.url}/v1/completions", json=COMPLETION) as answer:
            await answer.content.readany()
            answer.close()
        await it.server.until(lambda: posts(it.server)[0].outcome == "client_gone")
        await until(lambda: not it.gateway.handler.calls)
        assert it.metric("dragoman_client_disconnects_total", route="completions", state="streaming") == 1


@pytest.mark.parametrize("split", ["given", "bytes"])
async def test_a_client_that_leaves_after_the_last_frame_has_been_served(split: Literal["given", "bytes"]) -> None:
    script = Script(STREAM, headers=SSE, split=split, hang_at=sum(map(len, STREAM)))
    async with serving(script, "completions") as it:
        async with it.session.post(f"{it.url}/v1/completions", json=COMPLETION) as answer:
            await answer.content.readexactly(sum(map(len, STREAM)))
            answer.close()
        await until(lambda: not it.gateway.handler.calls)
        assert it.metric("dragoman_requests_total", route="completions", status="200", outcome="completed") == 1
        assert it.metric("dragoman_client_disconnects_total") == 0
        assert it.metric("dragoman_tokens_total") == 5


async def test_a_client_that_has_gone_before_the_first_byte_ends_the_servers_work() -> None:
    async with serving(embedding(hang_at=0)) as it:
        call = asyncio.create_task(it.session.post(f"{it.url}/v1/embeddings", data=ASKED).__aenter__())
        await it.server.until(lambda: len(posts(it.server)) == 1)
        call.cancel()
        await it.server.until(lambda: posts(it.server)[0].outcome == "client_gone")


async def test_a_slow_client_holds_its_server_back_and_has_gone_in_the_end() -> None:
    piece = b"data: " + b"x" * 2**20 + b"\n\n"
    async with serving(Script([piece] * 64, headers=SSE), "completions", timeouts={"client": 0.3}) as it:
        answer = await it.session.post(f"{it.url}/v1/completions", json=COMPLETION)
        await it.server.until(lambda: posts(it.server)[0].outcome == "client_gone")  # the time limit of the client
        assert posts(it.server)[0].sent < 64 * len(piece)
        answer.close()


# ------------------------------------------------------------------------------------------------------------- failures


async def test_a_refusal_passes_with_its_status_and_its_body() -> None:
    said = b'{"error" : {"message":"input is too long", "type":"BadRequestError","code":400}}'
    async with (
        serving(Script(said, status=422, headers=JSON)) as it,
        it.session.post(f"{it.url}/v1/embeddings", data=ASKED) as answer,
    ):
        assert (answer.status, await answer.read()) == (422, said)
        assert answer.headers["x-dragoman-error-source"] == "backend"
        assert answer.headers["Content-Type"] == "application/json"


async def test_a_refusal_goes_without_addresses_and_keys() -> None:
    said = {"error": {"message": "no upstream-key at http://10.1.2.3:8000/v1", "param": ["sk-abcdefghijk"]}, "n": 1}
    secrets = Secrets(("c",), backend_keys={"b0": "upstream-key"})
    async with (
        serving(Script.json(said, 500), secrets=secrets) as it,
        it.session.post(f"{it.url}/v1/embeddings", data=ASKED, headers={"x-api-key": "c"}) as answer,
    ):
        assert (answer.status, json.loads(told := await answer.text())["n"]) == (500, 1)
        assert not [word for word in ("upstream-key", "10.1.2.3", "abcdefghijk") if word in told]


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (500, b"<html>gpu7 is broken", 502),
        (401, b'{"error":{"message":"bad key"}}', 502),
        (403, b'{"error":"no"}', 502),
        (302, b'{"error":"elsewhere"}', 502),
        (404, b"Not Found", 404),
        (501, b"", 404),
        (503, b"full", 503),
        (413, b"[1]", 400),  # as everywhere in OpenAI's words: some clients retry 413
    ],
)
async def test_what_cannot_pass_is_in_our_words(status: int, body: bytes, told: int) -> None:
    async with (
        serving(Script(body, status=status, headers={"content-type": "text/plain"})) as it,
        it.session.post(f"{it.url}/v1/embeddings", data=ASKED) as answer,
    ):
        assert answer.status == told
        assert (await answer.json())["error"]["message"]
        assert answer.headers["x-dragoman-error-source"] == "backend"


@pytest.mark.parametrize("status", [500, 501, 404])
async def test_an_endpoint_that_is_broken_is_no_reason_to_skip_the_server(status: int) -> None:
    async with serving(Script.json({"error": "broken"}, status)) as it:
        for _ in range(5):
            async with it.session.post(f"{it.url}/v1/embeddings", data=ASKED) as answer:
                assert answer.status == status
        assert it.gateway.gate.groups["b0"].state.ready


@pytest.mark.parametrize("reset", [False, True])
async def test_a_body_that_breaks_off_does_not_look_whole(reset: bool) -> None:
    async with serving(embedding(cut_at=20, reset=reset)) as it:
        async with it.session.post(f"{it.url}/v1/embeddings", data=ASKED) as answer:
            assert answer.status == 200
            with pytest.raises(aiohttp.ClientError):
                await answer.read()
        await until(lambda: not it.gateway.handler.calls)
        labels = {"route": "embeddings", "client_kind": "other", "status": "200", "outcome": "failed"}
        assert it.metric("dragoman_requests_total", **labels) == 1


@pytest.mark.parametrize(
    "script", [embedding(cut_at=0), embedding(hang_at=0), embedding(head_delay=60)], ids=["cut", "hung", "silent"]
)
async def test_no_answer_is_an_error_of_ours(script: Script) -> None:
    async with (
        serving(script, timeouts={"first_event": 0.2}) as it,
        it.session.post(f"{it.url}/v1/embeddings", data=ASKED) as answer,
    ):
        assert answer.status in (502, 504)


async def test_another_replica_is_tried_before_the_first_byte_and_none_after_it() -> None:
    async with ScriptedServer() as a, ScriptedServer() as b, over(a.url, b.url) as it:
        for server in (a, b):
            server.on("POST", "/v1/embeddings", Script.json({"error": "full"}, 503) if server is a else embedding())
        for _ in range(4):
            async with it.session.post(f"{it.url}/v1/embeddings", data=ASKED) as answer:
                assert (answer.status, await answer.read()) == (200, TOLD)
        assert len(posts(b)) == 4
        for server in (a, b):
            server.on("POST", "/v1/embeddings", embedding(cut_at=10))
        before = len(posts(a)) + len(posts(b))
        with pytest.raises(aiohttp.ClientError):
            async with it.session.post(f"{it.url}/v1/embeddings", data=ASKED) as answer:
                await answer.read()
        assert len(posts(a)) + len(posts(b)) == before + 1


# ----------------------------------------------------------------------------------------- what holds for every call


async def test_an_unknown_model_is_404_with_the_valid_names() -> None:
    async with serving(embedding(), models=[{"name": "small"}]) as it:
        async with it.session.post(f"{it.url}/v1/embeddings", data=ASKED) as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (404, "model_not_found")
            assert "small" in await answer.text()
        assert not posts(it.server)


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", 400), (b"[]", 400), (b"{", 400), (b"{}", 400), (b'{"model":"m","model":"m"}', 400), (b"x" * 2000, 400)],
)
async def test_a_body_that_may_not_pass_is_refused_in_openais_words(body: bytes, status: int) -> None:
    async with (
        serving(embedding(), limits={"body_bytes": 1024}) as it,
        it.session.post(f"{it.url}/v1/embeddings", data=body) as answer,
    ):
        assert answer.status == status
        assert (await answer.json())["error"]["type"]
        assert not posts(it.server)


async def test_other_methods_are_405_and_paths_below_are_404() -> None:
    async with serving(embedding()) as it:
        async with it.session.get(f"{it.url}/v1/embeddings") as answer:
            assert (answer.status, answer.headers["Allow"]) == (405, "POST")
        async with it.session.post(f"{it.url}/v1/embeddings/x", data=ASKED) as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (404, "not_found")


async def test_endpoints_that_are_closed_are_not_there() -> None:
    async with serving(embedding(), policy={"pass_through": ["rerank"]}) as it:
        async with it.session.post(f"{it.url}/v1/embeddings", data=ASKED) as answer:
            assert answer.status == 404
            assert "POST /v1/rerank" in await answer.text()
        async with it.session.get(f"{it.url}/openapi.json") as answer:
            assert {"/v1/rerank"} == {f"/v1/{each}" for each in ENDPOINTS} & set((await answer.json())["paths"])


async def test_a_backend_without_such_endpoints_says_so() -> None:
    async with running(FakeBackend()) as it, it.post(ASKED, "/v1/embeddings") as answer:
        assert answer.status == 404
        assert "'fake' has no /v1/embeddings" in json.loads(await answer.read())["error"]["message"]


@pytest.mark.parametrize(
    ("line", "body", "status"),
    [
        ("key models=other", ASKED, 403),
        ("key rpm=1", ASKED, 429),
        ("key tpm=20", ASKED, 429),
        ("other", ASKED, 401),
    ],
)
async def test_keys_hold_for_what_is_passed_through(line: str, body: bytes, status: int, tmp_path: Any) -> None:
    file = tmp_path / "keys"
    file.write_text(line)
    async with serving(embedding(), api_keys_file=file, secrets=None) as it:
        for _ in range(4):
            async with it.session.post(f"{it.url}/v1/embeddings", data=body, headers={"x-api-key": "key"}) as answer:
                last = answer.status
        assert last == status


@pytest.mark.parametrize(
    ("script", "path", "asked", "tokens"),
    [
        (embedding(), "embeddings", {"model": "m", "input": "a"}, {"input": 5}),
        (Script(STREAM, headers=SSE), "completions", COMPLETION, {"input": 3, "output": 2}),
        (Script.json({"usage": {"total_tokens": 9}, "results": []}), "rerank", {"model": "m"}, {"input": 9}),
    ],
)
async def test_tokens_are_counted_and_the_endpoint_is_a_label(
    script: Script, path: str, asked: dict[str, Any], tokens: dict[str, int]
) -> None:
    async with serving(script, path) as it:
        async with it.session.post(f"{it.url}/v1/{path}", json=asked) as answer:
            await answer.read()
        await until(lambda: not it.gateway.handler.calls)
        labels = {"route": path, "client_kind": "other"}
        assert it.metric("dragoman_requests_total", **labels, status="200", outcome="completed") == 1
        for direction, count in tokens.items():
            more = {**labels, "model": "m", "backend": "b0", "direction": direction}
            assert it.metric("dragoman_tokens_total", **more) == count


async def test_a_call_waits_in_the_queue_and_is_refused_where_that_is_full() -> None:
    async with serving(embedding(hang_at=0), admission={"requests": 1, "queue": 0}) as it:
        first = asyncio.create_task(it.session.post(f"{it.url}/v1/embeddings", data=ASKED).__aenter__())
        await it.server.until(lambda: len(posts(it.server)) == 1)
        async with it.session.post(f"{it.url}/v1/embeddings", data=ASKED) as answer:
            assert (answer.status, "Retry-After" in answer.headers) == (503, True)
        first.cancel()


async def test_a_drain_refuses_new_calls_and_breaks_off_late_ones() -> None:
    script = Script(STREAM, headers=SSE, hang_at=len(STREAM[0]))
    async with serving(script, "completions") as it:
        async with it.session.post(f"{it.url}/v1/completions", json=COMPLETION) as answer:
            await answer.content.readany()
            it.gateway.handler.draining = True
            async with it.session.post(f"{it.url}/v1/completions", json=COMPLETION) as refused:
                assert refused.status == 503
            (call,) = it.gateway.handler.calls
            call.end(0.0, GatewayError(Kind.DRAINING, "The gateway is shutting down."))
            with pytest.raises(aiohttp.ClientError):
                await answer.read()
        await it.server.until(lambda: posts(it.server)[0].outcome == "client_gone")


@pytest.mark.parametrize(
    ("data", "usage"),
    [
        (TOLD, Usage(5, 0)),
        (b"".join(STREAM), Usage(3, 2)),
        (b'{"usage":{"prompt_tokens":3,"completion_tokens":1},"data":[' + b"0," * 10, Usage(3, 1)),
        (b'{"text":"\\"usage\\":{\\"prompt_tokens\\":1}"}', None),
        (b'{"usage":null}', None),
        (b'{"usage":{"prompt_tokens":3,"completion_tokens":2},"usage": null}', Usage(3, 2)),
        (b'{"usage":' + b"[" * 5000, None),
        (b'{"usage":{"prompt_tokens":', None),
        (b'"usage"' * 1000, None),
    ],
)
def test_usage_is_found_in_the_bytes(data: bytes, usage: Usage | None) -> None:
    assert found_usage(data) == usage
