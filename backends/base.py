"""What a backend is: something that answers a `Request` with events, pushed into a sink.

`stream` calls `sink.feed` synchronously for every upstream read. `False` means enough: the backend ends the upstream
work, feeds one last `Finished` with the usage that it knows, and returns. It returns when the answer has ended and
raises `GatewayError` when it broke, after feeding what its decoder still held. Cancelling the task that runs `stream`
must free the server's work before the cancellation leaves the backend. Stages (`translators.constraints.parallel`,
`backends.enforce`) are sinks around sinks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Event, Note, Request


class Sink(Protocol):
    """Where events go. `touched` turns True with the first event: from then on nothing may be tried again elsewhere."""

    @property
    def touched(self) -> bool: ...

    @property
    def full(self) -> bool:
        """Ask after each `feed`; when True, await `drained()` before the next read, which is the back-pressure."""
        ...

    def feed(self, events: Sequence[Event]) -> bool: ...

    async def drained(self) -> None: ...

    def note(self, note: Note) -> None:
        """A drop or a repair that was found only while the answer was running; it goes into the metric."""
        ...


@dataclass(frozen=True, slots=True)
class Health:
    """`asleep`: reachable, but it must be woken or is still loading; `down`: not reachable or failing."""

    state: Literal["ready", "asleep", "down"]
    detail: str = ""
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """`window` is the context window in tokens, None where the server does not report it."""

    id: str
    created: int = 0
    owned_by: str = "dragoman"
    window: int | None = None


class Backend(Protocol):
    """`name` labels metrics and logs; it holds no secret. `start` and `close` are called once each."""

    @property
    def name(self) -> str: ...

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def prepare(self, request: Request) -> tuple[Note, ...]:
        """What this backend will have to drop, repair or leave unenforced in `request`; raises where it cannot serve
        it."""
        ...

    async def stream(self, request: Request, sink: Sink) -> None: ...

    async def health(self) -> Health: ...

    async def models(self) -> list[ModelInfo]:
        """The models served, by upstream name; raises `GatewayError` when the list cannot be read."""
        ...

    async def count_tokens(self, request: Request) -> int | None:
        """The true size of the rendered prompt with its tools, None where the server cannot count it."""
        ...


@runtime_checkable
class Wakeable(Protocol):
    """A backend whose server can be woken. `wake` asks it to and returns; `health` says whether it is awake."""

    async def wake(self) -> None: ...


@runtime_checkable
class Learner(Protocol):
    """A backend that leaves out a body field for a while after its server has refused it. `learned` is called with the
    name of each such field."""

    learned: Callable[[str], None]


class Unanswered(GatewayError):
    """The server ended the connection before the answer's first event. The request may have been what killed it."""

    def __init__(self, message: str = "The model server closed the connection without an answer.") -> None:
        super().__init__(Kind.BACKEND_FAILED, message, source="backend")
