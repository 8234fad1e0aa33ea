"""A request's body: from whatever arrives on the socket to one JSON object, within the limits.

Any content type is read, because clients send JSON under many names. The work after the arrival (decoding, counting,
parsing) is done in steps, in the loop: a few milliseconds for one body, then everything else, then the next body. A
large body keeps its turn once it is loaded, since it takes many times its size until it has become a request.
Threads would go on after a client has left or the time limit has passed, and one client's bodies could fill the pool;
here all bodies advance, and one that is given up takes no further step. Only the parse itself is a single step, which
is why values are counted before it. Every refusal is a `GatewayError`, worded by the protocol that was asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson
from aiohttp import web

from dragoman.gateway.calls.body_memory import BodyMemory, Share
from dragoman.gateway.calls.conversation_memo import Memos
from dragoman.gateway.calls.decoding import decode, too_large
from dragoman.gateway.calls.raw_body import RawBody, checked
from dragoman.gateway.config import Limits
from dragoman.translators.errors import GatewayError, Kind, invalid
from dragoman.translators.ir import Note
from dragoman.translators.json_text import blocks, deeper_than, separators, without_lone_surrogates
from dragoman.translators.steps import Steps, T

Body = tuple[dict[str, Any], tuple[Note, ...]]
MENDED = Note("repair", "surrogate")
EXPECTS = web.RequestKey("expects", str)  # what the client asked of us before it sends a body (RFC 9110, 10.1.1)
SLICE = 0.002  # seconds that one body may hold the loop before the others' turn
SMALL = 64 * 1024  # bytes of JSON that are loaded at once, without a turn
LOADS = -1  # what is yielded before a larger body is loaded; other numbers are the bytes that it takes so far


class BodyReader:
    """`within` is the limit in seconds for a body to arrive and to be read. `memo` has what clients sent before."""

    def __init__(self, limits: Limits, within: float | None = None, memo: Memos | None = None) -> None:
        self._limits = limits
        self._memo = memo or Memos(0)
        self._within = within
        self._turn = asyncio.Lock()  # so that many large bodies hold the loop no longer than one does
        self._spent = 0.0  # seconds of the loop, by the last step of a large body
        self.memory = BodyMemory(limits.bodies_bytes)

    def read(self, request: web.Request, share: Share, owner: str) -> Coroutine[Any, Any, Body]:
        """The object, and notes of what was repaired in it. `share` is the call's, of `memory`; `owner` the client."""
        return self._within_limit(request, share, partial(_read, self._memo, owner))

    async def _within_limit(
        self, request: web.Request, share: Share, read: Callable[[bytes, list[str], Limits], Steps[T]]
    ) -> T:
        raw: bytes | None = None
        try:
            async with asyncio.timeout(self._within):
                raw = await self._receive(request, share)
                return await self._in_turns(read(raw, _encodings(request), self._limits), share)
        except TimeoutError:
            if share.waits:
                raise _no_room() from None
            fault = "did not arrive" if raw is None else "could not be decoded"
            message = f"The request body {fault} within {self._within:g} seconds."
            raise invalid(message, code="request_timeout") from None

    async def read_raw(self, request: web.Request, share: Share) -> RawBody:
        """A body that is to be passed on as it is, out of its encodings."""
        return await self._within_limit(request, share, _read_raw)

    async def parse(self, raw: bytes, share: Share, owner: str = "") -> Body:
        """A body that has arrived already, such as a message of a WebSocket."""
        if len(raw) > self._limits.body_bytes:
            raise too_large(self._limits.body_bytes)
        try:
            async with asyncio.timeout(self._within):
                await share.grow(len(raw), self.memory)
        except TimeoutError:
            raise _no_room() from None
        return await self._in_turns(_parse_known(raw, self._limits, self._memo, owner), share)

    def room(self, share: Share) -> CallRoom:
        """For what a call continues or names in the store, beside its body."""
        return CallRoom(share, self.memory, self._within)

    async def _receive(self, request: web.Request, share: Share) -> bytes:
        limit = self._limits.body_bytes
        length = request.content_length
        if length is not None and length > limit:
            raise too_large(limit)
        await share.grow(length or 0, self.memory)
        await _invite(request)
        pieces: list[bytes] = []
        size = 0
        try:
            while piece := await request.content.readany():
                size += len(piece)
                if size > limit:
                    raise too_large(limit)
                await share.grow(size, self.memory)
                pieces.append(piece)
        except web.RequestPayloadError:
            raise invalid("The request body is not framed as its headers say.", code="invalid_body") from None
        return b"".join(pieces)

    async def _in_turns(self, steps: Steps[T], share: Share) -> T:
        try:
            state = _advance(steps)
            while state != LOADS:
                await share.grow(state, self.memory)
                async with self._turn:
                    await asyncio.sleep(0)
                    state = _advance(steps)
            async with self._turn:
                while True:
                    await self._rest()
                    begun = time.monotonic()
                    _advance(steps)
                    self._spent = time.monotonic() - begun
        except StopIteration as end:
            result: T = end.value
            return result

    async def _rest(self) -> None:
        """Before a step of a large body, as long as the last one took: others have half of the loop's time."""
        spent, self._spent = self._spent, 0.0
        await asyncio.sleep(spent if spent > 2 * SLICE else 0)


@dataclass(frozen=True, slots=True)
class CallRoom:
    """A `gateway.store.kept.Room`: what is found counts as a body does. `within`: seconds to wait for it."""

    share: Share
    memory: BodyMemory
    within: float | None

    def takes(self, size: int) -> bool:
        return self.share.adds(size, self.memory)

    async def wait(self, size: int) -> None:
        try:
            async with asyncio.timeout(self.within):
                await self.share.add(size, self.memory)
        except TimeoutError:
            raise _no_room() from None


def _advance(steps: Steps[Any]) -> int:
    """How many bytes the body takes so far, as far as that is known, or `LOADS`. Raises the `StopIteration` of the last
    step, which carries the result."""
    end = time.monotonic() + SLICE
    while (state := next(steps) or 0) != LOADS:
        if state or time.monotonic() >= end:  # a size is counted before more is taken
            break
    return state


def _no_room() -> GatewayError:
    return GatewayError(Kind.BUSY, "The gateway holds as many large requests as it has memory for; try again.")


def _encodings(request: web.Request) -> list[str]:
    names = ",".join(request.headers.getall("Content-Encoding", [])).lower().split(",")
    return [name for each in names if (name := each.strip()) and name != "identity"]


async def _invite(request: web.Request) -> None:
    """Has a client send the body that it holds back until then: everything that can be judged without one was."""
    if request.pop(EXPECTS, None) is not None:
        with contextlib.suppress(ConnectionError):  # it has gone, which the call is about to learn
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer has not begun


def _read(memo: Memos, owner: str, raw: bytes, encodings: list[str], limits: Limits) -> Steps[Body]:
    if encodings:
        raw = yield from decode(raw, encodings, limits.body_bytes)
    return (yield from _parse_known(raw, limits, memo, owner))


def _read_raw(raw: bytes, encodings: list[str], limits: Limits) -> Steps[RawBody]:
    if encodings:
        raw = yield from decode(raw, encodings, limits.body_bytes)
    value, notes = yield from parse_object(raw, limits)
    return (yield from checked(raw, value, notes))


# ---------------------------------------------------------------------------------------------------------------- JSON


def _parse_known(raw: bytes, limits: Limits, memo: Memos, owner: str) -> Steps[Body]:
    """As `parse_object`, without another look at what the client has sent before."""
    tools = memo.tools.cut(owner, raw)
    text = raw if tools is None else tools.rest
    talk = memo.conversations.cut(owner, text)
    if tools is not None or talk is not None:
        known = 0 if len(raw) <= limits.json_values else sum(cut.values for cut in (tools, talk) if cut is not None)
        with contextlib.suppress(GatewayError):  # the whole text is refused in the right words
            value, notes = yield from parse_object(text if talk is None else talk.rest, limits, known)
            if not notes and all(cut.restored(value) for cut in (tools, talk) if cut is not None):
                if tools is not None:
                    memo.tools.found(tools.known)
                else:
                    memo.tools.keep(owner, raw, value)
                memo.conversations.keep(owner, text, value, talk)
                return value, notes
    value, notes = yield from parse_object(raw, limits)
    if not notes:
        memo.tools.keep(owner, raw, value)
        memo.conversations.keep(owner, raw, value)
    return value, notes


def parse_object(raw: bytes, limits: Limits, known: int = 0) -> Steps[Body]:
    """`known`: how many values are known of already, and not in `raw`."""
    if not raw.strip():
        raise invalid("The request body is empty; a JSON object is expected.", code="invalid_json")
    raw = raw.removeprefix(b"\xef\xbb\xbf")
    yield from _bound_values(raw, limits.json_values - known)
    if len(raw) > SMALL:
        yield LOADS
    value, notes = yield from _parse(raw, limits.json_depth)
    yield
    if not isinstance(value, dict):
        raise invalid("The request body must be a JSON object.", code="invalid_json")
    if not _is_shallow(raw, limits.json_depth) and deeper_than(value, limits.json_depth):
        raise _too_deep(limits.json_depth)
    yield
    return value, notes


def _parse(raw: bytes, depth: int) -> Steps[tuple[Any, tuple[Note, ...]]]:
    """Strict JSON. A body that fails because of lone surrogates is tried once more without them."""
    try:
        return _loads(raw, depth), ()
    except GatewayError:
        mended = yield from without_lone_surrogates(raw)
        if mended is raw:
            raise
    return _loads(mended, depth), (MENDED,)


def _loads(raw: bytes, depth: int) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        if "depth limit" in error.msg or "ecursion" in error.msg:  # newer and older orjson
            raise _too_deep(depth) from None
        raise invalid(f"The request body is not valid JSON: {_where(error)}.", code="invalid_json") from None


def _bound_values(raw: bytes, most: int) -> Steps[None]:
    """Refuses more than `most` values before they take fifty times their size in memory.

    Each value but the first follows a comma or an opening bracket. Those inside strings do not count, but they are
    only left out in a second pass, over bodies that exceed the limit with them."""
    if len(raw) <= most:
        return
    for counts in (_in_all, separators):
        values = 1
        for count in counts(raw):
            values += count
            if values > most:
                break
            yield
        else:
            return
    raise invalid(f"The request body holds more than {most} JSON values.", code="invalid_json")


def _in_all(raw: bytes) -> Iterator[int]:
    """The number of commas and opening brackets, block by block."""
    for block in blocks(raw):
        yield len(block) - len(block.translate(None, b",[{"))


def _is_shallow(raw: bytes, depth: int) -> bool:
    """Whether too few brackets open in a small body for it to be deeper, which is quicker to see than by its values."""
    return len(raw) <= SMALL and len(raw) - len(raw.translate(None, b"[{")) <= depth


def _where(error: orjson.JSONDecodeError) -> str:
    # the parser's words without the document, which the exception carries too
    return f"{error.msg.split(':')[0]} at line {error.lineno} column {error.colno}"


def _too_deep(depth: int) -> GatewayError:
    return invalid(f"The request body is nested deeper than {depth} levels.", code="invalid_json")
