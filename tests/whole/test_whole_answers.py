"""Answers that are asked for in one piece: they say what the stream would have said, and fail as it would have failed.

The first half needs no socket: what a transcript amounts to is written as one `chat.completion` and decoded again. The
second half asks the gateway twice for the same, with the setting `whole_answers` and without it.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.backends.chat import backend
from dragoman.backends.chat.answer import AnswerReader
from dragoman.backends.chat.decoder import ChatDecoder
from dragoman.backends.chat.errors import classify
from dragoman.backends.chat.settings import resolve
from dragoman.backends.reader import Timeouts
from dragoman.translators.errors import GatewayError
from dragoman.translators.fold import Fold
from dragoman.translators.ir import Delta, Event, Reasoning, Refusal, Text, ToolCall, Usage
from tests.event_grammar import check
from tests.gateway_fakes import post_bytes
from tests.golden_files import TRANSCRIPTS, upstream
from tests.recording import Recorder
from tests.replay import CONTEXT, PROTOCOL, pieces, turn
from tests.scripted import Script, ScriptedServer, chunk, sse, usage
from tests.serving_gateway import PATHS, Served, asking, over, served
from tests.waiting import LIMIT, until

Json = dict[str, Any]
REQUEST = turn(PROTOCOL["chat_completions"]).request
ORDER = (Reasoning, Text, Refusal, ToolCall)  # in which the parts of a message are read
MEMBERS = ("reasoning_content", "content", "refusal")


def decoder() -> ChatDecoder:
    return ChatDecoder(REQUEST, lambda status, body: classify(status, body, resolve()))


def events_of(*reads: bytes) -> list[Event] | None:
    """What a stream amounts to; None where it is broken."""
    it = decoder()
    try:
        return [event for data in reads for event in it.feed(data)] + it.finish()
    except GatewayError:
        return None


def fold_of(events: list[Event]) -> Fold:
    fold = Fold()
    fold.feed(events)
    return fold


def completion(events: list[Event]) -> Json | None:
    """The `chat.completion` of an answer; None where one message cannot say it: text after a call, and the like."""
    fold = fold_of(events)
    places = [ORDER.index(type(part)) for part in fold.parts]
    texts = [place for place in places if place < len(MEMBERS)]
    if places != sorted(places) or len(texts) != len(set(texts)):
        return None
    message: Json = {"role": "assistant", **dict.fromkeys(MEMBERS), "tool_calls": []}
    for part, place in zip(fold.parts, places, strict=True):
        if isinstance(part, ToolCall):
            function = {"name": part.name, "arguments": part.arguments}
            message["tool_calls"].append({"id": part.id, "type": "function", "function": function})
        else:
            message[MEMBERS[place]] = part.text
    end = fold.finished
    assert end is not None
    tokens = [each for event in events if isinstance(event, Delta) for each in event.logprobs or ()]
    choice = {
        "index": 0,
        "message": message,
        "logprobs": {"content": tokens} if tokens else None,
        "finish_reason": end.reason.value,
        "stop_reason": end.stop_sequence,
    }
    return {"object": "chat.completion", "choices": [choice], "usage": counts(end.usage)}


def counts(measured: Usage | None) -> Json | None:
    return None if measured is None else usage(measured.input, measured.output, measured.cached, measured.reasoning)


ENDED = {path.stem: events for path in TRANSCRIPTS if (events := events_of(upstream(path))) is not None}
TOLD = {name: (events, body) for name, events in ENDED.items() if (body := completion(events)) is not None}


def read(body: bytes, *cuts: int) -> Recorder:
    """What the reader of an answer makes of a body in these pieces."""
    sink = Recorder()
    reader = AnswerReader(decoder(), sink, Timeouts(), lambda: 0.0)
    reader.head("application/json")
    for data in pieces(body, cuts):
        if data:
            reader.received(data)
    reader.ended()
    reader.close()
    reader.check()
    check(sink.events)
    return sink


def test_most_transcripts_that_end_well_can_be_said_in_one_piece() -> None:
    assert len(TOLD) > 80


@pytest.mark.parametrize("name", TOLD)
def test_a_whole_answer_says_what_its_stream_says(name: str) -> None:
    events, body = TOLD[name]
    streamed = fold_of(events)
    whole = fold_of(read(orjson.dumps(body)).events)
    assert (whole.parts, whole.cut, whole.finished) == (streamed.parts, streamed.cut, streamed.finished)


@pytest.mark.parametrize("protocol", PROTOCOL)
@pytest.mark.parametrize("name", TOLD)
def test_clients_of_each_protocol_get_the_same(name: str, protocol: str) -> None:
    bodies = []
    for events in (TOLD[name][0], read(orjson.dumps(TOLD[name][1])).events):
        stream = turn(PROTOCOL[protocol], CONTEXT).stream
        stream.feed(events)
        bodies.append(stream.body())
    assert bodies[0] == bodies[1]


@pytest.mark.parametrize("protocol", PROTOCOL)
@pytest.mark.parametrize("events", ENDED.values(), ids=ENDED)
def test_a_stream_that_nobody_reads_makes_no_frame_and_the_same_body(events: list[Event], protocol: str) -> None:
    seen, unseen = (turn(PROTOCOL[protocol], CONTEXT).stream for _ in range(2))
    unseen.unseen = True
    assert seen.feed(events)
    assert unseen.feed(events) == []
    assert unseen.body() == seen.body()
    assert unseen.notes == seen.notes


texts = st.text(st.characters(codec="utf-8") | st.sampled_from(" \n\U0001f600"), max_size=12)
halves = texts | st.sampled_from(("\ud83d", "\ude00", "a\ud83d\ude00"))


@given(st.lists(halves, max_size=5), st.lists(halves, max_size=5), st.sampled_from(("stop", "length")), st.data())
def test_however_it_is_cut(thought: list[str], said: list[str], reason: str, data: st.DataObject) -> None:
    deltas = [chunk({"reasoning_content": text}) for text in thought] + [chunk({"content": text}) for text in said]
    stream = sse(*map(json.dumps, (*deltas, chunk({}, reason), chunk(None, usage=usage()))))
    message = {"role": "assistant", "reasoning_content": "".join(thought), "content": "".join(said)}
    body = {"choices": [{"index": 0, "message": message, "finish_reason": reason}], "usage": usage()}
    written = json.dumps(body, ensure_ascii=data.draw(st.booleans())).encode("utf-8", "surrogatepass")
    cuts = data.draw(st.lists(st.integers(0, len(written)), max_size=4))
    events = events_of(stream)
    assert events is not None
    assert fold_of(read(written, *cuts).events).parts == fold_of(events).parts


def test_what_servers_get_wrong_is_repaired_in_whole_answers_too() -> None:
    torn = b'{"choices": [{"message": {"content": "a\xff\\ud83d"}, "finish_reason": "stop", "score": -Infinity}]}'
    assert read(torn).text == "a\ufffd\ufffd"


def test_a_large_one_is_not_repaired_since_that_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    torn = b'{"choices": [{"message": {"content": "\\ud83d"}, "finish_reason": "stop"}]}'
    monkeypatch.setattr("dragoman.backends.chat.decoder.MAX_EVENT", len(torn) - 1)
    with pytest.raises(GatewayError, match="not a chat completion"):
        read(torn)


# --------------------------------------------------------------------------------------------------------- the gateway

JSON = {"content-type": "application/json"}
DELTAS = [chunk({"reasoning": "Hm."}), chunk({"content": "hel"}), chunk({"content": "lo"})]
ANSWER: Json = {
    "object": "chat.completion",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "reasoning": "Hm.", "content": "hello"}, "finish_reason": "stop"}
    ],
    "usage": usage(cached=3),
}
STREAM = sse(*DELTAS, chunk({}, "stop"), chunk(None, usage=usage(cached=3)))
WHOLE = orjson.dumps(ANSWER)


def ended(reason: str) -> bytes:
    return orjson.dumps({**ANSWER, "choices": [{**ANSWER["choices"][0], "finish_reason": reason}]})


FATES: Mapping[str, tuple[Script, Script]] = {  # of a stream, and of a whole answer
    "answered": (Script(STREAM), Script(WHOLE, headers=JSON)),
    "answered in chunks": (
        Script(STREAM, split="frames"),
        Script(WHOLE, headers={**JSON, "transfer-encoding": "chunked"}, split=5),
    ),
    "compressed": (
        Script(gzip.compress(STREAM), headers={"content-encoding": "gzip"}),
        Script(gzip.compress(WHOLE), headers={**JSON, "content-encoding": "gzip"}, split=7),
    ),
    "indented": (Script(STREAM), Script(orjson.dumps(ANSWER, option=orjson.OPT_INDENT_2) + b"\n", headers=JSON)),
    "called something else": (Script(STREAM), Script(WHOLE, headers={"content-type": "text/plain"})),
    "streamed all the same": (Script(STREAM), Script(STREAM)),
    "full": (
        Script(sse(*DELTAS, chunk({}, "length"), chunk(None, usage=usage(cached=3)))),
        Script(ended("length"), headers=JSON),
    ),
    "ended by the server": (Script(sse(*DELTAS, chunk({}, "timeout"))), Script(ended("timeout"), headers=JSON)),
    "without a finish reason": (
        Script(sse(*DELTAS)),
        Script(orjson.dumps({**ANSWER, "choices": [{"message": {"content": "a"}}]}), headers=JSON),
    ),
    "an error in it": (
        Script(sse({"error": {"message": "died", "code": 500}})),
        Script.json({"error": {"message": "died", "code": 500}}),
    ),
    "empty": (Script(b""), Script(b"", headers=JSON)),
    "a page": (Script(b"<html>busy</html>", headers={"content-type": "text/html"}),) * 2,
    "nonsense": (Script(sse("{")), Script(b"{", headers=JSON)),
    "cut": (Script(STREAM, cut_at=5), Script(WHOLE, headers=JSON, cut_at=len(WHOLE) // 2)),
    "reset": (Script(STREAM, cut_at=5, reset=True), Script(WHOLE, headers=JSON, cut_at=len(WHOLE) - 1, reset=True)),
    "refused": (Script.json({"object": "error", "message": "no", "type": "BadRequestError", "code": 400}, 400),) * 2,
    "overflow": (
        Script.json(
            {"message": "The sum of prompt length (9351.0), query length (0) should not exceed max_num_tokens (8192)"},
            400,
        ),
    )
    * 2,
    "busy": (Script.json({"error": {"message": "full"}}, 429, {"retry-after": "7"}),) * 2,
    "asleep": (Script.json({"error": {"message": "model is sleeping"}}, 503),) * 2,
    "a page that says 500": (Script(b"<html>no</html>", 500, {"content-type": "text/html"}),) * 2,
}


MADE_ANEW = re.compile(r"id|created.*|completed_at|request_id|signature|encrypted_content")


def plain(value: Any) -> Any:
    """Without what differs between two answers to the same."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items() if not MADE_ANEW.fullmatch(key)}
    return [plain(each) for each in value] if isinstance(value, list) else value


async def told(it: Served, protocol: str, **more: Any) -> tuple[int, str | None, Any]:
    async with it.session.post(it.url + PATHS[protocol], json=asking(protocol, "hi", **more)) as answer:
        return answer.status, answer.headers.get("retry-after"), plain(await answer.json())


def serving(*scripts: Script, whole: bool = True, **settings: Any) -> Any:
    asking_whole = {"whole_answers": "text" if whole else "never", "max_tokens_default": 1000}
    return served(*scripts, backend={"preset": "generic", "settings": asking_whole}, **settings)


@pytest.mark.usefixtures("each_http_client")
@pytest.mark.parametrize("fate", FATES)
async def test_a_client_is_told_what_a_stream_would_have_told_it(fate: str) -> None:
    stream, whole = FATES[fate]
    async with serving(*[stream] * 9, whole=False) as one, serving(*[whole] * 9) as other:
        for protocol in PATHS:
            answers = [await told(it, protocol) for it in (one, other)]
            assert answers[0] == answers[1]
            assert ("hello" in str(answers)) == (answers[0][0] == 200)
        assert [chat.body["stream"] for chat in one.server.chats if chat.body] == [True] * len(one.server.chats)
        assert {chat.body["stream"] for chat in other.server.chats if chat.body} == {False}
        assert len(one.server.chats) == len(other.server.chats)
        assert not any("stream_options" in (chat.body or {}) for chat in other.server.chats)
        outcomes = [
            [
                it.metric("dragoman_requests_total", outcome=outcome)
                for outcome in ("completed", "failed", "incomplete_length")
            ]
            for it in (one, other)
        ]
        assert outcomes[0] == outcomes[1]


@pytest.mark.usefixtures("each_http_client")
@pytest.mark.parametrize("script", [Script(WHOLE, headers=JSON, head_delay=30), Script(WHOLE, headers=JSON, hang_at=9)])
async def test_a_client_that_leaves_closes_the_connection(script: Script) -> None:
    async with serving(script) as it:
        _, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(post_bytes(asking("responses", "hi"), PATHS["responses"]))
        await it.server.until(lambda: len(it.server.chats) == 1 and it.server.chats[0].sent == (script.hang_at or 0))
        assert it.server.chats[0].body is not None
        assert it.server.chats[0].body["stream"] is False
        writer.close()
        await it.server.until(lambda: it.server.chats[0].outcome == "client_gone")
        await until(lambda: not it.gateway.handler.calls)
        assert it.metric("dragoman_client_disconnects_total") == 1


@pytest.mark.usefixtures("each_http_client")
@pytest.mark.parametrize("script", [Script(WHOLE, headers=JSON, head_delay=30), Script(WHOLE, headers=JSON, hang_at=9)])
async def test_the_limit_of_the_first_event_is_that_of_the_whole_answer(script: Script) -> None:
    async with serving(script, timeouts={"first_event": 0.2, "between_events": 0.01}) as it:
        status, _, body = await asyncio.wait_for(told(it, "chat_completions"), LIMIT)
        assert status == 504
        assert "did not answer in time" in str(body)
        await it.server.until(lambda: it.server.chats[0].outcome == "client_gone")


async def test_an_answer_in_one_piece_does_not_say_when_its_model_began() -> None:
    for whole, begun in ((True, 0), (False, 1)):
        async with serving(Script(WHOLE, headers=JSON), whole=whole) as it:
            assert (await told(it, "messages"))[0] == 200
            await until(lambda: not it.gateway.handler.calls)
            assert it.metric("dragoman_time_to_first_event_seconds_count") == begun
            assert it.metric("dragoman_request_duration_seconds_count") == 1


@pytest.mark.parametrize("whole", [True, False])
async def test_that_a_whole_answer_is_late_says_nothing_about_its_server(whole: bool) -> None:
    script = Script(WHOLE, headers=JSON, head_delay=0.4)
    async with serving(script, whole=whole, pool={"slow": 0.05, "failures": 1, "probe": 60}) as it:
        (replica,) = it.gateway.gate.groups["gpu"].replicas
        assert (await told(it, "messages"))[0] == 200
        assert replica.state.ready is whole


@pytest.mark.usefixtures("each_http_client")
@pytest.mark.parametrize(("late", "asked"), [(False, 3), (True, 2)])
async def test_a_kept_connection_that_ends_late_has_taken_the_request(
    late: bool, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if late:
        monkeypatch.setattr(backend, "STALE_SECONDS", 0.0)
    good = Script(WHOLE, headers=JSON)
    async with serving(good, Script(drop_reused=True, body=WHOLE, headers=JSON)) as it:
        assert (await told(it, "responses"))[0] == 200
        assert (await told(it, "responses"))[0] == (502 if late else 200)
        assert len(it.server.chats) == asked


@pytest.mark.parametrize(
    "more",
    [
        {"stream": True},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]},
        {"logprobs": True},
        {"guided_choice": ["yes", "no"]},
    ],
)
async def test_what_needs_the_stream_gets_it(more: Json) -> None:
    async with serving(Script(STREAM)) as it:
        async with it.session.post(
            it.url + PATHS["chat_completions"], json=asking("chat_completions", "hi", **more)
        ) as answer:
            await answer.read()
        for chat in it.server.chats:
            assert chat.body is not None
            assert chat.body["stream"] is True


async def test_a_server_that_goes_down_loses_it_to_another() -> None:
    held, good = Script(WHOLE, headers=JSON, head_delay=30), Script(WHOLE, headers=JSON)
    async with (
        ScriptedServer(held) as one,
        ScriptedServer(held) as other,
        over(
            one.url,
            other.url,
            backend={"settings": {"whole_answers": "text", "max_tokens_default": 1000}},
            pool={"probe": 0.05},
        ) as it,
    ):
        asked = asyncio.create_task(it.answer())
        await until(lambda: len(one.chats) + len(other.chats) == 1)
        first, second = (one, other) if one.chats else (other, one)
        second.queue.clear()
        second.add(good)
        first.on("GET", "/v1/models", Script(status=500))
        assert (await asyncio.wait_for(asked, LIMIT))[0] == 200
        await first.until(lambda: first.chats[0].outcome == "client_gone")
        assert len(second.chats) == 1
