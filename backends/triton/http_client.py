"""Triton over HTTP: `generate_stream` for decoupled models, `generate` for others.

The server takes every key that is no input for a parameter and says nothing, sends errors before the first token with
an event stream's content type, and in the middle as one more event. A stream ends with its body: there is no [DONE].
A request that is left is aborted by closing its connection, and connections are not reused, because some versions see
a closed one only when they next write.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any
from urllib.parse import quote

import aiohttp
import orjson

from dragoman.backends.chat.encode import dumps
from dragoman.backends.connect_limit import ConnectLimit, Connector
from dragoman.backends.json_body import JsonBody, abort, read_bounded
from dragoman.backends.refusal import MAX_BODY, for_log
from dragoman.backends.refusal import read as read_error
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
)
from dragoman.backends.triton.errors import broken_off, classify, failed, unreachable
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

    @contextlib.asynccontextmanager
    async def open(self, call: InferRequest) -> AsyncIterator[AsyncIterator[list[Outputs]]]:
        response = await self._post(call)
        try:
            if response.status != 200:
                raise self._refusal(response.status, await read_bounded(response, MAX_BODY), quiet=call.quiet)
            responses = self._streamed(response, call.quiet) if call.streamed else self._whole(response)
            try:
                yield responses
            finally:
                await responses.aclose()
        except (aiohttp.ClientError, ConnectionError):
            raise broken_off() from None
        finally:
            abort(response)

    async def _post(self, call: InferRequest) -> aiohttp.ClientResponse:
        session = await self._started()
        path = f"{self._base}/v2/models/{quote(call.model.name)}/generate{'_stream' if call.streamed else ''}"
        try:
            return await session.post(
                path, data=JsonBody(dumps(_body(call))), headers=OUTGOING.get(), allow_redirects=False
            )
        except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError):
            raise unreachable() from None
        except (aiohttp.ClientError, ConnectionError):
            raise failed("The model server closed the connection without an answer.") from None

    async def _streamed(self, response: aiohttp.ClientResponse, quiet: bool) -> AsyncGenerator[list[Outputs], None]:
        reader, begun, more = EventReader(), False, True
        while more:
            data = await response.content.readany()
            more = bool(data)
            batch, error = self._events(reader.feed(data) if data else reader.finish(), begun, quiet)
            if batch:
                begun = True
                yield batch
            if error is not None:
                raise error

    def _events(self, payloads: list[bytes], begun: bool, quiet: bool) -> tuple[list[Outputs], GatewayError | None]:
        """All events of one read as one batch, up to an error; what stands before it is not lost with it."""
        found: list[Outputs] = []
        for payload in payloads:
            try:
                event = _loads(payload)
            except GatewayError as error:
                return found, error
            if _is_error(event):
                log.log(_level(quiet), "%s: error in the stream: %s", self._base, for_log(payload))
                return found, classify("UNKNOWN", read_error(event).words, begun=begun or bool(found))
            if outputs := _outputs(event):
                found.append(outputs)
        return found, None

    async def _whole(self, response: aiohttp.ClientResponse) -> AsyncGenerator[list[Outputs], None]:
        body = await read_bounded(response, MAX_MESSAGE)
        event = _loads(body)
        if _is_error(event):
            raise self._refusal(response.status, body)
        if outputs := _outputs(event):
            yield [outputs]

    def _refusal(self, status: int, body: bytes, *, quiet: bool = False) -> GatewayError:
        log.log(_level(quiet), "%s: status %d: %s", self._base, status, for_log(body))
        return classify(_CODES.get(status, "INTERNAL"), read_error(body).words)


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
