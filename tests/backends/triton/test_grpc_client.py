"""What the client of gRPC does with connections and tensors; tests/real/triton asks a real server."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

import pytest

from dragoman.backends.triton.grpc_client import GrpcClient, _read
from dragoman.translators.errors import GatewayError, Kind

grpc = pytest.importorskip("grpc")


async def test_a_connection_to_a_host_that_vanished_ends_within_seconds() -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    client = GrpcClient(f"127.0.0.1:{port}", connect=5.0)
    with pytest.raises(GatewayError) as caught:
        await client.ready("m")
    assert caught.value.kind is not Kind.BACKEND_DOWN
    assert set(user_timeouts(port)) == {20_000}
    await client.close()
    await server.stop(None)


def user_timeouts(port: int) -> Iterator[int]:
    """Of this process's connections to the port, in milliseconds."""
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(descriptor))) as found:
            if found.family in (socket.AF_INET, socket.AF_INET6) and found.getpeername()[1] == port:
                yield found.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)


def test_a_tensor_that_is_cut_is_a_failure_of_the_server() -> None:
    assert _read("INT32", b"\x01\0\0\0\x02\0\0\0") == [1, 2]
    assert _read("BYTES", b"\x01\0\0\0a") == ["a"]
    for kind, raw in (("INT32", b"\x01\0\0\0\x02"), ("BYTES", b"\x02\0\0\0a")):
        with pytest.raises(GatewayError) as caught:
            _read(kind, raw)
        assert caught.value.kind is Kind.BACKEND_FAILED
