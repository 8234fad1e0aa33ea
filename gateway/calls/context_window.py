"""Fits a request into the model's context window before the server sees it.

Counting must cost no time to first token. A cheap bound on the prompt's size is enough for most requests: while it is
below 70 % of the window nothing is counted, and the answer's limit is cut to what the bound leaves. Only a prompt that
may be too long is counted, by the server's own tokenizer, before it is sent: an overflow is then reported in the
protocol's own words, with both numbers. If nothing can count, the server decides, and its error is translated
(`backends.chat.errors`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import orjson

from dragoman.backends.base import Backend, Prepared
from dragoman.gateway.telemetry.logs import log
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Image, Message, Note, Part, Request, ToolCall, ToolResult

FITS = 0.9  # of the window: what a conversation is cut to
SAFE = 0.7  # of the window: below it the bound is enough
BYTES_PER_TOKEN = 2  # prose and code have three to four; hexadecimal and rare scripts come near two
IMAGE_TOKENS = 2048  # a large image of the usual vision models
MESSAGE_TOKENS = 8  # what a template puts around a message
MIN_ROOM = 256  # tokens that must be left for an answer


async def fit(backend: Backend, prepared: Prepared, window: int | None) -> tuple[Note, ...]:
    """Limits the answer to what fits, and returns notes of what was changed; raises OVERFLOW if none fits. The prompt
    is counted if its size is not known and may be too large."""
    if window is None:
        return ()
    if prepared.tokens is None:
        bound = size_bound(prepared.request)
        if bound <= window * SAFE:
            return _clamped(prepared, window - bound)
        prepared.tokens = await _count(backend, prepared)
    if (tokens := prepared.tokens) is None:
        return ()
    if tokens > window - min(MIN_ROOM, window // 8, prepared.request.max_tokens or MIN_ROOM):
        raise overflow(tokens, window)
    return _clamped(prepared, window - tokens)


def overflow(tokens: int, window: int) -> GatewayError:
    message = (
        f"This model's maximum context length is {window} tokens, but the request has {tokens} tokens. "
        "Shorten the conversation."
    )
    return GatewayError(Kind.OVERFLOW, message, tokens=tokens, limit=window)


def shortened(request: Request, error: GatewayError) -> Request | None:
    """The request without its oldest turns, so many that it may fit; None where it may not be cut, or nothing is left
    to be cut. Instructions before the first turn stay, and a turn goes whole: a call never loses its result."""
    if not request.truncates or error.kind is not Kind.OVERFLOW or not error.tokens or not error.limit:
        return None
    messages = request.messages
    first = next((place for place, each in enumerate(messages) if each.role not in ("system", "developer")), 0)
    turns = [place for place in range(first + 1, len(messages)) if messages[place].role == "user"]
    room = size_bound(request) * FITS * error.limit / error.tokens
    left, at = BYTES_PER_TOKEN * size_bound(request), first
    for begin in turns:
        left -= sum(map(weight, messages[at:begin]))
        at = begin
        if left // BYTES_PER_TOKEN <= room or begin == turns[-1]:
            return replace(request, messages=(*messages[:first], *messages[begin:]))
    return None


def _clamped(prepared: Prepared, room: int) -> tuple[Note, ...]:
    asked = prepared.request.max_tokens
    if asked is None or asked <= room:
        return ()
    prepared.limit(room)
    return (Note("repair", "max_tokens"),)


async def _count(backend: Backend, prepared: Prepared) -> int | None:
    try:
        return await backend.count(prepared)
    except GatewayError as error:
        log.warning("the prompt could not be counted: %s", error.message)
        return None


def size_bound(request: Request) -> int:
    """An upper bound in tokens that a prompt hardly ever exceeds, made without a tokenizer."""
    size = sum(map(weight, request.messages))
    size += sum(len(tool.name) + len(tool.description) + len(orjson.dumps(tool.parameters)) for tool in request.tools)
    return size // BYTES_PER_TOKEN


def estimate(request: Request) -> int:
    """What a tokenizer would probably count for ordinary text; only for callers that can mark it as an estimate."""
    return max(1, round(size_bound(request) * BYTES_PER_TOKEN / 3.6))


def weight(message: Message) -> int:
    """In bytes; for an image and for the message itself, those of so many tokens."""
    size = MESSAGE_TOKENS * BYTES_PER_TOKEN
    for part in _flat(message.parts):
        if isinstance(part, ToolCall):
            size += len(part.name) + _length(part.arguments)
        elif isinstance(part, Image):
            size += IMAGE_TOKENS * BYTES_PER_TOKEN
        elif not isinstance(part, ToolResult):
            size += _length(part.text)
    return size


def _flat(parts: Iterable[Part]) -> Iterable[Part]:
    for part in parts:
        yield part
        if isinstance(part, ToolResult):
            yield from part.content


def _length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
