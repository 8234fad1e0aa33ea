"""A tag with changing content that never reaches the text, such as the end of a citation."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dragoman.backends.markup.calls import Calls
from dragoman.backends.markup.text import MORE, Signal, Step, Text

LIMIT = 64  # characters of such a tag


@dataclass(frozen=True, slots=True)
class Dropped:
    """`rest` matches what follows the opener, up to and with a `>`."""

    rest: str

    def open(self, text: Text, calls: Calls, opener: str) -> Step:
        def drop() -> Step | Signal:
            end = text.until(">")
            if end is MORE:
                return MORE if len(text.all) - text.at < LIMIT else Signal.NO_CALL
            if end is None or not re.fullmatch(self.rest, text.all[text.at : end + 1][: LIMIT + 1]):
                return Signal.NO_CALL
            text.at = end + 1
            text.release()
            return Signal.DONE

        return drop
