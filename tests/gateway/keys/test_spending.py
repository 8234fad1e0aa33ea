"""What clients have spent: the arithmetic of a rate, rows of many keys, and processes that share them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
from collections.abc import Callable, Iterator

import pytest

from dragoman.gateway.keys import spending as spending_module
from dragoman.gateway.keys.spending import NEAR, ROWS, Rate, Spending

ANN, BOB = b"a" * 16, b"b" * 16


def test_a_rate_says_when_to_try_again() -> None:
    rate, now, full_at = Rate(60), 1000.0, 0.0
    for _ in range(60):
        assert rate.wait(full_at, 1, now) == 0
        full_at = rate.taken(full_at, 1, now)
    assert rate.wait(full_at, 1, now) == pytest.approx(1)
    assert rate.wait(full_at, 1, now + 0.75) == pytest.approx(0.25)
    assert rate.wait(full_at, 60, now + 1000) == 0


def test_more_than_a_minutes_worth_needs_a_full_bucket_and_leaves_a_debt() -> None:
    rate, now = Rate(100), 1000.0
    assert rate.wait(0.0, 250, now) == 0
    full_at = rate.taken(0.0, 250, now)
    assert rate.left(full_at, now) == pytest.approx(-150)
    assert rate.wait(full_at, 1, now) == pytest.approx(151 * 0.6)


@pytest.mark.parametrize("limit", [1, 3, 7, 11, 59, 61, 997])
@pytest.mark.parametrize("now", [0.3, 12345.678, 1e7 + 0.1])
def test_a_minutes_worth_can_be_taken_at_once_whatever_it_is(limit: int, now: float) -> None:
    rate, full_at = Rate(limit), 0.0
    for _ in range(limit):
        assert rate.wait(full_at, 1, now) == 0
        full_at = rate.taken(full_at, 1, now)
    assert rate.wait(full_at, 1, now) > 0
    assert rate.left(rate.taken(full_at, -limit, now), now) == pytest.approx(limit)


def test_a_bucket_that_nobody_uses_grows_no_fuller_than_full() -> None:
    rate = Rate(60)
    assert rate.left(rate.taken(0.0, 20, 1000.0), 5000.0) == 60


def test_what_is_owed_stays_owed_in_time_when_the_limit_changes() -> None:
    now = 1000.0
    half = Rate(10).taken(0.0, 5, now)
    assert Rate(100).left(half, now) == pytest.approx(50)
    assert Rate(2).left(half, now) == pytest.approx(1)


def test_each_client_has_a_row() -> None:
    spending = Spending()
    with spending.row(ANN) as row:
        row[0], row[1] = 5.0, 7.0
    with spending.row(BOB) as row:
        assert row == [0.0, 0.0]
    assert (spending.look(ANN), spending.look(BOB)) == ([5.0, 7.0], [0.0, 0.0])


def test_what_is_raised_inside_changes_nothing() -> None:
    def take(row: list[float]) -> None:
        row[0] = 5.0
        raise ValueError("no")

    spending = Spending()
    with pytest.raises(ValueError, match="no"), spending.row(ANN) as row:
        take(row)
    assert spending.look(ANN) == [0.0, 0.0]


def test_more_keys_than_rows_forget_those_that_are_full_first() -> None:
    spending = Spending()
    owners = [hashlib.sha256(b"%d" % number).digest()[:16] for number in range(2 * ROWS)]
    for owner in owners:
        with spending.row(owner) as row:
            row[0] = 1.0  # full for a long time
    with spending.row(ANN) as row:
        row[0] = 1e9
    for owner in owners:
        with spending.row(owner) as row:
            row[0] = 2.0
    assert spending.look(ANN) == [1e9, 0.0]


def test_thousands_of_keys_have_a_row_each() -> None:
    spending = Spending()
    owners = [hashlib.sha256(b"%d" % number).digest()[:16] for number in range(2500)]
    for number, owner in enumerate(owners, 1):
        with spending.row(owner) as row:
            row[1] = float(number)
    assert [spending.look(owner)[1] for owner in owners] == [float(number) for number in range(1, 2501)]


def test_keys_that_fall_on_one_place_have_a_row_each_and_one_too_many_takes_the_fullest() -> None:
    spending = Spending()
    owners = [b"same" + b"%012d" % number for number in range(NEAR + 1)]
    for number, owner in enumerate(owners[:NEAR]):
        with spending.row(owner) as row:
            row[0], row[1] = 100.0 - number, 50.0
    assert [spending.look(owner)[0] for owner in owners] == [*(100.0 - number for number in range(NEAR)), 0.0]
    with spending.row(owners[NEAR]) as row:
        assert row == [0.0, 0.0]
        row[1] = 200.0
    assert [spending.look(owner) for owner in owners[NEAR - 2 :]] == [[102.0 - NEAR, 50.0], [0.0, 0.0], [0.0, 200.0]]


def child(work: Callable[[], object]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return pid


@pytest.fixture
def shared() -> Iterator[Spending]:
    spending = Spending.shared()
    yield spending
    spending.close()


def test_processes_share_the_rows_and_lose_nothing(shared: Spending) -> None:
    each, processes = 2000, 4

    def count() -> None:
        for _ in range(each):
            with shared.row(ANN) as row:
                row[0] += 1

    for pid in [child(count) for _ in range(processes)]:
        os.waitpid(pid, 0)
    assert shared.look(ANN)[0] == each * processes


@pytest.mark.parametrize("fails", [False, True])
def test_a_process_that_lives_on_gives_the_lock_back(
    shared: Spending, fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.suppress(ValueError), shared.row(ANN):
        if fails:
            raise ValueError("no")
    monkeypatch.setattr(os, "sched_yield", lambda: os._exit(1))  # in the child, before it tries once more

    def take() -> None:
        with shared.row(ANN):
            pass

    assert os.waitpid(child(take), 0)[1] == 0


def test_a_process_that_dies_inside_holds_nobody_up_and_changes_nothing(shared: Spending) -> None:

    def die() -> None:
        with shared.row(ANN) as row:
            row[0] = 5.0
            os.kill(os.getpid(), signal.SIGKILL)

    os.waitpid(child(die), 0)
    with shared.row(ANN) as row:
        assert row[0] == 0
        row[0] = 1.0
    assert shared.look(ANN)[0] == 1


def test_a_process_that_stands_still_inside_is_not_waited_for(
    shared: Spending, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spending_module, "TRIES", 3)
    reading, writing = os.pipe()

    def stand_still() -> None:
        with shared.row(BOB):
            os.write(writing, b".")
            signal.pause()

    pid = child(stand_still)
    os.read(reading, 1)
    with shared.row(ANN) as row:
        row[0] = 1.0
    assert shared.look(ANN)[0] == 1
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(reading)
    os.close(writing)
