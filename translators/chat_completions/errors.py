"""Errors of chat completions: OpenAI's words for everything.

A stream that has begun ends in a chunk with the same body, which takes the place of the finish reason and of `[DONE]`:
SDKs raise it, and no client can take the answer for a complete one.
"""

from __future__ import annotations

from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.openai import errors as openai_errors
from dragoman.translators.protocol import ErrorReply, Json


def error(err: GatewayError, request_id: str) -> ErrorReply:
    reply = openai_errors.error(err, request_id)
    if err.kind is Kind.OVERFLOW:
        reply.body["error"]["param"] = err.param or "messages"
    return reply


def stream_error(err: GatewayError) -> Json:
    body = error(err, "").body
    if err.kind is not Kind.OVERFLOW:
        body["error"]["message"] = err.in_stream
    return body
