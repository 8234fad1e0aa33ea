"""Probes of the context window: whether prompts as long as those of agents are read, and with `--deep` whether the
window that is listed or configured is the true one.

A refusal with numbers settles it at once. A server that cuts prompts in silence is found out by the number of tokens
that it reports. Without either, the window is bisected. Prompts are made of common words, which nearly every tokenizer
has as one token each; what the server itself reports of the first prompt corrects that.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from dragoman.gateway.doctor.asking import Asker
from dragoman.gateway.doctor.finding import Finding
from dragoman.gateway.first_prompts import CLAUDE_PROMPT, CODEX_PROMPT
from dragoman.translators.errors import GatewayError, Kind

WINDOW, PROMPT, DEEP = "context window", "long prompt", "window in truth"
ASKED = 5000
READ_AT_LEAST = 0.8  # share of a prompt's words that must be read as tokens; with fewer, the server has cut it
ROOM = 128  # tokens between the longest prompt and the window: the template's own, and the answer's
LARGEST = 1 << 20
CLOSE = 0.1  # how near the bisection comes, as a share
WORDS = "time year people way day man thing woman life child world school state family student group country problem"


@dataclass(slots=True)
class Windows:
    """What is known of a model's window. `known` is configured or listed, `true` what the server has shown. `per_word`
    are the tokens of a word."""

    known: int | None = None
    configured: bool = False
    true: int | None = None
    read: int = 0  # the longest prompt that was read whole
    per_word: float = 1.0

    @property
    def best(self) -> int | None:
        return self.true if self.true is not None else self.known


def known_window(windows: Windows) -> Finding:
    if windows.known is None:
        advice = "set `window` of the backend; `dragoman doctor --deep` finds it out"
        return Finding("weak", WINDOW, "neither listed nor configured", advice)
    result = f"{windows.known} tokens, {'as configured' if windows.configured else 'says the server'}"
    if windows.known < CODEX_PROMPT:
        advice = f"Codex's first prompt alone has {CODEX_PROMPT} tokens: serve the model with a larger window"
        return Finding("FAIL", WINDOW, result, advice)
    if windows.known < CLAUDE_PROMPT:
        advice = f"Claude Code's first prompt has {CLAUDE_PROMPT} tokens: it needs a larger one"
        return Finding("weak", WINDOW, result, advice)
    return Finding("ok", WINDOW, result)


async def long_prompt(asker: Asker, windows: Windows) -> Finding:
    """Asks once with a prompt of 5,000 tokens."""
    read = await _read(asker, windows, ASKED)
    advice = "serve the model with a larger context window"
    if isinstance(read, GatewayError):
        if read.kind is not Kind.OVERFLOW:
            return Finding("weak", PROMPT, f"{ASKED} tokens: {asker.reason(read)}")
        windows.true = read.limit or windows.true
        return Finding("FAIL", PROMPT, f"{ASKED} tokens: {read.message}", advice)
    plain = asker.plain.usage if asker.plain else None
    if read is None or plain is None:
        windows.read = ASKED
        return Finding("ok", PROMPT, f"about {ASKED} tokens are taken, first token after {asker.seconds:.2f} s")
    if read >= READ_AT_LEAST * ASKED:
        windows.read, windows.per_word = read, read / ASKED
        return Finding("ok", PROMPT, f"{read} tokens are read, first token after {asker.seconds:.2f} s")
    if read <= 2 * plain.input:  # it reports about the same for every prompt
        return Finding("weak", PROMPT, f"taken; that it has {read} tokens, as the server says, is not true")
    windows.true = read
    return Finding("FAIL", PROMPT, f"of about {ASKED} tokens the server has read {read}, without a word", advice)


async def deep(asker: Asker, windows: Windows) -> Finding:
    """One prompt near the window where that is known, and the bisection where it is not taken."""
    if windows.known is None:
        return await _ascend(asker, windows)
    size = windows.known - ROOM
    if (taken := await _taken(asker, windows, size)) is True:
        windows.true = windows.known
        return Finding("ok", DEEP, f"a prompt of about {size} tokens is read")
    if isinstance(taken, GatewayError):
        return Finding("weak", DEEP, f"a prompt of {size} tokens: {asker.reason(taken)}")
    true = await _bisect(asker, windows, windows.read or 1, size)
    return _lying(windows, true)


def _lying(windows: Windows, true: int) -> Finding:
    known, windows.true = windows.known, true
    return Finding("weak", DEEP, f"{true} tokens, not {known}")


async def _ascend(asker: Asker, windows: Windows) -> Finding:
    """Doubles until a prompt is not taken."""
    size = windows.read or ASKED
    while size < LARGEST:
        taken = await _taken(asker, windows, 2 * size)
        if isinstance(taken, GatewayError):
            return Finding("weak", DEEP, f"at least {size} tokens; a prompt of {2 * size}: {asker.reason(taken)}")
        if not taken:
            true = windows.true = await _bisect(asker, windows, size, 2 * size)
            return Finding("ok", DEEP, f"{true} tokens")
        size *= 2
    windows.true = size
    return Finding("ok", DEEP, f"at least {size} tokens")


async def _bisect(asker: Asker, windows: Windows, low: int, high: int) -> int:
    """The window: what the refusal names or the server has read, else the longest prompt that was taken."""
    while windows.true is None and high - low > CLOSE * high:
        middle = (low + high) // 2
        if await _taken(asker, windows, middle) is True:
            low = middle
        else:
            high = middle
    return windows.true if windows.true is not None else low


async def _taken(asker: Asker, windows: Windows, size: int) -> bool | GatewayError:
    """Whether a prompt of that size is read whole; `windows.true` is set where the server has named the window."""
    read = await _read(asker, windows, size)
    if isinstance(read, GatewayError):
        if read.kind is not Kind.OVERFLOW:
            return read if windows.known is not None or read.kind is not Kind.INVALID else False
        windows.true = read.limit or windows.true
        return False
    plain = asker.plain.usage if asker.plain else None
    if read is not None and plain is not None and 2 * plain.input < read < READ_AT_LEAST * size:
        windows.true = read
        return False
    return True


async def _read(asker: Asker, windows: Windows, size: int) -> int | GatewayError | None:
    """How many tokens of a prompt of that size the server says it has read; None where it does not say."""
    seconds = asker.road.first_event
    words = itertools.islice(itertools.cycle(WORDS.split()), int(size / windows.per_word))
    answer = await asker.ask(asker.request(("user", " ".join(words)), max_tokens=16), seconds)
    if isinstance(answer, GatewayError):
        return answer
    return answer.usage.input if answer.usage is not None else None
