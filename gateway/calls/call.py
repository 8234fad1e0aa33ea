"""One call, from its arrival to its line in the log: the state that the handler and the access log share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from dragoman.backends.base import Backend
from dragoman.gateway.calls.answer import Answer
from dragoman.gateway.keys.auth import Client
from dragoman.gateway.telemetry.tracing import Span
from dragoman.translators.errors import GatewayError
from dragoman.translators.ir import Note
from dragoman.translators.protocol import Protocol


@dataclass(eq=False, slots=True)
class Call:
    """Times are the event loop's, in seconds; None means that it has not happened."""

    protocol: Protocol
    request: web.Request
    id: str
    request_id: str
    client: Client
    accepted: float
    task: asyncio.Task[Any]
    counts: bool = False  # asks only how long its prompt is; no model answers it
    kind: str = "other"  # of the client
    backend: Backend | None = None
    model: str | None = None
    estimated: int = 0
    streaming: bool | None = None
    answer: Answer | None = None
    tokens: int | None = None  # of a prompt that was counted
    estimates: bool = False  # nothing could count it
    notes: list[Note] = field(default_factory=list)
    error: GatewayError | None = None
    interruption: GatewayError | None = None
    status: int = 0
    outcome: str = "failed"
    read_at: float | None = None  # the body had arrived
    ready_at: float | None = None  # everything that a backend needs was known
    asked_at: float | None = None  # the backend was asked
    given_up: tuple[float, float] | None = None  # the disconnect was noticed; the backend's work had ended
    span: Span | None = None

    @property
    def finished(self) -> bool:
        return self.answer is not None and self.answer.finished is not None

    def interrupt(self, error: GatewayError) -> None:
        """Ends the call from outside with an answer, as if the backend had failed with `error`."""
        if self.interruption is None:
            self.interruption = error
            self.task.cancel()
