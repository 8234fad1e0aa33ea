"""The one handler, over real sockets: bodies, the three states of a streamed answer, disconnects, drain."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import aiohttp
import orjson
import pytest
import zstandard

from dragoman.backends.base import Flow, Sink
from dragoman.gateway.calls.replies import HEADER_BUDGET, note_list
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import (
    Delta,
    Event,
    Finished,
    Note,
    PartEnded,
    PartStarted,
    Request,
    Started,
    StopReason,
    Usage,
)
from dragoman.translators.protocol import Context, Json, Protocol, Turn
from tests.gateway_fakes import PLAIN, FakeBackend, PlainStream, Play, parse, post_bytes, running
from tests.recording import feed
from tests.waiting import LIMIT, until

ASK = {"model": "only", "input": "hi"}
STREAM = {**ASK, "stream": True}
LONG = 30.0


async def forever(request: Request, sink: Sink) -> None:
    await asyncio.sleep(LONG)


async def begin_then_hang(request: Request, sink: Sink) -> None:
    sink.feed([Started(), PartStarted("text"), Delta("a")])
    await asyncio.sleep(LONG)


# ------------------------------------------------------------------------------------------------- whole and streamed


async def test_a_whole_answer_is_the_fold_of_the_stream() -> None:
    async with running() as served, served.post(ASK) as answer:
        assert answer.status == 200
        assert answer.headers["x-request-id"].startswith("req_")
        assert await answer.json() == {"model": "only", "text": "hello", "reason": "stop"}


async def test_a_streamed_answer_has_its_head_its_frames_and_an_end() -> None:
    async with running() as served, served.post(STREAM, headers={"x-request-id": "mine-1"}) as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert answer.headers["Cache-Control"] == "no-cache, no-transform"
        assert answer.headers["X-Accel-Buffering"] == "no"
        assert answer.headers["x-request-id"] == "mine-1"
        assert await answer.read() == b"created\npart=text\ntext=hel\ntext=lo\nfinished=stop\n"


async def test_one_upstream_read_is_one_write() -> None:
    fed = asyncio.Event()

    async def play(request: Request, sink: Sink) -> None:
        for number in range(3):
            begun: list[Event] = [Started(), PartStarted("text")] if number == 0 else []
            sink.feed([*begun, Delta("x" * 10), Delta("y" * 10)])
            await fed.wait()
            fed.clear()
        sink.feed([PartEnded(), Finished(StopReason.STOP)])

    async with running(FakeBackend(play)) as served, served.post(STREAM) as answer:
        chunks = answer.content.iter_chunks()
        for number in range(3):
            data, whole = await anext(chunks)
            assert whole
            assert (
                data
                == (b"" if number else b"created\npart=text\n") + b"text=" + b"x" * 10 + b"\ntext=" + b"y" * 10 + b"\n"
            )
            fed.set()
        assert (await answer.content.read()) == b"finished=stop\n"


async def test_an_incomplete_whole_answer_is_still_200() -> None:
    async def play(request: Request, sink: Sink) -> None:
        sink.feed([Started(), PartStarted("text"), Delta("x"), PartEnded(False), Finished(StopReason.LENGTH)])

    async with running(FakeBackend(play)) as served, served.post(ASK) as answer:
        assert (answer.status, (await answer.json())["reason"]) == (200, "length")


async def test_the_first_call_only_when_parallel_calls_are_not_wanted() -> None:
    async def play(request: Request, sink: Sink) -> None:
        flow = sink.feed([Started(), PartStarted("call", "1", "a"), Delta("{}"), PartEnded()])
        assert flow is Flow.MORE
        flow = sink.feed([PartStarted("call", "2", "b"), Delta("{}")])
        assert flow is Flow.ENOUGH
        sink.feed([Finished(StopReason.LENGTH, Usage(1, 1))])

    async with running(FakeBackend(play)) as served:
        async with served.post({**STREAM, "parallel": False}) as answer:
            assert await answer.read() == b"created\npart=calla\ntext={}\nfinished=stop\n"
        assert served.metric("dragoman_notes_total", kind="drop", name="parallel_tool_call") == 1


# ----------------------------------------------------------------------------------------------------------- failures


@pytest.mark.parametrize("stream", [True, False])
async def test_an_error_before_the_first_event_is_an_http_status(stream: bool) -> None:
    async def play(request: Request, sink: Sink) -> None:
        raise GatewayError(Kind.BUSY, "full", retry_after=7, source="backend")

    async with running(FakeBackend(play)) as served, served.post({**ASK, "stream": stream}) as answer:
        assert answer.status == 503
        assert answer.headers["Retry-After"] == "7"
        assert answer.headers["x-dragoman-error-source"] == "backend"
        assert (await answer.json())["plain"] == "BUSY"


async def test_after_a_failure_the_body_ends_and_the_connection_serves_the_next_request() -> None:
    async def play(request: Request, sink: Sink) -> None:
        sink.feed([Started(), PartStarted("text"), Delta("a")])
        raise GatewayError(Kind.BACKEND_FAILED, "cut", source="backend")

    async with running(FakeBackend(play)) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        for _ in range(3):
            writer.write(post_bytes(STREAM))
            raw = await asyncio.wait_for(reader.readuntil(b"\r\n0\r\n\r\n"), LIMIT)
            assert raw.startswith(b"HTTP/1.1 200")
            assert b"connection: close" not in raw.lower()
            assert raw.endswith(b"failed=BACKEND_FAILED\n\r\n0\r\n\r\n")
            assert raw.count(b"failed=") == 1
        writer.close()
        await writer.wait_closed()


class BreaksAtTheEnd(PlainStream):
    def feed(self, events: Sequence[Event]) -> list[bytes]:
        if isinstance(events[-1], Finished):
            raise RuntimeError("a count that no JSON can hold")
        return super().feed(events)


class CannotFail(BreaksAtTheEnd):
    def fail(self, error: GatewayError) -> list[bytes]:
        raise RuntimeError("not even that")


def answering_with(stream: type[PlainStream]) -> Protocol:
    def parsed(body: Json, context: Context) -> Turn:
        return replace(parse(body, context), stream=stream("only"))

    return replace(PLAIN, parse=parsed)


async def test_whatever_breaks_while_the_end_is_made_the_stream_ends_with_a_failure() -> None:
    async with running(protocols=[answering_with(BreaksAtTheEnd)]) as served:
        async with served.post(STREAM) as answer:
            assert await answer.read() == b"created\npart=text\ntext=hel\ntext=lo\nfailed=INTERNAL\n"
        async with served.post(ASK) as answer:
            assert answer.status == 500
        labels = {"route": "plain", "client_kind": "other", "outcome": "failed"}
        assert served.metric("dragoman_requests_total", status="200", **labels) == 1
        assert served.metric("dragoman_requests_total", status="500", **labels) == 1


async def test_a_stream_that_cannot_even_fail_is_broken_off() -> None:
    async with running(protocols=[answering_with(CannotFail)]) as served, served.post(STREAM) as answer:
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


async def test_a_whole_answer_that_breaks_in_the_middle_is_an_http_error() -> None:
    async def play(request: Request, sink: Sink) -> None:
        sink.feed([Started(), PartStarted("text"), Delta("a")])
        raise GatewayError(Kind.BACKEND_FAILED, "cut", source="backend")

    async with running(FakeBackend(play)) as served, served.post(ASK) as answer:
        assert answer.status == 502


async def test_a_backend_that_returns_without_an_end_is_a_failure() -> None:
    async def play(request: Request, sink: Sink) -> None:
        sink.feed([Started(), PartStarted("text"), Delta("a")])

    async with running(FakeBackend(play)) as served:
        async with served.post(STREAM) as answer:
            assert (await answer.read()).endswith(b"failed=BACKEND_FAILED\n")
        async with served.post(ASK) as answer:
            assert answer.status == 502


async def test_what_breaks_after_a_finished_answer_changes_nothing() -> None:
    async def play(request: Request, sink: Sink) -> None:
        sink.feed([Started(), Finished(StopReason.STOP)])
        raise GatewayError(Kind.TIMEOUT, "no [DONE]")

    async with running(FakeBackend(play)) as served:
        async with served.post(STREAM) as answer:
            assert await answer.read() == b"created\nfinished=stop\n"
        async with served.post(ASK) as answer:
            assert answer.status == 200


@pytest.mark.parametrize("stream", [True, False])
async def test_a_bug_is_a_plain_500_that_is_logged_without_the_prompt(
    stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def play(request: Request, sink: Sink) -> None:
        raise KeyError("a prompt that must not be told")

    async with running(FakeBackend(play)) as served:
        for body in ({**ASK, "stream": stream}, {**ASK, "bug": True}):
            async with served.post(body) as answer:
                assert answer.status == 500
                told = await answer.text()
                assert "prompt" not in told
                assert answer.headers["x-request-id"] in told
    assert "bug in plain" in caplog.text


async def test_a_bug_after_the_first_event_fails_the_stream() -> None:
    async def play(request: Request, sink: Sink) -> None:
        sink.feed([Started(), PartStarted("text"), Delta("a")])
        raise ZeroDivisionError

    async with running(FakeBackend(play)) as served, served.post(STREAM) as answer:
        assert (await answer.read()).endswith(b"failed=INTERNAL\n")


# ------------------------------------------------------------------------------------------------ waiting, keepalives

QUICK = {"head_after": 0.1, "keepalive": 0.1}


async def test_waiting_sends_the_head_and_keepalives_and_then_the_answer() -> None:
    async def play(request: Request, sink: Sink) -> None:
        await asyncio.sleep(0.45)
        assert not sink.touched
        sink.feed([Started(), PartStarted("text"), Delta("x"), PartEnded(), Finished(StopReason.STOP)])

    async with running(FakeBackend(play), timeouts=QUICK) as served:
        start = asyncio.get_running_loop().time()
        async with served.post(STREAM) as answer:
            assert asyncio.get_running_loop().time() - start < 0.3
            body = await answer.read()
        assert body.startswith(b"created\nkeepalive\n")
        assert 2 <= body.count(b"keepalive\n") <= 4
        assert body.endswith(b"part=text\ntext=x\nfinished=stop\n")
        assert body.count(b"created") == 1


async def test_an_error_while_waiting_is_sent_in_the_stream() -> None:
    async def play(request: Request, sink: Sink) -> None:
        await asyncio.sleep(0.2)
        raise GatewayError(Kind.TIMEOUT, "slow")

    async with running(FakeBackend(play), timeouts=QUICK) as served, served.post(STREAM) as answer:
        assert answer.status == 200
        assert (await answer.read()).endswith(b"failed=TIMEOUT\n")


async def test_keepalives_fill_silences_of_a_running_stream_and_nothing_else() -> None:
    async def play(request: Request, sink: Sink) -> None:
        sink.feed([Started(), PartStarted("text")])
        for number in range(12):
            sink.feed([Delta(str(number % 10))])
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.35)
        sink.feed([PartEnded(), Finished(StopReason.STOP)])

    timeouts = {"head_after": 5, "keepalive": 0.2}
    async with running(FakeBackend(play), timeouts=timeouts) as served, served.post(STREAM) as answer:
        body = await answer.read()
    before, _, _ = body.partition(b"text=1\n" + b"keepalive")
    assert b"keepalive" not in before
    assert body.count(b"keepalive\n") == 1


async def test_no_keepalive_comes_after_the_end() -> None:
    async def play(request: Request, sink: Sink) -> None:
        sink.feed([Started(), Finished(StopReason.STOP)])
        await asyncio.sleep(0.35)  # a server that is slow to close

    async with running(FakeBackend(play), timeouts=QUICK) as served, served.post(STREAM) as answer:
        assert (await answer.read()) == b"created\nfinished=stop\n"


async def test_a_whole_answer_is_not_touched_by_keepalives() -> None:
    async def play(request: Request, sink: Sink) -> None:
        await asyncio.sleep(0.3)
        sink.feed([Started(), Finished(StopReason.STOP)])

    async with running(FakeBackend(play), timeouts=QUICK) as served, served.post(ASK) as answer:
        assert (await answer.json())["reason"] == "stop"


# --------------------------------------------------------------------------------------------------------- disconnect


@pytest.mark.parametrize("play", [forever, begin_then_hang])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("head_after", [0.05, 5])
async def test_a_client_that_leaves_ends_the_backends_work(play: Play, stream: bool, head_after: float) -> None:
    backend = FakeBackend(play)
    async with running(backend, timeouts={"head_after": head_after}) as served:
        _, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(post_bytes({**ASK, "stream": stream}))
        await asyncio.wait_for(backend.entered.wait(), LIMIT)
        await asyncio.sleep(0.1)
        writer.transport.abort()
        await until(lambda: backend.cancelled == 1)
        await until(lambda: not served.gateway.handler.calls)
        assert served.metric("dragoman_requests_in_flight", route="plain") == 0
        gone = {"route": "plain", "client_kind": "other", "status": "499", "outcome": "disconnected"}
        assert served.metric("dragoman_requests_total", **gone) == 1


async def test_a_client_that_is_gone_before_its_call_begins_is_let_go_at_once() -> None:
    backend = FakeBackend(forever)
    async with running(backend) as served:
        gateway = served.gateway
        check = gateway._keys.check

        def lost(path: str, headers: Any) -> Any:
            """The connection is lost between the request's arrival and the beginning of its call."""
            assert served.runner.server is not None
            connection = served.runner.server.connections[0]
            transport, connection.transport = connection.transport, None
            assert transport is not None
            transport.abort()
            return check(path, headers)

        gateway._keys.check = lost  # type: ignore[method-assign]
        with pytest.raises(aiohttp.ClientError):
            await served.post(STREAM)
        await until(lambda: not gateway.handler.calls)
        assert backend.running == 0
        gone = {"route": "plain", "client_kind": "other", "status": "499", "outcome": "disconnected"}
        assert served.metric("dragoman_requests_total", **gone) == 1


async def test_a_client_that_does_not_read_holds_the_backend_back() -> None:
    fed = 0

    async def play(request: Request, sink: Sink) -> None:
        nonlocal fed
        sink.feed([Started(), PartStarted("text")])
        while fed < 100_000 and await feed(sink, [Delta("x" * 10_000)]) is not Flow.ENOUGH:
            fed += 1

    backend = FakeBackend(play)
    async with running(backend) as served:
        _, writer = await asyncio.open_connection("127.0.0.1", served.port, limit=1024)
        writer.write(post_bytes(STREAM))
        await asyncio.wait_for(backend.entered.wait(), LIMIT)
        await asyncio.sleep(0.3)
        held = fed
        await asyncio.sleep(0.2)
        assert fed == held  # it waits
        assert held < 2_000
        writer.transport.abort()
        await until(lambda: backend.cancelled == 1)


async def test_a_client_that_never_reads_is_taken_for_gone() -> None:
    async def play(request: Request, sink: Sink) -> None:
        sink.feed([Started(), PartStarted("text")])
        while await feed(sink, [Delta("x" * 10_000)]) is not Flow.ENOUGH:
            pass

    backend = FakeBackend(play)
    async with running(backend, timeouts={"client": 0.4, "keepalive": 0.1}) as served:
        _, writer = await asyncio.open_connection("127.0.0.1", served.port, limit=1024)
        writer.write(post_bytes(STREAM))
        await until(lambda: backend.cancelled == 1)
        writer.transport.abort()


@pytest.mark.parametrize("fails", [False, True])
async def test_a_client_that_does_not_read_the_last_write_is_cut_too(fails: bool) -> None:
    async def play(request: Request, sink: Sink) -> None:
        sink.feed([Started(), PartStarted("text"), Delta("x" * 30_000_000), PartEnded()])
        if fails:
            raise GatewayError(Kind.BACKEND_FAILED, "late")
        sink.feed([Finished(StopReason.STOP, Usage(3, 2))])

    async with running(FakeBackend(play), timeouts={"client": 0.3, "keepalive": 0.1}) as served:
        _, writer = await asyncio.open_connection("127.0.0.1", served.port, limit=1024)
        writer.write(post_bytes(STREAM))
        await until(lambda: served.metric("dragoman_client_disconnects_total", route="plain", state="streaming") == 1)
        assert not served.gateway.handler.calls
        writer.transport.abort()


async def test_a_client_that_leaves_while_the_model_starts_is_let_go() -> None:
    backend = FakeBackend(start_seconds=LONG)
    async with running(backend) as served:
        _, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(post_bytes(ASK))
        await until(lambda: served.gateway.handler.calls)
        writer.transport.abort()
        await until(lambda: not served.gateway.handler.calls)
        assert not backend.requests


# ------------------------------------------------------------------------------------------------------------- bodies


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(orjson.dumps(ASK))),
        ("x-gzip", gzip.compress(orjson.dumps(ASK)[:9]) + gzip.compress(orjson.dumps(ASK)[9:])),
        ("deflate", zlib.compress(orjson.dumps(ASK))),
        ("deflate", raw_deflate(orjson.dumps(ASK))),
        ("zstd", zstd(orjson.dumps(ASK))),
        ("ZSTD", zstd(orjson.dumps(ASK)[:9]) + zstd(orjson.dumps(ASK)[9:])),
        ("gzip, zstd", zstd(gzip.compress(orjson.dumps(ASK)))),
        ("identity", orjson.dumps(ASK)),
    ],
)
async def test_encoded_bodies_are_read(encoding: str, body: bytes) -> None:
    async with running() as served, served.post(body, headers={"Content-Encoding": encoding}) as answer:
        assert answer.status == 200, await answer.text()


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "application/x-www-form-urlencoded", "x"])
async def test_any_content_type_is_read(content_type: str) -> None:
    async with running() as served, served.post(ASK, headers={"Content-Type": content_type}) as answer:
        assert answer.status == 200


@pytest.mark.parametrize(
    ("body", "encoding", "kind"),
    [
        (b"", None, "INVALID"),
        (b"  ", None, "INVALID"),
        (b"{", None, "INVALID"),
        (b"[1]", None, "INVALID"),
        (b'"text"', None, "INVALID"),
        (b'{"input": NaN}', None, "INVALID"),
        (b'{"input": "\xff\xfe"}', None, "INVALID"),
        (b'{"input":' + b"[" * 64 + b"]" * 64 + b"}", None, "INVALID"),
        (b'{"input":' + b"[" * 20_000, None, "INVALID"),
        (b'{"input":' + b'{"a":' * 20_000 + b"1" + b"}" * 20_001, None, "INVALID"),
        (b"x" * 20_000, None, "TOO_LARGE"),
        (gzip.compress(b" " * 1_000_000), "gzip", "TOO_LARGE"),
        (zstd(b" " * 1_000_000), "zstd", "TOO_LARGE"),
        (zlib.compress(b" " * 1_000_000), "deflate", "TOO_LARGE"),
        (gzip.compress(gzip.compress(b" " * 10_000_000)), "gzip, gzip", "TOO_LARGE"),
        (b"not gzip", "gzip", "INVALID"),
        (gzip.compress(b"{}")[:-6], "gzip", "INVALID"),
        (b"not zstd", "zstd", "INVALID"),
        (orjson.dumps(ASK), "br", "UNSUPPORTED"),
        (orjson.dumps(ASK), "gzip,gzip,gzip,gzip", "UNSUPPORTED"),
    ],
)
async def test_bodies_that_cannot_be_read_are_400_in_the_protocols_words(
    body: bytes, encoding: str | None, kind: str
) -> None:
    limits = {"body_bytes": 16_384 if kind == "TOO_LARGE" else 1_000_000}
    headers = {"Content-Encoding": encoding} if encoding else {}
    async with running(limits=limits) as served, served.post(body, headers=headers) as answer:
        assert answer.status == 400
        told = await answer.json()
        assert told["plain"] == kind
        assert answer.headers["x-dragoman-error-source"] == "gateway"
        assert not served.backend.requests


async def test_a_body_without_a_length_is_limited_while_it_arrives() -> None:
    async def endless() -> object:
        for _ in range(100):
            yield b" " * 1000

    async with running(limits={"body_bytes": 5000}) as served, served.post(None, data=endless()) as answer:
        assert (await answer.json())["plain"] == "TOO_LARGE"


async def test_json_just_within_the_depth_is_read() -> None:
    body = b'{"input":' + b"[" * 63 + b"]" * 63 + b"}"
    async with running() as served, served.post(body) as answer:
        assert answer.status == 200


async def test_a_byte_order_mark_is_no_fault() -> None:
    async with running() as served, served.post(b"\xef\xbb\xbf" + orjson.dumps(ASK)) as answer:
        assert answer.status == 200


# --------------------------------------------------------------------------------------------------- headers, figures


async def test_what_was_ignored_and_not_enforced_is_in_headers_and_metrics() -> None:
    async def play(request: Request, sink: Sink) -> None:
        sink.note(Note("drop", "late_delta"))
        sink.feed([Started(), Finished(StopReason.STOP, Usage(5, 1, cached=2))])

    backend = FakeBackend(play, notes=(Note("unenforced", "tool_choice"), Note("repair", "orphan_output")))
    async with running(backend) as served:
        for stream in (True, False):
            async with served.post({**ASK, "stream": stream, "ignored": ["user", "user", "x\r\ny, z"]}) as answer:
                ignored = answer.headers["x-dragoman-ignored"]
                assert ignored.startswith("field:user, field:x__y__z, repair:orphan_output")
                assert answer.headers["x-dragoman-unenforced"] == "tool_choice"
        assert served.metric("dragoman_notes_total", kind="drop", name="late_delta") == 2
        assert served.metric("dragoman_notes_total", kind="field", name="user") == 4
        assert served.metric("dragoman_notes_total", kind="field", name="other") == 2
        labels = {"route": "plain", "client_kind": "other", "model": "only", "backend": "fake"}
        assert served.metric("dragoman_tokens_total", direction="input", **labels) == 10
        assert served.metric("dragoman_tokens_total", direction="cached", **labels) == 4
        assert served.metric("dragoman_time_to_first_event_seconds_count", **labels) == 2


def test_the_list_of_ignored_things_has_a_limit_and_says_how_many_more_there_are() -> None:
    names = [f"field:{number:04}-{'x' * 40}" for number in range(100)]
    told = note_list(names)
    assert len(told) <= HEADER_BUDGET
    kept = told.split(", ")
    assert kept[:-1] == names[: len(kept) - 1]
    assert kept[-1] == f"+{100 - (len(kept) - 1)}"
    assert note_list(["a", "b", "a"]) == "a, b"
    assert note_list([]) == ""


async def test_the_clients_key_and_cookie_do_not_reach_the_translators() -> None:
    secret = {"Authorization": "Bearer k", "Cookie": "c", "X-Api-Key": "k"}
    async with (
        running() as served,
        served.post({**ASK, "echo_headers": True}, headers={**secret, "X-Mine": "1"}) as answer,
    ):
        names = set((await answer.json())["headers"])
        assert "x-mine" in names
        assert not names & {"authorization", "cookie", "x-api-key"}
