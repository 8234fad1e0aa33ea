"""Triton over gRPC against servers that others wrote the protocol of (grpcio's): how they answer, refuse and end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from dragoman.backends.base import Flow
from dragoman.backends.triton.client import MAX_MESSAGE, InferRequest, Metadata, Tensor
from dragoman.backends.triton.grpc_client import GrpcClient, _read
from dragoman.translators.errors import GatewayError, Kind
from tests.triton_fakes import Batches
from tests.waiting import LIMIT, until

grpc: Any = importlib.import_module("grpc")
pb: Any = importlib.import_module("tritonclient.grpc.service_pb2")
stubs: Any = importlib.import_module("tritonclient.grpc.service_pb2_grpc")

MODEL = Metadata("m", {"text_input": "BYTES"}, {}, batched=False)
Play = Callable[[Any, Any], AsyncIterator[Any]]


def asking(text: str = "hi", *, streamed: bool = True) -> InferRequest:
    return InferRequest(MODEL, "id", {"text_input": Tensor([text])}, streamed)


def text(word: str | bytes) -> Any:
    answer = pb.ModelInferResponse(outputs=[{"name": "text_output", "datatype": "BYTES", "shape": [1]}])
    said = word.encode() if isinstance(word, str) else word
    answer.raw_output_contents.append(len(said).to_bytes(4, "little") + said)
    return answer


def streamed(word: str | bytes) -> Any:
    return pb.ModelStreamInferResponse(infer_response=text(word))


class Served:
    """A server and what was asked of it; `calls` counts those that are open."""

    def __init__(self, play: Play, whole: Callable[[Any], Awaitable[Any]] | None) -> None:
        self.play = play
        self.whole = whole
        self.requests: list[Any] = []
        self.metadata: dict[str, str] = {}
        self.calls = 0

    async def stream(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        self.calls += 1
        self.metadata = dict(context.invocation_metadata())
        try:
            async for request in requests:
                self.requests.append(request)
            async for response in self.play(request, context):
                yield response
        finally:
            self.calls -= 1

    async def infer(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        assert self.whole is not None
        return await self.whole(request)

    async def index(self, request: Any, context: Any) -> Any:
        return pb.RepositoryIndexResponse(models=[{"name": "m", "state": "READY"}])


@contextlib.asynccontextmanager
async def serving(
    play: Play, *, whole: Callable[[Any], Awaitable[Any]] | None = None, options: tuple[Any, ...] = ()
) -> AsyncIterator[tuple[GrpcClient, Served, Any]]:
    """A client of a server that plays this to each request."""
    served = Served(play, whole)
    servicer = stubs.GRPCInferenceServiceServicer()
    servicer.ModelStreamInfer, servicer.ModelInfer, servicer.RepositoryIndex = served.stream, served.infer, served.index
    server = grpc.aio.server(options=(("grpc.max_receive_message_length", -1), *options))
    stubs.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    client = GrpcClient(f"127.0.0.1:{port}", connect=LIMIT)
    try:
        yield client, served, server
    finally:
        await client.close()
        await server.stop(None)


async def two(request: Any, context: Any) -> AsyncIterator[Any]:
    for word in ("a", "é"):
        yield streamed(word)


async def refused(client: GrpcClient, call: InferRequest | None = None, into: Batches | None = None) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        await (into or Batches()).read(client, call or asking())
    return caught.value


def said(found: Batches) -> list[str]:
    return [each["text_output"][0] for each in found.outputs]


async def test_an_answer_and_what_was_sent_for_it() -> None:
    async with serving(two) as (client, served, _):
        found = Batches()
        await found.read(client, asking("hé"))
        assert said(found) == ["a", "é"]
        (request,) = served.requests
        assert (request.model_name, request.id, [*request.inputs[0].contents.bytes_contents]) == (
            "m",
            "id",
            ["hé".encode()],
        )
        assert request.parameters["triton_enable_empty_final_response"].bool_param
        assert (served.metadata["triton_grpc_error"], served.metadata["user-agent"]) == ("true", "dragoman")
        assert [model.name for model in await client.index()] == ["m"]


async def test_many_answers_at_once_share_one_connection() -> None:
    async def echo(request: Any, context: Any) -> AsyncIterator[Any]:
        for letter in request.inputs[0].contents.bytes_contents[0].decode():
            yield streamed(letter)
            await asyncio.sleep(0)

    async with serving(echo) as (client, _, _):
        found = [Batches() for _ in range(50)]
        await asyncio.gather(*(each.read(client, asking(f"<{n}>")) for n, each in enumerate(found)))
        assert ["".join(said(each)) for each in found] == [f"<{n}>" for n in range(50)]
        assert len(client._channel._connections) == 1


async def test_where_a_server_allows_few_calls_at_once_there_are_more_connections() -> None:
    release = asyncio.Event()

    async def wait(request: Any, context: Any) -> AsyncIterator[Any]:
        yield streamed("x")
        await release.wait()

    async with serving(wait, options=(("grpc.max_concurrent_streams", 2),)) as (client, _, _):
        found = [Batches() for _ in range(5)]
        reading = [asyncio.create_task(each.read(client, asking())) for each in found]
        await until(lambda: all(each.begun for each in found))
        release.set()
        await asyncio.gather(*reading)
        assert len(client._channel._connections) == 3


async def test_a_whole_answer() -> None:
    async def whole(request: Any) -> Any:
        return text("all of it")

    async with serving(two, whole=whole) as (client, _, _):
        found = Batches()
        await found.read(client, asking(streamed=False))
        assert said(found) == ["all of it"]


@pytest.mark.parametrize("size", [70_000, 3_000_000])
async def test_prompts_and_answers_that_fit_no_window(size: int) -> None:
    async def long(request: Any, context: Any) -> AsyncIterator[Any]:
        yield streamed(request.inputs[0].contents.bytes_contents[0])
        yield streamed("end")

    async with serving(long, options=(("grpc.max_send_message_length", -1),)) as (client, _, _):
        for _ in range(3):
            found = Batches()
            await found.read(client, asking("x" * size))
            assert [*map(len, said(found))] == [size, 3]


async def test_an_answer_that_is_too_long_is_not_gathered() -> None:
    async def endless(request: Any, context: Any) -> AsyncIterator[Any]:
        yield streamed("x" * (MAX_MESSAGE + 1))

    async with serving(endless, options=(("grpc.max_send_message_length", -1),)) as (client, served, _):
        error = await refused(client)
        assert error.kind is Kind.BACKEND_FAILED
        await until(lambda: not served.calls)


@pytest.mark.parametrize(
    ("code", "details", "kind"),
    [
        (grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'm' is not found", Kind.MODEL_NOT_FOUND),
        (grpc.StatusCode.UNAVAILABLE, "Request for unknown model: 'm' has no available versions", Kind.ASLEEP),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "Exceeds maximum queue size", Kind.BUSY),
        (grpc.StatusCode.INTERNAL, "é broke in 50% of /opt/engine.py", Kind.BACKEND_FAILED),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "", Kind.TIMEOUT),
    ],
)
async def test_a_refusal_has_its_code_and_its_words(code: Any, details: str, kind: Kind) -> None:
    async def refuse(request: Any, context: Any) -> AsyncIterator[Any]:
        await context.abort(code, details)
        yield

    async with serving(refuse) as (client, _, _):
        error = await refused(client)
        assert error.kind is kind
        assert "/opt" not in error.message
        if code is grpc.StatusCode.INTERNAL:
            assert "é broke in 50%" in error.message
        await client.index()  # the connection is as good as before


@pytest.mark.parametrize("in_band", [False, True])
async def test_a_failure_in_the_middle_swallows_nothing(in_band: bool) -> None:
    async def broken(request: Any, context: Any) -> AsyncIterator[Any]:
        yield streamed("a")
        if in_band:
            yield pb.ModelStreamInferResponse(error_message="it broke")
        else:
            await context.abort(grpc.StatusCode.INTERNAL, "it broke")

    async with serving(broken) as (client, _, _):
        found = Batches()
        error = await refused(client, into=found)
        assert (said(found), error.kind) == (["a"], Kind.BACKEND_FAILED)
        assert "during the answer: it broke" in error.message


async def test_a_tensor_that_cannot_be_read_is_a_failure_after_what_came() -> None:
    async def odd(request: Any, context: Any) -> AsyncIterator[Any]:
        yield streamed("a")
        answer = streamed("b")
        answer.infer_response.raw_output_contents[0] = b"\xff\xff\xff\x7fb"
        yield answer

    async with serving(odd) as (client, _, _):
        found = Batches()
        assert (await refused(client, into=found)).kind is Kind.BACKEND_FAILED
        assert said(found) == ["a"]


async def test_whoever_has_enough_or_leaves_ends_the_call_at_the_server() -> None:
    async def endless(request: Any, context: Any) -> AsyncIterator[Any]:
        while True:
            yield streamed("x")
            await asyncio.sleep(0.001)

    async with serving(endless) as (client, served, _):
        await Batches(Flow.ENOUGH).read(client, asking())
        await until(lambda: len(served.requests) == 1 and not served.calls)
        leaving = Batches()
        reading = asyncio.create_task(leaving.read(client, asking()))
        await until(lambda: leaving.begun)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await until(lambda: not served.calls)
        assert [model.name for model in await client.index()] == ["m"]


async def test_a_slow_reader_pauses_the_server_and_no_other_answer() -> None:
    sent = 0

    async def much(request: Any, context: Any) -> AsyncIterator[Any]:
        nonlocal sent
        for _ in range(64):
            yield streamed("x" * 50_000)
            sent += 50_000

    async with serving(much) as (client, _, _):
        slow = Batches(Flow.WAIT)
        watches: list[Any] = []
        reading = asyncio.create_task(slow.read(client, asking(), after=watches.append))
        await until(lambda: slow.begun)
        await asyncio.sleep(0.2)
        assert (len(slow.batches), sent < 1_500_000) == (1, True)
        other = Batches()
        await other.read(client, asking())
        assert sum(map(len, said(other))) == 3_200_000
        slow.flow = Flow.MORE
        watches[0].on_writable()
        await reading
        assert sum(map(len, said(slow))) == 3_200_000


async def test_a_server_that_goes_away_ends_what_it_has_begun_first() -> None:
    release = asyncio.Event()

    async def slow(request: Any, context: Any) -> AsyncIterator[Any]:
        yield streamed("begun")
        await release.wait()
        for _ in range(100):
            yield streamed("x" * 1000)

    async with serving(slow) as (client, _, server):
        found = Batches()
        reading = asyncio.create_task(found.read(client, asking()))
        await until(lambda: found.begun)
        stopping = asyncio.create_task(server.stop(LIMIT))
        await until(lambda: not client._channel._connections)  # it has said that it goes away
        assert (await refused(client)).kind is Kind.BACKEND_DOWN
        release.set()
        await reading
        assert sum(map(len, said(found))) == 100_005
        await stopping


async def test_a_server_that_dies_in_the_middle() -> None:
    async def hang(request: Any, context: Any) -> AsyncIterator[Any]:
        yield streamed("a")
        await asyncio.Event().wait()

    async with serving(hang) as (client, _, server):
        found = Batches()
        reading = asyncio.create_task(refused(client, into=found))
        await until(lambda: found.begun)
        await server.stop(None)
        error = await reading
        assert (said(found), error.kind) == (["a"], Kind.BACKEND_FAILED)


async def test_a_question_without_an_answer_moves_calls_to_another_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(two) as (client, _, _):
        await client.index()
        monkeypatch.setattr(GrpcClient._ask, "__defaults__", (0.2,))
        (connection,) = client._channel._connections
        monkeypatch.setattr(connection, "_flush", lambda: None)  # as where a firewall forgot the connection
        with pytest.raises(GatewayError) as caught:
            await client.index()
        assert caught.value.kind is Kind.TIMEOUT
        assert [model.name for model in await client.index()] == ["m"]


async def test_what_is_no_grpc_is_a_server_that_cannot_be_reached() -> None:
    async def http1(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await reader.read()
        writer.close()

    listening = await asyncio.start_server(http1, "127.0.0.1", 0)
    async with listening:
        client = GrpcClient(f"127.0.0.1:{listening.sockets[0].getsockname()[1]}", connect=LIMIT)
        assert (await refused(client)).kind is Kind.BACKEND_DOWN
        await client.close()


async def test_what_a_call_held_is_free_at_its_end() -> None:
    async with serving(two) as (client, _, _):
        gone: list[weakref.ref[Batches]] = []
        gc.collect()
        gc.disable()
        try:
            for flow in (Flow.MORE, Flow.ENOUGH):
                found = Batches(flow)
                await found.read(client, asking())
                gone.append(weakref.ref(found))
                del found
            assert [each() for each in gone] == [None, None]
        finally:
            gc.enable()


async def test_a_bug_on_the_way_belongs_to_the_call_that_has_it() -> None:
    class Wrong(Batches):
        def received(self, batch: Any) -> Flow:
            raise ZeroDivisionError

    async with serving(two) as (client, _, _):
        with pytest.raises(ZeroDivisionError):
            await Wrong().read(client, asking())
        found = Batches()
        await found.read(client, asking())
        assert said(found) == ["a", "é"]


def test_a_tensor_that_is_cut_is_a_failure_of_the_server() -> None:
    assert _read("INT32", b"\x01\0\0\0\x02\0\0\0") == [1, 2]
    assert _read("BYTES", b"\x01\0\0\0a") == ["a"]
    for kind, raw in (("INT32", b"\x01\0\0\0\x02"), ("BYTES", b"\x02\0\0\0a")):
        with pytest.raises(GatewayError) as caught:
            _read(kind, raw)
        assert caught.value.kind is Kind.BACKEND_FAILED
