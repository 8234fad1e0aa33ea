"""What a stand-in model does, as the prompt says: `SCRIPT{json}END` in a message, the last one counts.

Keys: `say` (text), `ids` (tokens as they are), `delay` (seconds before each token), `fail_after`, `hang_after` (tokens
that come first), `hang_for` (seconds), `error` (its words), `empty` (no response at all), `group` (tokens per
response), `eos` (end with that token), `ask` (URL of a llama.cpp server whose text is the answer), `window` (tokens of
prompt and limit together), `turns` (one script for each number of tool results after the script). Whatever a model
does is written, a line of JSON each, to the trace that the test reads. Times are the machine's monotonic clock.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

POLL = 0.1  # seconds; TensorRT-LLM's cancellation_check_period_ms
SCRIPT = re.compile(r"SCRIPT(\{.*?\})END", re.DOTALL)


class Cancelled(Exception):
    """By the server or by a stop request."""


def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(os.environ["STANDIN_TOKENIZER"])


def find(prompt: str) -> dict[str, Any]:
    found = [*SCRIPT.finditer(prompt)]
    if not found:
        return {"say": "Nothing was asked."}
    script: dict[str, Any] = json.loads(found[-1][1])
    if "turns" in script:
        results = prompt[found[-1].end() :].count("<tool_response>")
        script = script["turns"][min(results, len(script["turns"]) - 1)]
    return script


def trace(**fact: Any) -> None:
    with Path(os.environ["STANDIN_TRACE"]).open("a", encoding="utf-8") as lines:
        lines.write(json.dumps({**fact, "at": time.monotonic()}) + "\n")


def pause(seconds: float, cancelled: Any) -> None:
    """Sleeps, and looks as often as the real engine does whether anybody still wants the answer."""
    until = time.monotonic() + seconds
    while True:
        if cancelled():
            raise Cancelled
        left = until - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(left, POLL))


def fit(script: dict[str, Any], tokens: int, limit: int) -> None:
    window = script.get("window", tokens + limit)
    if tokens + limit > window:
        raise ValueError(
            f"The sum of prompt length ({tokens}.0), query length (0) max_tokens ({limit}) should not exceed "
            f"max_seq_len ({window})"
        )


def play(script: dict[str, Any], tokens: Tokenizer, limit: int, cancelled: Any) -> Iterator[list[int]]:
    """Groups of token ids, one for each response."""
    ids: list[int] = script.get("ids") or tokens.encode(script.get("say", ""), add_special_tokens=False).ids
    if script.get("eos"):
        ids = [*ids, *tokens.encode(script["eos"], add_special_tokens=False).ids]
    ids, size = ids[:limit], script.get("group", 1)
    for begin in range(0, len(ids), size):
        misbehave(script, begin, cancelled)
        pause(script.get("delay", 0.0), cancelled)
        yield ids[begin : begin + size]
    misbehave(script, len(ids), cancelled)


def misbehave(script: dict[str, Any], said: int, cancelled: Any) -> None:
    if script.get("fail_after", -1) == said:
        raise RuntimeError(script.get("error", "the engine broke in /opt/engine/model.py"))
    if script.get("hang_after", -1) == said:
        pause(script.get("hang_for", 60.0), cancelled)
