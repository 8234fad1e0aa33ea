"""Errors of chat completions: OpenAI's words for everything, with its own sentence where the context window is full.

Clients of this protocol recognise an overflow by that sentence more often than by its code, and shorten the
conversation. A stream that has begun ends in a chunk with the same body, which takes the place of the finish reason and
of `[DONE]`: SDKs raise it, and no client can take the answer for a complete one.
"""

from __future__ import annotations

from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.openai import errors as openai_errors
from dragoman.translators.protocol import ErrorReply, Json

_SENTENCE = "This model's maximum context length"


def error(err: GatewayError, request_id: str) -> ErrorReply:
    reply = openai_errors.error(err, request_id)
    if err.kind is Kind.OVERFLOW:
        reply.body["error"] |= {"message": _overflow(err), "param": err.param or "messages"}
    return reply


def stream_error(err: GatewayError) -> Json:
    return error(err, "").body


def _overflow(err: GatewayError) -> str:
    if err.message.startswith(_SENTENCE):
        return err.message
    if err.limit is None:
        return f"{_SENTENCE} is exceeded: {err.message}"
    size = "has more" if err.tokens is None else f"has {err.tokens} tokens without its answer"
    return f"{_SENTENCE} is {err.limit} tokens. However, your request {size}. Please reduce the length of the messages."
