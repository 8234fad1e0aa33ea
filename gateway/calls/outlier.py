"""Outlier detection: whether a backend that its own probe calls ready really answers, judged by clients' calls.

Servers say that they are healthy while their engine hangs. So a backend counts as not ready when calls have waited for
a first token longer than `slow` and no call has received one meanwhile, or when several calls in a row have failed.
This shows in `/readyz` only: requests are still tried, and without new failures the state ends by itself, since a
backend without requests has no way to prove itself. An error that is only known from a server's words does not count,
because those may quote a client.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dragoman.gateway.calls.call import Call
from dragoman.translators.errors import GatewayError, Kind

FAILURES = 5  # in a row
MEMORY = 30.0  # seconds after which a failure no longer counts
_FAULTS = frozenset({Kind.TIMEOUT, Kind.BACKEND_FAILED, Kind.BACKEND_DOWN})


@dataclass(slots=True)
class _History:
    token_at: float = 0.0
    failures: int = 0
    failed_at: float = 0.0


def _blames(error: GatewayError) -> bool:
    return error.kind in _FAULTS and error.source == "backend" and error.certain


class OutlierDetector:
    def __init__(self) -> None:
        self._histories: dict[str, _History] = {}

    def ended(self, call: Call, now: float) -> None:
        if call.backend is None:
            return
        history = self._histories.setdefault(call.backend.name, _History())
        if call.answer is not None and call.answer.touched:
            history.token_at = max(history.token_at, call.answer.last_at)
        if call.finished:
            history.failures = 0
        elif call.error is not None and _blames(call.error):
            history.failures += 1
            history.failed_at = now

    def reason(self, backend: str, calls: Iterable[Call], slow: float, now: float) -> str | None:
        """Why the backend does not count as ready now: `hangs`, `fails`, or None."""
        history = self._histories.get(backend, _History())
        token_at, oldest = history.token_at, now
        for call in calls:
            if call.backend is None or call.backend.name != backend or call.answer is None:
                continue
            if call.answer.touched:
                token_at = max(token_at, call.answer.last_at)
            elif call.asked_at is not None:
                oldest = min(oldest, call.asked_at)
        if now - oldest > slow and now - token_at > slow:
            return "hangs"
        return "fails" if history.failures >= FAILURES and now - history.failed_at < MEMORY else None
