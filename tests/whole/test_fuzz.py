"""Parsers against whatever anybody sends: a result, or a `GatewayError` that can be worded; never anything else.

Bodies start from recorded, valid requests and are spoilt anywhere, because noise alone never gets past the first
field; streams of servers likewise. Bounded to some seconds; examples are the same in every run.
"""

from __future__ import annotations

import copy
import json
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dragoman.backends.chat.decoder import ChatDecoder
from dragoman.backends.chat.encode import encode, final
from dragoman.backends.chat.errors import classify
from dragoman.backends.chat.settings import Settings
from dragoman.gateway.calls.body import parse_object
from dragoman.gateway.calls.decoding import decode
from dragoman.gateway.calls.images import Images
from dragoman.gateway.config import ImagesConfig, Limits
from dragoman.gateway.telemetry.tracing import context_headers
from dragoman.translators.errors import GatewayError
from dragoman.translators.ir import Image
from dragoman.translators.protocol import Context, Json, Protocol
from dragoman.translators.registry import PROTOCOLS
from dragoman.translators.steps import at_once
from tests.golden_files import GOLDEN, TRANSCRIPTS, request, requests, upstream
from tests.recording import ask

pytestmark = pytest.mark.slow

CONTEXT = Context(id="0" * 32, clock=lambda: 1_700_000_000, seal=lambda text: text, open=lambda blob: blob)
BOUNDED = settings(
    max_examples=150, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)

SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    st.sampled_from(
        ["", "user", "system", "tool", "function", "text", "auto", "\ud800", "\x00", "a\nb", "../..", "[]"]
    ),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from(["type", "text", "content", "role", "id", "name", "input", "call_id", "output", "x"]),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=8,
)


def bodies(protocol: Protocol) -> list[Json]:
    """The request that every golden stream answers, and the golden requests."""
    streams = GOLDEN / "streams" / f"{protocol.name}.request.json"
    loaded = [orjson.loads(streams.read_bytes()), *map(request, requests(protocol.name))]
    return [body.get("body", body) for body in loaded]


def places(value: Any) -> list[tuple[Any, Any]]:
    """Each container with each of its keys."""
    found: list[tuple[Any, Any]] = []
    level = [value]
    while level:
        container = level.pop()
        keys = list(container) if isinstance(container, dict) else range(len(container))
        for key in keys:
            found.append((container, key))
            if isinstance(container[key], dict | list):
                level.append(container[key])
    return found


def spoil(data: st.DataObject, body: Json) -> Json:
    spoilt = copy.deepcopy(body)
    for _ in range(data.draw(st.integers(1, 3))):
        where = places(spoilt)
        if not where:
            break
        container, key = data.draw(st.sampled_from(where))
        match data.draw(st.sampled_from(["replace", "remove", "double", "move"])):
            case "remove":
                del container[key]
            case "double" if isinstance(container, list):
                container.insert(key, copy.deepcopy(container[key]))
            case "move":
                source, name = data.draw(st.sampled_from(where))
                if (isinstance(name, str) and name not in source) or (isinstance(name, int) and name >= len(source)):
                    continue
                container[key] = copy.deepcopy(source[name])
            case _:
                container[key] = data.draw(VALUES)
    return spoilt


def tellable(protocol: Protocol, error: GatewayError) -> None:
    reply = protocol.error(error, "req_1")
    assert 400 <= reply.status < 500, error
    orjson.dumps(reply.body)
    json.dumps(reply.body).encode("utf-8")
    assert all(value.isprintable() for value in reply.headers.values())


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)
@BOUNDED
@given(st.data())
def test_a_spoilt_request_is_parsed_or_refused(protocol: Protocol, data: st.DataObject) -> None:
    body = spoil(data, data.draw(st.sampled_from(bodies(protocol))))
    try:
        turn = protocol.parse(body, CONTEXT)
    except GatewayError as error:
        tellable(protocol, error)
        return
    try:
        sent = final(encode(turn.request, Settings())[0], Settings(), "m")
    except GatewayError as error:
        tellable(protocol, error)
        return
    orjson.loads(sent)
    if protocol.count is not None:
        protocol.count.parse(body, CONTEXT)


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.name)
@BOUNDED
@given(st.dictionaries(st.sampled_from(["model", "input", "messages", "tools", "max_tokens", "system"]), VALUES))
def test_any_object_is_parsed_or_refused(protocol: Protocol, body: Json) -> None:
    try:
        protocol.parse(body, CONTEXT)
    except GatewayError as error:
        tellable(protocol, error)


@BOUNDED
@given(st.binary(max_size=200), st.lists(st.sampled_from(["gzip", "deflate", "zstd", "br", "x"]), max_size=4))
def test_any_bytes_are_an_object_or_refused(data: bytes, encodings: list[str]) -> None:
    try:
        value, _ = at_once(parse_object(at_once(decode(data, encodings, 10_000)), Limits()))
        assert isinstance(value, dict)
    except GatewayError as error:
        tellable(PROTOCOLS[0], error)


STREAMS = [upstream(path) for path in TRANSCRIPTS]


@BOUNDED
@given(st.data())
def test_a_spoilt_stream_is_decoded_or_failed(data: st.DataObject) -> None:
    stream = bytearray(data.draw(st.sampled_from(STREAMS))[:20_000])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, max(0, len(stream) - 1)))
        length = data.draw(st.integers(0, 40))
        stream[place : place + length] = data.draw(st.one_of(st.binary(max_size=20), st.just(stream[:length])))
    decoder = ChatDecoder(ask(), lambda status, body: classify(status, body, Settings()))
    size = data.draw(st.integers(1, 4000))
    try:
        for place in range(0, len(stream), size):
            decoder.feed(bytes(stream[place : place + size]))
        decoder.finish()
    except GatewayError as error:
        decoder.abort()
        orjson.dumps(error.message)


@BOUNDED
@given(st.integers(100, 599), st.one_of(st.binary(max_size=300), VALUES.map(lambda value: json.dumps(value).encode())))
def test_any_refusal_of_a_server_is_understood_somehow(status: int, body: bytes) -> None:
    assert isinstance(classify(status, body, Settings()), GatewayError)


PIECES = [
    "http://",
    "https://",
    "a.example",
    "@",
    ":",
    "/",
    "\\",
    "#",
    "?",
    "127.0.0.1",
    "[::1]",
    "%00",
    "\n",
    " ",
    "é",
    "..",
    "xn--",
    "65536",
]


@BOUNDED
@given(st.one_of(st.text(max_size=40), st.lists(st.sampled_from(PIECES), max_size=8).map("".join)))
def test_any_address_of_an_image_is_judged(url: str) -> None:
    images = Images(ImagesConfig(allow=("a.example",)))
    try:
        target = images._target(Image(url))
    except GatewayError as error:
        tellable(PROTOCOLS[0], error)
        return
    assert target.raw_host == "a.example" or (target.raw_host or "").rstrip(".").lower() == "a.example"
    assert target.user is None


@BOUNDED
@given(st.text(max_size=80), st.text(max_size=80))
def test_any_trace_context_is_sound_or_left_out(parent: str, state: str) -> None:
    for value in context_headers({"traceparent": parent, "tracestate": state}).values():
        assert value.isascii()
        assert value.isprintable()
