"""The last answers of a connection's lanes."""

from __future__ import annotations

from dragoman.gateway.calls.exchange import Remembered
from dragoman.gateway.calls.lanes import LANES, Lanes


def answer(id: str, size: int = 10) -> Remembered:
    return Remembered(id, [], size, False)


def test_what_a_lane_continues_is_forgotten_there_and_stays_where_it_is_forked() -> None:
    lanes = Lanes(100)
    one, two = answer("one"), answer("two")
    lanes.remember("", one)
    lanes.remember("b", two)
    assert lanes.taken("b", "one") is one
    assert lanes.taken("", "one") is one
    assert lanes.taken("b", "one") is two
    assert lanes.size == 10


def test_what_continues_nothing_may_name_what_its_lane_holds() -> None:
    lanes = Lanes(100)
    lanes.remember("", answer("one"))
    for previous in (None, "unknown", None):
        assert lanes.taken("b", previous) is None
        assert (lanes.taken("", previous) or answer("")).id == "one"


def test_the_lane_that_has_rested_longest_is_forgotten_first() -> None:
    lanes = Lanes(25)
    lanes.remember("a", answer("1"))
    lanes.remember("b", answer("2"))
    lanes.remember("a", answer("3"))
    lanes.remember("c", answer("4"))
    assert lanes.taken("x", "2") is None
    assert lanes.size == 20
    lanes.remember("c", answer("5", 26))
    assert lanes.size == 10
    assert lanes.taken("x", "3") is not None
    lanes.forget()
    assert (lanes.size, lanes.taken("a", None)) == (0, None)


def test_so_many_lanes_are_remembered() -> None:
    lanes = Lanes(1_000_000)
    for lane in range(LANES + 2):
        lanes.remember(str(lane), answer(str(lane)))
    assert lanes.size == 10 * LANES
    assert lanes.taken("x", "1") is None
    assert lanes.taken("x", "2") is not None
