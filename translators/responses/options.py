"""What one request asks of the stream that answers it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class ResponsesStreamOptions:
    """`refusals_as_text`: Codex silently drops a message with a refusal part. `encrypted_reasoning`: the client asked
    for `reasoning.encrypted_content`. `json`: the answer's text is to be JSON, and with `calls` the model may call a
    tool before it answers. `prewarm`: only the server's cache was to be filled, so the answer is thrown away and the
    response is completed without output."""

    obfuscation: bool = False
    reasoning_events: Literal["openai", "open_responses", "summary"] = "openai"
    logprobs: bool = False
    encrypted_reasoning: bool = False
    refusals_as_text: bool = False
    json: bool = False
    calls: bool = False
    prewarm: bool = False
