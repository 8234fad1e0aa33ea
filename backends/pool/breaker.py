"""A circuit breaker: after several failures in a row a server is left alone for a while, then tried with one request.

*Closed* it lets everything through. The `failures`-th failure in a row opens it for `rest` seconds, doubled each time
it opens again, up to `longest_rest`. While it is *open*, the server is skipped. When the rest is over, one request is
the trial: success closes it, failure opens it again, and a trial without a verdict (its client left) lets the next one
try.

Pure: the time comes in as an argument. What a failure is, the caller decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class BreakerState(Enum):
    CLOSED = "closed"
    OPEN = "open"
    TRIAL = "trial"


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """`rest` and `longest_rest` in seconds."""

    failures: int = 3
    rest: float = 5.0
    longest_rest: float = 60.0


class Breaker:
    def __init__(self, rules: BreakerRules) -> None:
        self.state = BreakerState.CLOSED
        self.until = 0.0  # when the rest ends
        self._rules = rules
        self._failures = 0
        self._rest = rules.rest

    def allows(self, now: float) -> bool:
        """Whether a request may go through; the one that then goes says so with `begin`."""
        return self.state is BreakerState.CLOSED or (self.state is BreakerState.OPEN and now >= self.until)

    def begin(self, now: float) -> bool:
        """A request is sent; True when it is the trial, whose owner must end it with a verdict or `undecided`."""
        if self.state is BreakerState.OPEN and now >= self.until:
            self.state = BreakerState.TRIAL
            return True
        return False

    def undecided(self) -> None:
        if self.state is BreakerState.TRIAL:
            self.state = BreakerState.OPEN

    def success(self) -> None:
        self.state = BreakerState.CLOSED
        self._failures = 0
        self._rest = self._rules.rest

    def failure(self, now: float) -> None:
        self._failures += 1
        if self.state is BreakerState.CLOSED and self._failures < self._rules.failures:
            return
        if self.state is BreakerState.OPEN and now < self.until:
            return  # a request from before it opened: known already
        self.state = BreakerState.OPEN
        self.until = now + self._rest
        self._rest = min(self._rest * 2, self._rules.longest_rest)
