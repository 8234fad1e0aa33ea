"""Errors in the words of the Messages API: a status with a body before the head goes out, an `error` event after it.

The words decide what clients do. Claude Code compacts a conversation when it reads "prompt is too long", and asks
again for fewer tokens when it reads "input length and `max_tokens` exceed context limit: I + M > L". It retries 401 for
over a minute unless `x-should-retry` is false; a full server is 529. Where it reads `capability_rejected: CLASS` it
removes that kind of content from the conversation, informs the model and asks again (2.1.332); the token ends at the
first character that is not a letter, digit, `_`, `:`, `.` or `-`. Inside a stream only the type matters:
`overloaded_error` before the first event is retried as a stream. Anthropic's SDKs keep their conversations in a thread
and send the whole one instead where `details` say that there is none (anthropic 2.14, `tool_runner`).
"""

from __future__ import annotations

import re
from typing import assert_never

from dragoman.translators.errors import Content, GatewayError, Kind
from dragoman.translators.protocol import ErrorReply, Json

NO_THREADS = "thread_unsupported_request"  # as the code of an error
_ROOM = 4000  # with less room for an answer Claude Code gives up instead of asking for fewer tokens (2.1.197)
_CLASSES: dict[Content, str] = {"document": "document_block", "image": "image_block", "media": "media_budget"}
_SUM = re.compile(r"input length and `max_tokens` exceed context limit: \d+ \+ \d+ > \d+")


def error(err: GatewayError, request_id: str) -> ErrorReply:
    """Status, `{"type": "error", "error": {type, message}, "request_id"}` and the headers that control retries."""
    status, kind = _words(err.kind)
    headers: dict[str, str] = {"request-id": request_id}
    if err.wait is not None:
        headers["retry-after"] = str(err.wait)
    if err.kind.final or err.kind is Kind.UNAUTHENTICATED:
        headers["x-should-retry"] = "false"
    body = _body(kind, message(err), request_id)
    if err.code == NO_THREADS:
        body["error"]["details"] = {"error_code": NO_THREADS, "unsupported": ["thread"]}
    return ErrorReply(status, body, headers)


def stream_error(err: GatewayError, request_id: str, asked: int | None = None) -> Json:
    """The payload of the `error` event; `asked` is the request's `max_tokens`."""
    _, kind = _words(err.kind)
    if err.kind is Kind.BACKEND_DOWN:
        kind = "overloaded_error"  # there is no status here to show that another try is worth it
    return _body(kind, message(err, asked) if err.kind.status < 500 else err.in_stream, request_id)


def message(err: GatewayError, asked: int | None = None) -> str:
    """What went wrong, with the field before it, as this API words it."""
    if err.kind is Kind.OVERFLOW:
        return _overflow(err, asked)
    text = err.message
    if err.content is not None:
        text = f"capability_rejected: {_CLASSES[err.content]} ({text.rstrip('.')})"
    param = err.param or ("model" if err.kind is Kind.MODEL_NOT_FOUND else None)
    if param and f"{param}: " not in err.message:
        return f"{param}: {text}"
    return text


def _body(kind: str, text: str, request_id: str) -> Json:
    return {"type": "error", "error": {"type": kind, "message": text}, "request_id": request_id}


def _words(kind: Kind) -> tuple[int, str]:
    match kind:
        case Kind.INVALID | Kind.UNSUPPORTED | Kind.OVERFLOW:
            return 400, "invalid_request_error"
        case Kind.UNAUTHENTICATED:
            return 401, "authentication_error"
        case Kind.FORBIDDEN:
            return 403, "permission_error"
        case Kind.NOT_FOUND | Kind.MODEL_NOT_FOUND:
            return 404, "not_found_error"
        case Kind.METHOD | Kind.UPGRADE:
            return kind.status, "invalid_request_error"
        case Kind.TOO_LARGE:
            return 413, "request_too_large"
        case Kind.RATE_LIMITED:
            return 429, "rate_limit_error"
        case Kind.INTERNAL | Kind.BACKEND_FAILED | Kind.BACKEND_DOWN:
            return kind.status, "api_error"
        case Kind.ASLEEP:
            return 503, "overloaded_error"
        case Kind.BUSY | Kind.DRAINING:
            return 529, "overloaded_error"
        case Kind.TIMEOUT:
            return 504, "timeout_error"
        case _:
            assert_never(kind)


def _overflow(err: GatewayError, asked: int | None) -> str:
    """The sentence from which Claude Code recovers: it asks for fewer tokens where that leaves room for a useful
    answer, and compacts the conversation otherwise."""
    tokens, limit = err.tokens, err.limit
    if (found := _SUM.search(err.message)) is not None:
        return found[0]
    if limit is None:
        size = "" if tokens is None else f"{tokens} tokens, "
        return f"prompt is too long: {size}more than the model's context window holds"
    if tokens is None:
        return f"prompt is too long: over {limit} tokens > {limit} maximum"
    room = limit - tokens
    useful = min(_ROOM, limit // 4)
    if 0 < room < useful and err.code != "max_tokens":
        return f"prompt is too long: {tokens} tokens > {limit - useful} maximum"
    if room > 0:
        # Claude Code computes with the first and the last number. What was asked for is at least what does not fit.
        return f"input length and `max_tokens` exceed context limit: {tokens} + {max(asked or 0, room + 1)} > {limit}"
    return f"prompt is too long: {tokens} tokens > {limit} maximum"
