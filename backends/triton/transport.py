"""A client of a Triton server, over either of its transports."""

from __future__ import annotations

from typing import Protocol

from dragoman.backends.triton.client import InferRequest, Questions
from dragoman.backends.triton.reader import ResponseReader
from dragoman.backends.watch import Watch


class Client(Questions, Protocol):
    """`start` contacts nothing."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def answer(self, call: InferRequest, reader: ResponseReader, watch: Watch) -> None:
        """Sends the request and feeds its answer to the reader, one batch for each read, until that is over; raises
        `GatewayError` for a refusal. Leaving it earlier aborts the request on the wire; whether that stops the model
        depends on its profile."""
        ...

    async def tell(self, call: InferRequest) -> None:
        """Sends a request whose answer nobody reads, and returns when that has ended."""
        ...
