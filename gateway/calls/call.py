"""One call, from its arrival to its line in the log: what was derived from it so far, once, by its phases.

It holds no connection: a call may come over HTTP or, as the doctor's do, from this process itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from dragoman.backends.base import Backend, Prepared, nothing
from dragoman.gateway.calls.answer import AnswerRecord
from dragoman.gateway.calls.body_memory import Share
from dragoman.gateway.calls.model_table import Target
from dragoman.gateway.calls.prompt_prefix import Prefix
from dragoman.gateway.keys.auth import ANYBODY, Client
from dragoman.gateway.telemetry.tracing import Span
from dragoman.translators.errors import GatewayError
from dragoman.translators.ir import Note, Request, StopReason


@dataclass(frozen=True, slots=True)
class Ending:
    """A call was ended from outside. `error` is what its client is told; None: the client has gone."""

    at: float
    error: GatewayError | None = None


@dataclass(eq=False, slots=True)
class Call:
    """Times are the event loop's, in seconds; None means that it has not happened. `route` is the protocol's name,
    `path` its endpoint's below `/v1/`. `give_up` ends whatever the call waits for."""

    route: str
    path: str
    id: str
    request_id: str
    accepted: float
    client: Client = ANYBODY
    headers: Mapping[str, str] = field(default_factory=dict)
    give_up: Callable[[], object] = nothing
    counts: bool = False  # asks only how long its prompt is; no model answers it
    kind: str = "other"  # of the client
    request: Request | None = None
    routed: Request | None = None  # as it came to its first backend, for the next one
    backend: Backend | None = None
    model: str | None = None
    known: bool = False  # the model's name is configured or listed
    window: int | None = None  # of the model, in tokens
    others: list[Target] = field(default_factory=list)  # where it may still go, in order
    own_backend: Backend | None = None  # that of its model, whichever it goes to
    prepared: Prepared | None = None
    prefix: Prefix | None = None  # what the prompt shares with the one before it
    estimated: int = 0
    streaming: bool | None = None
    answer: AnswerRecord | None = None
    tokens: int | None = None  # of a prompt that was counted
    estimates: bool = False  # nothing could count it
    notes: list[Note] = field(default_factory=list)
    share: Share = field(default_factory=Share)  # of the memory for bodies
    searches: Counter[str] = field(default_factory=Counter)  # of the web, by outcome
    search_seconds: float = 0.0
    error: GatewayError | None = None
    ending: Ending | None = None
    status: int = 0
    outcome: str = "failed"
    read_at: float | None = None  # the body had arrived
    ready_at: float | None = None  # everything that a backend needs was known
    asked_at: float | None = None  # the backend was asked
    given_up: tuple[float, float] | None = None  # the client left; the backend's work had ended
    span: Span | None = None

    @property
    def fallback(self) -> str | None:
        """The backend that the call has gone to in place of its model's own."""
        return None if self.backend is None or self.backend is self.own_backend else self.backend.name

    @property
    def begun_at(self) -> float | None:
        """When the model's first event came. An answer in one piece does not say when its model began."""
        if self.answer is None or (self.prepared is not None and self.prepared.whole):
            return None
        return self.answer.first_event_at

    @property
    def finished(self) -> bool:
        return self.answer is not None and self.answer.finished is not None

    def succeeded(self) -> None:
        """The answer is whole."""
        assert self.answer is not None
        assert self.answer.finished is not None
        reason = self.answer.finished.reason
        self.outcome = "completed" if reason is StopReason.STOP else f"incomplete_{reason.value}"
        self.status = self.answer.status

    def let_go(self) -> None:
        """The answer has begun, so the call goes nowhere else, and what was asked is no longer kept."""
        self.routed = None
        if self.prepared is not None:
            self.prepared.let_go()
            if self.request is not None and self.request.search is None:  # else it is asked again, with what was found
                self.request = self.prepared.request

    def end(self, now: float, error: GatewayError | None = None) -> None:
        """The one way to end a call from outside: its client has gone, or the gateway answers it with `error`, as if
        the backend had failed with that. The first reason counts, but a client that has gone is told nothing."""
        if self.ending is None or error is None:
            self.ending = Ending(now, error)
        (self.give_up if self.answer is None else self.answer.on_left)()
