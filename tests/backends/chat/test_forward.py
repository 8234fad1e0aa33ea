"""The reading of an answer that is passed through, over both clients, and what a refusal of one means."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence

import pytest

from dragoman.backends.base import ENOUGH, MORE, WAIT, Flow, Forwarded, Head, PassedRefusal, Piece, nothing
from dragoman.backends.chat.backend import ChatCompletions
from dragoman.backends.chat.forward import PieceReader, refused
from dragoman.backends.chat.settings import resolve
from dragoman.backends.reader import Timeouts
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Note, Request
from tests.scripted import Script, ScriptedServer

BODY = b'{"model":"m","input":"a"}'
STREAM = b"data: 1\n\ndata: 2\n\ndata: [DONE]\n\n"


class Kept:
    """Keeps what it is fed; `flow` is its answer."""

    def __init__(self, flow: Flow = MORE) -> None:
        self.on_writable: Callable[[], object] = nothing
        self.on_left: Callable[[], object] = nothing
        self.pieces: list[Piece] = []
        self.flow = flow

    @property
    def touched(self) -> bool:
        return bool(self.pieces)

    @property
    def data(self) -> bytes:
        return b"".join(each for each in self.pieces if isinstance(each, bytes))

    def feed(self, events: Sequence[Piece]) -> Flow:
        self.pieces += events
        return self.flow

    def prompt_size(self, tokens: int) -> None: ...

    def prompt_read(self, tokens: int, total: int) -> None: ...

    def at_work(self) -> None: ...

    def note(self, note: Note) -> None: ...


def asked(path: str = "embeddings", model: str = "m") -> Forwarded:
    return Forwarded(Request("1", model, ()), path=path, body=BODY, model="m", model_at=(9, 12))


def reader(sink: Kept) -> PieceReader:
    made = PieceReader(sink, Timeouts(first=600, between=120, usage=2), lambda: 0.0)
    made.opened(200, {"content-type": "text/event-stream"})
    return made


@pytest.mark.usefixtures("each_http_client")
@pytest.mark.parametrize("split", ["given", "bytes", "frames"])
async def test_an_answer_is_fed_as_it_comes_with_its_head_first(split: str) -> None:
    async with ScriptedServer() as server:
        server.on("POST", "/v1/completions", Script(STREAM, split=split, headers={"content-type": "text/event-stream"}))  # type: ignore[arg-type]
        backend, sink = ChatCompletions(server.url), Kept()
        await backend.forward(asked("completions"), sink)
        assert sink.pieces[0] == Head(200, "text/event-stream")
        assert sink.data == STREAM
        await backend.close()


@pytest.mark.usefixtures("each_http_client")
async def test_a_connection_that_had_died_costs_nothing() -> None:
    async with ScriptedServer() as server:
        server.on("POST", "/v1/embeddings", Script.json({}, headers={}))
        backend, sink = ChatCompletions(server.url), Kept()
        await backend.forward(asked(), sink)
        plays = [Script.json({"a": 1}), Script(drop_reused=True)]
        server.on("POST", "/v1/embeddings", lambda body: plays.pop() if len(plays) > 1 else plays[0])
        await backend.forward(asked(), sink)
        assert sink.data == b'{}{"a": 1}'
        await backend.close()


async def test_the_backends_own_model_name_is_the_one_that_is_sent() -> None:
    async with ScriptedServer() as server:
        server.on("POST", "/v1/embeddings", Script.json({}))
        backend = ChatCompletions(server.url, model="é")
        await backend.forward(asked(), Kept())
        (seen,) = [each for each in server.requests if each.method == "POST"]
        assert seen.raw == '{"model":"é","input":"a"}'.encode()
        await backend.close()


def test_a_body_without_bytes_still_has_a_head() -> None:
    sink = Kept()
    made = reader(sink)
    made.ended()
    made.check()
    assert sink.pieces == [Head(200, "text/event-stream")]


def test_a_receiver_that_waits_stops_the_clock_and_one_that_has_enough_ends_it() -> None:
    sink = Kept(WAIT)
    made = reader(sink)
    assert made.received(b"data: 1\n\n") is WAIT
    assert made.deadline == math.inf
    made.writable()
    assert made.deadline == 120
    sink.flow = ENOUGH
    assert made.received(b"data: 2\n\n") is ENOUGH
    assert made.over


def test_comments_are_passed_on_but_are_no_progress() -> None:
    sink = Kept()
    made = reader(sink)
    made.received(b": still here\n\n")
    assert (sink.data, made.deadline) == (b": still here\n\n", 600)
    made.received(b"data: 1\n\n")
    assert made.deadline == 120


@pytest.mark.parametrize(
    "pieces", [[STREAM], [STREAM[:-4], STREAM[-4:]], [STREAM[i : i + 1] for i in range(len(STREAM))]]
)
@pytest.mark.parametrize("end", ["lost", "late"])
def test_after_done_the_answer_is_whole_however_it_ends(pieces: list[bytes], end: str) -> None:
    made = reader(Kept())
    for piece in pieces:
        made.received(piece)
    assert made.deadline == 2
    getattr(made, end)()
    made.check()


@pytest.mark.parametrize(("end", "kind"), [("lost", Kind.BACKEND_FAILED), ("late", Kind.TIMEOUT)])
def test_before_that_it_is_broken(end: str, kind: Kind) -> None:
    made = reader(Kept())
    made.received(b"data: 1\n\n")
    getattr(made, end)()
    with pytest.raises(GatewayError) as caught:
        made.check()
    assert caught.value.kind is kind


@pytest.mark.parametrize("given", ["", "text/html\tx", "a" * 500, "application/json, text/html", "x/y; z"])
def test_a_type_that_is_none_is_not_passed_on(given: str) -> None:
    sink = Kept()
    made = PieceReader(sink, Timeouts(), lambda: 0.0)
    made.opened(200, {"content-type": given})
    made.received(b"a")
    assert sink.pieces[0] == Head(200, "application/octet-stream")


@pytest.mark.parametrize(
    ("status", "said", "kind", "passed", "certain"),
    [
        (400, b'{"error":"no"}', Kind.INVALID, True, True),
        (404, b'{"detail":"Not Found"}', Kind.NOT_FOUND, True, True),
        (404, b'{"error":{"code":"model_not_found"}}', Kind.MODEL_NOT_FOUND, True, True),
        (501, b'{"error":"embeddings"}', Kind.NOT_FOUND, True, True),
        (500, b'{"error":"broken"}', Kind.BACKEND_FAILED, True, False),
        (502, b"bad gateway", Kind.BACKEND_FAILED, False, False),
        (503, b'{"error":"full"}', Kind.BUSY, True, True),
        (401, b'{"error":"key"}', Kind.BACKEND_FAILED, False, True),
        (307, b'{"error":"there"}', Kind.BACKEND_FAILED, False, False),
        (400, b'{"error":' + b"[" * 100 + b"]" * 100 + b"}", Kind.INVALID, False, True),
        (400, b'{"error":"' + b"x" * 300_000 + b'"}', Kind.INVALID, False, True),
    ],
)
def test_refusals(status: int, said: bytes, kind: Kind, passed: bool, certain: bool) -> None:
    error = refused(status, said, resolve("generic", {}), {"Retry-After": "7"})
    assert (error.kind, isinstance(error, PassedRefusal), error.certain) == (kind, passed, certain)
    if isinstance(error, PassedRefusal):
        assert (error.status, error.body) == (status, said)
    if kind is Kind.BUSY:
        assert error.retry_after == 7


async def test_a_server_that_cannot_be_reached_is_down() -> None:
    async with ScriptedServer() as server:
        url = server.url
    backend = ChatCompletions(url)
    with pytest.raises(GatewayError) as caught:
        async with asyncio.timeout(10):
            await backend.forward(asked(), Kept())
    assert caught.value.kind is Kind.BACKEND_DOWN
    await backend.close()
