"""Two forms after one opener, told apart by the first character."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from dragoman.backends.markup.calls import Calls, Form
from dragoman.backends.markup.text import MORE, Signal, Step, Text


@dataclass(frozen=True, slots=True)
class Either:
    """`first` where what follows begins with one of `begins`, else `second`. One of `skipped` may stand before it."""

    first: Form
    second: Form
    begins: tuple[str, ...] = ("[", "{")
    skipped: tuple[str, ...] = ()

    def open(self, text: Text, calls: Calls, opener: str) -> Step:
        return partial(self._choose, text, calls, opener)

    def _choose(self, text: Text, calls: Calls, opener: str) -> Step | Signal:
        if not text.skip_blank():
            return MORE
        found = text.literal((*self.skipped, *self.begins))
        if found is MORE:
            return MORE
        if found in self.skipped:
            text.take(text.at + len(found or ""))
            return self.open(text, calls, opener)
        return (self.second if found is None else self.first).open(text, calls, opener)
