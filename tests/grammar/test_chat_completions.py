"""The checker of chat completions is itself checked: one good stream, and many ways to spoil it.

Every mutation must be refused, for the reason stated beside it: a checker that accepts everything, or that refuses for
an accidental reason, is useless.
"""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.grammar import Violation
from tests.grammar.chat_completions import check_chunks, check_response, check_stream

Json = dict[str, Any]
Chunks = list[Json]

HEAD: Json = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 5, "model": "m"}
TOKEN: Json = {"token": "a", "logprob": -0.5, "bytes": None, "top_logprobs": []}
USAGE: Json = {
    "prompt_tokens": 10,
    "completion_tokens": 5,
    "total_tokens": 15,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 2},
}
CALL: Json = {"id": "call_1", "type": "function", "function": {"name": "ls", "arguments": '{"a":1}'}}
PATCH: Json = {"id": "call_2", "type": "custom", "custom": {"name": "patch", "input": "*** Begin"}}
ERROR: Json = {"error": {"message": "No.", "type": "server_error", "param": None, "code": None}}
COMPLETION: Json = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 5,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "ab",
                "refusal": None,
                "annotations": [],
                "reasoning_content": "hm",
                "tool_calls": [CALL, PATCH],
            },
            "logprobs": {"content": [TOKEN], "refusal": None},
            "finish_reason": "tool_calls",
        }
    ],
    "usage": USAGE,
}


def chunk(delta: Json, reason: str | None = None, logprobs: Json | None = None) -> Json:
    choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
    return {**HEAD, "choices": [choice], "usage": None}


def call(index: int, **fields: Any) -> Json:
    return chunk({"tool_calls": [{"index": index, **fields}]})


GOOD: Chunks = [
    chunk({"role": "assistant", "content": None}),
    chunk({"reasoning_content": "hm"}),
    chunk({"content": "a"}, logprobs={"content": [TOKEN], "refusal": None}),
    chunk({"content": "b"}),
    call(0, id="call_1", type="function", function={"name": "ls", "arguments": ""}),
    call(0, function={"arguments": '{"a"'}),
    call(0, function={"arguments": ":1}"}),
    call(1, id="call_2", type="custom", custom={"name": "patch", "input": ""}),
    call(1, custom={"input": "*** Begin"}),
    chunk({}, "tool_calls"),
    {**HEAD, "choices": [], "usage": USAGE},
]
REASON, TOLD = 9, 10  # where the finish reason and the usage stand


def encoded(chunks: Chunks, ending: str = "data: [DONE]\n\n") -> bytes:
    return ("".join(f"data: {json.dumps(one)}\n\n" for one in chunks) + ending).encode()


def test_the_good_stream_is_good() -> None:
    assert check_stream(encoded(GOOD)) == COMPLETION
    assert check_stream(b": keepalive\n\n" + encoded(GOOD)) == COMPLETION
    check_response(COMPLETION)


@pytest.mark.parametrize("length", range(len(GOOD)))
def test_a_stream_may_break_anywhere_before_its_end(length: int) -> None:
    until = GOOD[:length] if length <= REASON else GOOD[:REASON]
    assert check_stream(encoded([*until, ERROR], "")) is None


@pytest.mark.parametrize("length", range(REASON + 1))
def test_a_stream_that_just_stops_is_wrong(length: int) -> None:
    with pytest.raises(Violation) as caught:
        check_chunks(GOOD[:length])
    assert caught.value.rule == "order"


def choice(chunks: Chunks, index: int) -> Json:
    found: Json = chunks[index]["choices"][0]
    return found


def delta(chunks: Chunks, index: int) -> Json:
    found: Json = choice(chunks, index)["delta"]
    return found


def made(chunks: Chunks, index: int) -> Json:
    found: Json = delta(chunks, index)["tool_calls"][0]
    return found


MUTATIONS: list[tuple[str, str, Callable[[Chunks], object]]] = [
    ("no id", "missing", lambda c: c[0].pop("id")),
    ("empty id", "type", lambda c: c[0].update(id="")),
    ("another id", "identity", lambda c: c[2].update(id="chatcmpl-2")),
    ("another time", "identity", lambda c: c[2].update(created=6)),
    ("another model", "identity", lambda c: c[2].update(model="n")),
    ("a plain answer's object", "type", lambda c: c[1].update(object="chat.completion")),
    ("an unknown key", "unknown-key", lambda c: c[1].update(extra=1)),
    ("time as text", "type", lambda c: c[1].update(created="5")),
    ("no role", "role", lambda c: delta(c, 0).pop("role")),
    ("the role twice", "role", lambda c: delta(c, 1).update(role="assistant")),
    ("another role", "type", lambda c: delta(c, 0).update(role="user")),
    ("an unknown delta", "unknown-key", lambda c: delta(c, 1).update(thinking="x")),
    ("the second choice", "type", lambda c: choice(c, 1).update(index=1)),
    ("two choices", "index", lambda c: c[1]["choices"].append(copy.deepcopy(choice(c, 1)))),
    ("no finish reason key", "missing", lambda c: choice(c, 1).pop("finish_reason")),
    ("no logprobs key", "missing", lambda c: choice(c, 1).pop("logprobs")),
    ("a number as content", "type", lambda c: delta(c, 2).update(content=1)),
    ("logprobs without text", "order", lambda c: choice(c, 1).update(logprobs=choice(c, 2)["logprobs"])),
    ("a token without its text", "missing", lambda c: choice(c, 2)["logprobs"]["content"][0].pop("token")),
    ("an early finish reason", "order", lambda c: choice(c, 3).update(finish_reason="stop")),
    ("an unknown finish reason", "type", lambda c: choice(c, REASON).update(finish_reason="done")),
    ("no finish reason", "order", lambda c: c.pop(REASON)),
    ("the finish reason twice", "order", lambda c: c.insert(REASON, copy.deepcopy(c[REASON]))),
    ("text after the end", "order", lambda c: c.insert(TOLD, copy.deepcopy(c[3]))),
    ("text with the end", "order", lambda c: delta(c, REASON).update(content="x")),
    ("stop beside calls", "verdict", lambda c: choice(c, REASON).update(finish_reason="stop")),
    ("calls without calls", "verdict", lambda c: c.__delitem__(slice(4, 9))),
    ("no call header", "call", lambda c: c.pop(4)),
    ("no header for the second", "call", lambda c: c.pop(7)),
    ("a header without id", "call", lambda c: made(c, 4).pop("id")),
    ("a header without type", "call", lambda c: made(c, 4).pop("type")),
    ("a header without name", "call", lambda c: made(c, 4)["function"].pop("name")),
    ("a header of another type", "call", lambda c: made(c, 4).update(type="custom")),
    ("a header with arguments", "call", lambda c: made(c, 4)["function"].update(arguments="{")),
    ("an empty name", "type", lambda c: made(c, 4)["function"].update(name="")),
    ("the id again", "call", lambda c: made(c, 5).update(id="call_1")),
    ("the name again", "call", lambda c: made(c, 5)["function"].update(name="ls")),
    ("input for a function", "call", lambda c: c.__setitem__(5, call(0, custom={"input": "x"}))),
    ("the id of another call", "identity", lambda c: made(c, 7).update(id="call_1")),
    ("a call left out", "index", lambda c: made(c, 7).update(index=2)),
    ("a call that goes on later", "index", lambda c: c.insert(9, copy.deepcopy(c[6]))),
    ("no index", "missing", lambda c: made(c, 5).pop("index")),
    ("arguments as an object", "type", lambda c: made(c, 5)["function"].update(arguments={})),
    ("usage beside a choice", "usage", lambda c: c[3].update(usage=USAGE)),
    ("usage unspoken of in one", "usage", lambda c: c[3].pop("usage")),
    ("usage spoken of at the end only", "usage", lambda c: [one.pop("usage") for one in c[:-1]]),
    ("no choices and no usage", "usage", lambda c: c[TOLD].update(usage=None)),
    ("usage before the end", "order", lambda c: c.insert(3, c.pop())),
    ("usage twice", "order", lambda c: c.append(copy.deepcopy(c[TOLD]))),
    ("a wrong total", "usage", lambda c: c[TOLD]["usage"].update(total_tokens=16)),
    ("more cached than sent", "usage", lambda c: c[TOLD]["usage"]["prompt_tokens_details"].update(cached_tokens=11)),
    ("usage without a total", "missing", lambda c: c[TOLD]["usage"].pop("total_tokens")),
    ("details of null", "type", lambda c: c[TOLD]["usage"].update(prompt_tokens_details=None)),
    ("an error after the end", "order", lambda c: c.append(ERROR)),
    ("a chunk after an error", "order", lambda c: c.insert(3, ERROR)),
    ("an error of words", "type", lambda c: c.__setitem__(slice(3, None), [{"error": "No."}])),
]


@pytest.mark.parametrize(
    ("rule", "spoil"), [(rule, spoil) for _, rule, spoil in MUTATIONS], ids=[m[0] for m in MUTATIONS]
)
def test_a_spoilt_stream_is_refused(rule: str, spoil: Callable[[Chunks], object]) -> None:
    spoilt = copy.deepcopy(GOOD)
    spoil(spoilt)
    with pytest.raises(Violation) as caught:
        check_chunks(spoilt)
    assert caught.value.rule == rule, str(caught.value)


@pytest.mark.parametrize(
    ("rule", "body"),
    [
        ("framing", b""),
        ("framing", encoded(GOOD)[:-1]),
        ("framing", encoded(GOOD).replace(b"\n", b"\r\n")),
        ("framing", encoded(GOOD).replace(b"data: ", b"data:", 1)),
        ("event-name", b"event: chunk\n" + encoded(GOOD)),
        ("json", encoded(GOOD).replace(b'"created": 5', b'"created": NaN', 1)),
        ("done", encoded(GOOD, "")),
        ("done", encoded([*GOOD[:3], ERROR])),
        ("done", encoded(GOOD) + encoded([], "data: [DONE]\n\n")),
        ("done", encoded(GOOD) + b": late\n\n" + encoded(GOOD[:1], "")),
    ],
)
def test_spoilt_framing_is_refused(rule: str, body: bytes) -> None:
    with pytest.raises(Violation) as caught:
        check_stream(body)
    assert caught.value.rule == rule, str(caught.value)


def the(completion: Json) -> Json:
    found: Json = completion["choices"][0]
    return found


@pytest.mark.parametrize(
    ("rule", "spoil"),
    [
        ("missing", lambda c: c.pop("usage")),
        ("missing", lambda c: the(c)["message"].pop("content")),
        ("missing", lambda c: the(c)["message"].pop("refusal")),
        ("missing", lambda c: the(c)["message"].pop("annotations")),
        ("unknown-key", lambda c: the(c)["message"].update(reasoning="x")),
        ("type", lambda c: the(c)["message"].update(reasoning_content=None)),
        ("type", lambda c: the(c)["message"].update(role="user")),
        ("type", lambda c: the(c).update(finish_reason=None)),
        ("type", lambda c: c.update(object="chat.completion.chunk")),
        ("index", lambda c: c["choices"].clear()),
        ("index", lambda c: c["choices"].append(copy.deepcopy(the(c)))),
        ("verdict", lambda c: the(c).update(finish_reason="stop")),
        ("verdict", lambda c: the(c)["message"].update(tool_calls=[])),
        ("verdict", lambda c: the(c)["message"].pop("tool_calls")),
        ("identity", lambda c: the(c)["message"]["tool_calls"].append(copy.deepcopy(CALL))),
        ("type", lambda c: the(c)["message"]["tool_calls"][0].update(type="mcp")),
        ("usage", lambda c: c["usage"].update(total_tokens=1)),
    ],
)
def test_a_spoilt_answer_is_refused(rule: str, spoil: Callable[[Json], object]) -> None:
    spoilt = copy.deepcopy(COMPLETION)
    spoil(spoilt)
    with pytest.raises(Violation) as caught:
        check_response(spoilt)
    assert caught.value.rule == rule, str(caught.value)
