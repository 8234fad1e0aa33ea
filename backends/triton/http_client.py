"""Triton over HTTP: `generate_stream` for decoupled models, `generate` for others.

The server takes every key that is no input for a parameter and says nothing, sends errors before the first token with
an event stream's content type, and in the middle as one more event. A stream ends with its body: there is no [DONE].
A request that is left is aborted by closing its connection, and connections are not reused, because some versions see
a closed one only when they next write.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson

from dragoman.backends.base import Flow
from dragoman.backends.chat.encode import dumps
from dragoman.backends.connect_limit import ConnectLimit, Connector
from dragoman.backends.http1.client import Http1Transport
from dragoman.backends.json_body import read_bounded
from dragoman.backends.refusal import MAX_BODY, for_log
from dragoman.backends.refusal import read as read_error
from dragoman.backends.trace_headers import OUTGOING
from dragoman.backends.transport import NoAnswer, Reply, Unreachable
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
)
from dragoman.backends.triton.errors import broken_off, classify, failed, unreachable
from dragoman.backends.triton.reader import ResponseReader, feed
from dragoman.backends.watch import Watch
from dragoman.translators.errors import GatewayError
from dragoman.translators.json_text import is_bulky
from dragoman.translators.sse import EventReader

log = logging.getLogger(__name__)

_CODES = {
    400: "INVALID_ARGUMENT",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
}
MAX_VALUES = 1_000_000  # of one event: one for each token of a prompt that comes back
_LIMIT = aiohttp.ClientTimeout(total=QUESTION)
_LOADING = aiohttp.ClientTimeout(total=LOADING)
_NOT_TENSORS = frozenset(
    {"model_name", "model_version", "id", "parameters", "sequence_id", "sequence_start", "sequence_end"}
)


class HttpClient:
    """`base` is the server's root, `http://host:8000`; `connect` seconds."""

    def __init__(self, base: str, *, connect: float, api_key: str | None = None) -> None:
        self._base = base
        self._headers = {"Accept-Encoding": "identity", "User-Agent": "dragoman"}
        if api_key and api_key.strip():
            self._headers["Authorization"] = f"Bearer {api_key.strip()}"
        self._connect = ConnectLimit(connect)
        self._session: aiohttp.ClientSession | None = None
        self._answering: dict[str, Http1Transport] = {}  # by path

    async def start(self) -> None:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=Connector(self._connect, force_close=True),
                headers=self._headers,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
            )

    async def close(self) -> None:
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()
        for transport in self._answering.values():
            await transport.close()

    # ------------------------------------------------------------------------------------------------------- questions

    async def ready(self, model: str) -> bool:
        status, body = await self._ask("GET", f"models/{quote(model)}/ready")
        if status not in (200, 400):
            raise self._refusal(status, body)
        return status == 200

    async def index(self) -> list[ModelState]:
        listed = await self._json("POST", "repository/index")
        return [
            ModelState(str(model.get("name", "")), str(model.get("state", "")), str(model.get("reason", "")))
            for model in (listed if isinstance(listed, list) else ())
            if isinstance(model, Mapping)
        ]

    async def describe(self, model: str) -> tuple[Metadata, Config]:
        described = await self._json("GET", f"models/{quote(model)}")
        config = await self._json("GET", f"models/{quote(model)}/config")
        inputs = {tensor["name"]: tensor["datatype"] for tensor in described["inputs"]}
        outputs = {tensor["name"]: tensor["datatype"] for tensor in described["outputs"]}
        return metadata(model, inputs, outputs, config), config

    async def load(self, model: str) -> None:
        status, body = await self._ask("POST", f"repository/models/{quote(model)}/load", _LOADING)
        if status != 200:
            raise self._refusal(status, body)

    async def _json(self, method: str, path: str) -> Any:
        status, body = await self._ask(method, path)
        if status != 200:
            raise self._refusal(status, body)
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError:
            raise failed("The model server's answer cannot be read.") from None

    async def _ask(self, method: str, path: str, limit: aiohttp.ClientTimeout = _LIMIT) -> tuple[int, bytes]:
        session = await self._started()
        try:
            async with session.request(
                method, f"{self._base}/v2/{path}", timeout=limit, allow_redirects=False
            ) as response:
                return response.status, await read_bounded(response, MAX_MESSAGE)
        except (aiohttp.ClientError, ConnectionError, TimeoutError):
            raise unreachable() from None

    async def _started(self) -> aiohttp.ClientSession:
        await self.start()
        assert self._session is not None
        return self._session

    # --------------------------------------------------------------------------------------------------------- answers

    async def answer(self, call: InferRequest, reader: ResponseReader, watch: Watch) -> None:
        async with self._asked(call) as reply:
            if call.streamed:
                await reply.into(_Events(self, call, reader), watch)
            elif outputs := self._whole(await reply.read(MAX_MESSAGE), call):
                reader.received([outputs])
        if not reader.over:
            reader.ended()

    async def tell(self, call: InferRequest) -> None:
        async with self._asked(call) as reply:
            await reply.read(MAX_MESSAGE)

    @contextlib.asynccontextmanager
    async def _asked(self, call: InferRequest) -> AsyncIterator[Reply]:
        """The reply whose body is the answer; what is not read to its end ends the connection."""
        reply = await self._post(call)
        try:
            if reply.status != 200:
                raise self._refusal(reply.status, await reply.read(MAX_BODY), quiet=call.quiet)
            yield reply
        except ConnectionError:
            raise broken_off() from None
        finally:
            await reply.close()

    async def _post(self, call: InferRequest) -> Reply:
        path = f"models/{quote(call.model.name)}/generate{'_stream' if call.streamed else ''}"
        if (transport := self._answering.get(path)) is None:
            transport = Http1Transport(f"{self._base}/v2/{path}", self._headers, tls=None, connect=self._connect)
            self._answering[path] = transport
        try:
            return await transport.post(dumps(_body(call)), OUTGOING.get(), fresh=True)
        except Unreachable as error:
            log.warning("%s: cannot connect: %s", self._base, error)
            raise unreachable() from None
        except NoAnswer:
            raise failed("The model server closed the connection without an answer.") from None

    def _whole(self, body: bytes, call: InferRequest) -> Outputs:
        event = _loads(body)
        if _is_error(event):
            raise self._refusal(200, body, quiet=call.quiet)
        return _outputs(event)

    def in_stream(self, payload: bytes, event: Mapping[str, Any], *, begun: bool, quiet: bool) -> GatewayError:
        """An error among the events."""
        log.log(_level(quiet), "%s: error in the stream: %s", self._base, for_log(payload))
        return classify("UNKNOWN", read_error(event).words, begun=begun)

    def _refusal(self, status: int, body: bytes, *, quiet: bool = False) -> GatewayError:
        log.log(_level(quiet), "%s: status %d: %s", self._base, status, for_log(body))
        return classify(_CODES.get(status, "INTERNAL"), read_error(body).words)


class _Events:
    """The bytes of a stream into the batches of its reader."""

    def __init__(self, client: HttpClient, call: InferRequest, reader: ResponseReader) -> None:
        self._client = client
        self._call = call
        self._reader = reader
        self._events = EventReader()

    @property
    def over(self) -> bool:
        return self._reader.over

    @property
    def deadline(self) -> float:
        return self._reader.deadline

    def received(self, data: bytes) -> Flow:
        return feed(self._reader, self._events.feed(data), self._read)

    def ended(self) -> None:
        feed(self._reader, self._events.finish(), self._read)
        if not self._reader.over:
            self._reader.ended()

    def _read(self, payload: bytes, begun: bool) -> Outputs:
        event = _loads(payload)
        if _is_error(event):
            raise self._client.in_stream(payload, event, begun=begun, quiet=self._call.quiet)
        return _outputs(event)


def _level(quiet: bool) -> int:
    return logging.DEBUG if quiet else logging.WARNING


def _body(call: InferRequest) -> dict[str, Any]:
    """Tensors of one value as scalars, all others flat: the server gives them their shape."""
    body: dict[str, Any] = {"id": call.id}
    for name, tensor in call.inputs.items():
        body[name] = tensor.values[0] if len(tensor.values) == 1 else list(tensor.values)
    return body


def _loads(payload: bytes) -> dict[str, Any]:
    try:
        event = None if is_bulky(payload, MAX_VALUES) else orjson.loads(payload)
    except orjson.JSONDecodeError:
        event = None
    if not isinstance(event, dict):
        raise failed("The model server sent an event that cannot be read.")
    return event


def _is_error(event: Mapping[str, Any]) -> bool:
    return "error" in event and "model_name" not in event


def _outputs(event: Mapping[str, Any]) -> dict[str, list[Any]]:
    return {
        name: value if isinstance(value, list) else [value] for name, value in event.items() if name not in _NOT_TENSORS
    }
