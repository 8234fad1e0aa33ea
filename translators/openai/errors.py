"""Errors before the head goes out, in the words that OpenAI uses in both of its protocols: a status with a body.

Over HTTP a permanent fault is always 400, since Codex retries 413 and 422, and a full server is 503
`server_is_overloaded`. An error that is worth a retry says when; one that the SDKs would retry in vain says not to.
How a stream fails is up to each protocol. An overflow has OpenAI's sentences, the older and the newer one: clients
recognise it by one of them more often than by its code, and shorten the conversation (LiteLLM by the older; Copilot CLI
and pi by the newer; Qwen Code reads the sizes).
"""

from __future__ import annotations

from typing import assert_never

from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.protocol import ErrorReply

OVERLOADED = "server_is_overloaded"
_OVERFLOW = "This model's maximum context length"
_EXCEEDS = "Your input exceeds the context window of this model."


def error(err: GatewayError, request_id: str) -> ErrorReply:
    """Status, `{"error": {message, type, param, code}}` and the headers that control the clients' retries. The gateway
    sends `request_id` as a header with every answer; the body has no place for it."""
    status, kind, code = _words(err)
    param = err.param if err.param is not None or err.kind is not Kind.MODEL_NOT_FOUND else "model"
    body = {"error": {"message": message(err), "type": kind, "param": param, "code": code}}
    headers: dict[str, str] = {}
    if err.wait is not None:
        headers["retry-after"] = str(err.wait)
    if err.kind.final:
        headers["x-should-retry"] = "false"
    return ErrorReply(status, body, headers)


def message(err: GatewayError) -> str:
    if err.kind is not Kind.OVERFLOW:
        return err.message
    if err.message.startswith(_OVERFLOW):
        return f"{err.message} {_EXCEEDS}"
    if err.limit is None:
        return f"{_OVERFLOW} is exceeded: {err.message} {_EXCEEDS}"
    sizes = "are longer" if err.tokens is None else f"resulted in {err.tokens} tokens without the answer"
    return (
        f"{_OVERFLOW} is {err.limit} tokens. However, your messages {sizes}. {_EXCEEDS} "
        "Please reduce the length of the messages."
    )


def _words(err: GatewayError) -> tuple[int, str, str | None]:
    """Status, type and code. Where a kind leaves the code open, it is the one that the error carries."""
    match err.kind:
        case Kind.INVALID:
            return 400, "invalid_request_error", err.code
        case Kind.UNSUPPORTED:
            return 400, "invalid_request_error", err.code or "unsupported_value"
        case Kind.OVERFLOW:
            return 400, "invalid_request_error", "context_length_exceeded"
        case Kind.TOO_LARGE:
            return 400, "invalid_request_error", err.code or "request_too_large"
        case Kind.UNAUTHENTICATED:
            return 401, "invalid_request_error", "invalid_api_key"
        case Kind.FORBIDDEN:
            return 403, "permission_error", err.code
        case Kind.NOT_FOUND:
            return 404, "invalid_request_error", err.code or "not_found"
        case Kind.MODEL_NOT_FOUND:
            return 404, "invalid_request_error", "model_not_found"
        case Kind.METHOD:
            return 405, "invalid_request_error", err.code or "method_not_allowed"
        case Kind.UPGRADE:
            return 426, "invalid_request_error", err.code or "websocket_not_supported"
        case Kind.RATE_LIMITED:
            return 429, "rate_limit_error", "rate_limit_exceeded"
        case Kind.INTERNAL:
            return 500, "server_error", err.code or "server_error"
        case Kind.BACKEND_FAILED:
            return 502, "server_error", err.code or "server_error"
        case Kind.BUSY | Kind.DRAINING:
            return 503, "server_error", OVERLOADED
        case Kind.ASLEEP | Kind.BACKEND_DOWN:
            return 503, "server_error", err.code or "service_unavailable"
        case Kind.TIMEOUT:
            return 504, "server_error", err.code or "timeout"
        case _:
            assert_never(err.kind)
