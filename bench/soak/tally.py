"""What the clients saw, and whether the gateway counted the same.

`dragoman_requests_total` is compared by route, status and how the answer ended (`differences`). The rules:

* An answer that its client stayed for is counted once, with the status that the client saw, as completed or as failed.
* A client that left is counted once, as disconnected or, where the terminal event had been sent before, by that end.
  One that left before the head of an answer may have gone before its request was read: then it is counted nowhere.
* So, for each route, what is counted beyond the answers that were stayed for is the number of clients that left, less
  at most those that left before a head. Calls that run in a worker that is killed are of the latter kind.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.soak.endings import End

OTHER = "other"  # the route of what is refused before it is a call
_SERIES = re.compile(r"^dragoman_requests_total\{([^}]*)\} ([0-9.e+]+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')

Seen = tuple[str, int, End]


@dataclass
class Tally:
    """`wrong` names outcomes that must not be; `left` is when each marked client went, `warm_at` when every attack had
    been played once."""

    asked: int = 0
    attacks: int = 0
    reloads: int = 0
    outcomes: collections.Counter[str] = field(default_factory=collections.Counter)
    wrong: collections.Counter[str] = field(default_factory=collections.Counter)
    left: dict[int, float] = field(default_factory=dict)
    stayed: collections.Counter[Seen] = field(default_factory=collections.Counter)
    left_read: collections.Counter[str] = field(default_factory=collections.Counter)
    left_unread: collections.Counter[str] = field(default_factory=collections.Counter)
    killed_at: float | None = None
    warm_at: float | None = None

    def ended(self, route: str, status: int, end: End) -> None:
        self.stayed[route, status, end] += 1

    def gone(self, route: str, *, read: bool) -> None:
        """`read`: the gateway has read the request for certain."""
        (self.left_read if read else self.left_unread)[route] += 1


def counted(metrics: str) -> dict[tuple[str, int, str], int]:
    """Requests by route, status and outcome."""
    found: collections.Counter[tuple[str, int, str]] = collections.Counter()
    for labels, value in _SERIES.findall(metrics):
        names = dict(_LABEL.findall(labels))
        found[names["route"], int(names["status"]), names["outcome"]] += int(float(value))
    return dict(found)


def differences(tally: Tally, requests: Mapping[tuple[str, int, str], int]) -> list[str]:
    """What breaks the rules, a line each."""
    answers: collections.Counter[Seen] = collections.Counter()
    disconnected: collections.Counter[str] = collections.Counter()
    for (route, status, outcome), count in requests.items():
        if outcome == "disconnected":
            disconnected[route] += count
        else:
            answers[route, status, End.FAILED if outcome in ("failed", "refused") else End.ANSWERED] += count
    missing = [
        f"{route}: {answers[route, status, end]} counted with status {status}, {end.value}; clients saw {count}"
        for (route, status, end), count in sorted(tally.stayed.items(), key=str)
        if answers[route, status, end] < count
    ]
    routes = {route for route, *_ in (*tally.stayed, *answers)} | {*tally.left_read, *tally.left_unread, *disconnected}
    sums = (_difference(tally, route, answers, disconnected[route]) for route in sorted(routes))
    return [*missing, *(line for line in sums if line)]


def _difference(tally: Tally, route: str, answers: Mapping[Seen, int], disconnected: int) -> str:
    """The clients of a route that left, against what was counted beyond those that stayed."""
    stayed = sum(count for seen, count in tally.stayed.items() if seen[0] == route)
    beyond = sum(count for seen, count in answers.items() if seen[0] == route) + disconnected - stayed
    least = 0 if tally.killed_at is not None else tally.left_read[route]
    most = tally.left_read[route] + tally.left_unread[route]
    if least <= beyond <= most:
        return ""
    surplus = ", ".join(
        f"{count - tally.stayed[seen]} more of {seen[1]} {seen[2].value}"
        for seen, count in answers.items()
        if seen[0] == route and count > tally.stayed[seen]
    )
    return (
        f"{route}: {beyond} requests counted beyond the {stayed} answers that clients stayed for, of which "
        f"{disconnected} as disconnected; {least} to {most} clients left ({surplus or 'no answer too many'})"
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile; 0 where there are too few values to speak of one."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
