"""A protocol and a backend that do what a test says, and a gateway on a real socket between them.

The protocol is none that exists, which shows that the gateway knows none by name: its frames are lines `word=value`,
its failure frame is `failed=KIND`, its path is `plain`. The backend runs the coroutine that the test gives it and
records what became of each call.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from dragoman.backends.base import Health, ModelInfo, Prepared, Sink, Traits
from dragoman.gateway.config import Config
from dragoman.gateway.keys.secrets import Secrets
from dragoman.gateway.serve.app import build
from dragoman.translators.errors import GatewayError, Kind, invalid
from dragoman.translators.ir import (
    Delta,
    Deltas,
    Event,
    Finished,
    Message,
    Note,
    PartEnded,
    PartStarted,
    Request,
    SearchEnded,
    SearchStarted,
    Started,
    StopReason,
    Text,
    Usage,
)
from dragoman.translators.openai.models import MODELS, refusal
from dragoman.translators.protocol import Context, ErrorReply, Json, Protocol, Turn
from tests.serving_gateway import Serving, listening

Play = Callable[[Request, Sink], Awaitable[None]]


class PlainStream:
    """Every frame is a line, so that a torn frame shows."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.headers: list[str] | None = None
        self.text = ""
        self.reason = ""
        self.started = False
        self.unseen = False
        self.notes: list[Note] = []

    def start(self) -> list[bytes]:
        self.started = True
        return [b"created\n"]

    def keepalive(self) -> list[bytes]:
        return [b"keepalive\n"]

    def feed(self, events: Sequence[Event]) -> list[bytes]:
        out = [] if self.started else self.start()
        for event in events:
            match event:
                case Delta(text=text):
                    self.text += text
                    out.append(f"text={text}\n".encode())
                case Deltas(texts=texts):
                    self.text += "".join(texts)
                    out += [f"text={text}\n".encode() for text in texts]
                case PartStarted(kind=kind, name=name):
                    out.append(f"part={kind}{name}\n".encode())
                case Finished(reason=reason):
                    self.reason = reason.value
                    out.append(f"finished={reason.value}\n".encode())
                case SearchStarted(query=query):
                    out.append(f"search={query}\n".encode())
                case SearchEnded(results=results, error=error):
                    out.append(f"found={error or len(results)}\n".encode())
                case Started() | PartEnded():
                    pass
        return out

    def fail(self, error: GatewayError) -> list[bytes]:
        return [f"failed={error.kind.name}\n".encode()]

    def body(self) -> Json:
        body: Json = {"model": self.model, "text": self.text, "reason": self.reason}
        return body if self.headers is None else {**body, "headers": self.headers}


def parse(body: Json, context: Context) -> Turn:
    if body.get("bug"):
        raise RuntimeError("a prompt that must not be logged")
    if "input" not in body:
        raise invalid("input is missing", "input")
    model = str(body.get("model", ""))
    request = Request(
        id=context.id,
        model=model,
        messages=(Message("user", (Text(str(body["input"])),)),),
        parallel_tool_calls=body.get("parallel", True),
    )
    notes = tuple(Note("field", name) for name in body.get("ignored", ()))
    stream = PlainStream(model)
    if body.get("echo_headers"):
        stream.headers = list(context.headers)
    return Turn(request, bool(body.get("stream")), stream, notes)


def error(error: GatewayError, request_id: str) -> ErrorReply:
    status = 400 if error.kind is Kind.TOO_LARGE else error.kind.status
    return ErrorReply(status, {"plain": error.kind.name, "message": error.message, "param": error.param})


PLAIN = Protocol("plain", "plain", parse, error, models=MODELS, refusal=refusal)
OTHER = Protocol("other", "plain/other", parse, error, models=MODELS, refusal=refusal)


async def hello(request: Request, sink: Sink) -> None:
    sink.feed([Started(), PartStarted("text"), Delta("hel")])
    sink.feed([Delta("lo"), PartEnded()])
    sink.feed([Finished(StopReason.STOP, Usage(3, 2, cached=1))])


@dataclass
class FakeBackend:
    play: Play = hello
    name: str = "fake"
    notes: tuple[Note, ...] = ()
    state: Health = field(default_factory=lambda: Health("ready"))
    served: list[ModelInfo] | None = field(
        default_factory=lambda: [ModelInfo("only", created=1_700_000_000, window=4096)]
    )
    start_seconds: float = 0.0
    start_error: Exception | None = None
    requests: list[Request] = field(default_factory=list)
    running: int = 0
    cancelled: int = 0
    probes: int = 0
    closed: int = 0
    load: float | None = None
    entered: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self) -> None:
        if self.start_seconds:
            await asyncio.sleep(self.start_seconds)
        if self.start_error is not None:
            raise self.start_error

    async def close(self) -> None:
        self.closed += 1

    def __post_init__(self) -> None:
        self.learned: Callable[[str], None] = lambda name: None

    @property
    def traits(self) -> Traits:
        return Traits(FakeBackend, load=self.load)

    async def prepare(self, request: Request) -> Prepared:
        return Prepared(request, self.notes)

    async def stream(self, prepared: Prepared, sink: Sink) -> None:
        request = prepared.request
        self.requests.append(request)
        self.running += 1
        self.entered.set()
        try:
            await self.play(request, sink)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    async def health(self) -> Health:
        self.probes += 1
        return self.state

    async def models(self) -> list[ModelInfo]:
        if self.served is None:
            raise GatewayError(Kind.BACKEND_DOWN, "no list")
        return self.served

    async def wake(self) -> None:
        raise GatewayError(Kind.ASLEEP, "It cannot be woken.", source="backend")

    async def count(self, prepared: Prepared) -> int | None:
        return None


@dataclass
class Running(Serving):
    """`post` sends a body to the plain protocol."""

    backend: FakeBackend

    def post(self, body: Any = None, path: str = "/v1/plain", **options: Any) -> Any:
        if body is not None:
            options["data"] = body if isinstance(body, bytes) else orjson.dumps(body)
        return self.session.post(self.url + path, **options)


@contextlib.asynccontextmanager
async def running(backend: FakeBackend | None = None, *more: FakeBackend, **settings: Any) -> AsyncIterator[Running]:
    first = backend or FakeBackend()
    keys = settings.pop("keys", ())
    protocols = settings.pop("protocols", [PLAIN, OTHER])
    app = build(Config(**settings), [first, *more], Secrets(tuple(keys)), protocols)
    async with listening(app, auto_decompress=False) as it:
        yield Running(it.runner, it.session, it.port, first)


def post_bytes(body: object, path: str = "/v1/plain") -> bytes:
    data = orjson.dumps(body)
    return b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (path.encode(), len(data)) + data
