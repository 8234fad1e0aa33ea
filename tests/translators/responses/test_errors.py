"""Errors in the words of the Responses API, over HTTP and in a stream."""

from __future__ import annotations

import orjson
import pytest

from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Delta, PartStarted, Started
from dragoman.translators.responses import PROTOCOL
from dragoman.translators.responses.errors import stream_error
from dragoman.translators.responses.output import MessageItem
from tests.grammar import framing
from tests.grammar.responses import check_stream
from tests.replay import CONTEXT

EXCEEDS = "Your input exceeds the context window of this model."


@pytest.mark.parametrize(
    ("kind", "status", "type_", "code"),
    [
        (Kind.INVALID, 400, "invalid_request_error", None),
        (Kind.UNSUPPORTED, 400, "invalid_request_error", "unsupported_value"),
        (Kind.OVERFLOW, 400, "invalid_request_error", "context_length_exceeded"),
        (Kind.TOO_LARGE, 400, "invalid_request_error", "request_too_large"),
        (Kind.UNAUTHENTICATED, 401, "invalid_request_error", "invalid_api_key"),
        (Kind.FORBIDDEN, 403, "permission_error", None),
        (Kind.NOT_FOUND, 404, "invalid_request_error", "not_found"),
        (Kind.MODEL_NOT_FOUND, 404, "invalid_request_error", "model_not_found"),
        (Kind.METHOD, 405, "invalid_request_error", "method_not_allowed"),
        (Kind.UPGRADE, 426, "invalid_request_error", "websocket_not_supported"),
        (Kind.RATE_LIMITED, 429, "rate_limit_error", "rate_limit_exceeded"),
        (Kind.INTERNAL, 500, "server_error", "server_error"),
        (Kind.BACKEND_FAILED, 502, "server_error", "server_error"),
        (Kind.BACKEND_DOWN, 503, "server_error", "service_unavailable"),
        (Kind.ASLEEP, 503, "server_error", "service_unavailable"),
        (Kind.BUSY, 503, "server_error", "server_is_overloaded"),
        (Kind.DRAINING, 503, "server_error", "server_is_overloaded"),
        (Kind.TIMEOUT, 504, "server_error", "timeout"),
    ],
)
def test_every_kind_has_its_words(kind: Kind, status: int, type_: str, code: str | None) -> None:
    reply = PROTOCOL.error(GatewayError(kind, "Why."), "req_1")
    param = "model" if kind is Kind.MODEL_NOT_FOUND else None
    overflow = (
        "This model's maximum context length is exceeded: Why. Your input exceeds the context window of this model."
    )
    words = overflow if kind is Kind.OVERFLOW else "Why."
    assert reply.status == status
    assert reply.body == {"error": {"message": words, "type": type_, "param": param, "code": code}}
    assert ("retry-after" in reply.headers) == (status == 429 or status == 503)
    assert (reply.headers.get("x-should-retry") == "false") == (status in (500, 504))


def test_an_overflow_has_the_sentence_that_libraries_look_for() -> None:
    """LiteLLM makes a ContextWindowExceededError of these words and of nothing else."""
    error = GatewayError(Kind.OVERFLOW, "Too long.", tokens=90, limit=80)
    said = PROTOCOL.error(error, "r").body["error"]["message"]
    assert said.startswith("This model's maximum context length is 80 tokens.")
    assert "your messages resulted in 90 tokens" in said
    assert stream_error(error)["message"] == said


def test_every_kind_is_in_that_table() -> None:
    for kind in Kind:
        assert PROTOCOL.error(GatewayError(kind, "x"), "r").body["error"]["type"]
        assert stream_error(GatewayError(kind, "x"))["code"]


def test_retry_after_is_whole_seconds_of_what_is_known() -> None:
    reply = PROTOCOL.error(GatewayError(Kind.BUSY, "Full.", retry_after=1.2), "r")
    assert reply.headers["retry-after"] == "2"


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (Kind.BUSY, "rate_limit_exceeded"),
        (Kind.DRAINING, "rate_limit_exceeded"),
        (Kind.ASLEEP, "rate_limit_exceeded"),
        (Kind.OVERFLOW, "context_length_exceeded"),
        (Kind.INVALID, "invalid_prompt"),
        (Kind.UNSUPPORTED, "invalid_prompt"),
        (Kind.BACKEND_FAILED, "server_error"),
        (Kind.BACKEND_DOWN, "server_error"),
        (Kind.TIMEOUT, "server_error"),
        (Kind.INTERNAL, "server_error"),
    ],
)
def test_codes_in_a_stream_differ(kind: Kind, code: str) -> None:
    said = stream_error(GatewayError(kind, "Why.", retry_after=7))
    assert said["code"] == code
    assert "Why." in said["message"]
    assert ("try again in 7s" in said["message"]) == (code == "rate_limit_exceeded")
    assert ("exceeds the context window of this model" in said["message"]) == (kind is Kind.OVERFLOW)


@pytest.mark.parametrize("kind", Kind)
def test_a_stream_says_where_another_try_is_worth_it(kind: Kind) -> None:
    again = {Kind.BACKEND_FAILED, Kind.BACKEND_DOWN, Kind.BUSY, Kind.DRAINING, Kind.ASLEEP, Kind.RATE_LIMITED}
    assert ("You can retry your request" in stream_error(GatewayError(kind, "Why."))["message"]) == (kind in again)


def test_a_waiting_time_is_said_once() -> None:
    assert stream_error(GatewayError(Kind.BUSY, "Full, try again in 3s."))["message"] == "Full, try again in 3s."


@pytest.mark.parametrize("kind", Kind)
def test_a_failing_stream_sends_an_error_event_and_then_response_failed(kind: Kind) -> None:
    turn = PROTOCOL.parse({"model": "m", "input": "x", "stream": True}, CONTEXT)
    frames = turn.stream.feed([Started(), PartStarted("text"), Delta("half")])
    sent = b"".join(frames + turn.stream.fail(GatewayError(kind, "Why.", "input[0].content", retry_after=3)))
    assert check_stream(sent)["output"][0]["status"] == "incomplete"
    error = next(orjson.loads(frame.data) for frame in framing.split(sent) if frame.event == "error")
    assert error["error"]["type"] in ("server_error", "rate_limit_error", "invalid_request_error")
    assert error["param"] == "input[0].content"


def test_an_item_that_cannot_be_closed_does_not_keep_the_failure_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(item: MessageItem, complete: bool) -> str:
        raise RuntimeError("a bug")

    turn = PROTOCOL.parse({"model": "m", "input": "x", "stream": True}, CONTEXT)
    turn.stream.feed([Started(), PartStarted("text"), Delta("half")])
    monkeypatch.setattr(MessageItem, "finish", broken)
    sent = b"".join(turn.stream.fail(GatewayError(Kind.INTERNAL, "Why.")))
    assert [frame.event for frame in framing.split(sent)] == ["error", "response.failed", None]
