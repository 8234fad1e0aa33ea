"""Bounds on what is remembered of clients."""

from __future__ import annotations

from dataclasses import dataclass

from dragoman.gateway.calls.client_memory import MOST_OF_CLIENT, ClientMemory, Shelf


@dataclass(eq=False, slots=True)
class Thing:
    owner: str
    size: int = 10


def test_the_oldest_of_all_kinds_and_clients_goes_first() -> None:
    memory = ClientMemory(30)
    one, other = Shelf[Thing](memory), Shelf[Thing](memory)
    first, second, third, fourth = Thing("ann"), Thing("bob"), Thing("ann"), Thing("bob")
    one.add(first)
    other.add(second)
    other.add(third)
    one.used(first)
    one.add(fourth)
    assert (one.of("ann"), one.of("bob"), other.of("ann"), other.of("bob")) == ([first], [fourth], [third], [])
    assert memory.size == 30


def test_the_newest_comes_first() -> None:
    shelf = Shelf[Thing](ClientMemory(1000))
    things = [Thing("ann") for _ in range(3)]
    for thing in things:
        shelf.add(thing)
    shelf.used(things[0])
    assert shelf.of("ann") == [things[0], things[2], things[1]]


def test_a_client_has_so_many_of_a_kind() -> None:
    memory = ClientMemory(10**6)
    shelf = Shelf[Thing](memory)
    things = [Thing("ann") for _ in range(MOST_OF_CLIENT + 3)]
    for thing in things:
        shelf.add(thing)
    assert shelf.of("ann") == things[:2:-1]
    assert memory.size == 10 * MOST_OF_CLIENT


def test_what_is_larger_than_the_memory_is_not_kept() -> None:
    memory = ClientMemory(25)
    shelf, thing = Shelf[Thing](memory), Thing("ann")
    shelf.add(thing)
    shelf.add(Thing("ann", 30))
    assert shelf.of("ann") == [thing]
    assert memory.size == 10


def test_what_was_forgotten_may_be_used_and_dropped() -> None:
    memory = ClientMemory(10)
    shelf, thing = Shelf[Thing](memory), Thing("ann")
    shelf.add(thing)
    shelf.add(Thing("bob"))
    shelf.used(thing)
    shelf.drop(thing)
    assert memory.size == 10
