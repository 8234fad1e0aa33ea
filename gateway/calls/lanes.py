"""What one WebSocket connection remembers: the last answer of each of its lanes.

A client that runs several conversations over one connection names the lane of each; one that names none has a single
lane. Rules: an answer can be continued from every lane, but only on its own is it forgotten until the continuation has
been answered, so that one that failed there starts over while a fork takes nothing from its source. All lanes together
have so many bytes; the one that has rested longest is forgotten first.
"""

from __future__ import annotations

from dragoman.gateway.calls.exchange import Remembered

LANES = 33  # as many as OpenAI lets a connection name, and the one without a name


class Lanes:
    """`most`: bytes of JSON."""

    def __init__(self, most: int) -> None:
        self.size = 0
        self._most = most
        self._last: dict[str, Remembered] = {}  # that which has rested longest comes first

    def taken(self, lane: str, previous: str | None) -> Remembered | None:
        """What a call on `lane` may name: the answer `previous` that it continues, if that is remembered, else the
        last one there."""
        for holder, answer in self._last.items():
            if answer.id == previous:
                return self._without(lane) if holder == lane else answer
        return self._last.get(lane)

    def remember(self, lane: str, answer: Remembered) -> None:
        self._without(lane)
        if answer.size > self._most:
            return
        self._last[lane] = answer
        self.size += answer.size
        while self.size > self._most or len(self._last) > LANES:
            self._without(next(iter(self._last)))

    def forget(self) -> None:
        self._last.clear()
        self.size = 0

    def _without(self, lane: str) -> Remembered | None:
        answer = self._last.pop(lane, None)
        if answer is not None:
            self.size -= answer.size
        return answer
