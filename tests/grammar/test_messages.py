"""The checker of Messages streams is itself checked: one good stream, and many ways to spoil it.

Every mutation must be refused, for the reason stated beside it: a checker that accepts everything, or that refuses for
an accidental reason, is useless.
"""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.grammar import Violation
from tests.grammar.messages import check_error, check_events, check_response, check_stream

Json = dict[str, Any]
Events = list[Json]

UNKNOWN: Json = {
    "input_tokens": 0,
    "output_tokens": 0,
    "cache_creation": None,
    "cache_creation_input_tokens": None,
    "cache_read_input_tokens": None,
    "inference_geo": None,
    "output_tokens_details": None,
    "server_tool_use": None,
    "service_tier": None,
}
FINAL: Json = {
    "input_tokens": 10,
    "output_tokens": 20,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 4,
    "output_tokens_details": {"thinking_tokens": 5},
    "server_tool_use": None,
}
EMPTY: Json = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "content": [],
    "stop_reason": None,
    "stop_sequence": None,
    "stop_details": None,
    "container": None,
    "usage": UNKNOWN,
}
THINKING = {"type": "thinking", "thinking": "hm, well", "signature": "c2ln"}
TEXT = {"type": "text", "text": "Hello\u2028you", "citations": []}
CALL = {"type": "tool_use", "id": "toolu_1", "name": "ls", "input": {"a": 1}, "caller": {"type": "direct"}}
OTHER = {"type": "tool_use", "id": "toolu_2", "name": "pwd", "input": {}, "caller": {"type": "direct"}}
ENDING: Json = {"stop_reason": "tool_use", "stop_sequence": None, "stop_details": None, "container": None}
WHOLE: Json = {**EMPTY, **ENDING, "content": [THINKING, TEXT, CALL, OTHER], "usage": UNKNOWN | FINAL}
FAILURE: Json = {"type": "error", "error": {"type": "api_error", "message": "No."}, "request_id": "req_1"}
PING: Json = {"type": "ping"}


def delta(index: int, kind: str, key: str, value: str) -> Json:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, key: value}}


def start(index: int, block: Json) -> Json:
    return {"type": "content_block_start", "index": index, "content_block": block}


def stop(index: int) -> Json:
    return {"type": "content_block_stop", "index": index}


GOOD: Events = [
    {"type": "message_start", "message": EMPTY},
    start(0, THINKING | {"thinking": "", "signature": ""}),
    delta(0, "thinking_delta", "thinking", "hm, "),
    delta(0, "thinking_delta", "thinking", "well"),
    delta(0, "signature_delta", "signature", "c2ln"),
    stop(0),
    start(1, TEXT | {"text": ""}),
    delta(1, "text_delta", "text", "Hello\u2028"),
    delta(1, "text_delta", "text", "you"),
    stop(1),
    start(2, CALL | {"input": {}}),
    delta(2, "input_json_delta", "partial_json", '{"a"'),
    delta(2, "input_json_delta", "partial_json", ":1}"),
    stop(2),
    start(3, OTHER),
    stop(3),
    {"type": "message_delta", "delta": ENDING, "usage": FINAL},
    {"type": "message_stop"},
]
CUT: Events = [
    *GOOD[:12],
    {"type": "message_delta", "delta": ENDING | {"stop_reason": "max_tokens"}, "usage": FINAL},
    {"type": "message_stop"},
]


def encode(events: Events) -> bytes:
    return b"".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n".encode() for e in events)


def spoiled(change: Callable[[Events], None], events: Events = GOOD) -> Events:
    copied = copy.deepcopy(events)
    change(copied)
    return copied


# ----------------------------------------------------------------------------------------------------------- good ones


def test_the_good_stream_passes_and_adds_up() -> None:
    assert check_stream(encode(GOOD), valid_input=True) == WHOLE
    check_response(WHOLE)


@pytest.mark.parametrize("place", range(len(GOOD)))
def test_ping_may_stand_anywhere_before_the_end(place: int) -> None:
    assert check_events([*GOOD[:place], PING, *GOOD[place:]]) == WHOLE


@pytest.mark.parametrize("place", range(len(GOOD)))
def test_an_error_ends_the_stream_anywhere(place: int) -> None:
    assert check_events([*GOOD[:place], FAILURE]) == FAILURE


def test_a_call_cut_by_the_budget_stays_open() -> None:
    assert check_events(CUT)["content"] == [THINKING, TEXT]


def test_broken_arguments_may_pass_where_the_reader_can_bear_them() -> None:
    broken = spoiled(remove(11))
    assert check_events(broken)["content"][2]["input"] is None
    with pytest.raises(Violation) as refused:
        check_events(broken, valid_input=True)
    assert refused.value.rule == "input"


# ----------------------------------------------------------------------------------------------------------- mutations


def put(place: int, *path: str | int, value: Any) -> Callable[[Events], None]:
    def change(events: Events) -> None:
        owner: Any = events[place]
        for step in path[:-1]:
            owner = owner[step]
        owner[path[-1]] = value

    return change


def drop(place: int, *path: str | int) -> Callable[[Events], None]:
    def change(events: Events) -> None:
        owner: Any = events[place]
        for step in path[:-1]:
            owner = owner[step]
        del owner[path[-1]]

    return change


def remove(place: int) -> Callable[[Events], None]:
    return lambda events: events.__delitem__(place)


def insert(place: int, event: Json) -> Callable[[Events], None]:
    return lambda events: events.insert(place, event)


def swap(one: int, other: int) -> Callable[[Events], None]:
    def change(events: Events) -> None:
        events[one], events[other] = events[other], events[one]

    return change


MUTATIONS: dict[str, tuple[Callable[[Events], None], str]] = {
    "no message_start": (remove(0), "order"),
    "message_start twice": (insert(1, GOOD[0]), "order"),
    "content in message_start": (put(0, "message", "content", value=[TEXT]), "open"),
    "a reason in message_start": (put(0, "message", "stop_reason", value="end_turn"), "verdict"),
    "no stop_details in message_start": (drop(0, "message", "stop_details"), "missing"),
    "no container in message_start": (drop(0, "message", "container"), "missing"),
    "no service_tier in usage": (drop(0, "message", "usage", "service_tier"), "missing"),
    "input_tokens null in message_start": (put(0, "message", "usage", "input_tokens", value=None), "type"),
    "an unknown key": (put(0, "message", "reason", value=None), "unknown-key"),
    "index does not begin at 0": (put(1, "index", value=1), "index"),
    "index skips": (put(6, "index", value=2), "index"),
    "index is true": (put(6, "index", value=True), "type"),
    "block without start": (remove(6), "open"),
    "block without stop": (remove(9), "open"),
    "text with no citations key": (drop(6, "content_block", "citations"), "missing"),
    "citations null": (put(6, "content_block", "citations", value=None), "type"),
    "text in the start block": (put(6, "content_block", "text", value="He"), "open"),
    "input in the start block": (put(10, "content_block", "input", value={"a": 1}), "open"),
    "input as a string": (put(10, "content_block", "input", value=""), "type"),
    "no caller": (drop(10, "content_block", "caller"), "missing"),
    "call without id": (put(10, "content_block", "id", value=""), "type"),
    "call without name": (put(10, "content_block", "name", value=""), "type"),
    "a call id twice": (put(14, "content_block", "id", value="toolu_1"), "unique"),
    "delta before its block": (swap(6, 7), "open"),
    "delta of another block": (put(7, "index", value=0), "index"),
    "text delta in thinking": (insert(3, delta(0, "text_delta", "text", "x")), "delta"),
    "thinking delta in text": (insert(8, delta(1, "thinking_delta", "thinking", "x")), "delta"),
    "json delta in text": (insert(8, delta(1, "input_json_delta", "partial_json", "{")), "delta"),
    "signature in text": (insert(8, delta(1, "signature_delta", "signature", "x")), "delta"),
    "delta of an unknown kind": (put(7, "delta", "type", value="refusal_delta"), "type"),
    "thinking without signature": (remove(4), "signature"),
    "an empty signature": (put(4, "delta", "signature", value=""), "signature"),
    "two signatures": (insert(5, GOOD[4]), "signature"),
    "thinking after its signature": (swap(3, 4), "signature"),
    "stop twice": (insert(10, stop(1)), "open"),
    "stop of another block": (put(9, "index", value=0), "index"),
    "no message_delta": (remove(16), "order"),
    "message_delta twice": (insert(17, GOOD[16]), "order"),
    "a block after message_delta": (insert(17, start(4, TEXT | {"text": ""})), "order"),
    "no message_stop": (remove(17), "order"),
    "ping after the end": (insert(18, PING), "order"),
    "error after the end": (insert(18, FAILURE), "order"),
    "no usage in message_delta": (drop(16, "usage"), "missing"),
    "output_tokens null": (put(16, "usage", "output_tokens", value=None), "type"),
    "more thought than said": (put(16, "usage", "output_tokens", value=4), "usage"),
    "usage shrinks": (put(0, "message", "usage", "output_tokens", value=21), "usage"),
    "no cache_read_input_tokens": (drop(16, "usage", "cache_read_input_tokens"), "missing"),
    "end_turn beside calls": (put(16, "delta", "stop_reason", value="end_turn"), "verdict"),
    "no reason": (put(16, "delta", "stop_reason", value=None), "verdict"),
    "an unknown reason": (put(16, "delta", "stop_reason", value="length"), "type"),
    "a stop sequence beside tool_use": (put(16, "delta", "stop_sequence", value="END"), "verdict"),
    "refusal without details": (put(16, "delta", "stop_reason", value="refusal"), "verdict"),
    "stop_sequence without the sequence": (put(16, "delta", "stop_reason", value="stop_sequence"), "verdict"),
    "an unknown event": (insert(5, {"type": "content_block_pause"}), "unknown-event"),
    "a ping with content": (insert(5, {"type": "ping", "time": 1}), "unknown-key"),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_spoiled_stream_is_refused(name: str) -> None:
    change, rule = MUTATIONS[name]
    with pytest.raises(Violation) as refused:
        check_events(spoiled(change))
    assert refused.value.rule == rule, refused.value


def test_tool_use_as_reason_needs_a_call() -> None:
    with pytest.raises(Violation) as refused:
        check_events([GOOD[0], *GOOD[16:]])
    assert refused.value.rule == "verdict"


def test_a_cut_call_is_the_last_block_and_max_tokens_the_reason() -> None:
    for change in (put(12, "delta", "stop_reason", value="tool_use"), insert(12, GOOD[14])):
        with pytest.raises(Violation) as refused:
            check_events(spoiled(change, CUT))
        assert refused.value.rule == "open"


SEARCH: Json = CALL | {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search"}
NO_SEARCH: Json = {
    "type": "web_search_tool_result",
    "tool_use_id": "srvtoolu_1",
    "content": {"type": "web_search_tool_result_error", "error_code": "unavailable"},
    "caller": {"type": "direct"},
}
SEARCHED: Events = [
    GOOD[0],
    start(0, SEARCH | {"input": {}}),
    delta(0, "input_json_delta", "partial_json", '{"a":1}'),
    stop(0),
    start(1, NO_SEARCH),
    stop(1),
    {"type": "message_delta", "delta": ENDING | {"stop_reason": "end_turn"}, "usage": FINAL},
    {"type": "message_stop"},
]


def test_a_tool_that_anthropic_runs_may_say_that_it_failed() -> None:
    message = check_events(SEARCHED)
    assert message["content"] == [SEARCH, NO_SEARCH]
    check_response(message)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (put(4, "content_block", "tool_use_id", value="srvtoolu_2"), "order"),
        (put(4, "content_block", "content", "type", value="web_fetch_tool_result_error"), "type"),
        (drop(4, "content_block", "caller"), "missing"),
        (put(1, "content_block", "name", value="ls"), "type"),
        (put(1, "content_block", "input", value={"a": 1}), "open"),
        (put(6, "delta", "stop_reason", value="tool_use"), "verdict"),
    ],
)
def test_a_spoiled_failure_of_such_a_tool_is_refused(change: Callable[[Events], None], rule: str) -> None:
    with pytest.raises(Violation) as refused:
        check_events(spoiled(change, SEARCHED))
    assert refused.value.rule == rule


FOUND: Json = {
    "type": "web_search_result",
    "url": "https://a.b/",
    "title": "A",
    "encrypted_content": "x",
    "page_age": None,
}


def test_a_search_may_have_found_something() -> None:
    usage = {"web_search_requests": 1, "web_fetch_requests": 0}
    found = put(4, "content_block", "content", value=[FOUND])
    events = spoiled(put(6, "usage", "server_tool_use", value=usage), spoiled(found, SEARCHED))
    message = check_events(events)
    assert message["content"][1]["content"] == [FOUND]
    check_response(message)
    for key in ("url", "page_age"):
        with pytest.raises(Violation):
            check_events(spoiled(drop(4, "content_block", "content", 0, key), events))


@pytest.mark.parametrize("kind", ["ping", "error"])
def test_events_that_need_a_shape_have_it(kind: str) -> None:
    with pytest.raises(Violation):
        check_events([{"type": kind, "more": 1}])


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda body: body.replace(b"event: message_stop\n", b""), "event-name"),
        (lambda body: body.replace(b"event: ", b"event: x"), "event-name"),
        (lambda body: body.replace(b"\n", b"\r\n"), "framing"),
        (lambda body: body + b"data: [DONE]\n\n", "json"),
        (lambda body: body[:-1], "framing"),
        (lambda body: b": hello\n\n" + body, "framing"),
        (lambda body: b"", "framing"),
    ],
)
def test_spoiled_framing_is_refused(change: Callable[[bytes], bytes], rule: str) -> None:
    with pytest.raises(Violation) as refused:
        check_stream(change(encode(GOOD)))
    assert refused.value.rule == rule


# ---------------------------------------------------------------------------------------------- whole answers, errors


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({"stop_reason": None}, "verdict"),
        ({"stop_reason": "end_turn"}, "verdict"),
        ({"content": [TEXT]}, "verdict"),
        ({"content": [CALL, CALL]}, "unique"),
        ({"content": [CALL | {"input": None}]}, "type"),
        ({"content": [CALL, THINKING | {"signature": ""}]}, "signature"),
        ({"content": [CALL, {"type": "text", "text": "x"}]}, "missing"),
        ({"content": [CALL, {"type": "refusal", "text": "x"}]}, "type"),
        ({"stop_details": {"type": "refusal", "category": None, "explanation": None}}, "verdict"),
        ({"usage": FINAL}, "missing"),
        ({"role": "user"}, "type"),
        ({"id": ""}, "type"),
        ({"object": "message"}, "unknown-key"),
    ],
)
def test_a_spoiled_answer_is_refused(changed: Json, rule: str) -> None:
    with pytest.raises(Violation) as refused:
        check_response(WHOLE | changed)
    assert refused.value.rule == rule


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (503, "overloaded_error"),
        (504, "timeout_error"),
        (529, "overloaded_error"),
    ],
)
def test_a_status_has_its_type_and_no_other(status: int, kind: str) -> None:
    for other in ("invalid_request_error", "authentication_error", "rate_limit_error", "overloaded_error", kind):
        body = {**FAILURE, "error": {"type": other, "message": "No."}}
        if other == kind:
            check_error(status, body)
        elif (status, other) != (503, "api_error"):
            with pytest.raises(Violation) as refused:
                check_error(status, body)
            assert refused.value.rule == "error-type"


@pytest.mark.parametrize(
    ("status", "body", "rule"),
    [
        (200, FAILURE, "http-status"),
        (500, {"error": FAILURE["error"]}, "missing"),
        (500, {key: value for key, value in FAILURE.items() if key != "request_id"}, "missing"),
        (500, {**FAILURE, "error": {"type": "server_error", "message": "No."}}, "type"),
        (500, {**FAILURE, "error": {"type": "api_error", "message": ""}}, "type"),
        (500, {**FAILURE, "error": {"type": "api_error", "message": 'File "/a.py", line 3'}}, "leak"),
    ],
)
def test_a_spoiled_error_is_refused(status: int, body: Json, rule: str) -> None:
    with pytest.raises(Violation) as refused:
        check_error(status, body)
    assert refused.value.rule == rule
