"""Events into Messages streams: what goes out in which state, what is never said, and how errors are worded."""

import json
from typing import Any

import orjson
import pytest

from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import (
    Delta,
    Event,
    Finished,
    Message,
    Note,
    PartEnded,
    PartKind,
    PartStarted,
    Reasoning,
    Started,
    StopReason,
    Usage,
)
from dragoman.translators.messages import PROTOCOL
from dragoman.translators.messages.stream import SIGNATURE
from dragoman.translators.protocol import Context, Json, Stream
from tests.golden_files import TRANSCRIPTS, upstream
from tests.grammar.messages import check_error, check_events, check_response, check_stream
from tests.replay import replay

ASKED: Json = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "Hello"}]}
STOP, LENGTH = StopReason.STOP, StopReason.LENGTH


def stream(context: Context | None = None, **fields: Any) -> Stream:
    return PROTOCOL.parse(ASKED | fields, context or Context(id="0" * 24, clock=lambda: 0)).stream


def part(kind: PartKind, *pieces: str, complete: bool = True, id: str = "", name: str = "") -> list[Event]:
    return [PartStarted(kind, id, name), *(Delta(piece) for piece in pieces), PartEnded(complete)]


def call(id: str, *pieces: str, complete: bool = True, name: str = "ls") -> list[Event]:
    return part("call", *pieces, complete=complete, id=id, name=name)


def answer(*parts: list[Event], end: Finished | None = None, **fields: Any) -> tuple[Json, Json]:
    """The message that the stream amounts to for its reader, and the whole answer."""
    asked = stream(**fields)
    events = [Started(), *(event for one in parts for event in one), end or Finished(STOP)]
    sent = b"".join(frame for event in events for frame in asked.feed([event]))
    check_response(asked.body())
    return check_stream(sent), asked.body()


def events_of(body: bytes) -> list[Json]:
    return [json.loads(block.partition("\ndata: ")[2]) for block in body.decode().split("\n\n") if block]


# ---------------------------------------------------------------------------------------------------------- the states


def test_before_the_model_begins_only_pings_go_out() -> None:
    asked = stream()
    assert asked.start() == []
    assert asked.keepalive() == [b'event: ping\ndata: {"type":"ping"}\n\n']
    sent = b"".join(asked.keepalive() + asked.fail(GatewayError(Kind.BUSY, "No room.")))
    assert [event["type"] for event in events_of(sent)] == ["ping", "error"]
    assert check_stream(sent)["error"]["type"] == "overloaded_error"


def test_the_first_event_opens_the_message_at_once() -> None:
    [event] = events_of(*stream().feed([Started()]))
    assert event["type"] == "message_start"
    assert event["message"]["content"] == []
    assert event["message"]["usage"]["input_tokens"] == 0


def test_a_counted_prompt_is_reported_first_and_kept_where_nothing_better_was_measured() -> None:
    turn = PROTOCOL.parse(ASKED, Context(id="0" * 24, clock=lambda: 0))
    assert turn.counted is not None
    turn.counted(123)
    sent = b"".join(turn.stream.feed([Started(), *part("text", "a"), Finished(STOP)]))
    assert events_of(sent)[0]["message"]["usage"]["input_tokens"] == 123
    assert check_stream(sent)["usage"]["input_tokens"] == turn.stream.body()["usage"]["input_tokens"] == 123


def test_what_the_server_measured_wins_over_what_was_counted() -> None:
    turn = PROTOCOL.parse(ASKED, Context(id="0" * 24, clock=lambda: 0))
    assert turn.counted is not None
    sent = b"".join(turn.stream.feed([Started()]))
    turn.counted(123)
    sent += b"".join(turn.stream.feed([*part("text", "a"), Finished(STOP, Usage(input=120, output=1, cached=100))]))
    assert check_stream(sent)["usage"]["input_tokens"] == 20


def test_a_delta_leaves_in_the_call_in_which_it_came() -> None:
    asked = stream()
    asked.feed([Started(), PartStarted("text")])
    [event] = events_of(*asked.feed([Delta('a "b"\n\u2028😀')]))
    assert event == {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": 'a "b"\n\u2028😀'},
    }


def test_a_ping_may_come_between_deltas() -> None:
    asked = stream()
    sent = asked.feed([Started(), PartStarted("text"), Delta("a")]) + asked.keepalive()
    sent += asked.feed([Delta("b"), PartEnded(), Finished(STOP)])
    assert check_stream(b"".join(sent)) == asked.body()


# ----------------------------------------------------------------------------------------------------------- the parts


def test_parts_become_blocks_in_order() -> None:
    streamed, whole = answer(
        part("reasoning", "hm"), part("text", "a", "b"), call("toolu_1", '{"a"', ":1}"), call("toolu_2", "{}")
    )
    assert streamed == whole
    assert [block["type"] for block in whole["content"]] == ["thinking", "text", "tool_use", "tool_use"]
    assert whole["content"][0] == {"type": "thinking", "thinking": "hm", "signature": SIGNATURE}
    assert whole["content"][2]["input"] == {"a": 1}
    assert whole["stop_reason"] == "tool_use"


def test_a_refusal_is_text_that_clients_show() -> None:
    streamed, whole = answer(part("refusal", "I will not."))
    assert streamed == whole
    assert whole["content"] == [{"type": "text", "text": "I will not.", "citations": []}]


@pytest.mark.parametrize("pieces", [["*** Begin"], ["\n", " *** ", 'a "b"\n', "\\"], ["[1,", "2]"], ['"a"']])
def test_arguments_that_are_no_object_become_a_field_of_one(pieces: list[str]) -> None:
    streamed, whole = answer(call("toolu_1", *pieces))
    assert streamed == whole
    assert whole["content"][0]["input"] == {"arguments": "".join(pieces)}


def test_broken_arguments_are_streamed_as_they_are_and_wrapped_in_the_whole() -> None:
    streamed, whole = answer(call("toolu_1", '{"a": ', "b}"))
    assert streamed["content"][0]["input"] is None
    assert whole["content"][0]["input"] == {"arguments": '{"a": b}'}


@pytest.mark.parametrize("levels", [190, 260, 1000, 2000])
def test_arguments_that_are_nested_too_deep_to_be_written_are_wrapped_in_the_whole(levels: int) -> None:
    text = '{"a": %s}' % ("[" * levels + "]" * levels)
    asked = stream()
    asked.feed([Started(), *call("toolu_1", text), Finished(STOP)])
    given = orjson.loads(orjson.dumps(asked.body()))["content"][0]["input"]
    assert given == ({"arguments": text} if levels > 200 else orjson.loads(text))


@pytest.mark.parametrize("digits", [str(2**64 - 1), str(2**64), "-1" + "0" * 30, "1" + "0" * 300])
def test_whole_numbers_keep_their_digits(digits: str) -> None:
    asked = stream()
    frames = asked.feed([Started(), *call("toolu_1", f'{{"wei": {digits}}}'), Finished(STOP)])
    for written in (b"".join(frames), orjson.dumps(asked.body())):
        assert digits.encode() in written


def test_long_names_come_back_as_they_were_declared() -> None:
    name = "mcp__" + "x" * 100
    tools = [{"name": name, "input_schema": {"type": "object"}}]
    turn = PROTOCOL.parse(ASKED | {"tools": tools}, Context(id="0" * 24, clock=lambda: 0))
    upstream = turn.request.tools[0].name
    assert len(upstream) <= 64
    turn.stream.feed([Started(), *call("toolu_1", "{}", name=upstream), Finished(STOP)])
    assert turn.stream.body()["content"][0]["name"] == name


# -------------------------------------------------------------------------------------------------------- the thinking


def sealing() -> Context:
    return Context(id="0" * 24, clock=lambda: 0, seal=lambda text: f"sealed({text})", open=lambda text: text[7:-1])


def test_thinking_is_signed_with_our_seal() -> None:
    asked = stream(sealing())
    sent = b"".join(asked.feed([Started(), *part("reasoning", "h", "m"), Finished(STOP)]))
    check_stream(sent)
    assert asked.body()["content"] == [{"type": "thinking", "thinking": "hm", "signature": "sealed(hm)"}]


@pytest.mark.parametrize(("display", "shown"), [("updates", "hm"), ("Omitted", ""), (None, "hm")])
def test_thinking_is_shown_unless_it_is_to_be_omitted(display: str | None, shown: str) -> None:
    streamed, whole = answer(part("reasoning", "h", "m"), thinking={"type": "adaptive", "display": display})
    assert streamed["content"][0]["thinking"] == whole["content"][0]["thinking"] == shown


def test_omitted_thinking_travels_in_the_signature_alone() -> None:
    asked = stream(sealing(), thinking={"type": "adaptive", "display": "omitted"})
    sent = b"".join(asked.feed([Started(), *part("reasoning", "h", "m"), Finished(STOP)]))
    assert b"thinking_delta" not in sent
    block = check_stream(sent)["content"][0]
    assert block == {"type": "thinking", "thinking": "", "signature": "sealed(hm)"}
    history = [*ASKED["messages"], {"role": "assistant", "content": [block]}, {"role": "user", "content": "More"}]
    asked_again = PROTOCOL.parse(ASKED | {"messages": history}, sealing())
    assert asked_again.request.messages[1] == Message("assistant", (Reasoning("hm"),))


def test_thinking_that_the_budget_cut_is_signed_too() -> None:
    streamed, whole = answer(part("reasoning", "hm", complete=False), end=Finished(LENGTH))
    assert streamed == whole
    assert whole["stop_reason"] == "max_tokens"


# ------------------------------------------------------------------------------------------------------ how it ended


@pytest.mark.parametrize(
    ("end", "fields", "reason", "sequence"),
    [
        (Finished(STOP), {}, "end_turn", None),
        (Finished(LENGTH), {}, "max_tokens", None),
        (Finished(StopReason.CONTENT_FILTER), {}, "refusal", None),
        (Finished(STOP, stop_sequence="END"), {"stop_sequences": ["X", "END"]}, "stop_sequence", "END"),
        (Finished(STOP, stop_sequence="</s>"), {"stop_sequences": ["END"]}, "end_turn", None),
        (Finished(STOP, stop_sequence="END"), {}, "end_turn", None),
    ],
)
def test_the_reason_of_a_text(end: Finished, fields: Json, reason: str, sequence: str | None) -> None:
    streamed, whole = answer(part("text", "a"), end=end, **fields)
    assert streamed == whole
    assert (whole["stop_reason"], whole["stop_sequence"]) == (reason, sequence)
    assert (whole["stop_details"] is not None) == (reason == "refusal")


def test_calls_win_over_a_matched_stop_sequence() -> None:
    _, whole = answer(call("toolu_1", "{}"), end=Finished(STOP, stop_sequence="END"), stop_sequences=["END"])
    assert (whole["stop_reason"], whole["stop_sequence"]) == ("tool_use", None)


def test_a_cut_call_is_never_stopped_and_not_in_the_whole() -> None:
    asked = stream()
    parts = [*part("text", "a"), *call("toolu_1", '{"a": "b', complete=False), *call("toolu_2", "{}")]
    sent = b"".join(asked.feed([Started(), *parts, Finished(LENGTH)]))
    assert [event["index"] for event in events_of(sent) if event["type"] == "content_block_stop"] == [0]
    assert check_stream(sent) == asked.body()
    assert [block["type"] for block in asked.body()["content"]] == ["text"]
    assert asked.body()["stop_reason"] == "max_tokens"
    assert asked.notes == [Note("drop", "after_cut_call")]


def test_a_complete_call_at_the_end_of_the_budget_stays() -> None:
    _, whole = answer(call("toolu_1", "{}"), end=Finished(LENGTH))
    assert len(whole["content"]) == 1
    assert whole["stop_reason"] == "max_tokens"


def test_usage_leaves_out_what_came_from_the_cache() -> None:
    usage = Usage(input=100, output=20, cached=96, reasoning=5)
    streamed, whole = answer(part("text", "a"), end=Finished(STOP, usage))
    assert streamed == whole
    told = whole["usage"]
    assert (told["input_tokens"], told["cache_read_input_tokens"], told["output_tokens"]) == (4, 96, 20)
    assert told["output_tokens_details"] == {"thinking_tokens": 5}


def test_usage_leaves_out_what_went_into_the_cache() -> None:
    streamed, whole = answer(part("text", "a"), end=Finished(STOP, Usage(100, 20, cached=60, written=30)))
    assert streamed == whole
    told = whole["usage"]
    names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    assert [told[name] for name in names] == [10, 60, 30]


def test_an_unknown_prompt_is_null_and_does_not_overwrite_what_was_known_before() -> None:
    asked = stream()
    sent = events_of(b"".join(asked.feed([Started(), *part("text", "a"), Finished(STOP)])))
    assert sent[-2]["usage"]["input_tokens"] is None


def test_the_cache_s_counts_are_numbers_since_clients_add_them_up() -> None:
    asked = stream()
    sent = events_of(b"".join(asked.feed([Started(), *part("text", "a"), Finished(STOP)])))
    _, whole = answer(part("text", "a"), end=Finished(STOP, Usage(input=7, output=1)))
    for usage in (sent[0]["message"]["usage"], sent[-2]["usage"], whole["usage"]):
        assert (usage["cache_creation_input_tokens"], usage["cache_read_input_tokens"]) == (0, 0)
    assert whole["usage"]["input_tokens"] == 7


# ------------------------------------------------------------------------------------------------------------- failures


@pytest.mark.parametrize("said", [[], part("text", "a"), part("reasoning", "a"), call("c1", "{", complete=False)])
def test_a_warm_up_is_answered_with_nothing_but_its_cost(said: list[Event]) -> None:
    """`max_tokens: 0`: the one token that the server made is not for the client."""
    streamed, whole = answer(said, end=Finished(LENGTH, Usage(9, 1)), max_tokens=0)
    assert (streamed["content"], streamed["stop_reason"]) == ([], "max_tokens")
    assert (streamed["usage"]["input_tokens"], streamed["usage"]["output_tokens"]) == (9, 1)
    assert whole["content"] == []


@pytest.mark.parametrize("kind", ["text", "reasoning", "call"])
def test_a_failure_leaves_the_open_block_open(kind: PartKind) -> None:
    asked = stream()
    frames = asked.feed([Started(), PartStarted(kind, "toolu_1", "ls"), Delta('{"a": ')])
    sent = b"".join(frames + asked.fail(GatewayError(Kind.BACKEND_FAILED, "Broken.")))
    assert check_stream(sent)["error"] == {"type": "api_error", "message": "Broken. You can retry your request."}
    assert b"content_block_stop" not in sent
    assert b"message_delta" not in sent
    assert b"signature_delta" not in sent


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_has_words(kind: Kind) -> None:
    reply = PROTOCOL.error(GatewayError(kind, "What happened."), "req_7")
    check_error(reply.status, reply.body)
    assert reply.body["request_id"] == reply.headers["request-id"] == "req_7"
    [sent] = stream().fail(GatewayError(kind, "What happened."))
    check_events(events_of(sent))


@pytest.mark.parametrize(
    ("kind", "status", "type_"),
    [
        (Kind.INVALID, 400, "invalid_request_error"),
        (Kind.UNSUPPORTED, 400, "invalid_request_error"),
        (Kind.UNAUTHENTICATED, 401, "authentication_error"),
        (Kind.FORBIDDEN, 403, "permission_error"),
        (Kind.MODEL_NOT_FOUND, 404, "not_found_error"),
        (Kind.TOO_LARGE, 413, "request_too_large"),
        (Kind.RATE_LIMITED, 429, "rate_limit_error"),
        (Kind.INTERNAL, 500, "api_error"),
        (Kind.BUSY, 529, "overloaded_error"),
        (Kind.DRAINING, 529, "overloaded_error"),
        (Kind.ASLEEP, 503, "overloaded_error"),
        (Kind.TIMEOUT, 504, "timeout_error"),
    ],
)
def test_status_and_type(kind: Kind, status: int, type_: str) -> None:
    reply = PROTOCOL.error(GatewayError(kind, "No."), "req_1")
    assert (reply.status, reply.body["error"]["type"]) == (status, type_)


def test_headers_steer_retries() -> None:
    assert PROTOCOL.error(GatewayError(Kind.BUSY, "No.", retry_after=2.2), "r").headers["retry-after"] == "3"
    assert int(PROTOCOL.error(GatewayError(Kind.ASLEEP, "No."), "r").headers["retry-after"]) >= 1
    assert PROTOCOL.error(GatewayError(Kind.UNAUTHENTICATED, "No."), "r").headers["x-should-retry"] == "false"
    assert "x-should-retry" not in PROTOCOL.error(GatewayError(Kind.BUSY, "No."), "r").headers


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            GatewayError(Kind.OVERFLOW, "Too long.", tokens=210000, limit=200000),
            "prompt is too long: 210000 tokens > 200000 maximum",
        ),
        (
            GatewayError(Kind.OVERFLOW, "Too long.", limit=8192),
            "prompt is too long: over 8192 tokens > 8192 maximum",
        ),
        (
            GatewayError(Kind.OVERFLOW, "Too long."),
            "prompt is too long: more than the model's context window holds",
        ),
        (
            GatewayError(Kind.OVERFLOW, "Too long.", tokens=8000, limit=8192),
            "prompt is too long: 8000 tokens > 6144 maximum",
        ),
        (
            GatewayError(Kind.OVERFLOW, "Too long.", tokens=30000, limit=32768),
            "prompt is too long: 30000 tokens > 28768 maximum",
        ),
        (
            GatewayError(Kind.OVERFLOW, "Too long.", tokens=20000, limit=32768),
            "input length and `max_tokens` exceed context limit: 20000 + 12769 > 32768",
        ),
        (
            GatewayError(Kind.OVERFLOW, "Too long.", code="max_tokens", tokens=30000, limit=32768),
            "input length and `max_tokens` exceed context limit: 30000 + 2769 > 32768",
        ),
        (GatewayError(Kind.MODEL_NOT_FOUND, "There is no such model."), "model: There is no such model."),
        (
            GatewayError(Kind.OVERFLOW, "input length and `max_tokens` exceed context limit: 5 + 6 > 7, and more"),
            "input length and `max_tokens` exceed context limit: 5 + 6 > 7",
        ),
        (GatewayError(Kind.INVALID, "It is wrong.", "messages.0"), "messages.0: It is wrong."),
        (GatewayError(Kind.INVALID, "messages.0: It is wrong.", "messages.0"), "messages.0: It is wrong."),
    ],
)
def test_the_words_that_clients_heal_from(error: GatewayError, words: str) -> None:
    assert PROTOCOL.error(error, "r").body["error"]["message"] == words


def test_in_a_stream_the_sum_has_the_budget_that_was_asked_for() -> None:
    [sent] = stream(max_tokens=500).fail(GatewayError(Kind.OVERFLOW, "No.", code="max_tokens", tokens=8000, limit=8192))
    message = check_stream(sent)["error"]["message"]
    assert message == "input length and `max_tokens` exceed context limit: 8000 + 500 > 8192"


# ---------------------------------------------------------------------------------------------------------- transcripts


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_the_whole_answer_is_what_the_stream_amounts_to(path: Any) -> None:
    for parallel in (True, False):
        got = replay(PROTOCOL, [upstream(path)], parallel=parallel)
        streamed = check_stream(got.stream)
        if got.status != 200:
            assert streamed["type"] == "error"
            assert streamed["error"]["message"]
            continue
        for block, whole in zip(streamed["content"], got.whole["content"], strict=True):
            if block.get("input", {}) is None:  # arguments that are no JSON
                assert set(whole["input"]) == {"arguments"}
                block["input"] = whole["input"]
        assert streamed == got.whole


def test_the_error_event_names_the_request_as_the_header_does() -> None:
    [sent] = stream(Context(id="0" * 24, clock=lambda: 0, headers={"x-request-id": "req_7"})).fail(
        GatewayError(Kind.BUSY, "No room.")
    )
    assert check_stream(sent)["request_id"] == "req_7"
