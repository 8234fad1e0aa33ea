"""What is taken for a gateway, and what is read of its list."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dragoman.gateway.launch.gateway import Offer, choose, offered

HEAD = b"HTTP/1.1 200 OK\r\nServer: dragoman\r\nConnection: close\r\n"


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """The address of a server that says this once, whatever it is asked."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer_one() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(answer)

        thread = threading.Thread(target=answer_one)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread.join(10)


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"-ERR unknown command 'GET'\r\n",
        b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0d\0\x04\0\x10\0\0",
        b"",
        HEAD + b"Content-Length: 100\r\n\r\n{",
        HEAD + b"X-Long: " + b"x" * 70_000 + b"\r\n\r\n{}",
        HEAD + b"\r\n\xff\xfe",
        HEAD + b"\r\n" + b"[" * 5000,
        HEAD + b'\r\n{"data": "none"}',
    ],
    ids=["ssh", "redis", "http2", "nothing", "cut", "long head", "binary", "deep", "no list"],
)
def test_what_is_no_gateway_counts_as_none(answer: bytes, named: bool) -> None:
    with answering(answer) as address:
        assert offered(address, None, named) is None


@pytest.mark.parametrize(
    ("head", "ours"),
    [
        (b"Server: dragoman\r\n", True),
        (b"Server: nginx\r\nrequest-id: req_1\r\n", True),  # of a gateway behind a proxy
        (b"Server: uvicorn\r\n", False),
        (b"", False),
    ],
)
@pytest.mark.parametrize("status", [b"200 OK", b"502 Bad Gateway"])
def test_a_model_server_can_be_told_from_a_gateway(status: bytes, head: bytes, ours: bool) -> None:
    with answering(b"HTTP/1.1 " + status + b"\r\n" + head + b"Connection: close\r\n\r\n" + b'{"data": []}') as address:
        offer = offered(address, None)
    assert offer is not None
    assert offer.ours == ours


def test_entries_that_are_no_models_are_left_out() -> None:
    listed = b'{"data": ["x", null, {"id": "m", "context_window": "32k"}, {"id": "n", "context_window": 4096}]}'
    with answering(HEAD + b"\r\n" + listed) as address:
        offer = offered(address, None)
    assert offer is not None
    assert choose("", offer, None, None, None).model == "m"
    assert choose("", offer, None, None, None).window is None
    assert choose("", offer, None, "n", None).window == 4096
    assert choose("", Offer(), None, None, None).model == "any"
