"""How a key stands with its limits, in the headers that clients of each protocol look for.

OpenAI's clients read `x-ratelimit-…` with durations as Go writes them (platform.openai.com, "Rate limits"), Anthropic's
read `anthropic-ratelimit-…` with times in RFC 3339 (docs.anthropic.com, "Rate limits").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

Headers = dict[str, str]
LIMITED = ("requests", "tokens")


@dataclass(frozen=True, slots=True)
class Standing:
    """How a key stands with one of its limits a minute: `left` of `limit`, all of it again in `full_in` seconds."""

    limit: int
    left: int
    full_in: float


RateHeaders = Callable[[str, Standing, datetime], Headers]  # what is limited, how it stands, now


def rate_headers(write: RateHeaders, standings: Mapping[str, Standing], now: datetime) -> Headers:
    """`standings` by what is limited. Nothing where nothing is."""
    return {name: value for what, each in standings.items() for name, value in write(what, each, now).items()}


def openai(what: str, standing: Standing, now: datetime) -> Headers:
    return {
        f"x-ratelimit-limit-{what}": str(standing.limit),
        f"x-ratelimit-remaining-{what}": str(standing.left),
        f"x-ratelimit-reset-{what}": duration(standing.full_in),
    }


def anthropic(what: str, standing: Standing, now: datetime) -> Headers:
    full_at = now + timedelta(seconds=math.ceil(standing.full_in))
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


_SOME = Standing(0, 0, 0.0), datetime(1970, 1, 1, tzinfo=UTC)
NAMES = tuple(name for what in LIMITED for write in (openai, anthropic) for name in write(what, *_SOME))
