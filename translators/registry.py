"""The client protocols that this gateway speaks. A new one is a module that ends in `PROTOCOL = …`, and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from dragoman.translators import chat_completions, messages, responses
from dragoman.translators.protocol import Context, Json, Protocol, Turn

PROTOCOLS: tuple[Protocol, ...] = (responses.PROTOCOL, messages.PROTOCOL, chat_completions.PROTOCOL)


def _unparsed(body: Json, context: Context) -> Turn:
    raise AssertionError("a body that is passed through is not parsed")


# Endpoints whose bodies are passed through. Only their errors are in somebody's words: OpenAI's.
FORWARDED: Mapping[str, Protocol] = {
    name: replace(chat_completions.PROTOCOL, name=name, path=name, parse=_unparsed, schema=None)
    for name in ("embeddings", "completions", "rerank")
}


def claimant(path: str, headers: Mapping[str, str]) -> Protocol:
    """Who words the answer to a request that is no protocol's call: the first that claims it, else the first."""
    return next((each for each in PROTOCOLS if each.claims(path, headers)), PROTOCOLS[0])
