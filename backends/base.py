"""What a backend is: something that prepares a `Request` once and answers it with events, pushed into a sink.

`prepare` makes everything that follows from the request and the backend's settings; `stream` and `count` take what it
made. `stream` feeds the sink synchronously, once for each read of the upstream, and the sink says how to go on. When it
has enough, or nobody waits for the answer any more, the backend ends the upstream work and returns: a receiver that
left is no error. Otherwise it returns when the answer has ended, and raises `GatewayError` when it broke, after feeding
what its decoder still held. `forward`, where a backend has it, does the same for a body that is passed through.
Cancelling the task that runs `stream` must free the server's work before the cancellation leaves the backend. Stages
(`translators.constraints.parallel`, `backends.enforce`) are sinks around sinks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final, Literal, Protocol, TypeVar, runtime_checkable

import orjson

from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Event, Note, Request


class Flow(Enum):
    """How the reading of an answer goes on. `WAIT`: pause it until the sink calls `on_writable`. `ENOUGH`: end the
    upstream work now; the receiver has what it wanted, or is gone."""

    MORE = "more"
    WAIT = "wait"
    ENOUGH = "enough"


# Under names of their own for what runs with every token: Python 3.11 takes 0.15 µs to look into an enum.
MORE: Final = Flow.MORE
WAIT: Final = Flow.WAIT
ENOUGH: Final = Flow.ENOUGH


def nothing() -> None:
    """What a callback does until somebody sets it."""


T_contra = TypeVar("T_contra", contravariant=True)


class Receiver(Protocol[T_contra]):
    """Where an answer goes, read by read. Whoever reads it sets the two callbacks for as long as it reads:
    `on_writable` is called after `WAIT`, once more can be taken; `on_left` at any time, when nobody waits for the
    answer any more."""

    on_writable: Callable[[], object]
    on_left: Callable[[], object]

    @property
    def touched(self) -> bool:
        """True from the first event on: from then on nothing may be tried again elsewhere."""
        ...

    def feed(self, events: Sequence[T_contra]) -> Flow: ...

    def prompt_size(self, tokens: int) -> None:
        """The size of the prompt, from whoever knows it first; later calls change nothing."""
        ...

    def prompt_read(self, tokens: int, total: int) -> None:
        """How much of its prompt the server has read so far, from one that says so; before the first event."""
        ...

    def at_work(self) -> None:
        """The server makes an answer of which nothing can be fed yet."""
        ...

    def note(self, note: Note) -> None:
        """A drop or a repair that was found only while the answer was running; it goes into the metric."""
        ...


class Sink(Receiver[Event], Protocol):
    """Where events go."""


def without_content(request: Request) -> Request:
    """The request without its conversation and its tools."""
    return replace(request, messages=(), tools=(), format=None)


@dataclass(slots=True)
class Prepared:
    """A request as one backend will send it: everything that follows from it, made once. A backend adds what it needs.

    `notes`: what has to be dropped, repaired or left unenforced. `tokens`: the size of the rendered prompt, where it
    fell out or has been counted. `whole`: the server is asked for the answer in one piece, so that its first event is
    its last, and comes when all of it is made."""

    request: Request
    notes: tuple[Note, ...] = ()
    tokens: int | None = None
    whole: bool = False

    def limit(self, max_tokens: int) -> None:
        """The answer may have at most so many tokens."""
        self.request = replace(self.request, max_tokens=max_tokens)

    def let_go(self) -> None:
        """The answer has begun, so nobody asks this again: what only a server reads is no longer kept. A stream may
        last for minutes, and a conversation has megabytes."""
        self.request = without_content(self.request)


@dataclass(slots=True, kw_only=True)
class Forwarded(Prepared):
    """A body that goes to the server as it is, to its endpoint `path` below `/v1/`. Only the model's name may differ:
    it stands in `body` at `model_at`, quotes included, and is replaced where the server calls the model otherwise.
    `request` has no messages."""

    path: str
    body: bytes
    model_at: tuple[int, int]
    model: str
    streaming: bool = False

    def let_go(self) -> None:
        Prepared.let_go(self)
        self.body = b""

    def named(self, model: str) -> bytes:
        """The body for the server that calls the model by this name."""
        if model == self.model:
            return self.body
        start, stop = self.model_at
        return b"".join((self.body[:start], orjson.dumps(model), self.body[stop:]))


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a server's answer, as far as it is passed on."""

    status: int
    content_type: str


Piece = Head | bytes  # of an answer that is passed through: its head, fed with the first bytes, then more bytes


@dataclass(frozen=True, slots=True)
class Traits:
    """What differs between backends, apart from what all of them do.

    `kind`: backends whose kinds are equal take what another one has prepared. `wakes`: its server can be woken.
    `unstoppable`: what keeps a client that leaves from freeing the GPU, "" where nothing does. `load`: requests that
    run or wait in the server, whoever sent them, as last reported; None where it does not report them. `markup`: the
    families that its answers have proven, by model."""

    kind: object
    wakes: bool = False
    unstoppable: str = ""
    load: float | None = None
    markup: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Health:
    """`asleep`: reachable, but it must be woken or is still loading; `down`: not reachable or failing. `quoted`: the
    detail may be in the server's own words."""

    state: Literal["ready", "asleep", "down"]
    detail: str = ""
    retry_after: float | None = None
    quoted: bool = False

    @classmethod
    def of(cls, error: GatewayError) -> Health:
        """Of a server that refuses to be asked how it is."""
        state: Literal["asleep", "down"] = "asleep" if error.kind is Kind.ASLEEP else "down"
        return cls(state, error.message, error.retry_after, quoted=True)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """`window` is the context window in tokens, None where the server does not report it."""

    id: str
    created: int = 0
    owned_by: str = "dragoman"
    window: int | None = None


class Backend(Protocol):
    """`name` labels metrics and logs; it holds no secret. `start` and `close` are called once each. `learned` is called
    with the name of a body field that is left out for a while, since the server has refused it."""

    learned: Callable[[str], None]

    @property
    def name(self) -> str: ...

    @property
    def traits(self) -> Traits: ...

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def prepare(self, request: Request) -> Prepared:
        """Raises if this backend cannot serve the request. The server is not asked anything."""
        ...

    async def stream(self, prepared: Prepared, sink: Sink) -> None: ...

    async def count(self, prepared: Prepared) -> int | None:
        """The true size of the rendered prompt with its tools, None where the server cannot count it."""
        ...

    async def health(self) -> Health: ...

    async def models(self) -> list[ModelInfo]:
        """The models served, by upstream name; raises `GatewayError` when the list cannot be read."""
        ...

    async def wake(self) -> None:
        """Asks a server that sleeps to wake, and returns; `health` says whether it is awake. Raises ASLEEP where it
        cannot be woken."""
        ...


@runtime_checkable
class Forwarder(Protocol):
    """A backend whose server has endpoints besides that of model calls. `forward` keeps the rules of `stream`; a
    refusal with a body of its own is `PassedRefusal`."""

    async def forward(self, asked: Forwarded, sink: Receiver[Piece]) -> None: ...


class PassedRefusal(GatewayError):
    """A server's refusal of a body that was passed through: `error` with the server's own status, and its JSON body
    without addresses and keys."""

    def __init__(self, error: GatewayError, status: int, body: bytes) -> None:
        super().__init__(
            error.kind, error.message, error.param, code=error.code, retry_after=error.retry_after, source=error.source
        )
        self.certain = error.certain
        self.status = status
        self.body = body


class Unanswered(GatewayError):
    """The server ended the connection before the answer's first event. The request may have been what killed it."""

    def __init__(self, message: str = "The model server closed the connection without an answer.") -> None:
        super().__init__(Kind.BACKEND_FAILED, message, source="backend")
