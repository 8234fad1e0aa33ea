"""The model's own tokenizer: text to ids, counting, and ids to text while they come.

Prompts are encoded without special tokens by default, since a rendered template holds its BOS already. The decoder
never emits half a character: an id that ends within one waits for the next. Needs the extra `tokenizer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dragoman.backends.prompts.tokenizer_config import unusable

try:
    import tokenizers
except ImportError as error:
    raise ImportError("tokenizers are needed to count and decode: pip install 'dragoman[tokenizer]'") from error

BROKEN = "\ufffd"
# A character has at most four bytes, and an id holds at least one: what is still broken after more ids stays broken.
HELD_IDS = 8
WINDOW_IDS = 64  # the longest window, where skipped ids give no text


class Tokenizer:
    """`eos_ids` are all ids that end an answer, those of generation_config.json first."""

    def __init__(self, tokenizer: Any, eos_ids: Sequence[int] = ()) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self.eos_ids: tuple[int, ...] = tuple(dict.fromkeys(eos_ids))

    @classmethod
    def from_json(cls, source: bytes, eos_ids: Sequence[int] = (), eos_token: str | None = None) -> Tokenizer:
        """From the content of a tokenizer.json; raises `GatewayError` INVALID where it cannot be read."""
        try:
            tokenizer = tokenizers.Tokenizer.from_buffer(source)
        except Exception as error:  # the package raises nothing narrower
            raise unusable(f"tokenizer.json cannot be read: {error}") from None
        end = tokenizer.token_to_id(eos_token) if eos_token is not None else None
        return cls(tokenizer, [*eos_ids, *([end] if end is not None else [])])

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        return ids

    def count(self, text: str) -> int:
        return len(self.encode(text))

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)
        return text

    def decode_stream(self, skip_special_tokens: bool = False, prompt_ids: Sequence[int] = ()) -> IncrementalDecoder:
        """A decoder for one answer. The end of `prompt_ids` decides whether the first word keeps its leading space."""
        return IncrementalDecoder(self, skip_special_tokens, prompt_ids[-HELD_IDS:])


class IncrementalDecoder:
    """A window of ids is decoded with and without those that are new; the difference is their text, spaces and all. The
    window starts where the emission before last ended, so that each id is decoded a bounded number of times."""

    def __init__(self, tokenizer: Tokenizer, skip_special_tokens: bool, before: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._skip = skip_special_tokens
        self._window: list[int] = list(before)
        self._known = len(self._window)  # of the window's ids, how many are emitted
        self._text = tokenizer.decode(self._window, skip_special_tokens) if before else ""

    def feed(self, ids: Sequence[int]) -> str:
        """The text that has become certain."""
        out: list[str] = []
        for id in ids:
            self._window.append(id)
            text = self._tokenizer.decode(self._window, self._skip)
            if text.endswith(BROKEN) and len(self._window) - self._known < HELD_IDS:
                continue
            out.append(text[len(self._text) :])
            self._move()
        return "".join(out)

    def _move(self) -> None:
        """Shorten the window, but not to ids that have no text: before nothing, a word loses its leading space."""
        rest = self._window[self._known :]
        text = self._tokenizer.decode(rest, self._skip)
        if text or len(self._window) > WINDOW_IDS:
            self._window = rest
        else:
            text = self._tokenizer.decode(self._window, self._skip)
        self._known, self._text = len(self._window), text

    def finish(self) -> str:
        """What was held back, without half a character at the end of the answer."""
        text = self._tokenizer.decode(self._window, self._skip)[len(self._text) :]
        self._window, self._known, self._text = [], 0, ""
        return text.rstrip(BROKEN)
