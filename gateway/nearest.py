"""The nearest known word, for "did you mean `host`?". Also for the command line, so it imports nothing heavy."""

from __future__ import annotations

from collections.abc import Collection


def nearest(word: str, known: Collection[str]) -> str:
    """`; did you mean …?`, or nothing where no known word is like it."""
    from difflib import get_close_matches  # for those who make a mistake

    by_folded = {each.lower().replace("-", "_"): each for each in known}
    folded = word.lower().replace("-", "_")
    found = get_close_matches(folded, by_folded, n=1, cutoff=0.6)
    if not found:
        found = [each for each in by_folded if len(folded) > 2 and (each.startswith(folded) or folded.startswith(each))]
    return f"; did you mean `{by_folded[found[0]]}`?" if found else ""
