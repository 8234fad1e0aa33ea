"""Body fields that a server refuses by name: which ones a refusal names, and for how long they are left out.

Only what the fields of a refusal say is learned: `error.param` with a code that fits, or the `loc` of a fault that
forbids it; a field that this request did not have is never meant. It is learned for the model that was asked, and
after `TTL` seconds the field is tried again. A name that stands in words alone may be a client's own word: that one
request is asked again without the field, and nothing is remembered.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection

from dragoman.backends.refusal import Refusal

TTL = 600.0  # seconds
MAX_MODELS = 256  # names that are remembered; the oldest is forgotten
NONE: frozenset[str] = frozenset()

_INNER = {"continuous_usage_stats": ("stream_options", "continuous_usage_stats")}  # fields that are not at the top
_UNKNOWN_CODE = re.compile("unknown|unsupported_param|unrecogn", re.IGNORECASE)
_FORBIDDEN_TYPES = frozenset({"extra_forbidden", "value_error.extra"})  # pydantic 2 and 1

_NAME = r"(?<!\w)['\"`]?(\w{1,64})['\"`]?"
_NAMED = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"{_NAME}(?:[ \t]{{0,4}}\n)?[ \t:]{{1,4}}Extra inputs are not permitted",
        r"not permitted, field: ['\"`](\w{1,64})['\"`]",  # Fireworks
        r"extra_forbidden['\"], ?['\"]loc['\"]: ?[(\[](?:['\"]\w{1,64}['\"], ?){0,3}['\"](\w{1,64})['\"],?[)\]]",
        r"(?:un(?:known|recogni[sz]ed|supported|expected)|unpermitted|invalid) (?:request )?"
        rf"(?:parameter|argument|field|keyword|key|option)(?:s|\(s\))?(?: supplied| argument)?\W{{1,4}}{_NAME}",
        rf"{_NAME} (?:was|were) unexpected",  # validators of JSON schema
        rf"{_NAME} (?:parameter )?(?:is|are) (?:not (?:yet |currently )?"
        r"(?:supported|permitted|allowed|recogni[sz]ed|accepted)|unsupported|forbidden|unknown)",
    )
]


def by_fields(refusal: Refusal, sent: Collection[str]) -> frozenset[str]:
    """Which of the fields that were `sent` the refusal's own fields name; one whose value is refused does not count."""
    paths = {fault.path for fault in refusal.faults if fault.type in _FORBIDDEN_TYPES}
    if _UNKNOWN_CODE.search(refusal.code):
        paths.add(tuple(refusal.param.split(".")))
    places = {name: _INNER.get(name, (name,)) for name in sent}
    return frozenset(name for name, place in places.items() if place in paths or ("body", *place) in paths)


def by_words(refusal: Refusal, sent: Collection[str]) -> frozenset[str]:
    """Which of them only its text names."""
    named = {hit[1].lower() for pattern in _NAMED for hit in pattern.finditer(refusal.words)}
    if "continuous_usage_stats" in named:
        named.discard("stream_options")  # it is part of the path to the other field
    return frozenset(name for name in sent if name.lower() in named)


class RefusedFields:
    """What one server has refused, by the model's name upstream."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[str, dict[str, float]] = {}

    def of(self, model: str) -> frozenset[str]:
        known = self._until.get(model)
        if known is None:
            return NONE
        now = self._clock()
        return frozenset(name for name, until in known.items() if now < until)

    def learn(self, model: str, names: Collection[str]) -> None:
        if model not in self._until and len(self._until) >= MAX_MODELS:
            del self._until[next(iter(self._until))]
        known = self._until.setdefault(model, {})
        known.update(dict.fromkeys(names, self._clock() + TTL))
