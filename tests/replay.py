"""Transcripts through the whole pure path: what a server sent in, what a client gets out, without a socket.

Ids and time are fixed, so that the same transcript always gives the same bytes. Each protocol answers the request in
`tests/golden/streams/<protocol>.request.json`, which declares the tools that the transcripts call.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

import orjson

from dragoman.backends.chat.decoder import ChatDecoder
from dragoman.backends.chat.errors import classify
from dragoman.backends.chat.settings import resolve
from dragoman.translators.constraints.parallel import FirstCallOnly
from dragoman.translators.errors import GatewayError
from dragoman.translators.ir import Event, Note
from dragoman.translators.protocol import Context, Json, Policy, Protocol, Turn
from dragoman.translators.registry import PROTOCOLS
from tests.golden_files import GOLDEN

PROTOCOL = {protocol.name: protocol for protocol in PROTOCOLS}
CONTEXT = Context(id="0123456789abcdef01234567", clock=lambda: 1_763_800_000, policy=Policy())


@dataclass(frozen=True)
class Answer:
    """`frames` are what a streaming client reads, `stream` the same in one; `whole` is what another gets, with its
    status."""

    frames: list[bytes]
    status: int
    whole: Json
    notes: tuple[Note, ...]

    @property
    def stream(self) -> bytes:
        return b"".join(self.frames)


def _classify(status: int, body: object) -> GatewayError:
    return classify(status, body, resolve())


def turn(protocol: Protocol, context: Context = CONTEXT, **fields: object) -> Turn:
    body = orjson.loads((GOLDEN / "streams" / f"{protocol.name}.request.json").read_bytes())
    return protocol.parse(body | fields, context)


def pieces(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def replay(protocol: Protocol, reads: Iterable[bytes], *, parallel: bool = True, turn: Turn | None = None) -> Answer:
    """The answer to `reads`, the bytes of one upstream body as they arrive."""
    asked = turn or globals()["turn"](protocol)
    request = replace(asked.request, parallel_tool_calls=parallel)
    decoder, stage = ChatDecoder(request, _classify), None if parallel else FirstCallOnly()
    out: list[bytes] = []

    def push(events: list[Event]) -> bool:
        out.extend(asked.stream.feed(events if stage is None else stage.feed(events)))
        return stage is None or not stage.enough

    try:
        if all(push(decoder.feed(data)) for data in reads):
            push(decoder.finish())
        else:
            push(decoder.stop())
    except GatewayError as error:
        push(decoder.abort())
        out.extend(asked.stream.fail(error))
        reply = protocol.error(error, f"req_{CONTEXT.id}")
        return Answer(out, reply.status, reply.body, tuple(decoder.notes))
    return Answer(out, 200, asked.stream.body(), tuple(decoder.notes))
