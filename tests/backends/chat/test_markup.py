"""Markup read on our side of a chat server whose own parser fails."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from dragoman.backends.chat.decoder import ChatDecoder
from dragoman.backends.chat.errors import classify
from dragoman.backends.chat.settings import resolve
from dragoman.translators.errors import GatewayError
from dragoman.translators.ir import Delta, Event, Note, Request, Tool
from tests.event_grammar import check, plain

REQUEST = Request(id="r", model="m", messages=(), tools=(Tool("get_weather", "", {"type": "object"}),), logprobs=1)
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>'
SPOKEN = ("call", "get_weather", '{"city": "Rome"}')


def chunk(delta: dict[str, Any], **choice: Any) -> bytes:
    return b"data: " + orjson.dumps({"choices": [{"index": 0, "delta": delta, **choice}]}) + b"\n\n"


def decoder(markup: str | None = "hermes", prompt: str = "") -> ChatDecoder:
    return ChatDecoder(
        REQUEST, lambda status, body: classify(status, body, resolve()), markup=markup, markup_prompt=prompt
    )


def answer(reading: ChatDecoder, *chunks: bytes, finish: str = "stop") -> list[Event]:
    events: list[Event] = []
    for data in (*chunks, chunk({}, finish_reason=finish), b"data: [DONE]\n\n"):
        events += reading.feed(data)
    events += reading.finish()
    check(events)
    return events


def test_without_the_setting_text_is_text() -> None:
    assert plain(answer(decoder(None), chunk({"content": CALL}))) == [("text", CALL)]


def test_a_call_in_the_text_becomes_a_call() -> None:
    for size in (1, 7, len(CALL)):
        pieces = [chunk({"content": CALL[at : at + size]}) for at in range(0, len(CALL), size)]
        assert plain(answer(decoder(), chunk({"content": "Sure."}), *pieces)) == [("text", "Sure."), SPOKEN]


def test_a_whole_answer_is_read_the_same_way() -> None:
    message = {"role": "assistant", "content": f"<think>Hm.</think>{CALL}"}
    body = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    events = decoder().feed_whole(orjson.dumps(body))
    assert plain(events) == [("reasoning", "Hm."), SPOKEN]


def test_reasoning_that_the_servers_template_opened() -> None:
    events = answer(decoder(prompt="<think>"), chunk({"content": "Hm.</think>"}), chunk({"content": "Yes."}))
    assert plain(events) == [("reasoning", "Hm."), ("text", "Yes.")]


def test_text_leaves_in_the_read_in_which_it_came() -> None:
    reading = decoder()
    reading.feed(chunk({"content": "a"}))
    assert reading.feed(chunk({"content": "b < c"})) == [Delta("b < c")]


def test_what_was_held_comes_with_the_end_or_the_break() -> None:
    assert plain(answer(decoder(), chunk({"content": "x <tool"}))) == [("text", "x <tool")]
    reading = decoder()
    events = reading.feed(chunk({"content": "x <tool"}))
    with pytest.raises(GatewayError):
        reading.finish()
    assert "".join(event.text for event in events + reading.abort() if isinstance(event, Delta)) == "x <tool"


def test_calls_that_the_server_parsed_stay_beside_those_in_the_text() -> None:
    native = {"index": 0, "id": "a", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    events = answer(decoder(), chunk({"content": CALL}), chunk({"tool_calls": [native]}), chunk({"content": CALL}))
    assert plain(events) == [SPOKEN, ("call", "get_weather", "{}"), SPOKEN]


def test_log_probabilities_are_dropped_visibly() -> None:
    logprobs = {"content": [{"token": "x", "logprob": -1.0, "top_logprobs": []}]}
    reading = decoder()
    answer(reading, *[chunk({"content": "x"}, logprobs=logprobs)] * 3)
    assert reading.notes == [Note("drop", "logprobs")]


def test_the_setting_takes_families_only() -> None:
    assert resolve("generic", {"markup": "qwen3_coder"}).markup == "qwen3_coder"
    with pytest.raises(GatewayError, match="unknown markup auto; known are hermes"):
        resolve("generic", {"markup": "auto"})


def test_calls_of_the_server_never_continue_a_call_in_the_text() -> None:
    call = {"function": {"arguments": '{"city": "Oslo"}'}}
    started = CALL[: CALL.index("Rome")]
    chunks = [chunk({"content": started}), chunk({"tool_calls": [call]}), chunk({"content": CALL[len(started) :]})]
    assert plain(answer(decoder(), *chunks)) == [SPOKEN, ("text", '{"city": "Oslo"}')]


@pytest.mark.parametrize(("finish", "whole"), [("stop", True), ("length", False)])
def test_a_call_in_the_text_that_the_limit_cut_is_not_mended(finish: str, whole: bool) -> None:
    spoken = CALL[: CALL.index("}}")]
    ((_, _, arguments),) = plain(answer(decoder(), chunk({"content": spoken}), finish=finish))
    assert arguments.endswith("}") is whole


NATIVE = {"index": 0, "id": "a", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}


def oddities(reading: ChatDecoder, *chunks: bytes) -> list[Note]:
    answer(reading, *chunks)
    return [note for note in reading.notes if note.name == "call_in_text"]


def test_a_call_that_nobody_reads_is_counted() -> None:
    pieces = [chunk({"content": CALL[at : at + 3]}) for at in range(0, len(CALL), 3)]
    assert oddities(decoder(None), *pieces) == [Note("answer", "call_in_text")]


def test_a_call_that_somebody_reads_is_not() -> None:
    assert not oddities(decoder(), chunk({"content": CALL}))
    assert not oddities(decoder(None), chunk({"content": CALL}), chunk({"tool_calls": [NATIVE]}))
    assert not oddities(decoder(None), chunk({"tool_calls": [NATIVE]}), chunk({"content": CALL}))
