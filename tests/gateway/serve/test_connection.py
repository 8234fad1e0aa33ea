"""Client connections over raw sockets: whose name answers carry, who is asked for a body, and who has left."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import orjson
import pytest

from dragoman.backends.base import Flow, Sink
from dragoman.gateway.keys.secrets import Secrets
from dragoman.translators.ir import Delta, Finished, PartEnded, PartStarted, Request, Started, StopReason
from tests.gateway_fakes import FakeBackend, Running, post_bytes, running
from tests.recording import feed
from tests.scripted import Script, text_stream
from tests.serving_gateway import PATHS, Served, asking, served
from tests.waiting import LIMIT, until

KEY = "sk-client"
SECRETS = Secrets((KEY,))
STREAM = {"model": "only", "input": "hi", "stream": True}
LONG = 600.0


def head(line: str, *headers: str) -> bytes:
    return "\r\n".join([line, "Host: x", *headers, "", ""]).encode("latin-1")


async def until_closed(port: int, data: bytes) -> bytes:
    """Everything that comes back until the gateway closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    with contextlib.suppress(ConnectionError):
        received = await asyncio.wait_for(reader.read(), LIMIT)
    writer.close()
    return received


def answer(received: bytes) -> tuple[int, dict[str, str], Any]:
    """The only answer on a connection."""
    top, _, rest = received.partition(b"\r\n\r\n")
    first, *lines = top.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    assert len(rest) == int(headers["content-length"])
    return int(first.split(" ")[1]), headers, json.loads(rest)


def worded_by(protocol: str, body: Any) -> bool:
    return (body.get("type") == "error") is (protocol == "messages") and bool(body["error"]["message"])


# ------------------------------------------------------------------------------------------------------------- Expect


@pytest.mark.parametrize("protocol", PATHS)
@pytest.mark.parametrize(
    ("key", "expectation", "length", "statuses"),
    [
        (None, "100-continue", 60_000_000, {401}),
        ("wrong", "100-continue", 60_000_000, {401}),
        (None, "bogus", 10, {401}),
        (KEY, "bogus", 10, {417}),
        (KEY, "100-continue, bogus", 10, {417}),
        (KEY, "100-continue", 10**12, {400, 413}),
    ],
)
async def test_who_is_refused_is_not_asked_for_a_body(
    protocol: str, key: str | None, expectation: str, length: int, statuses: set[int]
) -> None:
    async with served(secrets=SECRETS) as it:
        headers = [f"Expect: {expectation}", f"Content-Length: {length}"]
        received = await until_closed(
            it.port, head(f"POST {PATHS[protocol]} HTTP/1.1", *headers, *([f"x-api-key: {key}"] if key else []))
        )
        status, sent, body = answer(received)  # and nothing before it
        assert status in statuses
        assert worded_by(protocol, body)
        assert (sent["server"], sent["connection"]) == ("dragoman", "close")
        assert it.metric("dragoman_requests_total", status=str(status), outcome="refused") == 1


@pytest.mark.parametrize("protocol", PATHS)
async def test_a_client_with_a_key_is_asked_for_its_body(protocol: str) -> None:
    async with served(Script(text_stream("hello")), secrets=SECRETS) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        data = orjson.dumps(asking(protocol, "hi"))
        lines = (f"Content-Length: {len(data)}", f"x-api-key: {KEY}", "Expect: 100-Continue")
        writer.write(head(f"POST {PATHS[protocol]} HTTP/1.1", *lines))
        assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), LIMIT) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(data)
        assert (await asyncio.wait_for(reader.readline(), LIMIT)).split(b" ")[1] == b"200"
        writer.close()


@pytest.mark.parametrize("protocol", PATHS)
async def test_a_client_that_leaves_before_it_is_asked_for_its_body_has_only_left(
    protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    clients = 20
    async with served(secrets=SECRETS) as it:
        for _ in range(clients):
            _, writer = await asyncio.open_connection("127.0.0.1", it.port)
            lines = ("Content-Length: 10", f"x-api-key: {KEY}", "Expect: 100-continue")
            writer.write(head(f"POST {PATHS[protocol]} HTTP/1.1", *lines))
            writer.close()
        await until(lambda: it.metric("dragoman_requests_total", outcome="disconnected") == clients)
        assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize(
    ("line", "status"),
    [("POST /nothing HTTP/1.1", 404), ("PUT /v1/responses HTTP/1.1", 405), ("GET /healthz HTTP/1.1", 200)],
)
async def test_nobody_is_asked_for_a_body_that_is_not_read(line: str, status: int) -> None:
    async with served() as it:
        received = await until_closed(it.port, head(line, "Expect: 100-continue", "Content-Length: 10"))
        assert answer(received)[0] == status


async def test_an_older_client_means_nothing_by_it() -> None:
    async with running() as it:
        data = post_bytes({"model": "m", "input": "x"}).replace(b"HTTP/1.1", b"HTTP/1.0")
        received = await until_closed(it.port, data.replace(b"Host: x", b"Expect: bogus"))
        assert answer(received)[0] == 200


# ------------------------------------------------------------------------------------------------------- in our name


@pytest.mark.parametrize("protocol", PATHS)
@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["X-One : 1"], 400),
        (["Content-Length: -1"], 400),
        (["X-One: " + "a" * 100_000], 431),
        ([f"X-{number}: a" for number in range(200)], 431),
        (["Transfer-Encoding: chunked, identity"], 400),
    ],
)
async def test_what_is_no_http_is_counted_and_worded_by_the_protocol_that_was_meant(
    protocol: str, lines: list[str], status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "dragoman")
    async with served() as it:
        received = await until_closed(it.port, head(f"POST {PATHS[protocol]}?a=b HTTP/1.1", *lines))
        found, sent, body = answer(received)
        assert (found, sent["server"]) == (status, "dragoman")
        assert worded_by(protocol, body)
        assert it.metric("dragoman_requests_total", status=str(status), outcome="refused", route="other") == 1
        (fields,) = (record.__dict__["fields"] for record in caplog.records if record.message == "request")
        assert (fields["status"], fields["request_id"]) == (status, sent["x-request-id"])


@pytest.mark.parametrize(
    "data",
    [
        head("CONNECT example.org:443 HTTP/1.1", "Content-Length: 0"),
        head("OPTIONS * HTTP/1.1"),
        head("TRACE /v1/messages HTTP/1.1"),
        head("BREW /v1/messages HTTP/1.1"),
        head("GET http://example.org/v1/messages HTTP/1.1"),
        head("GET /v1/messages HTTP/9.9"),
        head("GET /v1/messages"),
        head("PUT /v1/messages HTTP/1.1", "Content-Length: 0"),
        head("GET /v1/messages HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket"),
        head("GET /v1/responses HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket"),
        head("POST /v1/messages HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket", "Content-Length: 2") + b"{}",
        head("POST /v1/messages HTTP/1.1", "Connection: Upgrade", "Upgrade: h2c", "Content-Length: 2") + b"{}",
        head("POST /v1/messages HTTP/1.1", "Connection: Upgrade", "Upgrade: x", "Transfer-Encoding: chunked")
        + b"zz\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
)
async def test_every_answer_is_ours_and_counted(data: bytes) -> None:
    async with served() as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(data)
        top = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), LIMIT)
        length = next(int(line[15:]) for line in top.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        status, sent, body = answer(top + await asyncio.wait_for(reader.readexactly(length), LIMIT))
        assert 400 <= status < 500
        assert sent["server"] == "dragoman"
        assert sent["x-request-id"]
        assert body["error"]["message"]
        await until(lambda: it.metric("dragoman_requests_total", status=str(status)) == 1)
        assert b"aiohttp" not in top.lower()
        writer.close()


# ---------------------------------------------------------------------------------------------------------- pipelined


async def forever(request: Request, sink: Sink) -> None:
    sink.feed([Started(), PartStarted("text"), Delta("a")])
    await asyncio.sleep(LONG)


ANOTHER = post_bytes({**STREAM, "input": "another"})
AHEAD = {
    "another": ANOTHER,
    "a large one": post_bytes({**STREAM, "input": "x" * 3_000_000}),
    "a large one that never ends": ANOTHER.replace(b"Content-Length: ", b"Content-Length: 99999") + b"x" * 3_000_000,
    "a hundred": ANOTHER * 100,
    "a thousand without bodies": head("GET /healthz HTTP/1.1") * 1000,
    "a request without end": b"GET /" + b"x" * 3_000_000,
    "rubbish": b"\0" * 3_000_000,
}


NO_HTTP = ("a request without end", "rubbish")  # what arrives in one piece with it is refused with it


@pytest.mark.parametrize(
    ("ahead", "at_once"), [*((name, False) for name in AHEAD), *((name, True) for name in AHEAD if name not in NO_HTTP)]
)
@pytest.mark.parametrize("own", [10, 3_000_000])
async def test_a_client_that_sends_ahead_and_leaves_is_noticed(ahead: str, at_once: bool, own: int) -> None:
    backend = FakeBackend(forever)
    async with running(backend) as it:
        _, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(post_bytes({**STREAM, "input": "x" * own}))
        if not at_once:
            await asyncio.wait_for(backend.entered.wait(), LIMIT)
        writer.write(AHEAD[ahead])
        await asyncio.wait_for(backend.entered.wait(), LIMIT)
        with contextlib.suppress(ConnectionError, TimeoutError):
            await asyncio.wait_for(writer.drain(), 0.2)
        writer.close()
        await until(lambda: backend.cancelled == 1)
        await until(lambda: not it.gateway.handler.calls)
        assert it.metric("dragoman_client_disconnects_total", route="plain") == 1


async def test_what_fits_is_answered_in_turn() -> None:
    async with running() as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(post_bytes({"model": "m", "input": "x" * 900_000}) + post_bytes({"model": "m", "input": "y"}) * 9)
        for _ in range(10):
            top = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), LIMIT)
            assert top.startswith(b"HTTP/1.1 200 ")
            length = next(int(line[15:]) for line in top.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(length)
        writer.close()


async def test_a_large_body_of_its_own_does_not_end_a_connection() -> None:
    async with running() as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        for size in (500_000, 530_000, 3_000_000, 10):
            writer.write(post_bytes({"model": "m", "input": "x" * size}))
            top = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), LIMIT)
            length = next(int(line[15:]) for line in top.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(length)
        writer.close()


# ------------------------------------------------------------------------------------------------------------- unread


async def not_reading(it: Running | Served, data: bytes) -> asyncio.StreamWriter:
    _, writer = await asyncio.open_connection("127.0.0.1", it.port, limit=1024)
    writer.write(data)
    return writer


async def flood(request: Request, sink: Sink) -> None:
    sink.feed([Started(), PartStarted("text")])
    while await feed(sink, [Delta("x" * 10_000)]) is not Flow.ENOUGH:
        pass


async def huge(request: Request, sink: Sink) -> None:
    sink.feed([Started(), PartStarted("text"), Delta("x" * 30_000_000), PartEnded()])
    sink.feed([Finished(StopReason.STOP)])


@pytest.mark.parametrize(("play", "stream"), [(flood, True), (huge, True), (huge, False)])
async def test_a_client_that_does_not_read_is_cut_off_in_its_own_time(play: Any, stream: bool) -> None:
    backend = FakeBackend(play)
    async with running(backend, timeouts={"client": 0.2, "keepalive": LONG, "head_after": LONG}) as it:
        writer = await not_reading(it, post_bytes({**STREAM, "stream": stream}))
        await asyncio.wait_for(backend.entered.wait(), LIMIT)
        server = it.runner.server
        assert server is not None
        await until(lambda: not server.connections)
        await until(lambda: not it.gateway.handler.calls)
        counted = it.metric("dragoman_requests_total", status="499", outcome="disconnected")
        assert counted == stream  # what became of a whole answer is not known
        writer.transport.abort()
