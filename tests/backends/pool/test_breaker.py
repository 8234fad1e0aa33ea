"""The circuit breaker, with a clock made of numbers."""

from __future__ import annotations

import pytest

from dragoman.backends.pool.breaker import Breaker, BreakerRules, BreakerState

RULES = BreakerRules(failures=3, rest=5, longest_rest=15)


def opened() -> Breaker:
    breaker = Breaker(RULES)
    for _ in range(3):
        breaker.failure(100)
    return breaker


def test_it_opens_at_the_last_of_the_failures_in_a_row_only() -> None:
    breaker = Breaker(RULES)
    breaker.failure(0)
    breaker.failure(0)
    assert breaker.allows(0)
    breaker.success()
    breaker.failure(0)
    breaker.failure(0)
    assert breaker.allows(0)
    breaker.failure(0)
    assert breaker.state is BreakerState.OPEN
    assert not breaker.allows(4.9)


def test_after_the_rest_one_request_and_no_second_is_the_trial() -> None:
    breaker = opened()
    assert not breaker.begin(104.9)
    assert breaker.allows(105)
    assert breaker.begin(105)
    assert not breaker.allows(105)
    assert not breaker.begin(105)


def test_a_trial_that_succeeds_closes_it_and_forgets() -> None:
    breaker = opened()
    breaker.begin(105)
    breaker.success()
    assert breaker.state is BreakerState.CLOSED
    breaker.failure(106)
    assert breaker.allows(106)


def test_a_success_makes_the_next_rest_short_again() -> None:
    breaker = opened()
    breaker.begin(105)
    breaker.failure(105)
    assert breaker.until == 115
    breaker.begin(115)
    breaker.success()
    for _ in range(3):
        breaker.failure(200)
    assert breaker.until == 205


def test_each_failed_trial_doubles_the_rest_up_to_a_limit() -> None:
    breaker, now, rests = opened(), 100.0, []
    for _ in range(4):
        rests.append(breaker.until - now)
        now = breaker.until
        assert breaker.begin(now)
        breaker.failure(now)
    assert rests == [5, 10, 15, 15]


def test_a_trial_without_a_verdict_lets_the_next_request_try() -> None:
    breaker = opened()
    breaker.begin(105)
    breaker.undecided()
    assert breaker.allows(105)
    assert breaker.begin(105)


@pytest.mark.parametrize("late", [1, 5])
def test_failures_of_requests_from_before_it_opened_do_not_prolong_the_rest(late: int) -> None:
    breaker = opened()
    for _ in range(late):
        breaker.failure(101)
    assert breaker.until == 105


def test_a_failure_after_the_rest_prolongs_it_even_without_a_trial() -> None:
    breaker = opened()
    breaker.failure(106)
    assert not breaker.allows(106)
