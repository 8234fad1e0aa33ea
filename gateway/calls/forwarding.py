"""An answer that is passed through: a server's bytes to the client as they came, and what is counted of them.

Nothing is held back: a read of the server is a write to the client, in the same turn of the loop. A client that does
not keep up pauses the reading of its own answer, and has gone when it has paused for too long. The token counts are the
last object `usage` in the bytes: in a stream it stands at the end, in a whole answer at the end or the beginning, and a
text cannot hold it, since its quotes would be escaped there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dragoman.backends.base import ENOUGH, MORE, WAIT, Flow, Forwarded, Head, Piece, nothing
from dragoman.backends.usage import count, measured
from dragoman.gateway.calls.admission import ANSWER_TOKENS
from dragoman.gateway.calls.answer import STREAMING, AnswerRecord, AnswerState
from dragoman.gateway.calls.delivery import Delivery, EventStream
from dragoman.gateway.calls.raw_body import RawBody
from dragoman.translators.ir import Finished, Request, StopReason, Usage

SEEN = 16 * 1024  # bytes at either end of an answer in which its usage may stand
KEY = '"usage"'
BYTES_PER_TOKEN = 3.6  # as for model calls, where nothing has counted
LAST = b"data: [DONE]"  # of a stream
COMPLETION = 16  # tokens of a completion for which no limit is asked


def forwarded(body: RawBody, id: str, path: str) -> Forwarded:
    session = body.value.get("prompt_cache_key")
    request = Request(id, body.model, (), affinity=session if isinstance(session, str) and session else None)
    streaming = body.value.get("stream") is True
    return Forwarded(request, path=path, body=body.raw, model_at=body.model_at, model=body.model, streaming=streaming)


def cost(body: RawBody, path: str) -> int:
    """Tokens that the call will probably need."""
    prompt = max(1, round(len(body.raw) / BYTES_PER_TOKEN))
    if path != "completions":
        return prompt
    limit = count(body.value.get("max_tokens"))
    return prompt + min(COMPLETION if limit is None else limit, ANSWER_TOKENS)


class ForwardedAnswer(AnswerRecord):
    def __init__(self, delivery: EventStream, give_up: Callable[[], object]) -> None:
        super().__init__(give_up)
        self._delivery = delivery
        delivery.on_writable = self._writable
        self._first = self._last = b""

    @property
    def head_sent(self) -> bool:
        return self.touched

    def prompt_size(self, tokens: int) -> None:
        """The answer has no place for it."""

    def feed(self, events: Sequence[Piece]) -> Flow:
        if self.gone_at is not None:
            return ENOUGH
        now = self._loop.time()
        self.read(now)
        self.state = STREAMING
        delivery = self._delivery
        data = [each for each in events if not isinstance(each, Head)]
        if isinstance(head := events[0], Head):
            self.status = head.status
            delivery.response.set_status(head.status)
            delivery.response.headers["Content-Type"] = head.content_type
        for each in data:
            self._watch(each)
        keeps_up = delivery.write(data)
        if delivery.gone:
            self.gone_at = now
            return ENOUGH
        if self._last[-20:].rstrip().endswith(LAST):
            self.end_written(delivery)
        return MORE if keeps_up else WAIT

    def _writable(self) -> None:
        self.on_writable()

    def _watch(self, data: bytes) -> None:
        if len(self._first) < SEEN:
            self._first += data[: SEEN - len(self._first)]
        self._last = data[-SEEN:] if len(data) >= SEEN else (self._last + data)[-SEEN:]

    def _see_end(self, delivery: Delivery) -> None:
        super()._see_end(delivery)
        if self.delivered:
            self.complete()

    def complete(self) -> None:
        """The server has ended its answer, orderly."""
        usage = found_usage(self._last) or found_usage(self._first)
        self.finished = Finished(StopReason.STOP, usage)

    async def finish(self) -> None:
        """Ends the body."""
        await self._delivery.end()
        if self._delivery.gone:
            self.gone_at = self.gone_at or self._loop.time()
        else:
            self.state = AnswerState.ENDED

    def break_off(self) -> None:
        """The answer is not whole, and must not look as if it were: its bytes are the server's, so that no word of the
        gateway's own can follow."""
        self._delivery.abort()

    def close(self) -> None:
        super().close()
        self._delivery.on_writable = nothing


def found_usage(data: bytes) -> Usage | None:
    """The counts of the last `usage` that is an object; rerankers count a total alone."""
    text = data.decode("utf-8", "replace")
    at = len(text)
    for _ in range(4):  # a stream's last frames may have none
        if (at := text.rfind(KEY, 0, at)) < 0:
            return None
        if isinstance(value := _object(text, at + len(KEY)), Mapping):
            prompt = value.get("prompt_tokens", value.get("total_tokens"))
            return measured(prompt, value.get("completion_tokens") or 0, _cached(value))
    return None


def _object(text: str, at: int) -> Any:
    """The value after a colon, None where there is none."""
    rest = text[at:].lstrip()
    if not rest.startswith(":"):
        return None
    try:
        return json.JSONDecoder().raw_decode(rest[1:].lstrip())[0]
    except (ValueError, RecursionError):
        return None


def _cached(usage: Mapping[str, Any]) -> object:
    details = usage.get("prompt_tokens_details")
    return details.get("cached_tokens") if isinstance(details, Mapping) else None
