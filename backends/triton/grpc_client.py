"""Triton over gRPC: generated stubs on `grpc.aio`, one ModelStreamInfer for each request.

The library's own `stream_infer` is not used: it cannot ask for the final response, and its errors have no status. Here
a stream is half-closed as soon as the request is written, so that it simply ends after the last response, and the
metadata `triton_grpc_error` turns a model's failure into a real status. The packages come with the extra `triton` and
are imported when the first client is made.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from types import ModuleType
from typing import Any

from dragoman.backends.connect_limit import ConnectLimit
from dragoman.backends.refusal import cut, for_log
from dragoman.backends.trace_headers import OUTGOING
from dragoman.backends.triton.client import (
    LOADING,
    MAX_MESSAGE,
    QUESTION,
    Config,
    InferRequest,
    Metadata,
    ModelState,
    Outputs,
    metadata,
    wire_shape,
)
from dragoman.backends.triton.errors import classify, failed, unreachable
from dragoman.translators.errors import GatewayError, Kind

log = logging.getLogger(__name__)

UNREADABLE = "The model server sent a tensor that cannot be read."
INSTALL = "pip install 'dragoman[triton]'"
OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    # The default waits up to two minutes before it looks again for a server that was away.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # What was sent and is not acknowledged within the second time ends the connection (TCP_USER_TIMEOUT, which only
    # comes with pings): a host that vanished would keep it for a quarter of an hour, also once another one has its
    # address. Triton closes the connections of those who ping more often than each five minutes.
    ("grpc.keepalive_time_ms", 330_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)
_CONTENTS = {
    "BYTES": "bytes_contents",
    "BOOL": "bool_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}
_RAW = {
    "BOOL": "?",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "FP32": "f",
    "FP64": "d",
}


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        message = f"Triton over gRPC needs packages that are not installed ({error}): {INSTALL}"
        raise GatewayError(Kind.INVALID, message, "backend") from None


class GrpcClient:
    """`target` is host:port; `connect` seconds. Raises `GatewayError` INVALID where the extra is not installed."""

    def __init__(self, target: str, *, connect: float, api_key: str | None = None) -> None:
        self._target = target
        self._key = (("authorization", f"Bearer {api_key.strip()}"),) if api_key and api_key.strip() else ()
        self._connect = ConnectLimit(connect)
        self._grpc = _import("grpc")
        self._pb: Any = _import("tritonclient.grpc.service_pb2")
        self._stubs: Any = _import("tritonclient.grpc.service_pb2_grpc")
        self._to_dict: Any = _import("google.protobuf.json_format").MessageToDict
        self._channel: Any = None
        self._stub: Any = None

    async def start(self) -> None:
        if self._channel is None:
            self._channel = self._grpc.aio.insecure_channel(self._target, options=OPTIONS)
            self._stub = self._stubs.GRPCInferenceServiceStub(self._channel)

    async def close(self) -> None:
        if self._channel is not None:
            channel, self._channel, self._stub = self._channel, None, None
            await channel.close()

    # ------------------------------------------------------------------------------------------------------- questions

    async def ready(self, model: str) -> bool:
        answer = await self._ask("ModelReady", self._pb.ModelReadyRequest(name=model))
        return bool(answer.ready)

    async def index(self) -> list[ModelState]:
        answer = await self._ask("RepositoryIndex", self._pb.RepositoryIndexRequest())
        return [ModelState(model.name, model.state, model.reason) for model in answer.models]

    async def describe(self, model: str) -> tuple[Metadata, Config]:
        described = await self._ask("ModelMetadata", self._pb.ModelMetadataRequest(name=model))
        configured = await self._ask("ModelConfig", self._pb.ModelConfigRequest(name=model))
        config: Config = self._to_dict(configured.config, preserving_proto_field_name=True)
        inputs = {tensor.name: tensor.datatype for tensor in described.inputs}
        outputs = {tensor.name: tensor.datatype for tensor in described.outputs}
        return metadata(model, inputs, outputs, config), config

    async def load(self, model: str) -> None:
        await self._ask("RepositoryModelLoad", self._pb.RepositoryModelLoadRequest(model_name=model), LOADING)

    async def _ask(self, method: str, request: Any, limit: float = QUESTION) -> Any:
        await self._connected()
        return await self._answered(getattr(self._stub, method)(request, timeout=limit, metadata=self._key))

    async def _answered(self, call: Awaitable[Any]) -> Any:
        try:
            return await call
        except self._grpc.aio.AioRpcError as error:
            raise self._refusal(error.code().name, error.details()) from None

    async def _connected(self) -> None:
        """Within the limit for connecting, which is not the limit for an answer. One refused attempt is enough."""
        await self.start()
        states = self._grpc.ChannelConnectivity
        state = self._channel.get_state(try_to_connect=True)
        attempted = False
        try:
            async with self._connect.attempt():
                while state is not states.READY:
                    if state is states.TRANSIENT_FAILURE and attempted:
                        raise unreachable()
                    attempted = attempted or state is states.CONNECTING
                    await self._channel.wait_for_state_change(state)
                    state = self._channel.get_state(try_to_connect=True)
        except TimeoutError:
            raise unreachable() from None

    # --------------------------------------------------------------------------------------------------------- answers

    @contextlib.asynccontextmanager
    async def open(self, call: InferRequest) -> AsyncIterator[AsyncIterator[list[Outputs]]]:
        await self._connected()
        message = self._encode(call)
        sent = (*self._key, *((name.lower(), value) for name, value in OUTGOING.get().items()))
        if call.streamed:
            rpc = self._stub.ModelStreamInfer(metadata=(("triton_grpc_error", "true"), *sent))
            responses = self._streamed(rpc, message, call.quiet)
        else:
            rpc = self._stub.ModelInfer(message, metadata=sent)
            responses = self._whole(rpc)
        try:
            yield responses
        finally:
            if not rpc.done():
                rpc.cancel()
            await responses.aclose()

    async def _streamed(self, rpc: Any, message: Any, quiet: bool) -> AsyncGenerator[list[Outputs], None]:
        begun = False
        try:
            with contextlib.suppress(asyncio.InvalidStateError):  # it has ended already: reading says why
                await rpc.write(message)
                await rpc.done_writing()
            while (response := await rpc.read()) is not self._grpc.aio.EOF:
                if response.error_message:
                    raise self._refusal("UNKNOWN", response.error_message, begun=begun, quiet=quiet)
                if outputs := _outputs(response.infer_response):
                    begun = True
                    yield [outputs]
            if await rpc.code() is not self._grpc.StatusCode.OK:
                raise self._refusal((await rpc.code()).name, await rpc.details(), begun=begun, quiet=quiet)
        except self._grpc.aio.AioRpcError as error:
            raise self._refusal(error.code().name, error.details(), begun=begun, quiet=quiet) from None

    async def _whole(self, rpc: Any) -> AsyncGenerator[list[Outputs], None]:
        if outputs := _outputs(await self._answered(rpc)):
            yield [outputs]

    def _refusal(self, code: str, said: str | None, *, begun: bool = False, quiet: bool = False) -> GatewayError:
        words = cut(said or "")
        log.log(logging.DEBUG if quiet else logging.WARNING, "%s: %s: %s", self._target, code, for_log(words))
        return classify(code, words, begun=begun)

    def _encode(self, call: InferRequest) -> Any:
        message = self._pb.ModelInferRequest(model_name=call.model.name, id=call.id)
        if call.streamed:
            message.parameters["triton_enable_empty_final_response"].bool_param = True
        for name, tensor in call.inputs.items():
            kind = call.model.inputs[name]
            if kind not in _CONTENTS:
                raise failed(f"The model wants {name} as {kind}, which the gateway cannot send.")
            values = [value.encode() for value in tensor.values] if kind == "BYTES" else tensor.values
            added = message.inputs.add(name=name, datatype=kind, shape=wire_shape(tensor, call.model.batched))
            getattr(added.contents, _CONTENTS[kind]).extend(values)
        for name in call.outputs:
            message.outputs.add(name=name)
        return message


def _outputs(response: Any) -> dict[str, list[Any]]:
    """Empty for a response that only says that it was the last one."""
    found: dict[str, list[Any]] = {}
    raw = response.raw_output_contents
    for index, tensor in enumerate(response.outputs):
        if index < len(raw):
            found[tensor.name] = _read(tensor.datatype, raw[index])
        elif tensor.datatype in _CONTENTS:
            values = getattr(tensor.contents, _CONTENTS[tensor.datatype])
            found[tensor.name] = [_text(value) if isinstance(value, bytes) else value for value in values]
    return found


def _read(kind: str, raw: bytes) -> list[Any]:
    if kind == "BYTES":
        return _read_bytes(raw)
    if (code := _RAW.get(kind)) is None:
        return []  # half floats: logits, which nobody reads
    size = struct.calcsize(f"<{code}")
    if len(raw) % size:
        raise failed(UNREADABLE)
    return list(struct.unpack(f"<{len(raw) // size}{code}", raw))


def _read_bytes(raw: bytes) -> list[Any]:
    """Elements with their lengths before them, four bytes little endian."""
    values: list[Any] = []
    at = 0
    while at + 4 <= len(raw):
        size = int.from_bytes(raw[at : at + 4], "little")
        at += 4
        if at + size > len(raw):
            raise failed(UNREADABLE)
        values.append(_text(raw[at : at + size]))
        at += size
    return values


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
