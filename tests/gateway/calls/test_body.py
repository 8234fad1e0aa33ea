"""Bodies: whatever the bytes, the outcome is the object or one kind of refusal, within the limits and in turns."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import orjson
import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import example, given
from hypothesis import strategies as st
from multidict import CIMultiDict

from dragoman.gateway.calls.body import LOADS, MENDED, BodyReader, _encodings, parse_object
from dragoman.gateway.calls.body_memory import Share
from dragoman.gateway.calls.decoding import GIVEN
from dragoman.gateway.config import Limits
from dragoman.gateway.telemetry.process_metrics import resident
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.json_text import deeper_than, separators
from dragoman.translators.steps import Steps, at_once
from tests.scripted import Script, text_stream
from tests.serving_gateway import PATHS, Served, asking, served
from tests.waiting import LIMIT, until

MIB = 1024 * 1024
LIMITS = Limits()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def outcome_of(function: Callable[..., Any], *arguments: Any) -> Any:
    """What it gives, or the refusal; any other exception is a bug and passes."""
    try:
        return function(*arguments)
    except GatewayError as error:
        return error


def parsed(raw: bytes, limits: Limits = LIMITS) -> Any:
    return at_once(parse_object(raw, limits))


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_any_object_is_read_as_it_is(value: dict[str, Any]) -> None:
    assert parsed(orjson.dumps(value)) == (value, ())


@given(st.binary(max_size=100))
def test_any_bytes_are_an_object_or_refused(raw: bytes) -> None:
    outcome = outcome_of(parsed, raw)
    if isinstance(outcome, GatewayError):
        assert outcome.kind is Kind.INVALID
        assert "\n" not in outcome.message
    else:
        assert isinstance(outcome[0], dict)


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth, value), default=0)
    return 0


@given(JSON.filter(lambda value: isinstance(value, dict | list)), st.integers(1, 8))
def test_depth_is_counted_as_by_the_plain_recursion(value: Any, limit: int) -> None:
    assert deeper_than(value, limit) == (depth(value) > limit)


# -------------------------------------------------------------------------------------------------------------- values

MANY = LIMITS.json_values
FLOODS: dict[str, bytes] = {
    "lists": b"[" + b"[]," * MANY + b"0]",
    "objects": b"[" + b"{}," * MANY + b"0]",
    "lists in lists": b"[" + b"[[[[]]]]," * (MANY // 4) + b"0]",
    "objects in objects": b"[" + b'{"a":{"a":0}},' * (MANY // 2) + b"0]",
    "numbers": b"[" + b"0," * MANY + b"0]",
    "numbers and blanks": b"[" + b"0 ,\n" * MANY + b"0]",
    "strings": b"[" + b'"",' * MANY + b"0]",
    "strings of quotes": b"[" + rb'"\"\\",' * MANY + b"0]",
    "members": b"{" + b'"a":0,' * MANY + b'"b":0}',
    "what ends early": b"[" + b"[]," * MANY,
}


@pytest.fixture
def parses(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How large the texts were that the parser was given."""
    sizes: list[int] = []

    class Recording:
        JSONDecodeError = orjson.JSONDecodeError

        @staticmethod
        def loads(raw: bytes) -> Any:
            sizes.append(len(raw))
            return orjson.loads(raw)

    monkeypatch.setattr("dragoman.gateway.calls.body.orjson", Recording)
    return sizes


@pytest.mark.parametrize("flood", FLOODS)
def test_too_many_values_are_refused_before_they_are_parsed(parses: list[int], flood: str) -> None:
    outcome = outcome_of(parsed, b'{"model":"m","input":' + FLOODS[flood] + b"}")
    assert isinstance(outcome, GatewayError)
    assert (outcome.kind, outcome.code) == (Kind.INVALID, "invalid_json")
    assert outcome.message == f"The request body holds more than {MANY} JSON values."
    assert parses == []


def conversation(size: int) -> dict[str, Any]:
    """What an agent sends: source code and JSON in strings, which are full of what separates values."""
    code = 'rows = [{"a": [1, 2, (3,)], "b": {"c": "\\\\"}}, "[,{", \'\\"\']\n'
    inner = json.dumps({"rows": [{"id": n, "tags": ["x", "y"], "quoted": 'a "b", [c]'} for n in range(10)]})
    turn = [
        {"type": "function_call", "call_id": "c", "name": "write", "arguments": inner},
        {"type": "function_call_output", "call_id": "c", "output": code * 20},
    ]
    return {"model": "m", "input": turn * (size // len(json.dumps(turn)))}


@pytest.mark.parametrize("size", [5 * MIB, 20 * MIB])
def test_a_long_conversation_full_of_code_is_read(size: int) -> None:
    raw = orjson.dumps(conversation(size))
    if size > 10 * MIB:
        assert sum(map(raw.count, (b",", b"[", b"{"))) > MANY
    value, _ = parsed(raw)
    assert len(value["input"]) > 1000


@given(JSON.filter(lambda value: isinstance(value, dict)), st.integers(1, 9), st.booleans())
@example({'\\"': ['"', "\\", '[,{\\",', "\\\\"]}, 1, False)
@example({"a": "\\" * 9, '"': '\\"' * 9}, 2, True)
def test_only_values_are_counted_wherever_the_text_is_cut(value: Any, block: int, escaped: bool) -> None:
    raw = json.dumps(value, ensure_ascii=escaped).encode("utf-8", "replace")
    with patch("dragoman.translators.json_text.BLOCK", block):
        counted = sum(separators(raw))
    assert counted == structure(value)


def structure(value: Any) -> int:
    """Commas and opening brackets."""
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return 1 + max(0, len(value) - 1) + sum(map(structure, inner))
    return 0


def test_the_limit_of_values_is_exact() -> None:
    limits = Limits(json_values=2000)
    fits = b'{"a":[' + b"0," * 1997 + b"0]}"
    assert len(parsed(fits, limits)[0]["a"]) == 1998
    with pytest.raises(GatewayError, match="more than 2000 JSON values"):
        parsed(fits.replace(b"]", b",0]"), limits)


@pytest.mark.parametrize("protocol", PATHS)
async def test_too_many_items_are_refused_in_the_protocols_words(protocol: str) -> None:
    async with served(limits={"items": 16}) as it:
        plain = asking(protocol, "hi")
        name = "input" if protocol == "responses" else "messages"
        plain[name] = [{"role": "user", "content": "x"}] * 17
        async with it.session.post(it.url + PATHS[protocol], json=plain) as answer:
            assert answer.status == 400
            told = await answer.json()
        assert told["error"]["type"] == "invalid_request_error"
        assert told["error"]["message"].startswith(name)
        assert "16 messages, content parts, calls and tools" in told["error"]["message"]


async def test_a_large_body_keeps_its_turn_once_it_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dragoman.gateway.calls.body.SLICE", 0.0)  # a turn for each step
    raw = orjson.dumps(conversation(MIB))
    events: list[str] = []

    def steps(name: str) -> Steps[Any]:
        for step in parse_object(raw, LIMITS):
            events.append(f"{name} {'loads' if step is LOADS else 'step'}")
            yield step
        return {}, ()

    reader = BodyReader(LIMITS)
    await asyncio.gather(*(reader._in_turns(steps(name), Share()) for name in ("a", "b", "c")))
    loaded = [event.split()[0] for event in events[max(map(events.index, ("a loads", "b loads", "c loads"))) + 1 :]]
    assert loaded == sorted(loaded)
    assert set(loaded) == {"a", "b", "c"}


async def test_a_large_body_rests_as_long_as_its_last_step_took(monkeypatch: pytest.MonkeyPatch) -> None:
    now, rests = 1000.0, list[float]()

    async def sleep(seconds: float) -> None:
        rests.append(seconds)

    def steps() -> Steps[str]:
        nonlocal now
        yield LOADS
        for taken in (1.0, 0.003, 0.5):  # seconds; the second is too short to count
            now += taken
            yield
        return "read"

    monkeypatch.setattr("dragoman.gateway.calls.body.time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(asyncio, "sleep", sleep)
    assert await BodyReader(LIMITS)._in_turns(steps(), Share()) == "read"
    assert rests == [0, pytest.approx(1.0), 0, pytest.approx(0.5)]


@pytest.mark.parametrize("protocol", PATHS)
async def test_too_many_values_are_refused_in_the_protocols_words(protocol: str) -> None:
    async with served(limits={"json_values": 2000}) as it:
        body = gzip.compress(orjson.dumps({**asking(protocol, "hi"), "metadata": [[]] * 3000}))
        headers = {"Content-Encoding": "gzip"}
        async with it.session.post(it.url + PATHS[protocol], data=body, headers=headers) as answer:
            assert answer.status == 400
            told = await answer.json()
        assert told["error"]["type"] == "invalid_request_error"
        assert told["error"]["message"] == "The request body holds more than 2000 JSON values."
        assert (told.get("type") == "error") is (protocol == "messages")
        assert it.server.chats == []


# --------------------------------------------------------------------------------------------------------- the limits


@pytest.mark.parametrize("more", [0, 1])
@pytest.mark.parametrize("how", ["with a length", "in chunks", "encoded"])
async def test_the_limit_of_bytes_is_exact(how: str, more: int) -> None:
    body = orjson.dumps(asking("responses", "hi")).ljust(2000)
    sent, headers = body, dict[str, str]()
    if how == "encoded":
        sent, headers = gzip.compress(body), {"Content-Encoding": "gzip"}
    data = in_pieces(sent) if how == "in chunks" else sent
    async with (
        served(Script(text_stream("ok")), limits={"body_bytes": 2000 - more}) as it,
        it.session.post(it.url + PATHS["responses"], data=data, headers=headers) as answer,
    ):
        assert answer.status == (400 if more else 200)
        if more:
            assert (await answer.json())["error"]["code"] == "request_too_large"


async def in_pieces(data: bytes) -> AsyncIterator[bytes]:
    yield data[:100]
    yield data[100:]


@pytest.mark.parametrize("more", [0, 1])
async def test_the_limit_holds_for_a_body_that_has_arrived_already(more: int) -> None:
    reader = BodyReader(Limits(body_bytes=2000))
    raw = b'{"a":1}'.ljust(2000 + more)
    if not more:
        assert await reader.parse(raw, Share()) == ({"a": 1}, ())
        return
    with pytest.raises(GatewayError) as caught:
        await reader.parse(raw, Share())
    assert caught.value.kind is Kind.TOO_LARGE


@pytest.mark.parametrize(("length", "said"), [(10**9, b"larger than"), (50, b"did not arrive within 0.2 seconds")])
async def test_a_body_is_refused_by_its_length_before_it_arrives_or_when_it_does_not(length: int, said: bytes) -> None:
    async with served(timeouts={"body": 0.2 if length == 50 else 60}) as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        head = f"POST {PATHS['responses']} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
        writer.write(head.encode() + b'{"model":')
        async with asyncio.timeout(LIMIT):
            assert (await reader.readline()).split()[1] == b"400"
            await reader.readuntil(said)  # the line does not end before the connection does
        writer.close()


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        ([], []),
        (["identity"], []),
        (["GZIP"], ["gzip"]),
        (["gzip, Identity,, zstd "], ["gzip", "zstd"]),
        (["gzip", "deflate"], ["gzip", "deflate"]),
    ],
)
def test_encodings_are_read_from_every_header_in_any_case(lines: list[str], names: list[str]) -> None:
    headers = CIMultiDict([("Content-Encoding", line) for line in lines])
    assert _encodings(make_mocked_request("POST", "/", headers=headers)) == names


def test_the_limit_of_depth_is_exact() -> None:
    limits = Limits(json_depth=4)
    assert parsed(b'{"a":[[[1]]]}', limits)[0] == {"a": [[[1]]]}
    with pytest.raises(GatewayError, match="nested deeper than 4 levels"):
        parsed(b'{"a":[[[[]]]]}', limits)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "The request body is empty; a JSON object is expected."),
        (b" \n\t", "The request body is empty; a JSON object is expected."),
        (b"[1]", "The request body must be a JSON object."),
        (b"[" * 20_000, "The request body is nested deeper than 64 levels."),
        (b"[" * 20_000 + b"]" * 20_000, "The request body is nested deeper than 64 levels."),
    ],
)
def test_a_refusal_says_what_is_wrong(raw: bytes, said: str) -> None:
    with pytest.raises(GatewayError) as caught:
        parsed(raw)
    assert (caught.value.message, caught.value.code) == (said, "invalid_json")


def test_a_refusal_says_where_the_json_breaks_and_shows_none_of_it() -> None:
    with pytest.raises(GatewayError) as caught:
        parsed(b'{"secret":\n  x}')
    assert caught.value.message.endswith(" at line 2 column 3.")
    assert caught.value.message.count("line") == 1
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("raw", [b'\xef\xbb\xbf{"a":1}', b'{"a":1}'])
def test_a_byte_order_mark_is_not_part_of_the_json(raw: bytes) -> None:
    assert parsed(raw) == ({"a": 1}, ())


# ------------------------------------------------------------------------------------------------------ lone surrogates


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (rb'{"a":"cut \ud83d here"}', {"a": "cut \ufffd here"}),
        (rb'{"a":"cut \uDE00 here"}', {"a": "cut \ufffd here"}),
        (rb'{"\ud83d":["\ud83d\ude00\ud83d", "\\ud83d"]}', {"\ufffd": ["😀\ufffd", "\\ud83d"]}),
        (b'{"a":"cut \xed\xa0\xbd here"}', {"a": "cut \ufffd here"}),
        (b'\xef\xbb\xbf{"a":"\\ud83d"}', {"a": "\ufffd"}),
    ],
)
def test_half_a_surrogate_pair_is_replaced_and_noted(raw: bytes, value: object) -> None:
    assert parsed(raw) == (value, (MENDED,))


@pytest.mark.parametrize(
    "raw",
    [rb'{"a":"\ud83d\ude00"}', rb'{"a":"\\ud83d"}', '{"a":"😀"}'.encode(), rb'{"a":"\ufffd"}'],
)
def test_nothing_else_is_noted(raw: bytes) -> None:
    assert parsed(raw) == (json.loads(raw), ())


@pytest.mark.parametrize(
    "broken",
    [b"NaN", b"1,]", b'"\x00"', b'"\xff"', b'"\xc0\xaf"', b'"\\x41"', b'"\\ud8"', b'"\\ud83', b"'a'", b"01"],
)
@pytest.mark.parametrize("beside", [b"", rb'"b":"\ud83d",'])
def test_nothing_else_is_mended(broken: bytes, beside: bytes) -> None:
    outcome = outcome_of(parsed, b"{" + beside + b'"a":' + broken + b"}")
    assert isinstance(outcome, GatewayError)
    assert outcome.code == "invalid_json"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("protocol", PATHS)
async def test_what_was_mended_is_in_the_header_and_the_metric(protocol: str, stream: bool) -> None:
    async with served(Script(text_stream("ok"))) as it:
        body = json.dumps(asking(protocol, "cut \ud83d here", stream=stream)).encode()
        async with it.session.post(it.url + PATHS[protocol], data=body) as answer:
            await answer.read()
            assert answer.status == 200
            assert answer.headers["x-dragoman-ignored"] == "repair:surrogate"
        assert "cut \ufffd here" in str(it.server.chats[0].body)
        assert it.metric("dragoman_notes_total", kind="repair", name="surrogate") == 1


async def test_a_count_says_what_was_mended_too() -> None:
    async with served() as it:
        body = json.dumps(asking("messages", "cut \ud83d here")).encode()
        async with it.session.post(f"{it.url}/v1/messages/count_tokens", data=body) as answer:
            assert answer.status == 200
            assert answer.headers["x-dragoman-ignored"] == "repair:surrogate"
        assert it.metric("dragoman_notes_total", kind="repair", name="surrogate") == 1


# --------------------------------------------------------------------------------------------------------------- turns


class Endless:
    """A decoder that never comes to an end."""

    def __init__(self) -> None:
        self.steps = 0

    def __call__(self, data: bytes, encodings: list[str], limit: int) -> Steps[bytes]:
        return self._work(data)

    def _work(self, data: bytes) -> Steps[bytes]:
        while data.startswith(b"endless"):
            self.steps += 1
            yield
        return data


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> Endless:
    decoder = Endless()
    monkeypatch.setattr("dragoman.gateway.calls.body.decode", decoder)
    return decoder


async def compressed(it: Served, data: bytes) -> tuple[int, str]:
    headers = {"Content-Encoding": "gzip"}
    async with it.session.post(it.url + PATHS["responses"], data=io.BytesIO(data), headers=headers) as answer:
        return answer.status, await answer.text()


async def test_the_time_limit_of_a_body_covers_its_decoding(endless: Endless) -> None:
    async with served(timeouts={"body": 0.2}) as it:
        status, text = await compressed(it, b"endless")
        assert status == 400
        assert "could not be decoded within 0.2 seconds" in text
        steps = endless.steps
        await asyncio.sleep(0.05)
        assert 0 < steps == endless.steps


async def test_many_slow_bodies_keep_nobody_waiting(endless: Endless) -> None:
    async with served(timeouts={"body": 60, "connect": 60}) as it:
        it.server.default = Script(text_stream("ok"))
        slow = [asyncio.ensure_future(compressed(it, b"endless")) for _ in range(40)]
        await until(lambda: len(it.gateway.handler.calls) == len(slow))
        large = orjson.dumps(conversation(2 * MIB))
        for body in (orjson.dumps(asking("responses", "hi")), large):
            assert (await compressed(it, body))[0] == 200
        assert not any(task.done() for task in slow)
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)


async def test_no_step_is_taken_for_a_client_that_left(endless: Endless) -> None:
    async with served(timeouts={"body": 60}) as it:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(compressed(it, b"endless"), 0.2)
        await it.gateway.handler.idle.wait()
        steps = endless.steps
        await asyncio.sleep(0.05)
        assert steps == endless.steps


async def test_others_have_their_turn_while_a_large_body_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dragoman.gateway.calls.body.SLICE", 0.0)  # a turn for each step
    in_threads: list[object] = []
    to_thread = asyncio.to_thread
    turns = 0

    async def noted(work: Any, *arguments: Any) -> Any:
        in_threads.append(work)
        return await to_thread(work, *arguments)

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(asyncio, "to_thread", noted)
    async with served(limits={"body_bytes": 64 * MIB}) as it:
        task = asyncio.create_task(others())
        assert (await compressed(it, gzip.compress(b" " * 32 * MIB)))[0] == 400
        task.cancel()
    assert set(in_threads) <= {resident}  # which is not for bodies
    assert turns >= 32 * MIB // GIVEN


async def test_a_client_that_leaves_while_others_wait_for_their_turn_blocks_nobody(endless: Endless) -> None:
    async with served(timeouts={"body": 60}) as it:
        it.server.default = Script(text_stream("ok"))
        for _ in range(3):
            tasks = [asyncio.ensure_future(compressed(it, b"endless")) for _ in range(5)]
            await asyncio.sleep(0.05)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        async with asyncio.timeout(30):
            assert (await compressed(it, orjson.dumps(conversation(2 * MIB))))[0] == 200


# ---------------------------------------------------------------------------------------------- the memory of bodies

ROOM: dict[str, Any] = {"body_bytes": 4 * MIB, "bodies_bytes": 5 * MIB}


async def holding(it: Served) -> asyncio.Task[tuple[int, str]]:
    """A large call that runs until its server is let go."""
    it.server.default = Script(text_stream("ok"), head_delay=60.0)
    task = asyncio.ensure_future(sent_as(it, orjson.dumps(conversation(3 * MIB)), "identity"))
    await it.server.until(lambda: len(it.server.chats) == 1)
    it.server.default = Script(text_stream("ok"))
    return task


@pytest.mark.parametrize("packed", [False, True])
async def test_a_large_body_waits_until_there_is_room_and_small_ones_do_not(
    packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dragoman.gateway.calls.body.SLICE", 10.0)  # all steps would fit into one turn
    body = orjson.dumps(conversation(3 * MIB))
    async with served(limits=ROOM) as it:
        first = await holding(it)
        data = gzip.compress(body) if packed else body
        second = asyncio.ensure_future(sent_as(it, data, "gzip" if packed else "identity"))
        assert (await sent_as(it, orjson.dumps(asking("responses", "hi")), "identity"))[0] == 200
        await until(lambda: it.gateway.handler.bodies.memory._waiting)
        assert len(it.server.chats) == 2
        first.cancel()
        assert (await second)[0] == 200
        assert it.gateway.handler.bodies.memory.taken == 0


async def test_a_body_that_finds_no_room_in_time_is_told_to_try_again() -> None:
    async with served(limits=ROOM, timeouts={"body": 0.3}) as it:
        first = await holding(it)
        status, said = await sent_as(it, orjson.dumps(conversation(3 * MIB)), "identity")
        assert status == 503
        assert "as many large requests as it has memory for" in said
        first.cancel()
        await it.gateway.handler.idle.wait()
        assert it.gateway.handler.bodies.memory.taken == 0


async def test_a_body_that_has_arrived_already_waits_for_room_no_longer_than_others() -> None:
    reader = BodyReader(Limits(body_bytes=4 * MIB, bodies_bytes=5 * MIB), within=0.01)
    first, second = Share(), Share()
    raw = orjson.dumps({"input": "x" * 3 * MIB})
    await reader.parse(raw, first)
    with pytest.raises(GatewayError) as caught:
        await reader.parse(raw, second)
    assert caught.value.kind is Kind.BUSY
    second.free()
    first.free()
    assert reader.memory.taken == 0


async def sent_as(it: Served, data: bytes, encoding: str) -> tuple[int, str]:
    headers = {"Content-Encoding": encoding}
    async with it.session.post(it.url + PATHS["responses"], data=io.BytesIO(data), headers=headers) as answer:
        return answer.status, await answer.text()
