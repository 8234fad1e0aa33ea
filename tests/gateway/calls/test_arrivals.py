"""What arrives on a WebSocket: how much of a message is there, and whether there is room for it."""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import Callable

from aiohttp import WSCloseCode

from dragoman.backends.base import nothing
from dragoman.gateway.calls.arrivals import Arrivals, Frames
from dragoman.gateway.calls.body_memory import UNCOUNTED, BodyMemory
from tests.waiting import until

MOST = 10 * UNCOUNTED
TEXT, MORE, PING = 1, 0, 9


def frame(opcode: int, size: int, *, last: bool = True, masked: bool = True) -> bytes:
    """Its payload looks like heads of frames."""
    mask = 0x80 if masked else 0
    first = opcode | (0x80 if last else 0)
    if size < 126:
        head = struct.pack("!BB", first, mask | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", first, mask | 126, size)
    else:
        head = struct.pack("!BBQ", first, mask | 127, size)
    return head + b"\x81\xff\xff\xff" * (1 if masked else 0) + (b"\x81\xfe" * size)[:size]


def test_so_much_of_a_message_has_arrived_however_it_is_cut() -> None:
    sent = [
        (frame(TEXT, 0), 0),
        (frame(TEXT, 125), 0),
        (frame(TEXT, 126, last=False), 126),
        (frame(PING, 100), 126),
        (frame(MORE, 0, last=False), 126),
        (frame(MORE, 70_000, last=False, masked=False), 70_126),
        (frame(MORE, 300), 0),
        (frame(PING, 0), 0),
        (frame(TEXT, 65_535, last=False), 65_535),
    ]
    for seed in range(50):
        chance, frames = random.Random(seed), Frames()
        for data, unfinished in sent:
            while data:
                size = chance.choice([1, 1, 2, 7, 1000, 100_000])
                frames.feed(data[:size])
                data = data[size:]
            assert frames.unfinished == unfinished
    whole = Frames()
    whole.feed(b"".join(data for data, _ in sent))
    assert whole.unfinished == 65_535
    whole.feed(b"")
    whole.feed(frame(MORE, 10)[:-1])
    assert whole.unfinished == 65_535 + 9


class Wire:
    """A client's connection."""

    def __init__(self) -> None:
        self.on_writable: Callable[[], object] = nothing
        self.on_lost: Callable[[], object] = nothing
        self.on_arrival: Callable[[bytes], object] | None = None
        self.transport: asyncio.Transport | None = None
        self.keeps_up = True
        self.held = False
        self.ended: list[WSCloseCode] = []

    def hold_reading(self) -> None:
        self.held = True

    def read_on(self) -> None:
        self.held = False

    def arrivals(self, memory: BodyMemory, within: float | None = None) -> Arrivals:
        return Arrivals(self, memory, within, lambda code, words: self.ended.append(code))

    def brings(self, data: bytes) -> None:
        assert self.on_arrival is not None
        self.on_arrival(data)


def begun(size: int) -> bytes:
    return frame(TEXT, size + 1)[:-1]


async def test_a_message_counts_as_it_arrives_and_while_it_waits() -> None:
    memory, wire = BodyMemory(MOST), Wire()
    arrivals = wire.arrivals(memory)
    wire.brings(begun(UNCOUNTED))
    assert memory.taken == 0
    wire.brings(b"x" + begun(3 * UNCOUNTED))  # the first one is whole
    arrivals.wait(UNCOUNTED)
    assert memory.taken == 4 * UNCOUNTED
    arrivals.wait(0)
    assert memory.taken == 3 * UNCOUNTED
    await arrivals.close()
    assert memory.taken == 0
    arrivals.wait(5 * UNCOUNTED)
    assert memory.taken == 0


async def test_a_connection_is_not_read_until_there_is_room() -> None:
    memory, one, other = BodyMemory(MOST), Wire(), Wire()
    first, second = one.arrivals(memory), other.arrivals(memory)
    one.brings(begun(6 * UNCOUNTED))
    other.brings(begun(5 * UNCOUNTED))
    assert (one.held, other.held) == (False, True)
    await first.close()
    await until(lambda: not other.held)
    assert memory.taken == 5 * UNCOUNTED
    await second.close()
    assert memory.taken == 0


async def test_what_is_no_longer_there_waits_for_no_room() -> None:
    memory, wire = BodyMemory(MOST), Wire()
    arrivals = wire.arrivals(memory)
    assert memory.takes(MOST)
    arrivals.wait(2 * UNCOUNTED)
    assert wire.held
    arrivals.wait(0)
    assert not wire.held
    memory.give_back(MOST)
    await arrivals.close()
    assert memory.taken == 0


async def test_without_room_in_time_the_connection_is_given_up() -> None:
    memory, wire = BodyMemory(MOST), Wire()
    assert memory.takes(MOST)
    arrivals = wire.arrivals(memory, 0.05)
    wire.brings(begun(2 * UNCOUNTED))
    await until(lambda: wire.ended)
    assert wire.ended == [WSCloseCode.TRY_AGAIN_LATER]
    await arrivals.close()
    assert memory.taken == MOST


async def test_a_large_message_that_does_not_become_whole_gives_its_room_back() -> None:
    memory, wire = BodyMemory(MOST), Wire()
    arrivals = wire.arrivals(memory, 0.05)
    wire.brings(begun(2 * UNCOUNTED))
    await until(lambda: wire.ended)
    assert wire.ended == [WSCloseCode.POLICY_VIOLATION]
    await arrivals.close()
    assert memory.taken == 0
