"""What follows the text in chunks that differ in numbers too, for `backends.chat.known_frame`.

Some servers count as they write: the usage so far in each chunk (`continuous_usage_stats`, which the gateway itself
asks for where it may end a stream early), trtllm-serve's `avg_decoded_tokens_per_iter`, llama.cpp's `timings`. A number
that stands where another one stood leaves JSON as it was. So where the decoder reads none of those that change, such a
chunk says nothing but its text. `of` replaces them and parses the rest to see that; the usage is left to whoever asks
for it. Of 400 deltas with a usage, one in each read, it takes 4.5 us for each in place of 7.7, and of 50 in each read
2.5 in place of 7.5.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from dragoman.backends.usage import count

# As a value in JSON without white space, and within what any reader takes. The count of the prompt stays as it is, and
# says of the others that they are counted.
_NUMBER = re.compile(
    rb'(?<=[:,\[])(?<!"prompt_tokens":)-?(?:0|[1-9][0-9]{0,15})(?:\.[0-9]{1,30})?(?:[eE][-+]?[0-9]{1,2})?(?=[,}\]])'
)
_WIDEST = 52  # bytes of such a number
_READ = ("error", "object", "prompt_progress")
_READ_OF_CHOICE = ("index", "delta", "message", "finish_reason", "logprobs")


class ChangingNumbers:
    """After the text stands `lead`, up to the first number, and then what is `rest` but for its numbers. What is too
    long for that is not looked through."""

    __slots__ = ("_lead", "_most", "_rest")

    def __init__(self, lead: bytes, rest: bytes) -> None:
        self._lead = lead
        self._rest, count = _NUMBER.subn(b"0", rest)
        self._most = len(self._rest) + _WIDEST * count

    @classmethod
    def of(cls, head: bytes, tail: bytes, chunk: Any) -> ChangingNumbers | None:
        """None where they may not change. `chunk` has the number 0 in place of its text, which is between these two."""
        first = _NUMBER.search(tail)
        at = 0 if first is None else first.start() - 1
        lead, rest = tail[:at], tail[at:]
        said = _read(chunk)
        for other in (b"1", b"2"):  # no number is both
            if not lead or _read(orjson.loads(b"%b0%b%b" % (head, lead, _NUMBER.sub(other, rest)))) != said:
                return None
        return cls(lead, rest)

    def fit(self, tail: bytes) -> bool:
        return tail.startswith(self._lead) and self._ends(tail[len(self._lead) :])

    def text_before(self, end: bytes) -> bytes:
        """What stands before such a tail at the end of a chunk; empty where it ends otherwise."""
        text, _, rest = end.partition(self._lead)
        return text if self._ends(rest) else b""

    def _ends(self, rest: bytes) -> bool:
        return len(rest) <= self._most and _NUMBER.sub(b"0", rest) == self._rest


def counts_prompt(usage: object) -> bool:
    """Then it counts the rest too, whatever numbers stand there."""
    return isinstance(usage, dict) and bool(count(usage.get("prompt_tokens")))


def _read(chunk: Any) -> list[Any]:
    """What the decoder reads of a chunk with one choice, which is not the last one; of its usage, what must stay."""
    choice, usage = chunk["choices"][0], chunk.get("usage")
    read = [choice.get(name) for name in _READ_OF_CHOICE] + [chunk.get(name) for name in _READ]
    return [*read, usage.get("prompt_tokens") if isinstance(usage, dict) else usage]
