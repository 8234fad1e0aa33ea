"""The checker of Responses streams is itself checked: one good stream, and many ways to spoil it.

Every mutation must be refused, for the reason stated beside it and at the event where it happened: a checker that
accepts everything, or that refuses for an accidental reason, is useless.
"""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.grammar import Violation
from tests.grammar.responses import check_error, check_events, check_response, check_stream

Json = dict[str, Any]
Events = list[Json]

RUNNING: Json = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1700000000,
    "completed_at": None,
    "status": "in_progress",
    "error": None,
    "incomplete_details": None,
    "instructions": "Be brief.",
    "metadata": {},
    "model": "m",
    "output": [],
    "parallel_tool_calls": True,
    "temperature": 1.0,
    "top_p": 1.0,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "tool_choice": "auto",
    "tools": [{"type": "function", "name": "ls", "description": None, "parameters": {}, "strict": False}],
    "previous_response_id": None,
    "reasoning": {"effort": None, "summary": None},
    "text": {"format": {"type": "text"}},
    "truncation": "disabled",
    "top_logprobs": 0,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "store": False,
    "background": False,
    "service_tier": "default",
    "safety_identifier": None,
    "prompt_cache_key": None,
    "usage": None,
}
USAGE: Json = {
    "input_tokens": 10,
    "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
    "output_tokens": 20,
    "output_tokens_details": {"reasoning_tokens": 5},
    "total_tokens": 30,
}
THOUGHT = {"type": "reasoning_text", "text": "hm, well"}
REASONING = {"id": "rs_1", "type": "reasoning", "status": "completed", "summary": [], "content": [THOUGHT]}
TEXT = {"type": "output_text", "text": "Hello\u2028you", "annotations": [], "logprobs": []}
MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [TEXT]}
CALL = {
    "id": "fc_1",
    "type": "function_call",
    "status": "completed",
    "call_id": "call_1",
    "name": "ls",
    "arguments": '{"a":1}',
}
CUSTOM = {
    "id": "ctc_1",
    "type": "custom_tool_call",
    "status": "completed",
    "call_id": "call_2",
    "name": "apply_patch",
    "input": "*** Begin",
}
OUTPUT = [REASONING, MESSAGE, CALL, CUSTOM]


def _added(item: Json, index: int, **empty: object) -> Json:
    blank = {**item, "status": "in_progress", **empty}
    return {"type": "response.output_item.added", "output_index": index, "item": blank}


def _done(item: Json, index: int) -> Json:
    return {"type": "response.output_item.done", "output_index": index, "item": item}


def _numbered(events: Events) -> Events:
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


def good() -> Events:
    """0 created, 1 in_progress, 2-9 reasoning (6 a keepalive), 10-16 message, 17-21 call, 22-25 custom, 26 end."""
    in_thought = {"item_id": "rs_1", "output_index": 0, "content_index": 0}
    in_text = {"item_id": "msg_1", "output_index": 1, "content_index": 0}
    in_call = {"item_id": "fc_1", "output_index": 2}
    in_custom = {"item_id": "ctc_1", "output_index": 3}
    final = {**RUNNING, "status": "completed", "completed_at": 1700000003, "output": OUTPUT, "usage": USAGE}
    events: Events = [
        {"type": "response.created", "response": RUNNING},
        {"type": "response.in_progress", "response": RUNNING},
        _added(REASONING, 0, content=[]),
        {"type": "response.content_part.added", **in_thought, "part": {**THOUGHT, "text": ""}},
        {"type": "response.reasoning_text.delta", **in_thought, "delta": "hm, "},
        {"type": "response.reasoning_text.delta", **in_thought, "delta": "well"},
        {"type": "response.in_progress", "response": RUNNING},
        {"type": "response.reasoning_text.done", **in_thought, "text": "hm, well"},
        {"type": "response.content_part.done", **in_thought, "part": THOUGHT},
        _done(REASONING, 0),
        _added(MESSAGE, 1, content=[]),
        {"type": "response.content_part.added", **in_text, "part": {**TEXT, "text": ""}},
        {"type": "response.output_text.delta", **in_text, "delta": "Hello", "logprobs": []},
        {"type": "response.output_text.delta", **in_text, "delta": "\u2028you", "logprobs": []},
        {"type": "response.output_text.done", **in_text, "text": "Hello\u2028you", "logprobs": []},
        {"type": "response.content_part.done", **in_text, "part": TEXT},
        _done(MESSAGE, 1),
        _added(CALL, 2, arguments=""),
        {"type": "response.function_call_arguments.delta", **in_call, "delta": '{"a"'},
        {"type": "response.function_call_arguments.delta", **in_call, "delta": ":1}", "obfuscation": "x9"},
        {"type": "response.function_call_arguments.done", **in_call, "name": "ls", "arguments": '{"a":1}'},
        _done(CALL, 2),
        _added(CUSTOM, 3, input=""),
        {"type": "response.custom_tool_call_input.delta", **in_custom, "delta": "*** Begin"},
        {"type": "response.custom_tool_call_input.done", **in_custom, "input": "*** Begin"},
        _done(CUSTOM, 3),
        {"type": "response.completed", "response": final},
    ]
    # through JSON, so that no two events share an object that a mutation would spoil in both
    return _numbered(json.loads(json.dumps(events)))


def wire(events: Events, end: str = "data: [DONE]\n\n") -> bytes:
    frames = [f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n" for event in events]
    return ("".join(frames) + end).encode()


def ended(status: str, **changes: object) -> Events:
    """The good stream with another ending: its last item cut short."""
    events = good()
    short = {**CUSTOM, "status": "incomplete"}
    events[25]["item"] = short
    final = {
        **events[26]["response"],
        "status": status,
        "completed_at": None,
        "output": [*OUTPUT[:3], short],
        **changes,
    }
    events[26] = {"type": f"response.{status}", "sequence_number": 26, "response": final}
    return events


def setting(position: int, path: str, value: object) -> Callable[[Events], None]:
    """A mutation: put the value at the dotted path of an event."""

    def mutate(events: Events) -> None:
        target: Any = events[position]
        *parents, last = path.split(".")
        for key in parents:
            target = target[int(key) if key.isdigit() else key]
        target[int(last) if last.isdigit() else last] = value

    return mutate


def removing(position: int, path: str) -> Callable[[Events], None]:
    def mutate(events: Events) -> None:
        target: Any = events[position]
        *parents, last = path.split(".")
        for key in parents:
            target = target[int(key) if key.isdigit() else key]
        del target[last]

    return mutate


def _renumber(events: Events) -> None:
    for number, event in enumerate(events):
        event["sequence_number"] = number


def dropping(*positions: int) -> Callable[[Events], None]:
    def mutate(events: Events) -> None:
        events[:] = [event for number, event in enumerate(events) if number not in positions]
        _renumber(events)

    return mutate


def moving(source: int, target: int) -> Callable[[Events], None]:
    def mutate(events: Events) -> None:
        events.insert(target, events.pop(source))
        _renumber(events)

    return mutate


def inserting(position: int, event: Json) -> Callable[[Events], None]:
    def mutate(events: Events) -> None:
        events.insert(position, copy.deepcopy(event))
        _renumber(events)

    return mutate


def both(*mutations: Callable[[Events], None]) -> Callable[[Events], None]:
    def mutate(events: Events) -> None:
        for mutation in mutations:
            mutation(events)

    return mutate


LENGTH: Json = {"reason": "max_output_tokens"}
FAILURE: Json = {"code": "server_error", "message": "The model server closed the stream."}
ERROR_FIELDS: Json = {**FAILURE, "param": None}
ERROR_EVENT: Json = {"type": "error", **ERROR_FIELDS, "error": {"type": "server_error", **ERROR_FIELDS}}


def failed(event: Json = ERROR_EVENT, **changes: object) -> Events:
    """The good stream with its last item cut short, an `error` event (26) and `response.failed` (27)."""
    events = ended("failed", **{"error": FAILURE, "usage": None, **changes})
    inserting(26, event)(events)
    return events


def test_the_good_stream_is_accepted_and_its_final_response_returned() -> None:
    final = check_stream(wire(good()))
    assert final["output"] == OUTPUT
    check_response(final)


@pytest.mark.parametrize(
    "events",
    [
        pytest.param(ended("incomplete", incomplete_details=LENGTH), id="length"),
        pytest.param(ended("incomplete", incomplete_details={"reason": "content_filter"}), id="filter"),
        pytest.param(failed(), id="failed"),
        pytest.param(
            _numbered([*good()[:2], {**good()[26], "response": {**good()[26]["response"], "output": []}}]), id="empty"
        ),
    ],
)
def test_other_endings_are_accepted(events: Events) -> None:
    check_stream(wire(events))


def test_a_queued_response_may_say_so() -> None:
    queued = {**RUNNING, "status": "queued"}
    start = [{"type": f"response.{name}", "response": queued} for name in ("created", "queued")]
    check_stream(wire(_numbered([*start, *good()[1:]])))


def _renamed_reasoning() -> Events:
    return [{**e, "type": e["type"].replace("reasoning_text.", "reasoning.")} for e in good()]


def test_open_responses_names_of_reasoning_events_are_a_style() -> None:
    check_stream(wire(_renamed_reasoning()), style="open_responses")
    with pytest.raises(Violation, match=r"unknown-event at event 4 "):
        check_stream(wire(_renamed_reasoning()))
    with pytest.raises(Violation, match=r"unknown-event at event 4 "):
        check_stream(wire(good()), style="open_responses")


def test_summaries_of_reasoning() -> None:
    part = {"type": "summary_text", "text": "Thought."}
    at = {"item_id": "rs_9", "output_index": 0, "summary_index": 0}
    item = {"id": "rs_9", "type": "reasoning", "status": "completed", "summary": [part], "encrypted_content": "AAA="}
    final = {**good()[26]["response"], "output": [item]}
    events = [
        *good()[:2],
        _added({k: v for k, v in item.items() if k != "encrypted_content"}, 0, summary=[]),
        {"type": "response.reasoning_summary_part.added", **at, "part": {**part, "text": ""}},
        {"type": "response.reasoning_summary_text.delta", **at, "delta": "Thought."},
        {"type": "response.reasoning_summary_text.done", **at, "text": "Thought."},
        {"type": "response.reasoning_summary_part.done", **at, "part": part},
        _done(item, 0),
        {"type": "response.completed", "response": final},
    ]
    check_events(_numbered(events))
    events[6] = {**events[6], "summary_index": 1}
    with pytest.raises(Violation, match=r"index at event 6 "):
        check_events(_numbered(events))


SPOILED: list[tuple[str, Callable[[Events], None], str, int]] = [
    # name, mutation, the rule that must refuse it, the event it is refused at
    ("sequence-gap", setting(5, "sequence_number", 6), "sequence", 5),
    ("sequence-from-one", setting(0, "sequence_number", 1), "sequence", 0),
    ("sequence-is-a-bool", setting(0, "sequence_number", False), "type", 0),
    ("no-created", dropping(0), "order", 0),
    ("created-twice", inserting(1, good()[0]), "order", 1),
    ("created-is-completed", setting(0, "response.status", "completed"), "status", 0),
    ("no-in-progress", dropping(1, 6), "order", 1),
    ("queued-late", inserting(2, {**good()[1], "type": "response.queued"}), "order", 2),
    ("no-terminal", dropping(26), "order", 25),
    ("two-terminals", inserting(27, good()[26]), "order", 27),
    ("keepalive-after-the-end", inserting(27, good()[1]), "order", 27),
    ("error-before-completed", inserting(26, ERROR_EVENT), "error-event", 27),
    ("error-in-the-middle", inserting(10, ERROR_EVENT), "error-event", 11),
    ("error-first", inserting(0, ERROR_EVENT), "order", 0),
    ("unknown-event", inserting(2, {"type": "response.audio.delta"}), "unknown-event", 2),
    ("event-without-type", removing(4, "type"), "event-name", 4),
    ("unknown-key-in-event", setting(4, "response_id", "resp_1"), "unknown-key", 4),
    ("unknown-key-in-response", setting(26, "response.output_text", "Hello"), "unknown-key", 26),
    ("response-id-changes", setting(26, "response.id", "resp_2"), "echo", 26),
    ("model-changes", setting(1, "response.model", "other"), "echo", 1),
    ("missing-response-field", removing(0, "response.truncation"), "missing", 0),
    ("float-created-at", setting(0, "response.created_at", 1.5), "type", 0),
    ("null-temperature", setting(0, "response.temperature", None), "type", 0),
    ("effort-without-summary", setting(0, "response.reasoning", {"effort": "low"}), "missing", 0),
    ("index-from-one", setting(2, "output_index", 1), "index", 2),
    ("index-repeated", setting(10, "output_index", 0), "index", 10),
    ("delta-at-wrong-index", setting(18, "output_index", 1), "index", 18),
    ("two-items-open", dropping(16), "open", 16),
    ("item-never-closed", dropping(25), "open", 25),
    ("delta-before-item", moving(4, 2), "open", 2),
    ("delta-of-another-item", setting(18, "item_id", "msg_1"), "identity", 18),
    ("delta-with-empty-id", setting(12, "item_id", ""), "type", 12),
    ("done-with-another-id", setting(21, "item.id", "fc_2"), "identity", 21),
    ("final-with-another-id", setting(26, "response.output.2.id", "fc_2"), "output", 26),
    ("item-id-reused", both(*(setting(n, "item.id", "rs_1") for n in (10, 16))), "unique", 10),
    ("call-id-reused", both(*(setting(n, "item.call_id", "call_1") for n in (22, 25)),
        setting(26, "response.output.3.call_id", "call_1")), "unique", 26),
    ("call-id-changes", setting(21, "item.call_id", "call_9"), "identity", 21),
    ("name-changes", setting(21, "item.name", "rm"), "identity", 21),
    ("done-without-name", removing(20, "name"), "missing", 20),
    ("done-with-another-name", setting(20, "name", "rm"), "identity", 20),
    ("call-without-status", removing(17, "item.status"), "missing", 17),
    ("call-with-empty-name", setting(17, "item.name", ""), "type", 17),
    ("call-announced-with-arguments", setting(17, "item.arguments", "{"), "open", 17),
    ("arguments-as-object", setting(20, "arguments", {"a": 1}), "type", 20),
    ("argument-delta-lost", dropping(18), "concat", 19),
    ("arguments-never-done", dropping(20), "part", 20),
    ("arguments-after-done", moving(18, 20), "concat", 19),
    ("arguments-differ-in-item", setting(21, "item.arguments", "{}"), "concat", 21),
    ("custom-input-lost", dropping(23), "concat", 23),
    ("custom-call-with-function-events", setting(23, "type", "response.function_call_arguments.delta"), "part", 23),
    ("text-without-part", dropping(11), "open", 11),
    ("part-not-closed", dropping(15), "open", 15),
    ("part-index-from-one", setting(11, "content_index", 1), "index", 11),
    ("delta-in-wrong-part", setting(12, "content_index", 1), "index", 12),
    ("part-done-before-text-done", moving(15, 14), "part", 14),
    ("text-delta-lost", dropping(12), "concat", 13),
    ("text-delta-after-done", moving(13, 14), "concat", 13),
    ("text-differs-in-part", setting(15, "part.text", "Hello"), "concat", 15),
    ("text-differs-in-item", setting(16, "item.content.0.text", "Hello"), "concat", 16),
    ("text-differs-in-final", setting(26, "response.output.1.content.0.text", "Hello"), "output", 26),
    ("null-logprobs", setting(12, "logprobs", None), "type", 12),
    ("no-logprobs", removing(12, "logprobs"), "missing", 12),
    ("no-annotations", removing(11, "part.annotations"), "missing", 11),
    ("refusal-in-reasoning", setting(3, "part", {"type": "refusal", "refusal": ""}), "part", 3),
    ("summary-missing", removing(2, "item.summary"), "missing", 2),
    ("null-encrypted-content", setting(2, "item.encrypted_content", None), "type", 2),
    ("null-phase", setting(10, "item.phase", None), "type", 10),
    ("item-added-completed", setting(10, "item.status", "completed"), "status", 10),
    ("item-done-in-progress", setting(16, "item.status", "in_progress"), "status", 16),
    ("item-lost-from-output", removing(26, "response.output"), "missing", 26),
    ("output-in-wrong-order", setting(26, "response.output", [OUTPUT[1], OUTPUT[0], *OUTPUT[2:]]), "output", 26),
    ("output-shorter", setting(26, "response.output", OUTPUT[:3]), "output", 26),
    ("completed-says-incomplete", setting(26, "response.status", "incomplete"), "status", 26),
    ("completed-with-error", setting(26, "response.error", FAILURE), "verdict", 26),
    ("completed-with-details", setting(26, "response.incomplete_details", LENGTH), "verdict", 26),
    ("completed-without-time", setting(26, "response.completed_at", None), "verdict", 26),
    ("completed-before-created", setting(26, "response.completed_at", 1), "verdict", 26),
    ("completed-with-cut-item", both(setting(16, "item.status", "incomplete"),
        setting(26, "response.output.1.status", "incomplete")), "status", 26),
    ("usage-before-the-end", setting(6, "response.usage", USAGE), "verdict", 6),
    ("no-cache-write", removing(26, "response.usage.input_tokens_details.cache_write_tokens"), "missing", 26),
    ("usage-does-not-add-up", setting(26, "response.usage.total_tokens", 31), "usage", 26),
    ("more-cached-than-sent", setting(26, "response.usage.input_tokens_details.cached_tokens", 11), "usage", 26),
    ("usage-as-float", setting(26, "response.usage.input_tokens", 10.0), "type", 26),
    ("two-calls-though-forbidden", both(*(setting(n, "response.parallel_tool_calls", False) for n in (0, 1, 6, 26))),
        "parallel", 26),
]  # fmt: skip


@pytest.mark.parametrize(("mutate", "rule", "position"), [pytest.param(*row[1:], id=row[0]) for row in SPOILED])
def test_a_spoiled_stream_is_refused(mutate: Callable[[Events], None], rule: str, position: int) -> None:
    events = good()
    mutate(events)
    body = "".join(
        f"event: {event.get('type', 'response.unnamed')}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n"
        for event in events
    )
    with pytest.raises(Violation, match=rf"event {position}\b") as refused:
        check_stream((body + "data: [DONE]\n\n").encode())
    assert refused.value.rule == rule, str(refused.value)


@pytest.mark.parametrize(
    ("events", "rule"),
    [
        pytest.param(ended("incomplete"), "verdict", id="incomplete-without-reason"),
        pytest.param(ended("incomplete", incomplete_details={"reason": "length"}), "type", id="reason-of-chat"),
        pytest.param(failed(error=None), "verdict", id="failed-without-error"),
        pytest.param(failed(error={"code": "server_error"}), "missing", id="error-without-message"),
        pytest.param(failed(error={**FAILURE, "code": None}), "type", id="error-without-code"),
        pytest.param(
            failed(error={**FAILURE, "message": 'Traceback (most recent call last):\n  File "/srv/m.py"'}),
            "leak",
            id="stack-trace",
        ),
        pytest.param(failed(completed_at=1700000009), "verdict", id="failed-yet-completed"),
        pytest.param(ended("failed", error=FAILURE), "error-event", id="failed-without-error-event"),
        pytest.param(failed({**ERROR_EVENT, "code": None}), "type", id="error-event-without-code"),
        pytest.param(failed({"type": "error", **ERROR_FIELDS}), "missing", id="flat-error-event"),
        pytest.param(
            failed({**ERROR_EVENT, "message": "Other words."}), "error-event", id="error-event-with-two-words"
        ),
        pytest.param(failed(error={**FAILURE, "code": "invalid_prompt"}), "error-event", id="failed-with-another-code"),
        pytest.param(ended("cancelled"), "unknown-event", id="cancelled-event"),
    ],
)
def test_other_endings_are_refused(events: Events, rule: str) -> None:
    with pytest.raises(Violation, match=r"event 2[67]\b") as refused:
        check_stream(wire(events))
    assert refused.value.rule == rule, str(refused.value)


@pytest.mark.parametrize(
    ("spoil", "rule"),
    [
        pytest.param(lambda body: body.replace(b"\n", b"\r\n"), "framing", id="crlf"),
        pytest.param(lambda body: b"\xef\xbb\xbf" + body, "framing", id="byte-order-mark"),
        pytest.param(lambda body: b": ping\n\n" + body, "framing", id="comment"),
        pytest.param(lambda body: body.replace(b"event: response.created\n", b"", 1), "event-name", id="no-event-line"),
        pytest.param(
            lambda body: body.replace(b"event: response.created", b"event: x", 1), "event-name", id="misnamed"
        ),
        pytest.param(lambda body: body.replace(b"data: ", b"data:", 1), "framing", id="no-space"),
        pytest.param(lambda body: body.replace(b"\n\n", b"\n\n\n", 1), "framing", id="blank-line-too-many"),
        pytest.param(lambda body: body.replace(b'"delta": "hm, "', b'"delta": "\xff"', 1), "framing", id="not-utf-8"),
        pytest.param(lambda body: body.removesuffix(b"data: [DONE]\n\n"), "done", id="no-done"),
        pytest.param(lambda body: body + b"data: [DONE]\n\n", "done", id="done-twice"),
        pytest.param(lambda body: body[:-1], "framing", id="last-frame-open"),
        pytest.param(
            lambda body: body.replace(b'"sequence_number": 0', b'"sequence_number": NaN', 1), "json", id="nan"
        ),
        pytest.param(lambda body: body.replace(b"data: {", b'data: {"type": "x", ', 1), "json", id="doubled-key"),
        pytest.param(lambda body: b"", "framing", id="empty"),
        pytest.param(lambda body: b"data: [DONE]\n\n", "order", id="only-done"),
    ],
)
def test_spoiled_bytes_are_refused(spoil: Callable[[bytes], bytes], rule: str) -> None:
    with pytest.raises(Violation, match=r".") as refused:
        check_stream(spoil(wire(good())))
    assert refused.value.rule == rule, str(refused.value)


def test_running_and_cancelled_responses_are_whole_answers_too() -> None:
    check_response(RUNNING)
    check_response({**RUNNING, "status": "queued", "background": True})
    check_response({**RUNNING, "status": "cancelled", "background": True})
    with pytest.raises(Violation, match="verdict"):
        check_response({**RUNNING, "status": "cancelled", "completed_at": 1700000001})


def _error(**changes: object) -> Json:
    fields = {"message": "No such model.", "type": "invalid_request_error", "param": "model", "code": "model_not_found"}
    return {"error": {**fields, **changes}}


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, _error()),
        (400, _error(param=None, code=None)),
        (401, _error(code="invalid_api_key")),
        (429, _error(type="rate_limit_error")),
        (503, _error(type="server_error")),
    ],
)
def test_good_errors(status: int, body: Json) -> None:
    check_error(status, body)


@pytest.mark.parametrize(
    ("status", "body", "rule"),
    [
        pytest.param(400, {"error": "bad"}, "type", id="a-string"),
        pytest.param(400, {"object": "error", "message": "bad", "code": 400}, "missing", id="flat"),
        pytest.param(400, _error(code=400), "type", id="number-as-code"),
        pytest.param(400, {"error": {"message": "m", "type": "t", "code": None}}, "missing", id="no-param"),
        pytest.param(400, {**_error(), "detail": "x"}, "unknown-key", id="unknown-key"),
        pytest.param(400, _error(message=""), "type", id="no-words"),
        pytest.param(200, _error(), "http-status", id="not-an-error"),
        pytest.param(413, _error(), "http-status", id="retried-413"),
        pytest.param(500, _error(), "error-type", id="blames-the-client"),
        pytest.param(400, _error(type="server_error"), "error-type", id="blames-the-server"),
        pytest.param(401, _error(), "error-type", id="unauthorized"),
        pytest.param(429, _error(), "error-type", id="busy"),
        pytest.param(502, _error(type="server_error", message='  File "/opt/x.py", line 3'), "leak", id="stack-trace"),
    ],
)
def test_bad_errors(status: int, body: Json, rule: str) -> None:
    with pytest.raises(Violation, match=r".") as refused:
        check_error(status, body)
    assert refused.value.rule == rule, str(refused.value)


SEARCH = {
    "id": "ws_1",
    "type": "web_search_call",
    "status": "completed",
    "action": {"type": "search", "query": "x", "sources": [{"type": "url", "url": "https://a.b/"}]},
    "results": [{"url": "https://a.b/", "title": "A", "text": "Words."}],
}
CITATION = {"type": "url_citation", "start_index": 4, "end_index": 16, "url": "https://a.b/", "title": "A"}


def searched() -> Events:
    """0 created, 1 in_progress, 2-6 a search, 7-13 a text that cites (10), 14 end."""
    in_search, in_text = (
        {"item_id": "ws_1", "output_index": 0},
        {"item_id": "msg_1", "output_index": 1, "content_index": 0},
    )
    text = {**TEXT, "text": "See https://a.b/.", "annotations": [CITATION]}
    message = {**MESSAGE, "content": [text]}
    began = {
        "id": "ws_1",
        "type": "web_search_call",
        "status": "in_progress",
        "action": {"type": "search", "query": "x"},
    }
    output = [SEARCH, message]
    final = {**RUNNING, "status": "completed", "completed_at": 1700000003, "output": output, "usage": USAGE}
    events: Events = [
        {"type": "response.created", "response": RUNNING},
        {"type": "response.in_progress", "response": RUNNING},
        {"type": "response.output_item.added", "output_index": 0, "item": began},
        {"type": "response.web_search_call.in_progress", **in_search},
        {"type": "response.web_search_call.searching", **in_search},
        {"type": "response.web_search_call.completed", **in_search},
        _done(SEARCH, 0),
        _added(message, 1, content=[]),
        {"type": "response.content_part.added", **in_text, "part": {**text, "text": "", "annotations": []}},
        {"type": "response.output_text.delta", **in_text, "delta": text["text"], "logprobs": []},
        {"type": "response.output_text.annotation.added", **in_text, "annotation_index": 0, "annotation": CITATION},
        {"type": "response.output_text.done", **in_text, "text": text["text"], "logprobs": []},
        {"type": "response.content_part.done", **in_text, "part": text},
        _done(message, 1),
        {"type": "response.completed", "response": final},
    ]
    return _numbered(json.loads(json.dumps(events)))


def test_a_search_and_what_it_is_cited_for_pass() -> None:
    assert check_stream(wire(searched()))["output"][0] == SEARCH


@pytest.mark.parametrize(
    ("spoil", "rule"),
    [
        (dropping(5), "part"),  # completed without its event
        (moving(4, 5), "part"),
        (setting(6, "item.status", "failed"), "part"),
        (removing(6, "item.results"), "part"),
        (removing(2, "item.action"), "missing"),
        (dropping(10), "concat"),  # cited without an event
        (setting(10, "annotation.start_index", 3), "concat"),
        (setting(10, "annotation_index", 1), "index"),
        (moving(10, 11), "open"),
    ],
)
def test_a_spoiled_search_is_refused(spoil: Callable[[Events], None], rule: str) -> None:
    events = searched()
    spoil(events)
    with pytest.raises(Violation) as refused:
        check_stream(wire(events))
    assert refused.value.rule == rule, str(refused.value)
