"""Room for bodies: taken in turn, given back whatever happens to who waits."""

from __future__ import annotations

import asyncio

import pytest

from dragoman.gateway.calls.body_memory import UNCOUNTED, BodyMemory, Share
from tests.waiting import LIMIT

MOST = 10 * UNCOUNTED


class Callers:
    """Calls that want room; `order` is who got it."""

    def __init__(self) -> None:
        self.memory = BodyMemory(MOST)
        self.order: list[str] = []
        self.shares: dict[str, Share] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def wants(self, name: str, size: int) -> None:
        self.tasks[name] = asyncio.ensure_future(self._grow(name, size))
        await turn()

    async def _grow(self, name: str, size: int) -> None:
        await self.shares.setdefault(name, Share()).grow(size, self.memory)
        self.order.append(name)

    async def frees(self, name: str) -> None:
        self.shares[name].free()
        await turn()


async def turn() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def test_those_who_wait_go_in_turn_also_where_a_later_one_would_fit() -> None:
    callers = Callers()
    await callers.wants("first", 6 * UNCOUNTED)
    await callers.wants("large", 5 * UNCOUNTED)
    await callers.wants("fits", 4 * UNCOUNTED)
    assert callers.order == ["first"]
    assert callers.shares["large"].waits
    await callers.frees("first")
    assert callers.order == ["first", "large", "fits"]
    assert callers.memory.taken == 9 * UNCOUNTED
    assert not callers.shares["large"].waits


async def test_what_is_added_to_a_body_finds_room_beside_it_or_waits() -> None:
    memory, one, other = BodyMemory(MOST), Share(), Share()
    await one.grow(4 * UNCOUNTED, memory)
    assert one.adds(2 * UNCOUNTED, memory)
    assert other.adds(UNCOUNTED, memory)  # too little to be counted
    assert not other.adds(5 * UNCOUNTED, memory)
    waiting = asyncio.ensure_future(other.add(5 * UNCOUNTED, memory))
    await turn()
    assert not one.adds(2 * UNCOUNTED, memory)  # nobody passes those who wait
    one.free()
    await waiting
    assert other.adds(MOST, memory)  # what is more than there can ever be room for takes all of it
    assert memory.taken == MOST
    other.free()
    assert memory.taken == 0


async def test_small_bodies_are_not_counted() -> None:
    callers = Callers()
    await callers.wants("first", MOST)
    await callers.wants("small", UNCOUNTED)
    assert callers.order == ["first", "small"]
    assert callers.memory.taken == MOST


@pytest.mark.parametrize(("size", "taken"), [(1024 * 1024, 0), (1024 * 1024 + 1, 1024 * 1024 + 1)])
async def test_a_body_is_counted_from_its_first_byte_if_it_is_larger_than_a_megabyte(size: int, taken: int) -> None:
    callers = Callers()
    await callers.wants("one", size)
    assert callers.memory.taken == taken


async def test_the_largest_body_waits_for_all_the_room_and_gets_it() -> None:
    callers = Callers()
    await callers.wants("first", 6 * UNCOUNTED)
    await callers.wants("largest", MOST)
    await callers.frees("first")
    assert callers.order == ["first", "largest"]
    assert callers.memory.taken == MOST


async def test_a_body_grows_and_is_counted_once() -> None:
    callers = Callers()
    for size in (UNCOUNTED // 2, 2 * UNCOUNTED, 4 * UNCOUNTED, 3 * UNCOUNTED):
        await callers.wants("one", size)
    assert callers.memory.taken == 4 * UNCOUNTED
    await callers.frees("one")
    await callers.frees("one")
    assert callers.memory.taken == 0


@pytest.mark.parametrize("admitted", [False, True])
async def test_who_leaves_while_waiting_takes_nothing_along(admitted: bool) -> None:
    callers = Callers()
    await callers.wants("first", MOST)
    await callers.wants("leaves", 6 * UNCOUNTED)
    await callers.wants("next", 6 * UNCOUNTED)
    if admitted:
        callers.shares["first"].free()  # its place comes in the turn in which it leaves
    callers.tasks["leaves"].cancel()
    await turn()
    if not admitted:
        await callers.frees("first")
    assert callers.order == ["first", "next"]
    callers.shares["leaves"].free()
    await callers.frees("next")
    assert callers.memory.taken == 0


async def test_two_that_are_ended_in_one_turn_of_the_loop_leave_all_the_room_free() -> None:
    """Connections of one client that was killed."""
    callers = Callers()
    await callers.wants("first", MOST)
    await callers.wants("leaves", 6 * UNCOUNTED)
    callers.tasks["leaves"].cancel()
    callers.shares["first"].free()  # before the other one could notice that it has been ended
    await turn()
    assert callers.tasks["leaves"].cancelled()
    assert callers.memory.taken == 0
    await callers.wants("next", MOST)
    assert callers.order == ["first", "next"]


async def test_bodies_that_grow_do_not_wait_for_each_other() -> None:
    memory, most = BodyMemory(MOST), 0

    async def grows() -> None:
        nonlocal most
        share = Share()
        for size in range(2 * UNCOUNTED, MOST, UNCOUNTED):
            await share.grow(size, memory)
            most = max(most, memory.taken)
            await asyncio.sleep(0)
        share.free()

    await asyncio.wait_for(asyncio.gather(*(grows() for _ in range(4))), LIMIT)
    assert MOST < most < 2 * MOST  # by one body, until that has ended
    assert memory.taken == 0
