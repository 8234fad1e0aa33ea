"""Token counts as servers send them, and the only place where a `Usage` is made.

Servers send floats, digits in strings, null, and now and then nonsense: negative numbers, 1e300, booleans. A count is a
whole number from 0 to `MOST`, however it is written; everything else is unknown, which is `None` and never a guess.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from dragoman.translators.ir import Usage

MOST = 2**53 - 1  # the largest integer that every JSON reader keeps exact; the sum of two is far below 2^63
_DIGITS = re.compile(r"[0-9]{1,16}")


def count(value: object) -> int | None:
    """`11`, `11.0` and `"11"` are 11."""
    match value:
        case bool():
            return None
        case int():
            whole = value
        case float() if value.is_integer():
            whole = int(value)
        case str() if _DIGITS.fullmatch(value):
            whole = int(value)
        case _:
            return None
    return whole if 0 <= whole <= MOST else None


def measured(
    input: object, output: object, cached: object = None, reasoning: object = None, written: object = None
) -> Usage | None:
    """None where the prompt's or the answer's count is unknown. The tokens that were found in the cache and those that
    were put into it are the prompt's at most."""
    prompt, answer, reused, put = count(input), count(output), count(cached), count(written)
    if prompt is None or answer is None:
        return None
    reused = None if reused is None else min(reused, prompt)
    put = None if put is None else min(put, prompt - (reused or 0))
    return Usage(prompt, answer, reused, count(reasoning), put)


def total(usages: Sequence[Usage | None]) -> Usage | None:
    """The sum of several attempts; unknown where one of them is unknown."""
    known = [usage for usage in usages if usage is not None]
    if len(known) < len(usages) or not known:
        return None
    return measured(
        input=_sum([usage.input for usage in known]),
        output=_sum([usage.output for usage in known]),
        cached=_sum([usage.cached for usage in known]),
        reasoning=_sum([usage.reasoning for usage in known]),
        written=_sum([usage.written for usage in known]),
    )


def _sum(numbers: Sequence[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None
