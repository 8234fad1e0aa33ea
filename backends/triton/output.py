"""From what a model sends to clean text: token ids, deltas, or the whole text so far, and stop strings cut out of it.

Rules: no piece ends in half a character where the rest may still come; what was emitted is never taken back, so a text
that shrinks emits nothing; a stop string is found wherever it lies, also across tokens, and what might be the beginning
of one is held until it is clear. `feed` gives what is certain now, `finish` what was held when the answer ended.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

BROKEN = "\ufffd"


class IdDecoder(Protocol):
    """`backends.prompts.tokenizer`: incremental decoding that holds back incomplete characters."""

    def feed(self, ids: Sequence[int]) -> str: ...

    def finish(self) -> str: ...


class Ids:
    """`ended` turns True with a token that ends the answer; it and what follows are not part of it. `prompt`: ids that
    a model without `exclude_input_in_output` repeats in front."""

    def __init__(self, decoder: IdDecoder, ends: Collection[int], prompt: Sequence[int] = ()) -> None:
        self.ended = False
        self.count = 0  # of generated tokens, with the one that ended the answer
        self._decoder = decoder
        self._ends = frozenset(ends)
        self._prompt = list(prompt)

    @property
    def room(self) -> int:
        """How many ids may still come beside those that the answer may have in all; negative once some came."""
        return len(self._prompt) - self.count

    def feed(self, ids: Sequence[int]) -> str:
        if self._prompt:
            if list(ids[: len(self._prompt)]) == self._prompt:
                ids = ids[len(self._prompt) :]
            self._prompt = []
        if self.ended:
            return ""
        end = next((place for place, id in enumerate(ids) if id in self._ends), None)
        if end is not None:
            self.ended = True
            self.count += end + 1
            ids = ids[:end]
        else:
            self.count += len(ids)
        return self._decoder.feed(ids) if ids else ""

    def finish(self) -> str:
        return self._decoder.finish()


class Deltas:
    """Each piece was decoded alone by the server; what that broke cannot be mended here."""

    def feed(self, text: str) -> str:
        return text

    def finish(self) -> str:
        return ""


class Cumulative:
    """The whole text so far, again and again; it may end in a broken character while that is incomplete."""

    def __init__(self) -> None:
        self._said = ""
        self._last = ""

    @property
    def excess(self) -> int:
        """How much of what was emitted the server has taken back: the beginning of a stop string that it cut."""
        return len(self._said) - len(self._last) if self._said.startswith(self._last) else 0

    def feed(self, text: str) -> str:
        self._last = text
        return self._grow(text.rstrip(BROKEN))

    def finish(self) -> str:
        """A character that stayed broken is the model's own."""
        return self._grow(self._last)

    def _grow(self, text: str) -> str:
        said = self._said
        if said.startswith(text):
            return ""
        self._said = text
        # where the beginning changed, what stands beyond the length that was said is new
        return text[len(said) :]


@dataclass(slots=True)
class Stops:
    """Stop strings, cut. `include`: the one that is found belongs to the text. `hidden` end the answer too, are always
    cut, and are not reported: the text of the model's own end token."""

    stops: Sequence[str] = ()
    hidden: Sequence[str] = ()
    include: bool = False
    found: str | None = None
    done: bool = False
    _held: str = ""

    def feed(self, text: str) -> str:
        if self.done:
            return ""
        words = [word for word in (*self.stops, *self.hidden) if word]
        if not words:
            return text
        text = self._held + text
        # the one that is complete first, as if the text had come letter by letter
        hits = [(at + len(word), at, word) for word in words if (at := text.find(word)) >= 0]
        if hits:
            _, at, word = min(hits)
            self.done, self._held = True, ""
            if word in self.stops:
                self.found = word
                return text[: at + len(word)] if self.include else text[:at]
            return text[:at]
        keep = max(_overlap(text, word) for word in words)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self, excess: int = 0) -> str:
        """What was held, without the `excess` at its end that the server has taken back."""
        held, self._held = self._held, ""
        return held[: max(0, len(held) - excess)]


def _overlap(text: str, word: str) -> int:
    """How much of the end of `text` may be the beginning of `word`."""
    for size in range(min(len(text), len(word) - 1), 0, -1):
        if word.startswith(text[-size:]):
            return size
    return 0
