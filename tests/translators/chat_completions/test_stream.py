"""Events into chunks of chat completions: what goes out in which state, what is never said, and how errors are
worded."""

import json
import re
from typing import Any

import pytest

from dragoman.translators.chat_completions import PROTOCOL
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Delta, Event, Finished, PartEnded, PartKind, PartStarted, Started, StopReason, Usage
from dragoman.translators.protocol import Context, Json, Stream
from tests.golden_files import TRANSCRIPTS, upstream
from tests.grammar.chat_completions import check_error, check_response, check_stream
from tests.replay import CONTEXT, replay

TOOLS: list[Json] = [
    {"type": "function", "function": {"name": "ls"}},
    {"type": "function", "function": {"name": "fs.read"}},
    {"type": "custom", "custom": {"name": "patch"}},
]
ASKED: Json = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "stream": True, "tools": TOOLS}
STOP, LENGTH = StopReason.STOP, StopReason.LENGTH
TOLD = {"stream_options": {"include_usage": True}}
LOGPROB: Json = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}


def stream(**fields: Any) -> Stream:
    return PROTOCOL.parse(ASKED | fields, Context(id="0" * 24, clock=lambda: 7)).stream


def part(kind: PartKind, *pieces: str, complete: bool = True, id: str = "", name: str = "") -> list[Event]:
    return [PartStarted(kind, id, name), *(Delta(piece) for piece in pieces), PartEnded(complete)]


def call(id: str, *pieces: str, complete: bool = True, name: str = "ls") -> list[Event]:
    return part("call", *pieces, complete=complete, id=id, name=name)


def sent(*parts: list[Event], end: Finished | None = None, asked: Stream | None = None) -> bytes:
    asked = asked or stream()
    events = [Started(), *(event for one in parts for event in one), end or Finished(STOP)]
    return b"".join(frame for event in events for frame in asked.feed([event]))


def answer(*parts: list[Event], end: Finished | None = None, **fields: Any) -> Json:
    """The whole answer, which must be what the stream amounts to for its reader."""
    asked = stream(**({"stream_options": {"include_usage": True}} | fields))
    told = check_stream(sent(*parts, end=end, asked=asked))
    check_response(asked.body())
    assert told == asked.body()
    return asked.body()


def choice(*parts: list[Event], end: Finished | None = None, **fields: Any) -> Json:
    (only,) = answer(*parts, end=end, **fields)["choices"]
    assert isinstance(only, dict)
    return only


def message(*parts: list[Event], **fields: Any) -> Json:
    found = choice(*parts, **fields)["message"]
    assert isinstance(found, dict)
    return found


def chunks(body: bytes) -> list[Json]:
    blocks = [block.removeprefix("data: ") for block in body.decode().split("\n\n") if block]
    return [json.loads(block) for block in blocks if block != "[DONE]"]


def deltas(body: bytes) -> list[Json]:
    return [chunk["choices"][0]["delta"] for chunk in chunks(body) if chunk["choices"]]


# ---------------------------------------------------------------------------------------------------------- the states


def test_before_the_model_begins_only_comments_go_out() -> None:
    asked = stream()
    assert asked.start() == []
    assert asked.keepalive() == [b": keepalive\n\n"]
    assert asked.feed([Started()]) == []


def test_comments_may_stand_between_chunks() -> None:
    asked = stream()
    body = asked.keepalive() + asked.feed([Started(), PartStarted("text"), Delta("a")]) + asked.keepalive()
    body += asked.feed([PartEnded(), Finished(STOP)])
    assert check_stream(b"".join(body)) == asked.body()


def test_a_text_chunk_by_chunk() -> None:
    body = sent(part("text", "He", "llo"))
    assert deltas(body) == [{"role": "assistant", "content": ""}, {"content": "He"}, {"content": "llo"}, {}]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks(body)] == [None, None, None, "stop"]
    assert body.endswith(b"data: [DONE]\n\n")
    assert {(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks(body)} == {
        ("chatcmpl-" + "0" * 24, 7, "m")
    }


def test_a_call_is_announced_before_its_arguments() -> None:
    header, first, second = deltas(sent(call("c1", '{"a":', "1}")))[1:4]
    assert header == {
        "tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": {"name": "ls", "arguments": ""}}]
    }
    assert first == {"tool_calls": [{"index": 0, "function": {"arguments": '{"a":'}}]}
    assert second == {"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]}


def test_every_read_is_answered_in_the_same_call() -> None:
    asked = stream()
    asked.feed([Started(), PartStarted("text")])
    assert deltas(b"".join(asked.feed([Delta("a"), Delta("b")]))) == [{"content": "a"}, {"content": "b"}]


def test_text_that_json_escapes_survives() -> None:
    odd = '"\\\n\u2028\x00é🙂'
    assert message(part("text", odd))["content"] == odd


# ----------------------------------------------------------------------------------------------------------- the parts


def test_every_kind_of_part_has_its_place() -> None:
    found = choice(part("reasoning", "hm"), part("text", "a"), call("c1", "{}"), call("c2", "{}", name="fs_read"))
    assert found["message"] == {
        "role": "assistant",
        "content": "a",
        "refusal": None,
        "annotations": [],
        "reasoning_content": "hm",
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "ls", "arguments": "{}"}},
            {"id": "c2", "type": "function", "function": {"name": "fs.read", "arguments": "{}"}},
        ],
    }
    assert found["finish_reason"] == "tool_calls"


def test_parts_of_one_kind_are_one_text() -> None:
    parts = [part("reasoning", "a"), part("text", "1"), part("reasoning", "b"), call("c", "{}"), part("text", "2")]
    found = message(*parts)
    assert (found["reasoning_content"], found["content"]) == ("ab", "12")


def test_only_calls_have_no_content() -> None:
    assert message(call("c", "{}"))["content"] is None


def test_an_empty_answer_has_an_empty_content() -> None:
    assert message(part("text"))["content"] == ""


def test_a_refusal() -> None:
    found = choice(part("refusal", "I ", "cannot."))
    assert (found["message"]["refusal"], found["message"]["content"]) == ("I cannot.", None)
    assert found["finish_reason"] == "stop"


def test_a_tool_that_the_model_invented_is_a_function() -> None:
    (made,) = message(call("c", "{}", name="nowhere"))["tool_calls"]
    assert made == {"id": "c", "type": "function", "function": {"name": "nowhere", "arguments": "{}"}}


def test_broken_arguments_reach_the_client_as_they_are() -> None:
    (made,) = message(call("c", '{"a": '))["tool_calls"]
    assert made["function"]["arguments"] == '{"a": '


# ------------------------------------------------------------------------------------------------------ free-form tools


def test_the_input_of_a_free_form_tool_comes_as_it_is_written() -> None:
    body = sent(call("c", '{"inp', 'ut":"*** Be', "gin\\n", '"}', name="patch"))
    assert deltas(body)[1:-1] == [
        {"tool_calls": [{"index": 0, "id": "c", "type": "custom", "custom": {"name": "patch", "input": ""}}]},
        {"tool_calls": [{"index": 0, "custom": {"input": "*** Be"}}]},
        {"tool_calls": [{"index": 0, "custom": {"input": "gin\n"}}]},
    ]
    (made,) = message(call("c", '{"input":"*** Begin\\n"}', name="patch"))["tool_calls"]
    assert made == {"id": "c", "type": "custom", "custom": {"name": "patch", "input": "*** Begin\n"}}


def test_a_free_form_tool_in_the_shape_of_responses_is_called_as_a_function() -> None:
    tools = [{"type": "custom", "name": "patch"}]
    body = sent(call("c", '{"inp', 'ut":"*** Be', "gin\\n", '"}', name="patch"), asked=stream(tools=tools))
    assert deltas(body)[1:-1] == [
        {"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "patch", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "*** Be"}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "gin\n"}}]},
    ]
    made = choice(call("c", '{"input":"*** Begin\\n"}', name="patch"), tools=tools)["message"]["tool_calls"]
    assert made == [{"id": "c", "type": "function", "function": {"name": "patch", "arguments": "*** Begin\n"}}]


def test_input_of_another_shape_comes_at_the_end() -> None:
    (made,) = message(call("c", '"a', ' b"', name="patch"))["tool_calls"]
    assert made["custom"]["input"] == "a b"


def test_a_cut_input_holds_what_came() -> None:
    found = choice(call("c", '{"input":"half', complete=False, name="patch"), end=Finished(LENGTH))
    assert found["finish_reason"] == "length"
    assert found["message"]["tool_calls"][0]["custom"]["input"] == "half"


# ------------------------------------------------------------------------------------------------------------- the end


@pytest.mark.parametrize(
    ("reason", "parts", "told"),
    [
        (StopReason.STOP, [part("text", "a")], "stop"),
        (StopReason.STOP, [call("c", "{}")], "tool_calls"),
        (StopReason.LENGTH, [part("text", "a", complete=False)], "length"),
        (StopReason.LENGTH, [call("c", '{"a', complete=False)], "length"),
        (StopReason.CONTENT_FILTER, [part("text", "a")], "content_filter"),
    ],
)
def test_why_it_ended(reason: StopReason, parts: list[list[Event]], told: str) -> None:
    assert choice(*parts, end=Finished(reason))["finish_reason"] == told


def test_a_cut_call_keeps_its_arguments() -> None:
    found = choice(call("c1", "{}"), call("c2", '{"text": "Onc', complete=False), end=Finished(LENGTH))
    assert [made["function"]["arguments"] for made in found["message"]["tool_calls"]] == ["{}", '{"text": "Onc']


def test_usage_has_a_chunk_of_its_own() -> None:
    told = chunks(sent(part("text", "a"), end=Finished(STOP, Usage(10, 5, 4, 2)), asked=stream(**TOLD)))
    assert [chunk["usage"] for chunk in told[:-1]] == [None] * (len(told) - 1)
    assert told[-1]["choices"] == []
    assert told[-1]["usage"] == {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 15,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }


def test_usage_that_nobody_asked_for_is_in_whole_answers_only() -> None:
    asked = stream()
    body = sent(part("text", "a"), end=Finished(STOP, Usage(10, 5)), asked=asked)
    assert all("usage" not in chunk for chunk in chunks(body))
    assert asked.body()["usage"] == {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def test_unknown_usage_is_never_invented() -> None:
    asked = stream(**TOLD)
    body = sent(part("text", "a"), asked=asked)
    assert all(chunk["usage"] is None and chunk["choices"] for chunk in chunks(body))
    assert asked.body()["usage"] is None


def test_no_cached_tokens_are_a_measurement_too() -> None:
    usage = answer(part("text", "a"), end=Finished(STOP, Usage(10, 5, cached=0)))["usage"]
    assert usage["prompt_tokens_details"] == {"cached_tokens": 0}
    written = answer(part("text", "a"), end=Finished(STOP, Usage(10, 5, written=4)))["usage"]
    assert written["prompt_tokens_details"] == {"cache_write_tokens": 4}
    assert "completion_tokens_details" not in usage


# ------------------------------------------------------------------------------------------------------------- options


def with_logprobs(*kinds: PartKind) -> list[Event]:
    return [event for kind in kinds for event in (PartStarted(kind), Delta("a", [LOGPROB]), Delta("b"), PartEnded())]


def test_log_probabilities_stand_beside_their_text() -> None:
    assert choice(with_logprobs("text"), logprobs=True)["logprobs"] == {"content": [LOGPROB], "refusal": None}
    body = sent(with_logprobs("text"), asked=stream(logprobs=True))
    assert [chunk["choices"][0]["logprobs"] for chunk in chunks(body)] == [
        None,
        {"content": [LOGPROB], "refusal": None},
        None,
        None,
    ]


def test_log_probabilities_come_only_when_asked_for_and_known() -> None:
    assert choice(with_logprobs("text"))["logprobs"] is None
    assert choice(part("text", "a"), logprobs=True)["logprobs"] is None


@pytest.mark.parametrize("fields", [{}, {"logprobs": True}])
def test_obfuscation_hides_the_length_of_a_delta(fields: Json) -> None:
    asked = stream(stream_options={"include_obfuscation": True, "include_usage": True}, **fields)
    body = sent(with_logprobs("text"), part("text", "x" * 31), call("c", "{}"), asked=asked)
    assert check_stream(body) == asked.body()
    for chunk in chunks(body):
        texts = [chunk["choices"][0]["delta"].get("content")] if chunk["choices"] else []
        for text in filter(None, texts):
            assert (len(text) + len(chunk["obfuscation"])) % 32 == 0


# ------------------------------------------------------------------------------------------------------------ failures


@pytest.mark.parametrize("events", [[], [Started(), PartStarted("text"), Delta("a")], [Started(), *call("c", "{}")]])
def test_a_failure_ends_the_stream_without_done(events: list[Event]) -> None:
    asked = stream()
    error = GatewayError(Kind.BACKEND_FAILED, "It broke.", source="backend")
    body = b"".join(asked.feed(events) + asked.fail(error))
    assert check_stream(body) is None
    assert chunks(body)[-1] == {
        "error": {
            "message": "It broke. You can retry your request.",
            "type": "server_error",
            "param": None,
            "code": "server_error",
        }
    }
    assert b"[DONE]" not in body
    assert b'"finish_reason":"' not in body


@pytest.mark.parametrize(
    ("error", "sizes"),
    [
        (GatewayError(Kind.OVERFLOW, "Too long.", tokens=90, limit=80), ["80", "90"]),
        (GatewayError(Kind.OVERFLOW, "Too long.", limit=80), ["80"]),
        (GatewayError(Kind.OVERFLOW, "Too long by 7."), ["7"]),
        (GatewayError(Kind.OVERFLOW, "This model's maximum context length is 80 tokens; shorten."), ["80"]),
    ],
)
def test_an_overflow_is_said_in_the_sentence_that_clients_look_for(error: GatewayError, sizes: list[str]) -> None:
    reply = PROTOCOL.error(error, "req_1")
    told = chunks(*stream().fail(error))[-1]
    assert told == reply.body
    assert (told["error"]["type"], told["error"]["code"]) == ("invalid_request_error", "context_length_exceeded")
    assert told["error"]["param"] == "messages"
    assert told["error"]["message"].startswith("This model's maximum context length is ")
    assert "Your input exceeds the context window of this model." in told["error"]["message"]
    assert re.findall(r"\d+", told["error"]["message"]) == sizes


@pytest.mark.parametrize("kind", Kind)
def test_every_error_has_words(kind: Kind) -> None:
    reply = PROTOCOL.error(GatewayError(kind, "No."), "req_1")
    check_error(reply.status, reply.body)
    assert check_stream(*stream().fail(GatewayError(kind, "No."))) is None


# --------------------------------------------------------------------------------------------------------- transcripts


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_the_whole_answer_is_what_the_stream_amounts_to(path: Any) -> None:
    for parallel in (True, False):
        turn = PROTOCOL.parse(ASKED | TOLD | {"logprobs": True}, CONTEXT)
        told = replay(PROTOCOL, [upstream(path)], parallel=parallel, turn=turn)
        completion = check_stream(told.stream)
        assert completion == (told.whole if told.status == 200 else None)
        if completion is not None and not parallel:
            assert len(completion["choices"][0]["message"].get("tool_calls", [])) <= 1
