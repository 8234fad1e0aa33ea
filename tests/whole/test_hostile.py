"""Clients and servers that mean harm or are broken: a clear answer in JSON, flat memory, and nothing left behind.

Real sockets throughout. What is about memory runs against `dragoman serve` as a process of its own and asks the
kernel.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import json
import signal
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import zstandard

from bench.children import GATEWAY, Child, started
from tests.scripted import Script, ScriptedServer, model_list, text_stream
from tests.serving_command import serving
from tests.serving_gateway import PATHS, Served, asking, served
from tests.waiting import LIMIT

pytestmark = pytest.mark.slow

MIB = 1024 * 1024


async def exchange(port: int, *pieces: bytes, pause: float = 0.0, eof: bool = False, silence: float = 0.3) -> bytes:
    """Everything that comes back until the gateway closes the connection, or has been silent for so long."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = b""
    with contextlib.suppress(ConnectionError):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            if pause:
                await asyncio.sleep(pause)
        if eof:
            writer.write_eof()
    with contextlib.suppress(TimeoutError, ConnectionError):
        while data := await asyncio.wait_for(reader.read(65536), silence):
            received += data
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return received


def answers(received: bytes) -> list[tuple[int, dict[str, Any]]]:
    """The answers on one connection, each of which must have a JSON body."""
    found = []
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        length = int(headers["content-length"])
        assert headers["content-type"].startswith("application/json")
        found.append((int(lines[0].split(" ")[1]), json.loads(rest[:length])))
        received = rest[length:]
    return found


def refusal(received: bytes) -> tuple[int, dict[str, Any]]:
    ((status, body),) = answers(received)
    assert set(body["error"]) >= {"type", "message"}
    return status, body["error"]


@pytest.fixture
async def it() -> AsyncIterator[Served]:
    async with served(timeouts={"body": 0.4}) as gateway:
        gateway.server.on("GET", "/v1/models", model_list("m"))
        yield gateway


def post(path: str, body: bytes, *lines: bytes, length: int | None = None) -> bytes:
    head = [f"POST {path} HTTP/1.1".encode(), b"Host: x", *lines]
    if not any(line.lower().startswith((b"content-length", b"transfer-encoding")) for line in lines):
        head.append(b"Content-Length: %d" % (len(body) if length is None else length))
    return b"\r\n".join(head) + b"\r\n\r\n" + body


# ---------------------------------------------------------------------------------------------------------- no HTTP

GOOD = json.dumps(asking("responses", "hi")).encode()
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"%x\r\n%s\r\n0\r\n\r\n" % (len(GOOD), GOOD)
NO_HTTP: dict[str, bytes] = {
    "length and chunks": post(
        PATHS["responses"], b"0\r\n\r\n" + SMUGGLED, b"Content-Length: 5", b"Transfer-Encoding: chunked"
    ),
    "chunks and length": post(
        PATHS["responses"], b"0\r\n\r\n" + SMUGGLED, b"Transfer-Encoding: chunked", b"Content-Length: 5"
    ),
    "two lengths": post(PATHS["responses"], GOOD + SMUGGLED, b"Content-Length: %d" % len(GOOD), b"Content-Length: 0"),
    "a list of lengths": post(PATHS["responses"], GOOD, b"Content-Length: %d, 0" % len(GOOD)),
    "a negative length": post(PATHS["responses"], GOOD, b"Content-Length: -1"),
    "a length with a sign": post(PATHS["responses"], GOOD, b"Content-Length: +%d" % len(GOOD)),
    "another coding": post(PATHS["responses"], CHUNKED, b"Transfer-Encoding: chunked, identity"),
    "a name with a blank": post(PATHS["responses"], GOOD, b"X-One : 1"),
    "a null in a value": post(PATHS["responses"], GOOD, b"X-One: a\0b"),
    "a null in a name": post(PATHS["responses"], GOOD, b"X\0One: a"),
    "no words": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xff" * 40 + b"\r\n\r\n",
    "a huge header": post(PATHS["responses"], GOOD, b"X-One: " + b"a" * 100_000),
    "a huge path": post("/v1/" + "a" * 100_000, GOOD),
    "a huge name": post(PATHS["responses"], GOOD, b"X" * 100_000 + b": 1"),
    "too many headers": post(PATHS["responses"], GOOD, *[b"X-%d: 1" % number for number in range(5000)]),
}


@pytest.mark.parametrize("case", NO_HTTP)
async def test_what_is_no_http_is_refused_in_json_and_not_quoted(it: Served, case: str) -> None:
    status, error = refusal(await exchange(it.port, NO_HTTP[case]))
    assert status in (400, 431)
    assert error["message"] in (
        "The request is not valid HTTP/1.1.",
        "A line of the request's head is too long.",
        "The request's head has too many lines.",
    )
    assert it.server.chats == []


@pytest.mark.parametrize(
    "body",
    [
        b"zz\r\n" + GOOD + b"\r\n0\r\n\r\n",
        b"-5\r\n" + GOOD + b"\r\n0\r\n\r\n",
        b"5\r\n" + GOOD + b"\r\n0\r\n\r\n",
        b"%x\r\n%sXX0\r\n\r\n" % (len(GOOD), GOOD),
        b"fffffffffffffffff\r\n" + GOOD,
    ],
)
@pytest.mark.parametrize("apart", [False, True])
async def test_bad_chunks_are_refused_and_what_follows_is_no_request(it: Served, body: bytes, apart: bool) -> None:
    head = post(PATHS["responses"], b"", b"Transfer-Encoding: chunked")
    pieces = [head, body + SMUGGLED] if apart else [head + body + SMUGGLED]
    status, error = refusal(await exchange(it.port, *pieces, pause=0.05))
    assert "did not arrive" not in error["message"]
    assert status == 400
    assert "smuggled" not in json.dumps(error)
    assert it.server.chats == []


async def test_a_body_that_ends_early_is_refused_or_dropped(it: Served) -> None:
    received = await exchange(it.port, post(PATHS["responses"], GOOD, length=len(GOOD) + 10), eof=True)
    assert received == b"" or refusal(received)[0] == 400
    assert it.server.chats == []


async def test_pipelined_requests_are_answered_one_after_another(it: Served) -> None:
    received = await exchange(it.port, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
    assert [status for status, _ in answers(received)] == [200] * 20


# -------------------------------------------------------------------------------------------------------------- bodies


def deep(levels: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    return b'{"model": "m", "input": ' + opening * levels + b"1" + closing * levels + b"}"


BODIES: dict[str, bytes] = {
    "nothing": b"",
    "blanks": b" \n\t ",
    "a list": b"[]",
    "null": b"null",
    "a string": b'"x"',
    "half": GOOD[:-3],
    "two": GOOD + GOOD,
    "not utf-8": b'{"model": "m", "input": "\xff\xfe\x80"}',
    "an overlong form": b'{"model": "m", "input": "\xc0\xaf"}',
    "utf-16": GOOD.decode().encode("utf-16"),
    "a control character": b'{"model": "m", "input": "a\x00b"}',
    "deep lists": deep(65),
    "very deep lists": deep(100_000),
    "very deep objects": deep(100_000, b'{"a":', b"}"),
    "a million lists": b"[" * 1_000_000,
    "not a number": b'{"model": "m", "input": NaN}',
}


@pytest.mark.parametrize("protocol", PATHS)
@pytest.mark.parametrize("case", BODIES)
async def test_what_is_no_json_object_is_refused_by_its_protocol(it: Served, protocol: str, case: str) -> None:
    async with it.session.post(it.url + PATHS[protocol], data=BODIES[case]) as answer:
        assert answer.status == 400
        body = await answer.json()
    assert body["error"]["type"] == "invalid_request_error"
    assert (body.get("type") == "error") is (protocol == "messages")
    assert len(body["error"]["message"]) < 300


def many_tools(protocol: str, count: int) -> list[dict[str, Any]]:
    schema = {"type": "object", "properties": {}}
    match protocol:
        case "responses":
            return [{"type": "function", "name": f"t{each}", "parameters": schema} for each in range(count)]
        case "messages":
            return [{"name": f"t{each}", "input_schema": schema} for each in range(count)]
        case _:
            return [
                {"type": "function", "function": {"name": f"t{each}", "parameters": schema}} for each in range(count)
            ]


@pytest.mark.parametrize("protocol", PATHS)
async def test_ten_thousand_tools_are_too_many(it: Served, protocol: str) -> None:
    body = asking(protocol, "hi", tools=many_tools(protocol, 10_000))
    data = io.BytesIO(json.dumps(body).encode())
    async with it.session.post(it.url + PATHS[protocol], data=data) as answer:
        assert answer.status == 400
        assert "1024" in (await answer.json())["error"]["message"]
    assert it.server.chats == []


@pytest.mark.parametrize("protocol", PATHS)
@pytest.mark.parametrize("name", ["a\nb", "a\x00b", "a\x1b[31m", "", "a" * 100_000, "\ud800", "a\r\nx-injected: 1"])
async def test_names_with_control_characters_never_break_anything(it: Served, protocol: str, name: str) -> None:
    tools = many_tools(protocol, 1)
    (tools[0]["function"] if protocol == "chat_completions" else tools[0])["name"] = name
    for body in (asking(protocol, "hi", tools=tools), asking(protocol, "hi", model=name)):
        it.server.queue.clear()
        it.server.add(Script(text_stream("fine")))
        async with it.session.post(it.url + PATHS[protocol], data=json.dumps(body).encode()) as answer:
            told = await answer.json()
            assert answer.status in (200, 400, 404)
            assert "x-injected" not in answer.headers
            if answer.status != 200:
                assert len(told["error"]["message"]) < 1000


async def test_control_characters_in_headers_reach_no_answer(it: Served) -> None:
    headers = {"x-request-id": "a\tb", "originator": "codex\x7f", "session_id": "\x80\xff"}
    lines = [f"{name}: {value}".encode("latin-1") for name, value in headers.items()]
    it.server.add(Script(text_stream("fine")))
    ((status, _),) = answers(await exchange(it.port, post(PATHS["responses"], GOOD, *lines)))
    assert status in (200, 400)


# --------------------------------------------------------------------------------------------------------- slow clients


async def test_a_body_that_trickles_in_is_refused_in_time(it: Served) -> None:
    begun = time.monotonic()
    pieces = [post(PATHS["responses"], b"", length=len(GOOD)), *(GOOD[place : place + 1] for place in range(20))]
    status, error = refusal(await exchange(it.port, *pieces, pause=0.05, silence=1.0))
    assert status == 400
    assert "did not arrive within 0.4 seconds" in error["message"]
    assert time.monotonic() - begun < 4


@pytest.fixture
def short_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dragoman.gateway.serve.connection.HEAD_SECONDS", 0.3)


@pytest.mark.usefixtures("short_heads")
@pytest.mark.parametrize("first", [b"", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"])
async def test_a_head_that_trickles_in_costs_the_connection(it: Served, first: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
    if first:
        writer.write(first)
        await reader.readuntil(b"}")
    writer.write(b"GET /healthz HTTP/1.1\r\n")
    begun = time.monotonic()
    with contextlib.suppress(ConnectionError):
        for number in range(40):
            writer.write(b"X-%d: 1\r\n" % number)
            await asyncio.sleep(0.02)
    rest = b""
    with contextlib.suppress(ConnectionError):
        rest = await asyncio.wait_for(reader.read(), LIMIT)
    assert rest == b""
    assert time.monotonic() - begun < 2.5
    writer.close()


@pytest.mark.usefixtures("short_heads")
async def test_an_idle_connection_between_requests_is_kept(it: Served) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
    for _ in range(2):
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200" in await reader.readuntil(b"}")
        await asyncio.sleep(0.5)
    writer.close()


# --------------------------------------------------------------------------------------------------------------- memory


@contextlib.asynccontextmanager
async def process(server: ScriptedServer, **environment: str) -> AsyncIterator[Child]:
    settings = {"BACKEND": server.url, "PORT": "0", "LOG__LEVEL": "error", **environment}
    command = (*GATEWAY, "serve")
    async with started("gateway", command, {f"DRAGOMAN_{key}": value for key, value in settings.items()}) as child:
        yield child


def bombs() -> list[tuple[bytes, list[bytes]]]:
    zeros = b"0" * (256 * MIB)
    twice = gzip.compress(gzip.compress(zeros, 1), 9)
    return [
        (gzip.compress(zeros, 9), [b"Content-Encoding: gzip"]),
        (twice, [b"Content-Encoding: gzip, gzip"]),
        (zstandard.ZstdCompressor().compress(zeros), [b"Content-Encoding: zstd"]),
    ]


async def test_bombs_slow_clients_and_floods_leave_memory_and_sockets_flat() -> None:
    async with ScriptedServer() as server:
        server.on("GET", "/v1/models", model_list("m"))
        limits = {"LIMITS__BODY_BYTES": str(4 * MIB), "TIMEOUTS__BODY": "1"}
        async with process(server, **limits) as child:
            port = int(child.url.rpartition(":")[2])
            made = await asyncio.to_thread(bombs)

            async def round_of_harm() -> None:
                for body, lines in made:
                    status, error = refusal(
                        await exchange(port, post(PATHS["responses"], body, b"Connection: close", *lines), silence=3)
                    )
                    assert (status, error["code"]) == (400, "request_too_large")
                endless = post(PATHS["responses"], b"", b"Transfer-Encoding: chunked")
                chunk = b"%x\r\n%s\r\n" % (MIB, b" " * MIB)
                assert refusal(await exchange(port, endless, *[chunk] * 6))[0] == 400
                assert refusal(await exchange(port, post(PATHS["responses"], b"", length=10**15)))[0] == 400
                for body in (deep(100_000), b"[" * MIB, b'{"a":' * 500_000):
                    assert refusal(await exchange(port, post(PATHS["messages"], body)))[0] == 400
                await asyncio.gather(
                    *(exchange(port, post(PATHS["responses"], b"{", length=9), silence=1.5) for _ in range(50))
                )

            await round_of_harm()
            before, sockets = child.rss(), child.sockets()
            for _ in range(2):
                await round_of_harm()
            await asyncio.sleep(0.5)
            assert child.rss() - before < 12 * MIB
            assert child.sockets() <= sockets + 4
        assert server.chats == []


def floods() -> dict[str, tuple[bytes, str]]:
    """Small bodies that would become millions of objects or of steps, and how they are encoded."""
    open_, close = b'{"model":"m","input":[', b"0]}"
    lists, numbers = open_ + b"[]," * (20 * MIB) + close, open_ + b"0," * (30 * MIB) + close
    frame = zstandard.ZstdCompressor().compress(b"")
    return {
        "lists": (gzip.compress(lists), "gzip"),
        "numbers": (zstandard.ZstdCompressor().compress(numbers), "zstd"),
        "members": (gzip.compress(b"") * 200_000, "gzip"),
        "members below zstd": (zstandard.ZstdCompressor().compress(gzip.compress(b"") * 200_000), "gzip, zstd"),
        "frames": (frame * 500_000, "zstd"),
        "halves of pairs": (gzip.compress(open_ + b'"' + rb"\ud83d" * (10 * MIB) + b'",' + close), "gzip"),
    }


async def test_floods_in_small_bodies_cost_little_memory_and_leave_turns_to_others() -> None:
    made = await asyncio.to_thread(floods)
    async with ScriptedServer() as server:
        server.on("GET", "/v1/models", model_list("m"))
        async with process(server) as child:
            port = int(child.url.rpartition(":")[2])
            before = child.rss()
            for name, (body, encoding) in made.items():
                lines = (b"Connection: close", b"Content-Encoding: " + encoding.encode())
                flood = asyncio.create_task(exchange(port, post(PATHS["messages"], body, *lines), silence=30))
                slowest = 0.0
                while not flood.done():
                    begun = time.monotonic()
                    alive = await exchange(port, b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    assert alive.startswith(b"HTTP/1.1 200")
                    slowest = max(slowest, time.monotonic() - begun)
                status, _ = refusal(await flood)
                assert status == 400, name
                assert slowest < 1, name  # far more than it takes, far less than minutes
            assert child.peak_rss() - before < 400 * MIB
        assert server.chats == []


async def test_archives_without_end_hold_back_neither_others_nor_the_end() -> None:
    async with (
        ScriptedServer(default=Script(text_stream("ok"))) as server,
        serving("--backend", server.url, DRAGOMAN_TIMEOUTS__BODY="60") as program,
    ):
        port = int((await program.ready()).rpartition(":")[2])
        gzipped = b"Content-Encoding: gzip"
        endless = post(PATHS["responses"], gzip.compress(b"") * 200_000, gzipped)
        floods = [asyncio.create_task(exchange(port, endless, silence=10)) for _ in range(8)]
        await asyncio.sleep(0.2)
        honest = post(PATHS["responses"], gzip.compress(GOOD), b"Connection: close", gzipped)
        ((status, _),) = answers(await exchange(port, honest, silence=10))
        assert status == 200
        program.child.send_signal(signal.SIGTERM)
        assert await program.ended() == 0
        await asyncio.gather(*floods)


async def test_a_server_that_never_ends_its_line_or_its_answer_is_given_up() -> None:
    endless = Script(b"data: " + b"x" * (40 * MIB), unterminated=False)
    async with ScriptedServer() as server:
        server.on("GET", "/v1/models", model_list("m"))
        async with process(server) as child:
            port = int(child.url.rpartition(":")[2])
            sizes = []
            for _ in range(4):
                server.add(endless)
                received = await exchange(port, post(PATHS["responses"], GOOD, b"Connection: close"), silence=10)
                assert received == b"" or refusal(received)[0] >= 500
                await server.until(lambda: all(seen.outcome != "open" for seen in server.chats))
                sizes.append(child.rss())
            assert sizes[-1] - sizes[0] < 48 * MIB, sizes
            assert max(sizes) < 400 * MIB
