"""Whether a backend that its own probe calls ready really answers: judged by the calls that clients make anyway.

Servers say they are healthy while their engine hangs. So a backend counts as not ready when calls have waited for a
first token longer than `slow` and none at all has come meanwhile, or when several calls in a row have failed. It is
told in `/readyz` only: requests are still tried, and without new failures the doubt ends by itself, since a backend
that nobody asks can prove nothing. An error read out of a server's words, which may quote a client, does not count.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dragoman.gateway.calls.call import Call
from dragoman.translators.errors import GatewayError, Kind

FAILURES = 5  # in a row
MEMORY = 30.0  # seconds after which a failure says nothing any more
_FAULTS = frozenset({Kind.TIMEOUT, Kind.BACKEND_FAILED, Kind.BACKEND_DOWN})


@dataclass(slots=True)
class _Seen:
    token_at: float = 0.0
    failures: int = 0
    failed_at: float = 0.0


def _blames(error: GatewayError) -> bool:
    return error.kind in _FAULTS and error.source == "backend" and error.certain


class Passive:
    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    def ended(self, call: Call, now: float) -> None:
        if call.backend is None:
            return
        seen = self._seen.setdefault(call.backend.name, _Seen())
        if call.answer is not None and call.answer.touched:
            seen.token_at = max(seen.token_at, call.answer.last_at)
        if call.finished:
            seen.failures = 0
        elif call.error is not None and _blames(call.error):
            seen.failures += 1
            seen.failed_at = now

    def doubt(self, backend: str, calls: Iterable[Call], slow: float, now: float) -> str | None:
        """Why the backend is not to be trusted now: `hangs`, `fails`, or None."""
        seen = self._seen.get(backend, _Seen())
        token_at, oldest = seen.token_at, now
        for call in calls:
            if call.backend is None or call.backend.name != backend or call.answer is None:
                continue
            if call.answer.touched:
                token_at = max(token_at, call.answer.last_at)
            elif call.asked_at is not None:
                oldest = min(oldest, call.asked_at)
        if now - oldest > slow and now - token_at > slow:
            return "hangs"
        return "fails" if seen.failures >= FAILURES and now - seen.failed_at < MEMORY else None
