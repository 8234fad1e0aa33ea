"""Anthropic Messages as a client protocol: `POST /v1/messages`, API versions 2023-06-01 and 2026-10-21 alike.

`parse` reads a request (with `schema`, `content`, `tools`), `stream` writes the answer, `errors` words the failures.
The body of `/v1/messages/count_tokens` is that of a message without what concerns the answer. Other protocols import
nothing from here.
"""

from __future__ import annotations

from dragoman.translators.messages.errors import error
from dragoman.translators.messages.models import MODELS, claims, refusal
from dragoman.translators.messages.parse import count_body, parse, parse_count
from dragoman.translators.messages.schema import CreateMessage
from dragoman.translators.protocol import Count, Protocol
from dragoman.translators.rate_headers import anthropic

__all__ = ["PROTOCOL", "parse_count"]

PROTOCOL = Protocol(
    name="messages",
    path="messages",
    parse=parse,
    error=error,
    models=MODELS,
    refusal=refusal,
    claims=claims,
    count=Count("messages/count_tokens", parse_count, count_body),
    schema=CreateMessage.model_json_schema,
    rates=anthropic,
)
