"""Errors in the words of the Responses API where the answer has already begun: `error` and `response.failed`.

They differ from those over HTTP (`translators.openai.errors`) because clients treat them differently. Inside a stream
Codex takes `server_is_overloaded` as final, so there the same condition is `rate_limit_exceeded` with a waiting time in
its message. Faults of the request are `invalid_prompt`, after which no client tries again.
"""

from __future__ import annotations

from typing import assert_never

from dragoman.translators.errors import RETRY, GatewayError, Kind
from dragoman.translators.openai.errors import message
from dragoman.translators.protocol import Json


def stream_error(err: GatewayError) -> Json:
    """`code` and `message` of `response.error` where the answer has already begun."""
    match err.kind:
        case Kind.BUSY | Kind.DRAINING | Kind.ASLEEP | Kind.RATE_LIMITED:
            return {"code": "rate_limit_exceeded", "message": _with_wait(err)}
        case Kind.OVERFLOW:
            return {"code": "context_length_exceeded", "message": message(err)}
        case Kind.INVALID | Kind.UNSUPPORTED | Kind.TOO_LARGE | Kind.NOT_FOUND | Kind.MODEL_NOT_FOUND:
            return {"code": "invalid_prompt", "message": err.message}
        case (
            Kind.UNAUTHENTICATED
            | Kind.FORBIDDEN
            | Kind.METHOD
            | Kind.UPGRADE
            | Kind.INTERNAL
            | Kind.BACKEND_FAILED
            | Kind.BACKEND_DOWN
            | Kind.TIMEOUT
        ):
            return {"code": "server_error", "message": err.in_stream}
        case _:
            assert_never(err.kind)


_TYPES = {"rate_limit_exceeded": "rate_limit_error", "server_error": "server_error"}


def error_event(err: GatewayError) -> Json:
    """The fields of the `error` event that precedes `response.failed` over HTTP. Code and message appear twice: at the
    top, where the SDKs' types have them, and in the object that makes the SDKs raise. `code` is never null (AI SDK)."""
    fields = {**stream_error(err), "param": err.param}
    return {**fields, "error": {"type": _TYPES.get(fields["code"], "invalid_request_error"), **fields}}


def _with_wait(err: GatewayError) -> str:
    """Codex reads the waiting time from the message, in exactly these words, and from nowhere else."""
    if "try again in " in err.message:
        return err.message
    return f"{err.message.rstrip()} {RETRY}: please try again in {err.wait}s."
