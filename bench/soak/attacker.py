"""One client that means harm: the attacks of `bench.attack`, one after the other, while all others go on.

They are the kinds of `make attack` in sizes that take a fraction of a second of CPU: what is too large is only just
too large. The bytes of all of them are made once, before the run.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from bench.attack.clients import (
    ATTACKS,
    CALL,
    FAILED,
    MESSAGE,
    MESSAGES,
    RESPONSES,
    Attack,
    asks,
    content,
    items,
    play,
    schema,
    sent,
    times,
    wants,
)
from bench.attack.hostile import MIB
from bench.soak.endings import End
from bench.soak.tally import OTHER, Tally

_ENDED = re.compile(r"(\d\d\d)(?: (\S+))?.*")
_FAILURE = "response.failed"

Prepared = Mapping[str, Sequence[bytes]]


def _smaller(name: str, requests: Callable[[str], list[bytes]]) -> Attack:
    return replace(ATTACKS[name], requests=requests)


def _cut_off(url: str) -> list[bytes]:
    """A request whose body does not come whole."""
    return [request[:-20] for request in sent(RESPONSES, asks("fine"))(url)]


# As they are, since the model server does the work and the gateway stops it.
_AS_THEY_ARE = (
    "data-lines", "no-line-end", "open-quote", "answer-calls", "endless", "endless-thought", "endless-arguments",
    "values", "deep-event", "endless-whole", "answer-bomb", "large-refusal", "endless-head",
    "continues", "deep",
)  # fmt: skip
PLAYED: dict[str, Attack] = {
    **{name: ATTACKS[name] for name in _AS_THEY_ARE},
    # the head of an answer goes out before the gateway has given up waiting for the refusal's body
    "stalled-refusal": replace(ATTACKS["stalled-refusal"], right=FAILED),
    "items": _smaller("items", sent(RESPONSES, items(25_000, MESSAGE))),
    "calls": _smaller("calls", sent(RESPONSES, items(25_000, CALL))),
    "parts": _smaller("parts", sent(MESSAGES, content(25_000, {"type": "text", "text": "x"}))),
    "bomb": _smaller("bomb", sent(RESPONSES, lambda: b"0" * (80 * MIB), gzipped=True)),
    "schema": _smaller("schema", sent(RESPONSES, wants(schema(60)))),
    "no-key": replace(
        ATTACKS["no-key"], requests=lambda url: ATTACKS["no-key"].requests(url)[:10], what="10 clients without a key"
    ),
    "unread-stream": _smaller("unread-stream", times(2, RESPONSES, asks("endless_text"))),
    "leaving": _smaller("leaving", times(4, RESPONSES, asks("endless_tokens"))),
    "not-http": Attack("bytes that are not HTTP", "400 .*", lambda url: [b"\x16\x03\x01 nonsense\r\n\r\n"]),
    "cut-off": Attack("half of a request", "left", _cut_off, leaves=0.2),
}
SETTINGS = {"json_schema": "prompt"}  # of the hostile server, for the schema that takes long to check


def prepared(url: str, names: Sequence[str]) -> Prepared:
    return {name: PLAYED[name].requests(url) for name in names}


async def attacker(url: str, requests: Prepared, seed: int, end: float, tally: Tally) -> None:
    """Every attack in random order, again and again, until the time is up."""
    choices = random.Random(seed)
    while time.monotonic() < end:
        for name in choices.sample(sorted(requests), len(requests)):
            if time.monotonic() >= end:
                return
            for outcome in await play(PLAYED[name], url, list(requests[name])):
                count(name, outcome, tally)
            tally.attacks += 1
        tally.warm_at = tally.warm_at or time.monotonic()


def count(name: str, outcome: str, tally: Tally) -> None:
    """`outcome` is how one answer ended, as `play` says it."""
    tally.asked += 1
    route = _route(name)
    if found := _ENDED.fullmatch(outcome):
        failed = found[1] != "200" or found[2] == _FAILURE
        tally.ended(route, int(found[1]), End.FAILED if failed else End.ANSWERED)
    else:
        tally.gone(route, read=False)
    tally.outcomes["attacks, ended as they should"] += 1
    if not re.fullmatch(PLAYED[name].right, outcome):
        tally.wrong[f"attack {name}: {outcome}"] += 1


def _route(name: str) -> str:
    if name in ("no-key", "not-http"):
        return OTHER
    return "messages" if name == "parts" else "responses"
