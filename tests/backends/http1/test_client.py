"""The client for answers beside aiohttp's: the same request, the same reply, the same errors."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from yarl import URL

from dragoman.backends.chat.aiohttp_transport import AiohttpTransport
from dragoman.backends.connect_limit import ConnectLimit
from dragoman.backends.http1.client import Http1Transport
from dragoman.backends.transport import NoAnswer, Unreachable
from tests.backends.http1.pools import Names, refusing
from tests.backends.http1.raw_server import OK, RawServer, headers
from tests.waiting import LIMIT, until

Kind = type[Http1Transport] | type[AiohttpTransport]
BOTH = pytest.mark.parametrize("kind", [Http1Transport, AiohttpTransport])
OWN = {"Accept-Encoding": "identity", "User-Agent": "dragoman"}


@contextlib.asynccontextmanager
async def client(
    kind: Kind, url: str, own: dict[str, str] | None = None
) -> AsyncIterator[Http1Transport | AiohttpTransport]:
    transport = kind(url, OWN if own is None else own, tls=None, connect=ConnectLimit(LIMIT))
    try:
        yield transport
    finally:
        await transport.close()


async def exchange(
    transport: Http1Transport | AiohttpTransport, more: dict[str, str] | None = None, *, fresh: bool = False
) -> bytes:
    reply = await transport.post(b'{"a":1}', more or {}, fresh=fresh)
    try:
        return await reply.read(1000)
    finally:
        await reply.close()


# --------------------------------------------------------------------------------------------------------- the request


async def request_of(
    kind: Kind, path: str, own: dict[str, str], more: dict[str, str], fresh: bool
) -> tuple[bytes, ...]:
    async with RawServer() as server:
        url = server.address(path)
        if "@" in path:
            url = f"http://{path.removeprefix('/').replace('@', f'@127.0.0.1:{server.port}')}"
        async with client(kind, url, own) as transport:
            await exchange(transport, more, fresh=fresh)
        (head,), (body,) = server.heads, server.bodies
        line, _, _ = head.partition(b"\r\n")
        assert headers(head)["host"] == f"127.0.0.1:{server.port}"
        fields = {name: value for name, value in headers(head).items() if name != "host"}
        return line, repr(sorted(fields.items())).encode(), body


@pytest.mark.parametrize(
    ("path", "own", "more", "fresh"),
    [
        ("/v1/chat/completions", OWN, {}, False),
        ("/v1/chat/completions", OWN, {}, True),
        ("", OWN, {}, False),
        ("/a b/ü/%2F/%41?q=1 2&r=%26+x#fragment", OWN, {}, False),
        ("/v1", {**OWN, "Authorization": "Bearer secret"}, {"traceparent": "00-1-2-01", "X-Name": "ü"}, False),
        ("/ann:pass%40word@/v1", OWN, {}, False),
    ],
    ids=["usual", "fresh", "no path", "quoting", "headers", "credentials"],
)
async def test_both_clients_send_the_same_request(
    path: str, own: dict[str, str], more: dict[str, str], fresh: bool
) -> None:
    ours = await request_of(Http1Transport, path, own, more, fresh)
    assert ours == await request_of(AiohttpTransport, path, own, more, fresh)
    assert b"accept-encoding', 'identity" in ours[1]
    assert ours[2] == b'{"a":1}'


@pytest.mark.parametrize(
    ("url", "host", "asked"),
    [
        ("http://gpu.example/v1", "gpu.example", ("gpu.example", 80)),
        ("http://gpu.example:80/v1", "gpu.example", ("gpu.example", 80)),
        ("https://gpu.example/v1", "gpu.example", ("gpu.example", 443)),
        ("https://gpu.example:8443/v1", "gpu.example:8443", ("gpu.example", 8443)),
        ("http://[fe80::1]:8000/v1", "[fe80::1]:8000", ("fe80::1", 8000)),
        ("http://[::1]/v1", "[::1]", ("::1", 80)),
        ("http://GPU.example./v1", "gpu.example", ("gpu.example.", 80)),
        ("http://bücher.example/v1", "xn--bcher-kva.example", ("xn--bcher-kva.example", 80)),
    ],
)
async def test_who_is_asked_for(url: str, host: str, asked: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(monkeypatch, error=OSError("nobody"))
    async with client(Http1Transport, url) as transport:
        assert isinstance(transport, Http1Transport)
        assert f"\r\nHost: {host}\r\n".encode() in transport._head
        dialer = transport._pool._dialer
        assert (dialer._host, dialer._port) == asked
        with pytest.raises(Unreachable):
            await transport.post(b"{}", {}, fresh=False)
        assert names.asked == ([] if ":" in asked[0] else [asked])
    assert URL(url).host_port_subcomponent == host


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\rb", "a\0b"])
@BOTH
async def test_a_header_cannot_hold_another_one(kind: Kind, value: str) -> None:
    async with RawServer() as server, client(kind, server.address()) as transport:
        with pytest.raises(ValueError, match=r"header|Newline|injection"):
            await transport.post(b"", {"X-Name": value}, fresh=False)
        assert not server.heads


def test_a_key_of_the_settings_cannot_hold_another_header() -> None:
    with pytest.raises(ValueError, match="line break"):
        Http1Transport("http://a/v1", {"Authorization": "Bearer a\r\nb: c"}, tls=None, connect=ConnectLimit(1))


# ----------------------------------------------------------------------------------------------------------- the reply


@BOTH
async def test_a_reply_has_status_headers_and_a_media_type(kind: Kind) -> None:
    answers = [
        b"HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Type: Application/JSON; charset=utf-8\r\n"
        b"Content-Length: 0\r\n\r\n",
        b"HTTP/1.1 307 Elsewhere\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n",
    ]
    async with RawServer(*answers) as server, client(kind, server.address()) as transport:
        reply = await transport.post(b"{}", {}, fresh=False)
        assert (reply.status, reply.headers["RETRY-after"]) == (429, "7")
        assert reply.content_type.lower() == "application/json"
        await reply.close()
        reply = await transport.post(b"{}", {}, fresh=False)
        assert (reply.status, reply.content_type) == (307, "application/octet-stream")
        await reply.close()
        assert (len(server.heads), server.connections) == (2, 1)


@BOTH
async def test_a_body_is_read_up_to_a_limit_and_the_connection_ends_before_close_returns(kind: Kind) -> None:
    endless = b"HTTP/1.1 400 Bad\r\nContent-Length: 99999999\r\n\r\n" + b"x" * 5000
    async with RawServer(endless) as server, client(kind, server.address()) as transport:
        reply = await transport.post(b"{}", {}, fresh=False)
        assert len(await reply.read(4000)) in range(4000, 5001)
        await reply.close()
        await until(lambda: not server.open)


@BOTH
async def test_a_body_that_breaks_off_is_an_error(kind: Kind) -> None:
    cut = b"HTTP/1.1 400 Bad\r\nContent-Length: 9\r\n\r\nhello"
    async with RawServer(cut, closes=True) as server, client(kind, server.address()) as transport:
        with pytest.raises(ConnectionError):
            await exchange(transport)


@BOTH
async def test_a_connection_is_kept_unless_it_has_to_be_a_new_one(kind: Kind) -> None:
    async with RawServer() as server, client(kind, server.address()) as transport:
        for fresh, connections in ((False, 1), (False, 1), (True, 2), (True, 3), (False, 3)):
            assert await exchange(transport, fresh=fresh) == b"hello"
            assert server.connections == connections
        await until(lambda: len(server.open) == 1)


@BOTH
async def test_a_reply_that_is_closed_twice_leaves_the_next_one_alone(kind: Kind) -> None:
    async with RawServer() as server, client(kind, server.address()) as transport:
        first = await transport.post(b"{}", {}, fresh=False)
        await first.read(100)
        await first.close()
        second = await transport.post(b"{}", {}, fresh=False)
        await first.close()
        assert await second.read(100) == b"hello"
        await second.close()
        assert server.connections == 1


@BOTH
async def test_an_answer_that_outlives_its_client_keeps_no_connection(kind: Kind) -> None:
    async with RawServer() as server:
        async with client(kind, server.address()) as transport:
            reply = await transport.post(b"{}", {}, fresh=False)
        await reply.close()
        await until(lambda: not server.open)


# ---------------------------------------------------------------------------------------------------------- the errors


@BOTH
async def test_a_connection_that_died_unused_is_stale_and_a_new_one_is_not(kind: Kind) -> None:
    for answers, stale in (([OK, b""], True), ([b""], False)):
        async with RawServer(*answers) as server, client(kind, server.address()) as transport:
            for _ in answers[1:]:
                await exchange(transport)
            server._closes = True
            with pytest.raises(NoAnswer) as caught:
                await transport.post(b"{}", {}, fresh=False)
            assert caught.value.stale is stale


async def test_a_connection_that_had_begun_to_answer_is_not_stale() -> None:
    async with RawServer(OK, b"HTTP/1.1 2") as server, client(Http1Transport, server.address()) as transport:
        await exchange(transport)
        server._closes = True
        with pytest.raises(NoAnswer) as caught:
            await transport.post(b"{}", {}, fresh=False)
        assert not caught.value.stale


@BOTH
async def test_what_is_not_http_is_no_answer(kind: Kind) -> None:
    async with RawServer(b"SSH-2.0-OpenSSH\r\n") as server, client(kind, server.address()) as transport:
        with pytest.raises(NoAnswer, match=r"HTTP"):
            await transport.post(b"{}", {}, fresh=False)


@BOTH
async def test_nobody_listens(kind: Kind) -> None:
    async with client(kind, f"http://127.0.0.1:{(port := refusing())}/v1") as transport:
        with pytest.raises(Unreachable, match=str(port)):
            await transport.post(b"{}", {}, fresh=False)


@BOTH
async def test_whoever_gives_up_waiting_frees_the_server(kind: Kind) -> None:
    async with RawServer(b"HTTP/1.1 1") as server, client(kind, server.address()) as transport:
        asking = asyncio.create_task(transport.post(b"{}", {}, fresh=False))
        await until(lambda: bool(server.bodies))
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await until(lambda: not server.open)


@BOTH
async def test_closing_leaves_no_socket(kind: Kind) -> None:
    async with RawServer(OK, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n") as server:
        async with client(kind, server.address()) as transport:
            await exchange(transport)
            reply = await transport.post(b"{}", {}, fresh=False)
        await until(lambda: not server.open)
        await reply.close()
