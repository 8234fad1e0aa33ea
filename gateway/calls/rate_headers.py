"""How a key stands with its limits, in the headers that clients of each protocol look for.

OpenAI's clients read `x-ratelimit-…` with durations as Go writes them (platform.openai.com, "Rate limits"), Anthropic's
read `anthropic-ratelimit-…` with times in RFC 3339 (docs.anthropic.com, "Rate limits"). This is the one table of the
gateway that knows a protocol by its name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from dragoman.gateway.keys.auth import Standing

Headers = dict[str, str]
LIMITED = ("requests", "tokens")


def rate_headers(protocol: str, standings: Mapping[str, Standing], now: datetime | None = None) -> Headers:
    """`standings` by what is limited. Nothing where nothing is."""
    if not standings:
        return {}
    write = _WAYS.get(protocol, _openai)
    return {name: value for what, each in standings.items() for name, value in write(what, each, now).items()}


def _openai(what: str, standing: Standing, now: datetime | None) -> Headers:
    return {
        f"x-ratelimit-limit-{what}": str(standing.limit),
        f"x-ratelimit-remaining-{what}": str(standing.left),
        f"x-ratelimit-reset-{what}": duration(standing.full_in),
    }


def _anthropic(what: str, standing: Standing, now: datetime | None) -> Headers:
    full_at = (now or datetime.now(UTC)) + timedelta(seconds=math.ceil(standing.full_in))
    return {
        f"anthropic-ratelimit-{what}-limit": str(standing.limit),
        f"anthropic-ratelimit-{what}-remaining": str(standing.left),
        f"anthropic-ratelimit-{what}-reset": full_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def duration(seconds: float) -> str:
    """`1m30s`, `2.5s`, `20ms`, `0s`; never shorter than it is."""
    whole = math.ceil(seconds * 1000)
    if whole < 1000:
        return f"{whole}ms" if whole else "0s"
    minutes, rest = divmod(whole, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


_WAYS: Mapping[str, Callable[[str, Standing, datetime | None], Headers]] = {"messages": _anthropic}
NAMES = tuple(
    name for what in LIMITED for write in (_openai, _anthropic) for name in write(what, Standing(0, 0, 0.0), None)
)
