"""Triton over gRPC: the messages of its own library (`tritonclient`), one ModelStreamInfer for each request.

The library's own client is not used: it cannot ask for the final response, its errors have no status, and it wakes a
thread and two tasks for each token (`backends.triton.rpc`). Here a stream is half-closed as soon as the request is
written, so that it simply ends after the last response, and the metadata `triton_grpc_error` turns a model's failure
into a real status. The packages come with the extra `triton` and are imported when the first client is made.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import struct
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

from dragoman.backends.base import MORE, Flow
from dragoman.backends.connect_limit import ConnectLimit
from dragoman.backends.dial import CannotConnect, Dialer
from dragoman.backends.refusal import cut, for_log
from dragoman.backends.trace_headers import OUTGOING
from dragoman.backends.triton.client import (
    LOADING,
    QUESTION,
    Config,
    InferRequest,
    Metadata,
    ModelState,
    Outputs,
    metadata,
    wire_shape,
)
from dragoman.backends.triton.errors import RpcError, classify, failed, unreachable
from dragoman.backends.triton.reader import ResponseReader, feed
from dragoman.backends.watch import Watch
from dragoman.translators.errors import GatewayError, Kind

if TYPE_CHECKING:  # they need what comes with the extra
    from dragoman.backends.triton.rpc import Channel, Rpc

log = logging.getLogger(__name__)

UNREADABLE = "The model server sent a tensor that cannot be read."
INSTALL = "pip install 'dragoman[triton]'"
SERVICE = "/inference.GRPCInferenceService/"
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
        self._key = {"authorization": f"Bearer {api_key.strip()}"} if api_key and api_key.strip() else {}
        channel = _import("dragoman.backends.triton.rpc").Channel
        self._pb: Any = _import("tritonclient.grpc.service_pb2")
        self._to_dict: Any = _import("google.protobuf.json_format").MessageToDict
        self._broken: type[Exception] = _import("google.protobuf.message").DecodeError
        host, _, port = target.rpartition(":")
        dialer = Dialer(host.strip("[]"), int(port), limit=ConnectLimit(connect))
        self._channel: Channel = channel(dialer, target)

    async def start(self) -> None: ...

    async def close(self) -> None:
        await self._channel.close()

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
        answers: list[bytes] = []
        asked = asyncio.get_running_loop().time()
        rpc = await self._begin(method, request, self._key, partial(_keep, answers))
        try:
            async with asyncio.timeout(limit):
                await rpc.end()
        except TimeoutError:
            rpc.doubt(asked)
            raise self._refusal("DEADLINE_EXCEEDED", "") from None
        except RpcError as error:
            raise self._refusal(error.code, error.details) from None
        if len(answers) != 1:
            raise failed("The model server's answer cannot be read.")
        return self._parsed(f"{method}Response", answers[0])

    # --------------------------------------------------------------------------------------------------------- answers

    async def answer(self, call: InferRequest, reader: ResponseReader, watch: Watch) -> None:
        rpc = await self._infer(call, partial(self._received, call, reader, watch))
        watch.on_writable = rpc.resume
        try:
            await rpc.end()
        except RpcError as error:
            raise self._refusal(error.code, error.details, begun=reader.begun, quiet=call.quiet) from None
        if not reader.over:
            reader.ended()

    async def tell(self, call: InferRequest) -> None:
        rpc = await self._infer(call, partial(_keep, []))
        try:
            await rpc.end()
        except RpcError as error:
            raise self._refusal(error.code, error.details, quiet=call.quiet) from None

    def _received(self, call: InferRequest, reader: ResponseReader, watch: Watch, messages: Sequence[bytes]) -> Flow:
        flow = feed(reader, messages, partial(self._read, call))
        watch.follow()
        return flow

    def _read(self, call: InferRequest, message: bytes, begun: bool) -> Outputs:
        if not call.streamed:
            return _outputs(self._parsed("ModelInferResponse", message))
        response = self._parsed("ModelStreamInferResponse", message)
        if response.error_message:
            raise self._refusal("UNKNOWN", response.error_message, begun=begun, quiet=call.quiet)
        return _outputs(response.infer_response)

    # ------------------------------------------------------------------------------------------------------------ calls

    async def _infer(self, call: InferRequest, take: Callable[[Sequence[bytes]], Flow]) -> Rpc:
        sent = {**self._key, **OUTGOING.get()}
        if not call.streamed:
            return await self._begin("ModelInfer", self._encode(call), sent, take)
        return await self._begin("ModelStreamInfer", self._encode(call), {**sent, "triton_grpc_error": "true"}, take)

    async def _begin(
        self, method: str, request: Any, sent: Mapping[str, str], take: Callable[[Sequence[bytes]], Flow]
    ) -> Rpc:
        try:
            return await self._channel.call(SERVICE + method, request.SerializeToString(), sent, take)
        except CannotConnect as error:
            log.warning("%s: cannot connect: %s", self._target, error)
            raise unreachable() from None

    def _parsed(self, name: str, message: bytes) -> Any:
        try:
            return getattr(self._pb, name).FromString(message)
        except self._broken:
            raise failed("The model server sent a message that cannot be read.") from None

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


def _keep(kept: list[bytes], messages: Sequence[bytes]) -> Flow:
    kept.extend(messages)
    return MORE


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
