"""Triton over HTTP as servers misbehave there, against a scripted server: the real one does little of it on demand."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from dragoman.backends.triton.client import InferRequest, Metadata, Outputs, Tensor
from dragoman.backends.triton.http_client import HttpClient
from dragoman.backends.triton.profiles import discover
from dragoman.translators.errors import GatewayError, Kind
from tests.triton_fakes import Batches

MODEL = Metadata("m", {"text_input": "BYTES"}, {}, batched=False)


@contextlib.asynccontextmanager
async def answering(
    status: int, *pieces: bytes, kind: str = "text/event-stream", torn: bool = False
) -> AsyncIterator[HttpClient]:
    """A client of a server that sends these pieces, one write each."""

    async def answer(request: web.Request) -> web.StreamResponse:
        await request.read()
        response = web.StreamResponse(status=status, headers={"Content-Type": kind})
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
            await asyncio.sleep(0.01)
        if torn:
            assert request.transport is not None
            request.transport.abort()
        return response

    app = web.Application()
    app.router.add_post("/v2/models/m/generate_stream", answer)
    app.router.add_post("/v2/models/m/generate", answer)
    async with TestServer(app) as server:
        client = HttpClient(str(server.make_url("")).rstrip("/"), connect=2.0)
        try:
            yield client
        finally:
            await client.close()


async def read(client: HttpClient, streamed: bool = True, into: Batches | None = None) -> list[Outputs]:
    found = into or Batches()
    await found.read(client, InferRequest(MODEL, "id", {"text_input": Tensor(["hi"])}, streamed))
    return found.outputs


async def refused(client: HttpClient, streamed: bool = True) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        await read(client, streamed)
    return caught.value


async def test_events_cut_anywhere() -> None:
    whole = b'data: {"model_name":"m","text_output":"a"}\n\ndata: {"model_name":"m","output_ids":[1,2]}\n\n'
    for cut in (1, 20, 44, 46, len(whole) - 1):
        async with answering(200, whole[:cut], whole[cut:]) as client:
            assert await read(client) == [{"text_output": ["a"]}, {"output_ids": [1, 2]}]


async def test_an_error_as_an_event_stream_with_an_error_s_status() -> None:
    async with answering(400, b'data: {"error":"in ensemble \'e\', it broke in /opt/x.py"}\n\n') as client:
        error = await refused(client)
    assert error.kind is Kind.BACKEND_FAILED
    assert "/opt" not in error.message


async def test_an_error_after_the_first_event_does_not_swallow_it() -> None:
    body = b'data: {"model_name":"m","text_output":"a"}\n\ndata: {"error":"it broke"}\n\n'
    found = Batches()
    async with answering(200, body) as client:
        with pytest.raises(GatewayError) as caught:
            await read(client, into=found)
    assert found.outputs == [{"text_output": ["a"]}]
    assert "during the answer" in caught.value.message
    found = Batches()
    async with answering(200, body.replace(b'{"error":"it broke"}', b"<html>")) as client:
        with pytest.raises(GatewayError):
            await read(client, into=found)
    assert found.outputs == [{"text_output": ["a"]}]


async def test_a_whole_answer_that_is_an_error_with_status_200() -> None:
    body = b'{"error":"generate expects model to produce exactly 1 response, use generate stream"}'
    async with answering(200, body, kind="application/json") as client:
        assert (await refused(client, streamed=False)).kind is Kind.BACKEND_FAILED


async def test_a_body_that_is_torn_is_no_end() -> None:
    async with answering(200, b'data: {"model_name":"m","text_output":"a"}\n\n', torn=True) as client:
        error = await refused(client)
    assert error.kind is Kind.BACKEND_FAILED
    assert "broke off" in error.message


async def test_what_cannot_be_read_is_a_failure() -> None:
    async with answering(200, b"data: <html>\n\n") as client:
        assert (await refused(client)).kind is Kind.BACKEND_FAILED


async def test_a_model_that_is_unknown_or_not_loaded() -> None:
    async with answering(404, b'{"error":"Request for unknown model: \'m\' is not found"}') as client:
        assert (await refused(client)).kind is Kind.MODEL_NOT_FOUND
    said = b'{"error":"Request for unknown model: \'m\' has no available versions"}'
    async with answering(400, said) as client:
        assert (await refused(client)).kind is Kind.ASLEEP


async def test_an_empty_stream_has_no_outputs() -> None:
    async with answering(200) as client:
        assert await read(client) == []


@pytest.mark.parametrize(
    "said",
    [
        b"{}",
        b"[1]",
        b"5",
        b'{"inputs": null, "outputs": null}',
        b'{"inputs": [{"name": "text_input"}], "outputs": []}',
        b'{"inputs": {"text_input": "BYTES"}, "outputs": []}',
        b'{"inputs": [], "outputs": [], "max_batch_size": "many"}',
    ],
)
async def test_whatever_else_answers_in_json_is_no_triton(said: bytes) -> None:
    """It may be another server's port, or a proxy in front of one that is still to come."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=said, content_type="application/json")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app) as server:
        client = HttpClient(str(server.make_url("")).rstrip("/"), connect=2.0)
        with pytest.raises(GatewayError, match="not what a Triton server says") as caught:
            await discover(client, "m", via_text=False)
        assert await client.index() == []
        await client.close()
    assert caught.value.kind is Kind.UNSUPPORTED
